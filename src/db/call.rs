//! What each command does.

use std::{
    fs,
    io::{Write as _, stdout},
    path::Path as FilePath,
    time::{Duration, Instant},
};

use object_store::path::Path;
use serde_json::json;

use super::{Result, agreed, points, show};
use crate::{
    api::{Migration, migration, names, release::CarryForward},
    cli::Output,
    mysql::{self, Capture, Database, Marker, Owner, Script, Store, Summary, Swap, Trial, Tried},
};

/// How long a cut-over waits for other transactions.
const DEADLINE: Duration = Duration::from_secs(30);

/// Stands where a Release's uid would: who does it, as the database remembers it.
const BY_HAND: &str = "by-hand";

/// Where ordinary tools find a point.
pub enum Folder<'a> {
    Here(&'a str),
    /// Below this URL: they need a copy.
    Away(&'a str),
}

/// What every command has at hand.
pub struct Call {
    pub store: Store,
    pub output: Output,
}

impl Call {
    pub async fn capture(&self, database: &Database, point: Option<String>, from: Option<String>) -> Result<()> {
        let point = point.unwrap_or_else(|| format!("{}-{}", database.name(), jiff::Timestamp::now().strftime("%Y%m%dt%H%M%Sz")));
        let prefix = path(&point)?;
        if let Some(there) = mysql::read_summary(&self.store, &prefix).await.map_err(told)? {
            return Err(format!(
                "backup point {point} is there already, of {} as of {}: choose another name",
                there.head.database, there.head.taken_at
            ));
        }
        let what = Capture { point: point.clone(), operation: names::operation(BY_HAND, now()), release: 0 };
        let begun = Instant::now();
        let taken = match from {
            None => mysql::capture(database, &self.store, &prefix, &what).await,
            Some(from) => mysql::import(database, &from, &self.store, &prefix, &what).await,
        };
        let taken = taken.map_err(told)?;
        let took = begun.elapsed();
        let facts = json!({"seconds": took.as_secs_f64(), "taken": show::facts(&prefix, &taken)});
        self.say(&facts, || format!("{}\n{}", show::summary(&prefix, &taken, took), show::limits(&taken)))
    }

    pub async fn list(&self) -> Result<()> {
        let (points, broken) = points(&self.store).await?;
        let facts: Vec<_> = points.iter().map(|(prefix, manifest)| show::facts(prefix, manifest)).collect();
        self.say(&json!(facts), || show::table(&points))?;
        if broken.is_empty() { Ok(()) } else { Err(broken.join("; ")) }
    }

    pub async fn verify(&self, point: &str) -> Result<()> {
        let prefix = path(point)?;
        let begun = Instant::now();
        let summary = mysql::verify(&self.store, &prefix).await.map_err(told)?;
        if self.store.has_identity() {
            mysql::read_manifest(&self.store, &prefix).await.map_err(told)?;
        }
        let (files, bytes) = (summary.files.len(), summary.bytes());
        let facts = json!({"point": point, "files": files, "bytes": bytes, "seconds": begun.elapsed().as_secs_f64()});
        self.say(&facts, || format!("{point}: {files} files, {bytes} bytes are what the manifest says"))
    }

    pub async fn rehearse(&self, database: &Database, point: &str) -> Result<()> {
        let scratch = names::shadow(database.name(), BY_HAND, &format!("rehearsal of {point}"));
        let done = mysql::rehearse(database, &self.store, &path(point)?, &scratch, &[]).await.map_err(told)?;
        let facts = json!({"point": point, "tables": done.tables, "rows": done.rows, "seconds": done.took.as_secs_f64()});
        self.say(&facts, || {
            format!(
                "{point}: {} tables with {} rows were loaded and compared in {:.1} s, and every table was checked",
                done.tables,
                done.rows,
                done.took.as_secs_f64()
            )
        })
    }

    pub async fn try_migrations(&self, database: &Database, point: &str, folder: &FilePath) -> Result<()> {
        let prefix = path(point)?;
        let applied = self.summary(&prefix).await?.head.migrations;
        let applied = applied.ok_or_else(|| format!("{point} does not say which migrations it holds"))?;
        let script = |migration: Migration| Script {
            down: migration.down.clone(),
            migration: mysql::Migration {
                version: migration.version,
                name: migration.name.clone(),
                checksum: migration.checksum(),
                sql: migration.up,
            },
        };
        let migrations = migration::pair(files(folder)?).map_err(|error| error.to_string())?;
        if migrations.is_empty() {
            return Err(format!("{} holds no migration", folder.display()));
        }
        let scripts: Vec<Script> = migrations.into_iter().filter(|migration| !applied.contains(&migration.version)).map(script).collect();
        if scripts.is_empty() {
            return Err(format!("{point} has all migrations of {} already", folder.display()));
        }
        let by_hand = || BY_HAND.to_owned();
        let owner = Owner { uid: by_hand(), cluster: by_hand(), namespace: by_hand(), name: by_hand(), operation: now() };
        let tried = Tried { scripts: &scripts, release: 0, owner: &owner, within: Duration::MAX };
        let scratch = names::shadow(database.name(), BY_HAND, &format!("try of {point}"));
        let trial = mysql::try_migrations(database, &self.store, &prefix, &scratch, &tried).await;
        if trial.is_err() {
            // Nobody comes again; what led here is what people have to read.
            let _ = mysql::discard(database, &scratch).await;
        }
        match trial.map_err(told)? {
            Trial::Failed { reason } => Err(format!("on a copy of {point}: {reason}")),
            Trial::Untold { reason } => Err(format!("nothing was tried: {reason}")),
            Trial::Passed { times, taken_back } => {
                let each: Vec<_> = times.iter().map(|(name, took)| json!({"migration": name, "seconds": took.as_secs_f64()})).collect();
                let facts = json!({"point": point, "migrations": each, "takenBack": taken_back});
                self.say(&facts, || {
                    let each: Vec<_> = times.iter().map(|(name, took)| format!("  {name} in {:.1} s", took.as_secs_f64())).collect();
                    format!(
                        "on a copy of {point} these went through, and the down scripts of {taken_back} of {} lead back:\n{}",
                        times.len(),
                        each.join("\n")
                    )
                })
            }
        }
    }

    pub async fn restore(&self, database: &Database, point: &str, yes: bool, carry: CarryForward) -> Result<()> {
        let (prefix, shadow) = (path(point)?, names::shadow(database.name(), BY_HAND, point));
        let begun = Instant::now();
        let manifest = self.summary(&prefix).await?;
        mysql::load(database, &self.store, &prefix, &shadow).await.map_err(told)?;
        let loaded = begun.elapsed();
        let lost = mysql::loss(database, &shadow).await.map_err(told)?;
        if !lost.is_empty() && !yes {
            eprintln!("since {} this was written, and would be taken away:\n{}", manifest.head.taken_at, show::losses(&lost));
            if !agreed("go on?")? {
                return Err(format!(
                    "nothing was replaced; {point} stands loaded in {shadow}: the same command with --yes goes on there, discard {shadow} drops it"
                ));
            }
        }
        let (operation, cut) = (now(), Instant::now());
        let aside = names::aside(database.name(), BY_HAND, operation);
        swap(
            database,
            &shadow,
            Marker { point: manifest.head.point, operation: names::operation(BY_HAND, operation), release: manifest.head.release },
            &aside,
        )
        .await?;
        let swapped = cut.elapsed();
        let carried = match carry {
            CarryForward::None => Vec::new(),
            CarryForward::Inserts => mysql::carry_forward(database, &aside).await.map_err(told)?,
        };
        let facts = json!({
            "point": point, "aside": aside, "lost": lost, "carried": carried,
            "loadSeconds": loaded.as_secs_f64(), "swapSeconds": swapped.as_secs_f64(),
        });
        self.say(&facts, || {
            format!(
                "{point} is live: loaded and compared in {:.1} s, swapped in within {} ms; what it replaced is kept in {aside}\n{}\
                 back again: backout db undo {aside}; when it is not needed any more: backout db discard {aside}",
                loaded.as_secs_f64(),
                swapped.as_millis(),
                show::carried(&carried)
            )
        })
    }

    pub async fn undo(&self, database: &Database, aside: &str) -> Result<()> {
        let operation = now();
        let replaced = names::aside(database.name(), BY_HAND, operation);
        let marker = Marker { point: aside.to_owned(), operation: names::operation(BY_HAND, operation), release: 0 };
        swap(database, aside, marker, &replaced).await?;
        self.say(&json!({"live": aside, "aside": replaced}), || {
            format!("what was kept in {aside} is live again; what it replaced is kept in {replaced}")
        })
    }

    pub async fn discard(&self, database: &Database, schema: &str) -> Result<()> {
        mysql::discard(database, schema).await.map_err(told)?;
        self.say(&json!({"discarded": schema}), || format!("{schema} is not there any more"))
    }

    /// The statements of all files, in their order.
    pub async fn export(&self, point: &str) -> Result<()> {
        mysql::export(&self.store, &path(point)?, &mut stdout().lock()).await.map_err(told)
    }

    pub async fn script(&self, point: &str, folder: Folder<'_>) -> Result<()> {
        let prefix = path(point)?;
        let manifest = self.summary(&prefix).await?;
        let folder = match folder {
            Folder::Here(store) => {
                let folder = std::path::absolute(store).map_err(|error| error.to_string())?.join(prefix.as_ref());
                show::Folder { name: folder.display().to_string(), copied_from: None }
            }
            Folder::Away(store) => {
                let name = prefix.filename().unwrap_or_default().to_owned();
                show::Folder { name, copied_from: Some(format!("{}/{prefix}", store.trim_end_matches('/'))) }
            }
        };
        let script = show::script(&manifest, &folder);
        self.say(&json!({"script": script}), || script.clone())
    }

    async fn summary(&self, prefix: &Path) -> Result<Summary> {
        let found = mysql::read_summary(&self.store, prefix).await.map_err(told)?;
        found.ok_or_else(|| format!("there is no backup point {prefix} in the store; backout db list shows those that there are"))
    }

    fn say(&self, facts: &serde_json::Value, text: impl FnOnce() -> String) -> Result<()> {
        let text = if self.output == Output::Json { facts.to_string() } else { text() };
        writeln!(stdout(), "{}", text.trim_end()).map_err(|error| error.to_string())
    }
}

fn told(error: mysql::Error) -> String {
    error.to_string()
}

fn path(point: &str) -> Result<Path> {
    Path::parse(point).map_err(|error| format!("{point:?} can't be the name of a backup point: {error}"))
}

/// Makes `source` live and keeps what it replaces in `aside`. Where the answer is lost, whether it happened is asked for.
async fn swap(database: &Database, source: &str, marker: Marker, aside: &str) -> Result<()> {
    let swap = Swap { shadow: source.to_owned(), aside: aside.to_owned(), marker, owner: None, deadline: DEADLINE };
    match mysql::swap(database, &swap).await {
        Err(mysql::Error::Lost { .. } | mysql::Error::TimedOut { .. }) => mysql::swap(database, &swap).await,
        done => done,
    }
    .map(drop)
    .map_err(told)
}

/// Numbers what is done by hand: nothing else remembers what was done before.
fn now() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or_default()
}

/// Name and text of every file of SQL in a folder.
fn files(folder: &FilePath) -> Result<Vec<(String, String)>> {
    let named = |error: std::io::Error| format!("{}: {error}", folder.display());
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(named)? {
        let entry = entry.map_err(named)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        // What else lies there is no migration.
        if entry.path().extension().is_none_or(|extension| !extension.eq_ignore_ascii_case("sql")) {
            continue;
        }
        files.push((name.clone(), fs::read_to_string(entry.path()).map_err(|error| format!("{name}: {error}"))?));
    }
    Ok(files)
}
