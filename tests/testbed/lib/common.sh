# shellcheck shell=bash disable=SC2034
# Names, paths and the ways to speak to the person who started `bed`. Starts and changes nothing.

BED=${BED:-test}
# It becomes part of paths that are removed.
if [[ ! $BED =~ ^[a-z0-9][a-z0-9-]{0,15}$ ]]; then
    printf "bed: BED is '%s': use up to 16 lower-case letters, digits and dashes\n" "$BED" >&2
    exit 2
fi
CACHE=$(realpath -m "${BACKOUT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/backout}")
BED_DIR=$CACHE/bed-$BED
NETNS=backout-$BED
NETNS_FILE=/run/netns/$NETNS
CGROUP=backout-$BED

# Every bed has the same addresses: they exist only inside its own network namespace.
# 198.18.0.0/15 is reserved for tests of networks (RFC 2544), so nothing real can be meant by it.
NODE=node1
NODE_IP=198.18.0.1
SERVICE_CIDR=10.96.0.0/16
API_SERVICE_IP=10.96.0.1
POD_CIDR=10.244.0.0/24

KUBE_VERSION=v1.36.3
KUBE_BIN=$CACHE/kubernetes-$KUBE_VERSION
COREDNS_VERSION=$(sed -n 's|^require github.com/coredns/coredns ||p' "$TESTBED/coredns/go.mod")
COREDNS_BIN=$CACHE/coredns-$COREDNS_VERSION
PAUSE_IMAGE=docker.io/bed/pause:1

CONTAINERD_SOCKET=$BED_DIR/run/containerd.sock
PKI=$BED_DIR/pki

# In the order in which they start. `namespace` is the process that keeps the private mounts alive.
PARTS=(namespace etcd apiserver controllers scheduler containerd kubelet proxy dns mariadb redis git)
# Only `bed start` starts it.
OPTIONAL_PARTS=(mariadb11)

say() { printf '%s\n' "$*" >&2; }
die() { printf 'bed: %s\n' "$*" >&2; exit 1; }

# Seconds since the time $1 (from $EPOCHREALTIME), with one decimal.
elapsed() {
    local us=$((${EPOCHREALTIME/[.,]/} - ${1/[.,]/}))
    printf '%d.%d' $((us / 1000000)) $((us / 100000 % 10))
}

# One at a time: two commands that build, start or stop would undo each other's work. The lock is
# on the cache folder itself, so no lock file is left behind.
take_lock() {
    mkdir -p "$CACHE"
    exec 9<"$CACHE"
    flock -n 9 || { say "waiting for another bed command to end"; flock 9; }
}

# Runs a long command with its output in the log $2 and shows what runs and for how long.
# On a terminal the line counts up; elsewhere there is a line every 20 seconds.
run_long() {
    local label=$1 log=$2 begin=$EPOCHREALTIME next=20 pid
    shift 2
    # A process group of its own, so that an interrupt ends all of it; the shell would leave it running.
    set -m
    "$@" >"$log" 2>&1 </dev/null &
    pid=$!
    set +m
    # shellcheck disable=SC2064
    trap "kill -- -$pid 2>/dev/null; exit 130" INT TERM
    while kill -0 "$pid" 2>/dev/null; do
        if [[ -t 2 ]]; then
            printf '\r  %-44s %6s s' "$label" "$(elapsed "$begin")" >&2
        elif (($(elapsed "$begin" | cut -d. -f1) >= next)); then
            say "  $label: $(elapsed "$begin") s so far"
            next=$((next + 20))
        fi
        sleep 0.2
    done
    [[ -t 2 ]] && printf '\r' >&2
    if ! wait "$pid"; then
        say "  $label: FAILED after $(elapsed "$begin") s. The end of $log:"
        tail -n 25 "$log" | sed 's/^/    /' >&2
        exit 1
    fi
    trap - INT TERM
    printf '  %-44s %6s s\n' "$label" "$(elapsed "$begin")" >&2
}
