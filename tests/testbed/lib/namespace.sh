# shellcheck shell=bash disable=SC2034,SC2016
# The room a bed lives in: a network namespace (named, so that `ip netns` shows it), a private mount
# namespace (see private-mounts.sh) and a cgroup of its own in every hierarchy. Nothing here touches
# the host's interfaces, routes, firewall or mounts, except for the one file that names the namespace.

# Words that put a command inside both namespaces. `ip netns exec` would not do: it mounts a new /sys
# without the cgroups, and the kubelet fails on that.
INSIDE=()
enter_namespace() {
    local holder
    holder=$(part_pid namespace) || return 1
    INSIDE=(nsenter "--mount=/proc/$holder/ns/mnt" "--net=$NETNS_FILE" --)
}

netns_exists() { [[ $(stat -f -c %T "$NETNS_FILE" 2>/dev/null) == nsfs ]]; }

start_namespace() {
    mkdir -p "$BED_DIR"/{run,log,mysql,redis,data,git}
    chown 65532:65532 "$BED_DIR/data"
    make_netns
    make_cgroups
    printf 'nameserver %s\n' "$NODE_IP" >"$BED_DIR/resolv.conf"
    rm -f "$BED_DIR/run/namespace.ready"
    setsid nsenter "--net=$NETNS_FILE" unshare --mount --propagation private \
        bash "$TESTBED/lib/private-mounts.sh" "$BED_DIR" "$CACHE" \
        >"$BED_DIR/log/namespace.log" 2>&1 </dev/null 9>&- &
    record_part namespace $!
}

probe_namespace() { [[ -e $BED_DIR/run/namespace.ready ]]; }

# `unshare` makes and names the namespace without `ip netns add`, which would turn /run/netns into a
# mount point of the host and leave it one.
make_netns() {
    netns_exists && return
    mkdir -p /run/netns
    rm -f "$NETNS_FILE"
    : >"$NETNS_FILE"
    unshare "--net=$NETNS_FILE" true
    nsenter "--net=$NETNS_FILE" bash -euc '
        ip link set lo up
        ip link add bed0 type bridge
        ip address add "$1/24" dev bed0
        ip link add cni0 type bridge
        ip link set bed0 up
        # A dead address is known as such after 0.3 s instead of 3.
        sysctl -qw net.ipv4.neigh.bed0.retrans_time_ms=100 net.ipv4.neigh.cni0.retrans_time_ms=100
        # Service addresses are rewritten after the route is chosen, so they need one.
        ip route add "$2" dev bed0 src "$1"
        # Everything else fails at once, where a default route would make each dial wait for ARP.
        ip route add unreachable default
        sysctl -qw net.ipv4.ip_forward=1
    ' bash "$NODE_IP" "$SERVICE_CIDR"
}

# Folders of this bed in every cgroup hierarchy. The kubelet gets them as its root: two kubelets with
# the same root remove each other's pods.
cgroup_folders() {
    awk -v name="$CGROUP" '$3 ~ /^cgroup2?$/ { print $2 "/" name }' /proc/mounts
}

make_cgroups() {
    local folder file
    if [[ -f /sys/fs/cgroup/cgroup.controllers ]]; then
        for controller in cpu cpuset io memory pids hugetlb; do
            echo "+$controller" >/sys/fs/cgroup/cgroup.subtree_control 2>/dev/null || true
        done
    fi
    while read -r folder; do
        mkdir -p "$folder"
        # A new cpuset of version 1 is empty and takes no process.
        for file in cpuset.cpus cpuset.mems; do
            if [[ -f $folder/cgroup.procs && -f $folder/cgroup.clone_children && -f $folder/$file ]]; then
                cat "$(dirname "$folder")/$file" >"$folder/$file"
            fi
        done
    done < <(cgroup_folders)
}

# The processes in the bed's cgroups: those of all its containers. Here and below, what ends while
# one looks is no error.
cgroup_processes() {
    local folder
    while read -r folder; do
        [[ ! -d $folder ]] || find "$folder" -name cgroup.procs -exec cat {} + 2>/dev/null || true
    done < <(cgroup_folders) | sort -un
}

# The processes in the bed's network namespace: its parts, containerd's shims, and whatever
# `bed run` left, but not this command and those that called it.
netns_processes() {
    netns_exists || return 0
    local inode own=" " pid=$$
    inode=$(stat -Lc %i "$NETNS_FILE")
    while ((pid > 1)); do
        own+="$pid "
        pid=$(awk '/^PPid:/ { print $2 }' "/proc/$pid/status" 2>/dev/null) || break
    done
    { find /proc -maxdepth 3 -path '/proc/[0-9]*/ns/net' -lname "net:\[$inode\]" -printf '%h\n' 2>/dev/null || true; } |
        cut -d/ -f3 | while read -r pid; do [[ $own == *" $pid "* ]] || printf '%s\n' "$pid"; done
}

remove_cgroups() {
    local folder
    while read -r folder; do
        [[ ! -d $folder ]] || find "$folder" -depth -type d -exec rmdir {} + 2>/dev/null || true
        [[ ! -d $folder ]] || return 1
    done < <(cgroup_folders)
}

remove_netns() {
    while mountpoint -q "$NETNS_FILE" 2>/dev/null; do umount -l "$NETNS_FILE"; done
    rm -f "$NETNS_FILE"
    rmdir /run/netns 2>/dev/null || true
}
