//! A MariaDB of its own on a loopback port, in a folder that goes with it.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use sqlx::{
    AssertSqlSafe, ConnectOptions as _, Row as _,
    mysql::{MySqlConnectOptions, MySqlConnection, MySqlSslMode},
};
use tempfile::TempDir;

pub struct Server {
    process: Child,
    port: u16,
    folder: TempDir,
}

/// As a server of its own would be set up for this much data: all of it in memory, every commit on disk, row-based binary log.
const SETTINGS: [&str; 14] = [
    "--no-defaults",
    "--innodb-buffer-pool-size=4G",
    "--innodb-log-file-size=1G",
    "--innodb-flush-log-at-trx-commit=1",
    "--innodb-flush-method=O_DIRECT",
    "--sync-binlog=1",
    "--log-bin=bin",
    "--binlog-format=ROW",
    "--server-id=1",
    "--max-binlog-size=256M",
    "--character-set-server=utf8mb4",
    "--collation-server=utf8mb4_unicode_ci",
    "--max-allowed-packet=64M",
    "--bind-address=127.0.0.1",
];

impl Server {
    pub async fn start() -> Self {
        let folder = TempDir::with_prefix("backout-bench-").expect("a folder can be made");
        let data = folder.path().join("data");
        let me = format!("--user={}", user());
        let datadir = format!("--datadir={}", data.display());
        let installed = Command::new("mariadb-install-db")
            .args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db", &me, &datadir])
            .stdout(Stdio::null())
            .status();
        assert!(installed.is_ok_and(|status| status.success()), "mariadb-install-db failed");
        let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port is free").port();
        let log = fs::File::create(folder.path().join("server.log")).expect("it can be made");
        // A benchmark that is ended from outside leaves no server behind.
        let process = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "mariadbd"])
            .args(SETTINGS)
            .args([me, datadir, format!("--port={port}"), format!("--socket={}", folder.path().join("socket").display())])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("mariadbd starts");
        let server = Self { process, port, folder };
        let begun = Instant::now();
        while server.options().connect().await.is_err() {
            assert!(begun.elapsed() < Duration::from_secs(60), "mariadbd does not answer: see {}", server.folder.path().display());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        server
    }

    fn options(&self) -> MySqlConnectOptions {
        let options = MySqlConnectOptions::new().host("127.0.0.1").port(self.port).username("root").ssl_mode(MySqlSslMode::Disabled);
        options.pipes_as_concat(false).disable_statement_logging()
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn folder(&self, name: &str) -> PathBuf {
        let folder = self.folder.path().join(name);
        fs::create_dir_all(&folder).expect("it can be made");
        folder
    }

    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub fn home(&self) -> &Path {
        self.folder.path()
    }

    pub async fn connect(&self, schema: &str) -> MySqlConnection {
        self.options().database(schema).connect().await.expect("the server answers")
    }

    /// One or several statements, as administrator and without a schema.
    pub async fn run(&self, sql: &str) {
        let mut connection = self.options().connect().await.expect("the server answers");
        let done = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut connection).await;
        done.unwrap_or_else(|error| panic!("{error}\n{}", sql.chars().take(300).collect::<String>()));
    }

    /// The first value of the first row.
    pub async fn ask(&self, sql: &str) -> String {
        let mut connection = self.options().connect().await.expect("the server answers");
        let row =
            sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).fetch_one(&mut connection).await.unwrap_or_else(|error| panic!("{error}\n{sql}"));
        let bytes: Vec<u8> = row.try_get_unchecked(0).expect("it is not NULL");
        String::from_utf8_lossy(&bytes).into_owned()
    }

    pub async fn version(&self) -> String {
        self.ask("SELECT VERSION()").await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Its data are of no use any more.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// mariadbd runs as root only where it is told to.
fn user() -> String {
    let whoami = Command::new("id").arg("-un").output().expect("id runs");
    String::from_utf8_lossy(&whoami.stdout).trim().to_owned()
}
