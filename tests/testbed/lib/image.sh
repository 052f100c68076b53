# shellcheck shell=bash
# Makes an image of one layer from files and imports it into the bed's containerd; there is no
# registry. The same files give the same image: names are sorted, times and owners fixed.

# The full name, as the kubelet will ask for it.
full_image_name() {
    local name=$1 host=${1%%/*}
    [[ ${name##*/} == *:* ]] || name+=:latest
    if [[ $1 != */* ]]; then
        name=docker.io/library/$name
    elif [[ $host != *[.:]* && $host != localhost ]]; then
        name=docker.io/$name
    fi
    printf '%s' "$name"
}

image_tar() {
    tar --create --format=ustar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner "$@"
}

make_image() {
    local user="" name entry work
    local -a words=()
    while (($#)); do
        case $1 in
            --user) user=${2:-}; shift 2 ;;
            *) words+=("$1"); shift ;;
        esac
    done
    ((${#words[@]} >= 3)) || die "usage: bed image NAME:TAG ENTRY [--user UID] DST=SRC..."
    [[ -z $user || $user =~ ^[0-9]+(:[0-9]+)?$ ]] || die "image: --user takes a number, not '$user'"
    name=$(full_image_name "${words[0]}")
    entry=${words[1]}
    [[ $name =~ ^[a-z0-9./:_-]+$ && $entry =~ ^/[^\"\\]+$ ]] || die "image: name '$name' or entry '$entry' is malformed"
    runs containerd || die "bed $BED is not up: run '$TESTBED/bed up' first"

    work=$(mktemp -d "$BED_DIR/run/image.XXXXXX")
    # shellcheck disable=SC2064
    trap "rm -rf '$work'" EXIT
    write_archive "$work" "$name" "$entry" "$user" "${words[@]:2}"
    if [[ $(imported_config "$name") == "$(cat "$work/id")" ]]; then
        say "image $name is already there"
    else
        bed_ctr images import "$work/archive.tar" >/dev/null
        # containerd tells its Kubernetes side a moment later; a pod that comes first would not find it.
        wait_until 10 image_is_known "$name" || die "image: containerd did not take $name; see $BED_DIR/log/containerd.log"
    fi
    printf '%s\n' "$name"
}

# write_archive FOLDER NAME ENTRY USER DST=SRC... : leaves archive.tar and the config's digest in `id`.
write_archive() {
    local work=$1 name=$2 entry=$3 user=$4 file diff id
    shift 4
    mkdir -p "$work/root/etc" "$work/root/tmp" "$work/archive"
    for file in "$@"; do
        [[ $file == /*=* && -f ${file#*=} ]] || die "image: '$file' is not /DESTINATION=FILE"
        install -D -m "$([[ -x ${file#*=} ]] && echo 755 || echo 644)" "${file#*=}" "$work/root${file%%=*}"
    done
    find "$work/root" -type d -exec chmod 755 {} +
    chmod 1777 "$work/root/tmp"
    (cd "$work/root" && image_tar --file=../archive/layer.tar -- *)
    diff=$(sha256sum <"$work/archive/layer.tar" | cut -d' ' -f1)
    printf '{"architecture":"%s","os":"linux","config":{"Entrypoint":["%s"],"User":"%s","Env":["PATH=/"]},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]},"history":[{}]}' \
        "$(dpkg --print-architecture)" "$entry" "$user" "$diff" >"$work/config"
    id=$(sha256sum <"$work/config" | cut -d' ' -f1)
    mv "$work/config" "$work/archive/$id.json"
    printf '[{"Config":"%s.json","RepoTags":["%s"],"Layers":["layer.tar"]}]' "$id" "$name" >"$work/archive/manifest.json"
    (cd "$work/archive" && image_tar --file=../archive.tar -- *)
    printf '%s' "$id" >"$work/id"
}

# The digest of the config of an imported image; nothing when there is none.
imported_config() {
    local manifest
    manifest=$(bed_ctr images list "name==$1" | awk 'NR == 2 { print $3 }')
    [[ -z $manifest ]] || bed_ctr content get "$manifest" | tr -d ' \n' | sed -n 's/.*"config":{[^}]*"digest":"sha256:\([0-9a-f]*\)".*/\1/p'
}

image_is_known() { bed_ctr images list "name==$1" | grep -q io.cri-containerd.image=managed; }
