# shellcheck shell=bash
# The commands that bring a bed up, look into it and take it down. `up` may be repeated at any time:
# it starts exactly the parts that do not run. `down` needs nothing but the bed's name.

up() {
    if is_up; then say "bed $BED is up"; return; fi
    check
    take_lock
    install_all
    local begin=$EPOCHREALTIME
    # Without the holder of the private mounts, or with other certificates, nothing that still runs
    # can be joined again.
    if [[ -d $BED_DIR || -e $NETNS_FILE ]] && ! { netns_exists && runs namespace && [[ -e $PKI/complete ]]; }; then
        say "bed $BED is half there: taking it down first"
        take_down
    fi
    [[ ! -e $BED_DIR/run/up ]] || say "bed $BED: starting what does not run"
    rm -f "$BED_DIR/run/up"
    bring_up
    : >"$BED_DIR/run/up"
    say "bed $BED is up after $(elapsed "$begin") s; use it with '$TESTBED/bed run COMMAND'"
}

is_up() {
    local part
    if [[ ! -e $BED_DIR/run/up ]] || ! netns_exists; then return 1; fi
    for part in "${PARTS[@]}"; do runs "$part" || return 1; done
    enter_namespace && probe_apiserver >/dev/null
}

# What needs nothing starts first and boots while the rest is awaited in its order.
bring_up() {
    begin_part namespace
    wait_parts namespace
    enter_namespace
    make_pki
    local part
    for part in etcd containerd mariadb redis git; do begin_part "$part"; done
    wait_parts etcd
    begin_part apiserver
    wait_parts containerd redis git
    import_pause_image
    wait_parts apiserver
    for part in controllers scheduler kubelet proxy dns; do begin_part "$part"; done
    wait_parts controllers scheduler kubelet proxy dns mariadb
    # Pods are refused until the controllers have made it.
    wait_until 30 inside_curl -o /dev/null "https://$NODE_IP:6443/api/v1/namespaces/default/serviceaccounts/default" ||
        part_failed controllers "made no default ServiceAccount"
}

import_pause_image() {
    [[ -n $(bed_ctr images list -q "name==$PAUSE_IMAGE") ]] ||
        (make_image "$PAUSE_IMAGE" /pause "/pause=$KUBE_BIN/pause" >/dev/null)
}

down() {
    ((EUID == 0)) || die "root is needed to take a bed down; use sudo"
    take_lock
    take_down
    say "bed $BED is down"
}

# Everything is killed: nothing here is worth a clean end, and the API server takes a minute for one.
take_down() {
    local part pid
    # First those that would start others.
    end_parts KILL kubelet containerd
    end_parts KILL "${PARTS[@]}" "${OPTIONAL_PARTS[@]}"
    wait_until 30 everything_killed || die "these processes do not end: $(netns_processes; cgroup_processes)"
    wait_until 10 remove_cgroups || die "cannot remove the cgroups $(cgroup_folders | tr '\n' ' ')"
    remove_netns
    awk -v below="$BED_DIR/" 'index($2, below) == 1 { print $2 }' /proc/mounts | sort -r |
        while read -r mount; do umount -l "$mount"; done
    rm -rf --one-file-system "$BED_DIR"
}

everything_killed() {
    local -a left
    mapfile -t left < <(netns_processes; cgroup_processes)
    ((${#left[@]} == 0)) && return
    kill -KILL "${left[@]}" 2>/dev/null || true
    return 1
}

print_env() {
    [[ -e $BED_DIR/run/up ]] || die "bed $BED is not up: run '$TESTBED/bed up' first"
    environment
}

environment() {
    cat <<ENV
BED=$BED
BED_DIR=$BED_DIR
KUBECONFIG=$PKI/admin.conf
BED_NODE_IP=$NODE_IP
BED_CA=$PKI/ca.crt
BED_CA_KEY=$PKI/ca.key
BED_MYSQL_HOST=$NODE_IP
BED_MYSQL_PORT=3306
BED_MYSQL_USER=root
BED_MYSQL_PASSWORD=$(password mysql)
BED_REDIS_HOST=$NODE_IP
BED_REDIS_PORT=6379
BED_REDIS_TLS_PORT=6380
BED_REDIS_PASSWORD=$(password redis)
BED_GIT_URL=http://$NODE_IP:8080
BED_GIT_TLS_URL=https://$NODE_IP:8443
BED_GIT_USER=backout
BED_GIT_PASSWORD=$(password git)
BED_GIT_ROOT=$BED_DIR/git
BED_DATA=$BED_DIR/data
PATH=$KUBE_BIN:$PATH
ENV
}

# Only the network is another one: files, users and mounts are those of the caller. A proxy of the
# caller would not be reachable from inside.
run_inside() {
    (($#)) || die "usage: bed run COMMAND..."
    if [[ ! -e $BED_DIR/run/up ]] || ! netns_exists; then die "bed $BED is not up: run '$TESTBED/bed up' first"; fi
    local -a variables
    mapfile -t variables < <(environment)
    exec nsenter "--net=$NETNS_FILE" -- env -u http_proxy -u https_proxy -u all_proxy -u HTTP_PROXY \
        -u HTTPS_PROXY -u ALL_PROXY "${variables[@]}" "$@"
}

part_argument() {
    local part
    for part in "${PARTS[@]:1}" "${OPTIONAL_PARTS[@]}"; do [[ $part != "$1" ]] || return 0; done
    die "no part '$1'; the parts are: ${PARTS[*]:1} ${OPTIONAL_PARTS[*]}"
}

stop_command() {
    local signal=TERM
    if [[ ${1:-} == --kill ]]; then signal=KILL; shift; fi
    part_argument "${1:-}"
    # Its clean end takes a minute, and it keeps nothing that could be lost.
    [[ $1 != apiserver ]] || signal=KILL
    take_lock
    end_parts "$signal" "$1" || die "$1 still runs 30 s after SIG$signal"
}

start_command() {
    part_argument "${1:-}"
    take_lock
    enter_namespace || die "bed $BED is not up: run '$TESTBED/bed up' first"
    begin_part "$1"
    wait_parts "$1"
}

status() {
    local part pid uptime ticks all=0
    ticks=$(getconf CLK_TCK)
    uptime=$(cut -d. -f1 /proc/uptime)
    printf '%-12s %-8s %8s %8s\n' PART STATE PID SECONDS
    for part in "${PARTS[@]}"; do
        if pid=$(part_pid "$part"); then
            printf '%-12s %-8s %8s %8s\n' "$part" running "$pid" $((uptime - $(start_ticks "$pid") / ticks))
        else
            printf '%-12s %-8s %8s %8s\n' "$part" stopped - -
            all=1
        fi
    done
    return "$all"
}
