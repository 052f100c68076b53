//! The programs that are measured, as people run them.

use std::{path::Path, process::Command, time::Duration};

use super::{
    measure::{Done, run},
    server::Server,
};

pub struct Tool {
    pub name: &'static str,
    pub run: fn(&Server, &Path) -> Done,
    /// The engine itself: one process, whose memory is its own and not a shell's, and which compares what it loaded with what was backed
    /// up in the time that is measured.
    pub alone: bool,
}

pub const CAPTURES: [Tool; 4] = [
    Tool { name: "backout", run: backout_capture, alone: true },
    Tool { name: "mysqldump", run: mysqldump, alone: false },
    Tool { name: "mydumper", run: mydumper, alone: false },
    Tool { name: "mariadb-backup", run: mariadb_backup, alone: false },
];

pub const LOADS: [Tool; 3] = [
    Tool { name: "backout", run: backout_load, alone: true },
    Tool { name: "mysqldump", run: mysql, alone: false },
    Tool { name: "mydumper", run: myloader, alone: false },
];

/// Says at the beginning what is missing at the end.
pub fn check() {
    for tool in ["mariadbd", "mariadb-dump", "mydumper", "myloader", "mariadb-backup", "zstd"] {
        let found = Command::new("sh").args(["-c", "command -v \"$0\"", tool]).output().is_ok_and(|output| output.status.success());
        assert!(found, "{tool} is not here: apt-get install mariadb-server mydumper mariadb-backup zstd");
    }
}

fn shell(server: &Server, script: &str, name: &str) -> Done {
    run(Command::new("bash").args(["-euo", "pipefail", "-c", script]), &server.home().join(format!("{name}.log")))
}

fn client(server: &Server) -> String {
    format!("--no-defaults --protocol=tcp -h 127.0.0.1 -P {} -u root", server.port())
}

fn mysqldump(server: &Server, place: &Path) -> Done {
    let script = format!(
        "mariadb-dump {} --single-transaction --quick --hex-blob --master-data=2 --gtid shop | zstd -q -1 > {}/dump.sql.zst",
        client(server),
        place.display()
    );
    shell(server, &script, "mysqldump")
}

fn mysql(server: &Server, place: &Path) -> Done {
    let client = client(server);
    let script =
        format!("mariadb {client} -e 'CREATE DATABASE restored'; zstd -dc {}/dump.sql.zst | mariadb {client} restored", place.display());
    shell(server, &script, "mysql")
}

/// What the runbook does.
pub fn restore_in_place(server: &Server, place: &Path) -> Done {
    // Clients go on meanwhile, and what they meet is what is measured: that the restore itself meets an error is no reason to end.
    shell(server, &format!("zstd -dc {}/dump.sql.zst | mariadb {} shop", place.display(), client(server)), "in-place")
}

fn mydumper(server: &Server, place: &Path) -> Done {
    let script = format!("mydumper -h 127.0.0.1 -P {} -u root -t 2 -r 250000 -c -B shop -o {} 2>/dev/null", server.port(), place.display());
    shell(server, &script, "mydumper")
}

/// A copy of the server's files: it is brought back by a server that stands still, so that no load of it is comparable.
fn mariadb_backup(server: &Server, place: &Path) -> Done {
    let script = format!(
        "mariadb-backup {} --backup --databases=shop --parallel=2 --stream=mbstream --target-dir={1}/work --datadir={2} 2>/dev/null | zstd -q -1 > {1}/backup.zst",
        client(server),
        place.display(),
        server.data().display()
    );
    shell(server, &script, "mariadb-backup")
}

fn myloader(server: &Server, place: &Path) -> Done {
    let script =
        format!("myloader -h 127.0.0.1 -P {} -u root -t 2 -d {} -s shop -B restored -o -e 2>/dev/null", server.port(), place.display());
    shell(server, &script, "myloader")
}

fn backout(server: &Server, place: &Path, arguments: &[&str]) -> Done {
    let mut command = Command::new(env!("CARGO_BIN_EXE_backout"));
    command.arg("db").args(arguments).args(["--output", "json", "--store"]).arg(place);
    command.env("BACKOUT_DB_URL", format!("mysql://root@127.0.0.1:{}/shop", server.port())).env("BACKOUT_DB_TLS", "disabled");
    run(&mut command, &server.home().join("backout.log"))
}

pub fn backout_capture(server: &Server, place: &Path) -> Done {
    backout(server, place, &["capture", "point"])
}

/// Loads and compares every value; what follows (CHECK TABLE, dropping the schema) is not what the others do.
pub fn backout_load(server: &Server, place: &Path) -> Done {
    let done = backout(server, place, &["rehearse", "point"]);
    Done { took: seconds(&done.output, "seconds"), ..done }
}

/// Leaves the point loaded beside the live schema: nobody is there to agree to the restore.
pub fn stage(server: &Server, place: &Path, how: &[&str]) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_backout"));
    command
        .args(["db", "restore", "point"])
        .args(how)
        .arg("--store")
        .arg(place)
        .stdin(std::process::Stdio::null())
        .stderr(std::process::Stdio::null());
    command.env("BACKOUT_DB_URL", format!("mysql://root@127.0.0.1:{}/shop", server.port())).env("BACKOUT_DB_TLS", "disabled");
    let status = command.status().expect("it starts");
    assert!(!status.success(), "it was swapped in without being asked for");
}

/// Swaps in what is staged. How long the cut-over took, and the schema that keeps what it replaced.
pub fn cut_over(server: &Server, place: &Path) -> (Duration, String) {
    let done = backout(server, place, &["restore", "point", "--yes"]);
    let facts: serde_json::Value = serde_json::from_str(&done.output).expect("it prints JSON");
    (seconds(&done.output, "swapSeconds"), facts["aside"].as_str().expect("it names what it keeps").to_owned())
}

/// Drops what is loaded beside the live schema.
pub async fn forget_stage(server: &Server, place: &Path) {
    let shadow = server.ask("SELECT SCHEMA_NAME FROM information_schema.SCHEMATA WHERE SCHEMA_NAME LIKE 'shop\\_backout\\_%'").await;
    discard(server, place, &shadow);
}

/// Drops what a cut-over replaced.
pub fn discard(server: &Server, place: &Path, aside: &str) {
    backout(server, place, &["discard", aside]);
}

fn seconds(output: &str, field: &str) -> Duration {
    let facts: serde_json::Value = serde_json::from_str(output).expect("it prints JSON");
    Duration::from_secs_f64(facts[field].as_f64().expect("it says how long it took"))
}
