#!/usr/bin/env bash
# Runs inside a new mount namespace, prepares it and then holds it open. Several programs know only
# fixed places (/run/containerd, /var/lib/kubelet, /var/log/containers, /var/run/netns); here those
# are the bed's own, so beds do not meet each other or a real node, and all of it is gone with the
# last process. Must not write to anything of the host.
# usage: private-mounts.sh BED_DIR CACHE
set -euo pipefail
bed=$1 cache=$2

# Copies of other beds' names would keep their network namespaces alive after their end.
for name in /run/netns/*; do
    if mountpoint -q "$name"; then umount -l "$name"; fi
done
# Shared among the processes in here: containers may ask for mounts that propagate.
mount --make-rshared /

exec 8<"$cache"
resolv=$(readlink -m /etc/resolv.conf)
for folder in /run /var/lib /var/log; do
    mount -t tmpfs -o mode=755 bed "$folder"
    # The cache itself may lie below one of them.
    if [[ $cache/ == "$folder"/* ]]; then
        mkdir -p "$cache"
        mount --no-canonicalize --bind "/proc/$BASHPID/fd/8" "$cache"
    fi
done
exec 8<&-
mkdir -p /run/lock /run/netns

# Servers that give up root cannot pass through a home folder that is closed to others.
for server in mysql redis; do
    mkdir -p "/var/lib/$server"
    mount --bind "$bed/$server" "/var/lib/$server"
done

# Names of images and pods are asked of the bed's DNS, which knows at once what does not exist.
if [[ ! -e $resolv ]]; then mkdir -p "$(dirname "$resolv")" && : >"$resolv"; fi
mount --bind "$bed/resolv.conf" "$resolv"

# The kubelet sets these for the whole machine. Where it already reads what it wants, it writes nothing.
mkdir -p /run/sysctl
while read -r key value; do
    printf '%s\n' "$value" >"/run/sysctl/${key//\//.}"
    mount --bind "/run/sysctl/${key//\//.}" "/proc/sys/$key"
done <<'KEYS'
vm/overcommit_memory 1
vm/panic_on_oom 0
kernel/panic 10
kernel/panic_on_oops 1
kernel/keys/root_maxkeys 1000000
kernel/keys/root_maxbytes 25000000
KEYS

: >"$bed/run/namespace.ready"
exec sleep infinity
