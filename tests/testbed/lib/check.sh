# shellcheck shell=bash
# What a bed needs from the machine. Reads and probes only: installs nothing, leaves nothing behind.

missing=()
need() { missing+=("$1"); }

check_command() { command -v "$1" >/dev/null || need "$1: $2"; }

check_toolchains() {
    check_command cargo "install Rust with rustup (https://rustup.rs), or apt-get install cargo"
    check_command go "install Go 1.26 or newer (https://go.dev/dl), and put its bin folder into PATH"
    check_command make "apt-get install make"
    check_command git "apt-get install git"
    check_command apt-get "the servers come as Debian packages: use Debian 12 or a system derived from it"
    check_command unshare "apt-get install util-linux"
    if command -v go >/dev/null; then
        # GOTOOLCHAIN=auto fetches a newer toolchain by itself from Go 1.21 on.
        local version
        version=$(cd / && go env GOVERSION)
        if [[ ! $version =~ ^go1\.([0-9]+) ]] || ((BASH_REMATCH[1] < 21)); then
            need "go is $version: 1.21 or newer is needed to fetch and use Go 1.26 (https://go.dev/dl)"
        fi
    fi
}

check_kernel() {
    unshare --net --mount true 2>/dev/null ||
        need "network and mount namespaces: run on a kernel with CONFIG_NET_NS, in a container with --privileged"
    grep -qw overlay /proc/filesystems || modprobe overlay 2>/dev/null ||
        need "overlayfs: load it with 'modprobe overlay'"
    if [[ -f /sys/fs/cgroup/cgroup.controllers ]]; then
        [[ -w /sys/fs/cgroup/cgroup.subtree_control ]] ||
            need "cgroups: /sys/fs/cgroup is read-only; in a container, run it with --privileged --cgroupns=host"
    else
        local controller
        for controller in cpu cpuacct cpuset memory pids devices freezer; do
            awk -v c="$controller" '$3 == "cgroup" && ("," $4 ",") ~ ("," c ",") { found = 1 } END { exit !found }' \
                /proc/mounts || need "cgroups: no controller '$controller' is mounted below /sys/fs/cgroup"
        done
    fi
}

check_size() {
    local cores memory disk disk_needed=4 parent=$CACHE
    cores=$(nproc)
    ((cores >= 2)) || need "cores: $cores here, 2 needed"
    memory=$(awk '/^MemAvailable/ { print int($2 / 1048576) }' /proc/meminfo)
    ((memory >= 3)) || need "memory: $memory GB available, 3 needed"
    # Modules, build cache and binaries of Kubernetes take 7 GB the first time.
    [[ -d $KUBE_BIN ]] || disk_needed=12
    while [[ ! -d $parent ]]; do parent=$(dirname "$parent"); done
    disk=$(df --output=avail -BG "$parent" | tail -n 1 | tr -dc 0-9)
    ((disk >= disk_needed)) ||
        need "disk: $disk GB free at $parent, $disk_needed needed; BACKOUT_CACHE=FOLDER puts the bed elsewhere"
}

check() {
    missing=()
    # A path of a socket has at most 107 bytes.
    ((${#BED_DIR} <= 70)) || need "a shorter path: $BED_DIR has more than 70 bytes; set BACKOUT_CACHE"
    if ((EUID != 0)); then
        need "root: namespaces, mounts and cgroups need it; use sudo"
    else
        check_kernel
    fi
    check_toolchains
    check_size
    ((${#missing[@]} == 0)) && return
    say "bed: this machine cannot carry a test bed yet. Missing:"
    printf '  - %s\n' "${missing[@]}" >&2
    exit 1
}
