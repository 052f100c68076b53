//! What people see.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};
use object_store::path::Path;
use serde_json::{Value, json};

use crate::mysql::{Agreement, Carried, Encryption, Part, Progress, Summary, TableLoss};

/// A bar for each part of a call, one after the other.
pub fn bars() -> impl Fn(Progress) + Send + Sync + 'static {
    let bar: Mutex<Option<(Part, ProgressBar)>> = Mutex::new(None);
    move |progress| {
        let mut bar = bar.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, bar) = match bar.take() {
            Some((part, current)) if part == progress.part => bar.insert((part, current)),
            ended => {
                if let Some((_, ended)) = ended {
                    ended.finish();
                }
                bar.insert((progress.part, begun(progress.part, progress.total)))
            }
        };
        bar.set_length(progress.total);
        bar.set_position(progress.done);
    }
}

fn begun(part: Part, total: u64) -> ProgressBar {
    let (what, unit) = match part {
        Part::Capture => ("capture", "{human_pos}/{human_len} rows"),
        Part::Verify => ("verify", "{bytes}/{total_bytes}"),
        Part::Load => ("load", "{human_pos}/{human_len} rows"),
        Part::Compare => ("compare", "{human_pos}/{human_len} rows"),
    };
    let template = format!("{{msg:>8}} {{bar:30}} {unit} {{elapsed}}, {{eta}} left");
    let bar = ProgressBar::new(total).with_message(what);
    if let Ok(style) = ProgressStyle::with_template(&template) {
        bar.set_style(style);
    }
    bar
}

pub fn facts(prefix: &Path, summary: &Summary) -> Value {
    json!({
        "point": prefix.to_string(),
        "database": summary.head.database,
        "takenAt": summary.head.taken_at,
        "server": summary.head.server_version,
        "position": summary.head.position,
        "agreement": summary.head.agreement,
        "schemaVersion": summary.head.schema_version,
        "tables": summary.tables,
        "files": summary.files.len(),
        "encryption": summary.encryption,
        "rows": summary.rows,
        "bytes": summary.bytes(),
        "digest": summary.head.digest,
    })
}

pub fn summary(prefix: &Path, summary: &Summary, took: Duration) -> String {
    format!(
        "{prefix}: {} tables, {} rows, {} bytes of {} as of {} in {:.1} s",
        summary.tables,
        summary.rows,
        summary.bytes(),
        summary.head.database,
        summary.head.taken_at,
        took.as_secs_f64()
    )
}

/// What this backup can't be used for, and why it took longer than it could have.
pub fn limits(summary: &Summary) -> String {
    let mut limits = Vec::new();
    if summary.head.position.is_none() {
        limits.push("its place in a binary log is not known: which changes came after it can't be told from one");
    }
    if summary.head.agreement == Agreement::OneSession {
        limits.push("one session read it all: several need the privilege RELOAD, or a binary log, to see the same instant");
    }
    limits.join("\n")
}

pub fn losses(losses: &[TableLoss]) -> String {
    losses.iter().map(|loss| format!("  {loss}")).collect::<Vec<_>>().join("\n")
}

pub fn table(points: &[(Path, Summary)]) -> String {
    if points.is_empty() {
        return "there is no backup point in the store".to_owned();
    }
    let head = ["POINT", "DATABASE", "TAKEN", "SCHEMA", "TABLES", "ROWS", "BYTES"].map(str::to_owned);
    let row = |(prefix, summary): &(Path, Summary)| {
        [
            prefix.to_string(),
            summary.head.database.clone(),
            summary.head.taken_at.clone(),
            summary.head.schema_version.map_or_else(|| "-".to_owned(), |version| version.to_string()),
            summary.tables.to_string(),
            summary.rows.to_string(),
            summary.bytes().to_string(),
        ]
    };
    let rows: Vec<[String; 7]> = std::iter::once(head).chain(points.iter().map(row)).collect();
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..7).map(width).collect();
    let line = |row: &[String; 7]| {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        cells.join("   ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// What was carried forward, a line for each table; empty where nothing stood aside.
pub fn carried(tables: &[Carried]) -> String {
    let line = |table: &Carried| {
        let why = if table.why.is_empty() { String::new() } else { format!(": {}", table.why.join("; ")) };
        format!("{}: {} rows carried forward, {} kept aside{why}\n", table.table, table.carried, table.kept)
    };
    tables.iter().map(line).collect()
}

/// Where the script finds the files.
pub struct Folder {
    pub name: String,
    /// The URL of which the folder is a copy that somebody has to make.
    pub copied_from: Option<String>,
}

/// Restores with ordinary tools: digests first, then every file in its order.
pub fn script(summary: &Summary, folder: &Folder) -> String {
    let quoted = |text: &str| format!("'{}'", text.replace('\'', r"'\''"));
    let sums: String = summary.files.iter().map(|file| format!("{}  {}\n", file.sha256, file.name)).collect();
    let first = summary.files.first().map(|file| quoted(&file.name)).unwrap_or_default();
    let (files, open) = match summary.encryption {
        None => ("*.sql.zst", "zstd --decompress --stdout \"$file\""),
        Some(Encryption::Age) => ("*.sql.zst.age", "age --decrypt --identity \"$identity\" \"$file\" | zstd --decompress --stdout"),
    };
    let (needs, identity, try_it) = match summary.encryption {
        None => ("", "", String::new()),
        Some(Encryption::Age) => (
            "# It is encrypted: IDENTITY=FILE names the file with the secret key for age.\n",
            "identity=$(realpath \"$IDENTITY\")\n",
            // A pipe ends well where only its beginning failed.
            format!("age --decrypt --identity \"$identity\" {first} >/dev/null\n"),
        ),
    };
    let copy = folder.copied_from.as_ref().map(|url| format!("# It runs beside a copy of {url}, in the folder {}.\n", folder.name));
    format!(
        "#!/bin/sh\n\
         # Restores {point} ({rows} rows of {database} as of {taken}) into an empty schema, for example: sh restore.sh my_schema\n\
         {copy}{needs}\
         # The client reads host, user and password from its own configuration, ~/.my.cnf.\n\
         set -eu\n\
         schema=$1\n\
         client=${{CLIENT:-mariadb}}\n\
         {identity}\
         cd {folder}\n\
         sha256sum --check --quiet <<'SUMS'\n\
         {sums}SUMS\n\
         {try_it}\
         $client --execute \"CREATE DATABASE \\`$schema\\` CHARACTER SET {charset} COLLATE {collation}\"\n\
         for file in {files}; do\n\
         \x20 {open} | $client --default-character-set=utf8mb4 --max-allowed-packet=1G \"$schema\"\n\
         done\n",
        point = summary.head.point,
        rows = summary.rows,
        database = summary.head.database,
        taken = summary.head.taken_at,
        folder = quoted(&folder.name),
        copy = copy.unwrap_or_default(),
        charset = summary.head.charset,
        collation = summary.head.collation,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_store_says_so() {
        assert_eq!(table(&[]), "there is no backup point in the store");
    }
}
