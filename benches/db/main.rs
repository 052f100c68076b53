//! `make bench-db`: the data engine beside the tools that people use today, in one run on one server, each several times.
//!
//! Prints a table for README. `ROWS` are the numbers of rows of the large table, `RUNS` how often each thing is measured.

#![allow(
    clippy::panic,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a benchmark that can't go on ends, and prints its result"
)]

mod data;
mod measure;
mod server;
mod tools;
mod traffic;

use std::{
    env,
    path::Path,
    time::{Duration, Instant},
};

use measure::{Figure, Table};
use server::Server;
use traffic::Traffic;

#[tokio::main]
async fn main() {
    // Cargo runs it with `--bench`; whoever lists tests gets none.
    if env::args().any(|argument| argument == "--list") {
        return;
    }
    tools::check();
    let sizes = numbers("ROWS", "1000000 5000000");
    let [runs] = numbers("RUNS", "3")[..] else { panic!("RUNS is one number") };
    let runs = usize::try_from(runs).expect("nobody waits for as many");
    let server = Server::start().await;
    let mut table = Table::default();
    for rows in sizes {
        table.begin(rows);
        data::fill(&server, rows).await;
        capture(&server, &mut table, runs).await;
        load(&server, &mut table, rows, runs).await;
        cut_over(&server, &mut table, runs).await;
    }
    // A load that rests takes long, however many rows there are.
    table.begin(100_000);
    stage(&server, &mut table, 100_000, runs).await;
    table.begin(40);
    long_rows(&server, &mut table).await;
    table.print(runs, &server.version().await);
}

/// Positive whole numbers from the environment. A wrong one ends the benchmark before it has begun.
fn numbers(name: &str, default: &str) -> Vec<u64> {
    let text = env::var(name).unwrap_or_else(|_| default.to_owned());
    let number = |word: &str| word.parse().ok().filter(|number| *number > 0);
    let found: Option<Vec<u64>> = text.split_whitespace().map(number).collect();
    found
        .filter(|found| !found.is_empty())
        .unwrap_or_else(|| panic!("{name}={text:?}: give whole numbers from 1, as in {name}=\"{default}\""))
}

/// Backups of the same data, first alone, then while others write.
async fn capture(server: &Server, table: &mut Table, runs: usize) {
    let folder = server.folder("dumps");
    for tool in tools::CAPTURES {
        let (mut took, mut stall, mut size, mut memory) = (Figure::seconds(), Figure::milliseconds(), 0, Figure::mebibytes());
        for run in 0..runs {
            let place = fresh(&folder, tool.name);
            let done = (tool.run)(server, &place);
            took.add(done.took.as_secs_f64());
            if tool.alone {
                memory.add(done.memory as f64 / 1_048_576.0);
            }
            size = measure::size(&place);
            say(&format!("capture {} {run}: {:.2} s", tool.name, done.took.as_secs_f64()));
        }
        for _ in 0..runs {
            let traffic = Traffic::start(server).await;
            let place = fresh(&folder, "beside-traffic");
            (tool.run)(server, &place);
            stall.add(traffic.stop().await.longest_write.as_secs_f64() * 1e3);
            std::fs::remove_dir_all(&place).expect("it can be removed");
        }
        let (took, stall) = (took.to_string(), stall.to_string());
        table.row(
            "capture",
            tool.name,
            &[("wall", &took), ("MB", &(size / 1_000_000).to_string()), ("longest write", &stall), ("memory", &memory.to_string())],
        );
    }
}

/// Restores of those backups into another schema; what was restored is compared with the source, value by value.
async fn load(server: &Server, table: &mut Table, rows: u64, runs: usize) {
    let folder = server.folder("dumps");
    for tool in tools::LOADS {
        let (mut took, mut memory, mut wrong) = (Figure::seconds(), Figure::mebibytes(), 0);
        for run in 0..runs {
            server.run("DROP DATABASE IF EXISTS restored").await;
            let done = (tool.run)(server, &folder.join(tool.name));
            took.add(done.took.as_secs_f64());
            if tool.alone {
                memory.add(done.memory as f64 / 1_048_576.0);
            }
            say(&format!("load {} {run}: {:.2} s", tool.name, done.took.as_secs_f64()));
            if !tool.alone {
                wrong = data::differences(server, "restored", rows).await;
            }
        }
        let wrong = if tool.alone { "0 (compared by it)".to_owned() } else { wrong.to_string() };
        table.row("load", tool.name, &[("wall", &took.to_string()), ("memory", &memory.to_string()), ("rows with other values", &wrong)]);
        server.run("DROP DATABASE IF EXISTS restored").await;
    }
}

