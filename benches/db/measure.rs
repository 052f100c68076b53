//! Figures: medians with their ranges, and the table that is printed.

use std::{
    collections::BTreeMap,
    fmt, fs,
    path::Path,
    process::{Child, Command},
    time::{Duration, Instant},
};

use super::PATIENCE;

/// Several measures of one thing.
pub struct Figure {
    values: Vec<f64>,
    unit: &'static str,
    digits: usize,
}

impl Figure {
    pub fn seconds() -> Self {
        Self { values: Vec::new(), unit: "s", digits: 2 }
    }

    pub fn milliseconds() -> Self {
        Self { values: Vec::new(), unit: "ms", digits: 0 }
    }

    pub fn mebibytes() -> Self {
        Self { values: Vec::new(), unit: "MiB", digits: 0 }
    }

    pub fn add(&mut self, value: f64) {
        self.values.push(value);
        self.values.sort_by(f64::total_cmp);
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Some(least), Some(most)) = (self.values.first(), self.values.last()) else { return f.write_str("–") };
        let (median, digits, unit) = (self.values[self.values.len() / 2], self.digits, self.unit);
        write!(f, "{median:.digits$} {unit} [{least:.digits$}–{most:.digits$}]")
    }
}

/// What running a program took.
pub struct Done {
    pub took: Duration,
    /// The most that it held at once, in bytes.
    pub memory: u64,
    pub output: String,
}

/// Runs a program to its end; what it prints goes into a file of its own.
pub fn run(command: &mut Command, log: &Path) -> Done {
    let output = fs::File::create(log).expect("it can be made");
    let begun = Instant::now();
    let mut child = command.stdout(output).spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let memory = watch(&mut child, begun);
    let took = begun.elapsed();
    let status = child.wait().expect("it has ended");
    assert!(status.success(), "{command:?} ended with {status}");
    Done { took, memory, output: fs::read_to_string(log).unwrap_or_default() }
}

/// The kernel's own account of the most that it held, read until it ends.
fn watch(child: &mut Child, begun: Instant) -> u64 {
    let mut most = 0;
    loop {
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let peak = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))
            .and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
        most = most.max(peak.unwrap_or(0) * 1024);
        if child.try_wait().expect("it can be asked").is_some() {
            return most;
        }
        assert!(begun.elapsed() < PATIENCE, "it does not end");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Bytes of all files below a folder.
pub fn size(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).expect("it can be read").flatten();
    entries.map(|entry| entry.metadata().map_or(0, |meta| if meta.is_dir() { size(&entry.path()) } else { meta.len() })).sum()
}

/// What is printed.
#[derive(Default)]
pub struct Table {
    sections: Vec<Section>,
    rows: u64,
}

/// A line for each tool; columns as they come.
struct Section {
    title: String,
    columns: Vec<String>,
    lines: Vec<(String, BTreeMap<usize, String>)>,
}

impl Table {
    pub fn begin(&mut self, rows: u64) {
        self.rows = rows;
    }

    pub fn row(&mut self, section: &str, name: &str, figures: &[(&str, &str)]) {
        let title = format!("{section}, {} rows", self.rows);
        if self.sections.iter().all(|known| known.title != title) {
            self.sections.push(Section { title: title.clone(), columns: Vec::new(), lines: Vec::new() });
        }
        let Some(section) = self.sections.iter_mut().find(|known| known.title == title) else { return };
        let mut line = BTreeMap::new();
        for (column, value) in figures {
            let place = section.columns.iter().position(|known| known == column).unwrap_or_else(|| {
                section.columns.push((*column).to_owned());
                section.columns.len() - 1
            });
            line.insert(place, (*value).to_owned());
        }
        section.lines.push((name.to_owned(), line));
    }

    pub fn print(&self, runs: usize, version: &str) {
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        println!("Medians of at least {runs} runs with their ranges; {version}, {cores} cores.");
        for Section { title, columns, lines } in &self.sections {
            println!("\n| {title} | {} |\n|---|{}", columns.join(" | "), "---|".repeat(columns.len()));
            for (name, line) in lines {
                let cells: Vec<&str> = (0..columns.len()).map(|place| line.get(&place).map_or("–", String::as_str)).collect();
                println!("| {name} | {} |", cells.join(" | "));
            }
        }
    }
}
