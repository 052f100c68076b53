# shellcheck shell=bash
# MariaDB, Redis and the git server, each with a password of its own; all of them speak TLS too.
# Nothing of /etc/mysql, /etc/redis, /etc/lighttpd or /etc/gitconfig counts here.

# What a MariaDB needs in its folder: $1 below the bed's, $2 as the server sees it; $3 is its port. The init
# file is read at every start and adds the administrator once.
mariadb_files() {
    local home=$1 seen=$2 port=$3
    mkdir -p "$home"
    install -m 644 "$PKI/ca.crt" "$PKI/servers.crt" "$home/"
    install -m 600 -o mysql -g mysql "$PKI/servers.key" "$home/"
    cat >"$home/server.cnf" <<CONF
[mysqld]
user = mysql
datadir = $seen/data
socket = $seen/server.sock
pid-file = $seen/server.pid
init-file = $seen/init.sql
bind-address = 0.0.0.0
port = $port
skip-name-resolve
max_connections = 300
character-set-server = utf8mb4
lower_case_table_names = 0
innodb_buffer_pool_size = 512M
innodb_flush_log_at_trx_commit = 1
server-id = 1
log-bin = binlog
binlog-format = ROW
ssl-ca = $seen/ca.crt
ssl-cert = $seen/servers.crt
ssl-key = $seen/servers.key
CONF
    # The bootstrap leaves administrators without a password for the loopback addresses and host name.
    install -m 600 -o mysql -g mysql /dev/stdin "$home/init.sql" <<SQL
DELETE FROM mysql.global_priv WHERE User = 'root' AND Host NOT IN ('localhost', '%');
FLUSH PRIVILEGES;
ALTER USER root@localhost IDENTIFIED BY '$(password mysql)';
CREATE USER IF NOT EXISTS root@'%' IDENTIFIED BY '$(password mysql)';
GRANT ALL ON *.* TO root@'%' WITH GRANT OPTION;
SQL
    chown mysql:mysql "$home"
}

# Runs in the private mounts, where /var/lib/mysql is the bed's.
start_mariadb() {
    mariadb_files "$BED_DIR/mysql" /var/lib/mysql 3306
    # A folder without the marker is a bootstrap that did not end; it holds nobody's data yet.
    spawn mariadb bash -euc '
        cd /var/lib/mysql
        if [[ ! -e bootstrapped ]]; then
            rm -rf data
            mariadb-install-db --defaults-file=/var/lib/mysql/server.cnf --user=mysql \
                --auth-root-authentication-method=normal --skip-test-db --skip-log-bin
            : >bootstrapped
        fi
        exec mariadbd --defaults-file=/var/lib/mysql/server.cnf'
}
probe_mariadb() { probe_mysql 3306; }
probe_mysql() {
    MYSQL_PWD=$(password mysql) "${INSIDE[@]}" mariadb --no-defaults -h "$NODE_IP" -P "$1" -u root -e 'SELECT 1'
}

# A cache: nothing is kept on disk.
start_redis() {
    install -m 644 "$PKI/ca.crt" "$PKI/servers.crt" "$BED_DIR/redis/"
    install -m 600 -o redis -g redis "$PKI/servers.key" "$BED_DIR/redis/"
    install -m 600 -o redis -g redis /dev/stdin "$BED_DIR/redis/redis.conf" <<CONF
bind 0.0.0.0
port 6379
tls-port 6380
tls-ca-cert-file /var/lib/redis/ca.crt
tls-cert-file /var/lib/redis/servers.crt
tls-key-file /var/lib/redis/servers.key
tls-auth-clients no
dir /var/lib/redis
save ""
requirepass $(password redis)
CONF
    chown redis:redis "$BED_DIR/redis"
    spawn redis setpriv --reuid redis --regid redis --init-groups redis-server /var/lib/redis/redis.conf
}
probe_redis() {
    REDISCLI_AUTH=$(password redis) "${INSIDE[@]}" redis-cli -h "$NODE_IP" ping | grep -q PONG
}

# Runs as root, who owns the repositories that tests make; git refuses those of another user
# otherwise. Settings reach git by its environment, which counts for every repository.
start_git() {
    local home=$BED_DIR/git-server
    mkdir -p "$home/upload"
    cat "$PKI/servers.key" "$PKI/servers.crt" >"$home/server.pem"
    printf 'backout:%s\n' "$(password git)" >"$home/users"
    chmod 600 "$home"/{server.pem,users}
    cat >"$home/lighttpd.conf" <<CONF
server.modules = ("mod_auth", "mod_authn_file", "mod_setenv", "mod_alias", "mod_cgi", "mod_openssl")
server.document-root = "$BED_DIR/git"
server.upload-dirs = ("$home/upload")
server.errorlog = "/dev/stderr"
server.bind = "0.0.0.0"
server.port = 8080
\$SERVER["socket"] == "0.0.0.0:8443" {
    ssl.engine = "enable"
    ssl.pemfile = "$home/server.pem"
}
auth.backend = "plain"
auth.backend.plain.userfile = "$home/users"
auth.require = ("/" => ("method" => "basic", "realm" => "bed", "require" => "valid-user"))
alias.url = ("/" => "/usr/lib/git-core/git-http-backend/")
cgi.assign = ("" => "")
setenv.add-environment = (
    "GIT_PROJECT_ROOT" => "$BED_DIR/git",
    "GIT_HTTP_EXPORT_ALL" => "1",
    "GIT_CONFIG_NOSYSTEM" => "1",
    "GIT_CONFIG_COUNT" => "2",
    "GIT_CONFIG_KEY_0" => "safe.directory",
    "GIT_CONFIG_VALUE_0" => "*",
    "GIT_CONFIG_KEY_1" => "http.receivepack",
    "GIT_CONFIG_VALUE_1" => "true"
)
CONF
    spawn git lighttpd -D -f "$home/lighttpd.conf"
}
# Any answer will do, and without a password it is "401".
probe_git() { "${INSIDE[@]}" curl -s --noproxy '*' --max-time 2 -o /dev/null "http://$NODE_IP:8080/"; }