/// Loading beside an application: what its writes take meanwhile, and how long the load takes for that.
async fn stage(server: &Server, table: &mut Table, rows: u64, runs: usize) {
    data::fill(server, rows).await;
    let place = fresh(&server.folder("dumps"), "staged");
    tools::backout_capture(server, &place);
    let ways: [(&str, &[&str]); 3] =
        [("2 connections", &[]), ("1 connection", &["--connections", "1"]), ("1 connection, gently", &["--connections", "1", "--gently"])];
    for (name, how) in ways {
        let (mut took, mut before, mut beside) = (Figure::seconds(), Figure::milliseconds(), Figure::milliseconds());
        for run in 0..runs {
            let traffic = Traffic::start(server).await;
            tokio::time::sleep(traffic::WARM * 3).await;
            before.add(traffic.stop().await.usual_write().as_secs_f64() * 1e3);
            let traffic = Traffic::start(server).await;
            let begun = Instant::now();
            tools::stage(server, &place, how);
            took.add(begun.elapsed().as_secs_f64());
            let usual = traffic.stop().await.usual_write();
            beside.add(usual.as_secs_f64() * 1e3);
            say(&format!("stage with {name} {run}: {:.1} s, p99 {} ms", begun.elapsed().as_secs_f64(), usual.as_millis()));
            tools::forget_stage(server, &place).await;
        }
        let (took, before, beside) = (took.to_string(), before.to_string(), beside.to_string());
        table.row(
            "staging beside writers and readers",
            name,
            &[("wall", &took), ("p99 of writes without it", &before), ("p99 of writes", &beside)],
        );
    }
}

/// The cut-over under writers and readers, and restoring in place as the runbook does.
async fn cut_over(server: &Server, table: &mut Table, runs: usize) {
    let folder = server.folder("dumps");
    let (mut swap, mut blocked, mut errors, mut lost) = (Figure::milliseconds(), Figure::milliseconds(), 0, 0);
    let mut dropping = Figure::milliseconds();
    for run in 0..runs {
        tools::stage(server, &folder.join("backout"), &[]);
        let traffic = Traffic::start(server).await;
        tokio::time::sleep(traffic::WARM).await;
        let (took, aside) = tools::cut_over(server, &folder.join("backout"));
        tokio::time::sleep(traffic::WARM).await;
        let report = traffic.stop().await;
        swap.add(took.as_secs_f64() * 1e3);
        blocked.add(report.longest().as_secs_f64() * 1e3);
        errors += report.errors;
        lost += report.lost(server, &["shop", &aside]).await;
        say(&format!("cut-over {run}: {} ms, longest query {} ms", took.as_millis(), report.longest().as_millis()));
        let traffic = Traffic::start(server).await;
        tools::discard(server, &folder.join("backout"), &aside);
        dropping.add(traffic.stop().await.longest().as_secs_f64() * 1e3);
    }
    let figures = [
        ("decision to last rename", swap.to_string()),
        ("longest query", blocked.to_string()),
        ("errors", errors.to_string()),
        ("acknowledged rows lost", lost.to_string()),
        ("longest query while the replaced tables are dropped", dropping.to_string()),
    ];
    table.row("cut-over of a staged point", "backout", &figures.each_ref().map(|(name, value)| (*name, value.as_str())));

    let traffic = Traffic::start(server).await;
    tokio::time::sleep(traffic::WARM).await;
    let done = tools::restore_in_place(server, &folder.join("mysqldump"));
    let report = traffic.stop().await;
    let lost = report.lost(server, &["shop"]).await;
    table.row(
        "cut-over of a staged point",
        "mysqldump in place (once)",
        &[
            ("decision to last rename", &format!("{:.1} s", done.took.as_secs_f64())),
            ("longest query", &format!("{:.1} s", report.longest().as_secs_f64())),
            ("errors", &report.errors.to_string()),
            ("acknowledged rows lost", &format!("{lost} of {}", report.acknowledged())),
        ],
    );
}

/// Rows as long as the server takes: memory must not grow with them, nor with their number.
async fn long_rows(server: &Server, table: &mut Table) {
    data::fill_long(server).await;
    let place = fresh(&server.folder("dumps"), "long");
    let captured = tools::backout_capture(server, &place);
    let loaded = tools::backout_load(server, &place);
    let mebibytes = |bytes: u64| format!("{} MiB", bytes / 1_048_576);
    let (captured, loaded) = (mebibytes(captured.memory), mebibytes(loaded.memory));
    table.row("rows of 16 MB", "backout", &[("memory of capture", &captured), ("memory of load", &loaded)]);
}

fn fresh(folder: &Path, name: &str) -> std::path::PathBuf {
    let place = folder.join(name);
    if place.exists() {
        std::fs::remove_dir_all(&place).expect("it can be removed");
    }
    std::fs::create_dir_all(&place).expect("it can be made");
    place
}

fn say(text: &str) {
    eprintln!("{text}");
}

/// A child that takes longer is stuck.
const PATIENCE: Duration = Duration::from_secs(1800);
