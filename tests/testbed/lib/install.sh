# shellcheck shell=bash
# Debian packages and the Kubernetes, CoreDNS and pause binaries. Installs what is missing and
# nothing else; starts no service. A build becomes visible by one rename, so a half one is never used.

DEBIAN_PACKAGES=(containerd containernetworking-plugins iptables iproute2 mariadb-server redis-server
    lighttpd lighttpd-mod-openssl git openssl age curl gcc libc6-dev)

KUBE_COMMANDS=(
    k8s.io/kubernetes/cmd/kubectl
    k8s.io/kubernetes/cmd/kube-apiserver
    k8s.io/kubernetes/cmd/kube-controller-manager
    k8s.io/kubernetes/cmd/kube-scheduler
    k8s.io/kubernetes/cmd/kubelet
    k8s.io/kubernetes/cmd/kube-proxy
    go.etcd.io/etcd/server/v3
)

missing_packages() {
    local package
    for package in "${DEBIAN_PACKAGES[@]}"; do
        [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || printf '%s\n' "$package"
    done
}

# Runs apt-get with every service start refused. The refusal is a policy-rc.d that only this
# command sees: bound over the machine's own in a private mount namespace. The file under it has to
# exist for that, so an empty one is made and removed where there is none.
apt_quietly() {
    local policy=/usr/sbin/policy-rc.d refusal status=0 made=
    refusal=$(mktemp)
    printf '#!/bin/sh\nexit 101\n' >"$refusal"
    chmod 755 "$refusal"
    [[ -e $policy ]] || { made=1; : >"$policy"; }
    # shellcheck disable=SC2016
    unshare --mount --propagation private sh -c '
        mount --bind "$1" "$2" && shift 2 && DEBIAN_FRONTEND=noninteractive exec apt-get -o DPkg::Lock::Timeout=300 "$@"
    ' sh "$refusal" "$policy" "$@" || status=$?
    rm -f "$refusal"
    [[ -z $made ]] || rm -f "$policy"
    return "$status"
}

install_packages() {
    local -a packages
    mapfile -t packages < <(missing_packages)
    ((${#packages[@]} == 0)) && return
    say "Debian packages: ${packages[*]}"
    run_long "apt-get update" "$CACHE/apt-update.log" apt_quietly -q update
    run_long "apt-get install" "$CACHE/apt-install.log" apt_quietly -qy install --no-install-recommends "${packages[@]}"
}

# GOFLAGS of the caller must not reach the build: the same sources give the same binaries everywhere.
go_build() {
    (cd "$1" && CGO_ENABLED=0 GOFLAGS=-buildvcs=false go build -trimpath -ldflags "$2" -o "$3" "$4")
}

install_kubernetes() {
    [[ -d $KUBE_BIN ]] && return
    local n=0 command name minor work ldflags
    minor=${KUBE_VERSION#v1.}
    # Without these, every component reports v0.0.0 and clients warn about the skew.
    ldflags="-s -w -X k8s.io/component-base/version.gitVersion=$KUBE_VERSION"
    ldflags+=" -X k8s.io/client-go/pkg/version.gitVersion=$KUBE_VERSION"
    ldflags+=" -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=${minor%.*}"
    work=$(mktemp -d "$CACHE/build.XXXXXX")
    say "Kubernetes $KUBE_VERSION: $((${#KUBE_COMMANDS[@]} + 1)) binaries, about 6 minutes the first time"
    for command in "${KUBE_COMMANDS[@]}"; do
        name=$(basename "${command/%\/server\/v3/}")
        run_long "build $name ($((++n))/$((${#KUBE_COMMANDS[@]} + 1)))" "$work.log" \
            go_build "$TESTBED/kubernetes" "$ldflags" "$work/$name" "$command"
    done
    run_long "build pause ($((++n))/$((${#KUBE_COMMANDS[@]} + 1)))" "$work.log" \
        gcc -Os -static -s -o "$work/pause" "$TESTBED/kubernetes/pause.c"
    finish_build "$work" "$KUBE_BIN"
}

install_coredns() {
    [[ -d $COREDNS_BIN ]] && return
    local work
    work=$(mktemp -d "$CACHE/build.XXXXXX")
    run_long "build coredns $COREDNS_VERSION" "$work.log" \
        go_build "$TESTBED/coredns" "-s -w" "$work/coredns" .
    finish_build "$work" "$COREDNS_BIN"
}

finish_build() {
    chmod 755 "$1"
    sync -f "$1"
    mv -T "$1" "$2"
    rm -f "$1.log"
}

install_all() {
    mkdir -p "$CACHE"
    install_packages
    # What an interrupted build left; the lock says that no other build is under way.
    rm -rf "$CACHE"/build.*
    install_kubernetes
    install_coredns
}
