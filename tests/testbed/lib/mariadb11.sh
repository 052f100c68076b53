# shellcheck shell=bash
# A second MariaDB, of the next long-term release, beside the one of this Debian. Its package comes from the
# next Debian's suite and is unpacked, not installed; it runs with the libraries that came with it.

MARIADB11_SUITE=trixie
MARIADB11=$CACHE/mariadb-11.8

install_mariadb11() {
    [[ -d $MARIADB11 ]] && return
    local work
    work=$(mktemp -d "$CACHE/build.XXXXXX")
    run_long "fetch MariaDB 11.8" "$work.log" fetch_debs "$MARIADB11_SUITE" "$work" mariadb-server-core
    finish_build "$work" "$MARIADB11"
}

# Unpacks packages of suite $1 with all that they depend on into $2. apt gets a state of its own, in which
# nothing is installed; the mirror is the one that this machine uses.
fetch_debs() {
    local suite=$1 folder=$2 mirror apt deb
    shift 2
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | head -n 1)
    apt=$folder/apt
    mkdir -p "$apt"/{lists,archives}/partial
    : >"$apt/status"
    printf 'deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s %s main\n' "$mirror" "$suite" >"$apt/sources"
    local -a options=(-q -o "Dir::State=$apt" -o "Dir::State::status=$apt/status" -o "Dir::Cache=$apt"
        -o "Dir::Etc::SourceList=$apt/sources" -o Dir::Etc::SourceParts=- -o Acquire::Languages=none
        -o APT::Install-Recommends=false -o APT::Sandbox::User=root -o Debug::NoLocking=1)
    apt-get "${options[@]}" update
    apt-get "${options[@]}" install -y --download-only "$@"
    for deb in "$apt"/archives/*.deb; do
        dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$folder" --exclude='./usr/share/doc' --exclude='./usr/share/man'
    done
    rm -rf "$apt"
}

# The server can't read the cache (see private-mounts.sh): it gets a copy.
start_mariadb11() {
    install_mariadb11
    local home=$BED_DIR/mysql/11
    mariadb_files "$home" /var/lib/mysql/11 3307
    [[ -d $home/program ]] || { cp -a "$MARIADB11" "$home/copy" && mv -T "$home/copy" "$home/program"; }
    # The package's own installer starts the server without its libraries.
    spawn mariadb11 bash -euc '
        cd /var/lib/mysql/11
        usr=$PWD/program/usr share=$PWD/program/usr/share/mariadb
        server=("$usr/lib64/ld-linux-x86-64.so.2" --library-path "$usr/lib/x86_64-linux-gnu" "$usr/sbin/mariadbd"
            --defaults-file="$PWD/server.cnf" --basedir="$usr" --lc-messages-dir="$share"
            --character-sets-dir="$share/charsets")
        if [[ ! -e bootstrapped ]]; then
            rm -rf data
            install -d -o mysql -g mysql data
            {
                # It takes a statement a line.
                printf "CREATE DATABASE mysql;\nUSE mysql;\n"
                echo "SET @auth_root_socket=NULL, @skip_auth_anonymous=1, @current_hostname=\"localhost\";"
                cat "$share"/{mariadb_system_tables,mariadb_performance_tables,mariadb_system_tables_data}.sql \
                    "$share"/{fill_help_tables,maria_add_gis_sp_bootstrap,mariadb_sys_schema}.sql
            } | "${server[@]}" --bootstrap --skip-log-bin --init-file=
            : >bootstrapped
        fi
        exec "${server[@]}"'
}
probe_mariadb11() { probe_mysql 3307; }
