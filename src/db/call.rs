//! What each command does.

use std::{
    io::{Write as _, stdout},
    sync::Arc,
    time::{Duration, Instant},
};

use object_store::{ObjectStore, path::Path};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::{Result, agreed, points, show};
use crate::{
    cli::Output,
    mysql::{self, Capture, Database, Manifest, Marker, Swap, TableLoss},
};

/// How long a cut-over waits for other transactions.
const DEADLINE: Duration = Duration::from_secs(30);

/// What every command has at hand.
pub struct Call {
    pub store: Arc<dyn ObjectStore>,
    pub output: Output,
}

impl Call {
    pub async fn capture(&self, database: &Database, point: Option<String>) -> Result<()> {
        let point = point.unwrap_or_else(|| format!("{}-{}", database.name(), stamp()));
        let prefix = path(&point)?;
        let what = Capture { point: point.clone(), operation: by_hand(), release: 0 };
        let begun = Instant::now();
        let manifest = mysql::capture(database, &self.store, &prefix, &what).await.map_err(told)?;
        let took = begun.elapsed();
        let facts = json!({"seconds": took.as_secs_f64(), "taken": show::facts(&prefix, &manifest)});
        self.say(&facts, || format!("{}\n{}", show::summary(&prefix, &manifest, took), show::limits(&manifest)))
    }

    pub async fn list(&self) -> Result<()> {
        let points = points(&self.store).await?;
        let facts: Vec<_> = points.iter().map(|(prefix, manifest)| show::facts(prefix, manifest)).collect();
        self.say(&json!(facts), || show::table(&points))
    }

    pub async fn verify(&self, point: &str) -> Result<()> {
        let prefix = path(point)?;
        let begun = Instant::now();
        let manifest = mysql::verify(&self.store, &prefix).await.map_err(told)?;
        let facts =
            json!({"point": point, "files": manifest.files().count(), "bytes": manifest.bytes(), "seconds": begun.elapsed().as_secs_f64()});
        self.say(&facts, || format!("{point}: {} files, {} bytes are what the manifest says", manifest.files().count(), manifest.bytes()))
    }

    pub async fn rehearse(&self, database: &Database, point: &str) -> Result<()> {
        let scratch = beside(database, point, "rehearsal");
        let done = mysql::rehearse(database, &self.store, &path(point)?, &scratch).await.map_err(told)?;
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

    pub async fn restore(&self, database: &Database, point: &str, yes: bool) -> Result<()> {
        let (prefix, shadow) = (path(point)?, beside(database, point, "shadow"));
        let begun = Instant::now();
        let manifest = self.manifest(&prefix).await?;
        mysql::load(database, &self.store, &prefix, &shadow).await.map_err(told)?;
        let loaded = begun.elapsed();
        let lost = mysql::loss(database, &shadow).await.map_err(told)?;
        if !lost.is_empty() && !yes {
            eprintln!("since {} this was written, and would be taken away:\n{}", manifest.taken_at, show::losses(&lost));
            if !agreed("go on?")? {
                return Err(format!(
                    "nothing was replaced; {point} stands loaded in {shadow}: the same command with --yes goes on there, discard {shadow} drops it"
                ));
            }
        }
        let (aside, cut) = (beside(database, &stamp(), "aside"), Instant::now());
        self.swap(database, &shadow, &aside, &manifest.point, manifest.release).await?;
        let facts = json!({
            "point": point, "aside": aside, "lost": lost.iter().map(loss).collect::<Vec<_>>(),
            "loadSeconds": loaded.as_secs_f64(), "swapSeconds": cut.elapsed().as_secs_f64(),
        });
        self.say(&facts, || {
            format!(
                "{point} is live: loaded and compared in {:.1} s, swapped in within {} ms; what it replaced is kept in {aside}\n\
                 back again: backout db undo {aside}; when it is not needed any more: backout db discard {aside}",
                loaded.as_secs_f64(),
                cut.elapsed().as_millis()
            )
        })
    }

    pub async fn undo(&self, database: &Database, aside: &str) -> Result<()> {
        let replaced = beside(database, &stamp(), "aside");
        self.swap(database, aside, &replaced, aside, 0).await?;
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

    pub async fn script(&self, point: &str, store: &std::path::Path) -> Result<()> {
        let prefix = path(point)?;
        let manifest = self.manifest(&prefix).await?;
        let folder = std::path::absolute(store).map_err(|error| error.to_string())?.join(prefix.as_ref());
        self.say(&json!({"script": show::script(&manifest, &folder)}), || show::script(&manifest, &folder))
    }

    async fn swap(&self, database: &Database, source: &str, aside: &str, point: &str, release: u64) -> Result<()> {
        let swap = Swap {
            shadow: source.to_owned(),
            aside: aside.to_owned(),
            marker: Marker { point: point.to_owned(), operation: by_hand(), release },
            owner: None,
            deadline: DEADLINE,
        };
        mysql::swap(database, &swap).await.map(drop).map_err(told)
    }

    async fn manifest(&self, prefix: &Path) -> Result<Manifest> {
        let found = mysql::read_manifest(&self.store, prefix).await.map_err(told)?;
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

/// A schema beside the live one; the same for the same `what`, so that a command that was interrupted finds what it left.
fn beside(database: &Database, what: &str, kind: &str) -> String {
    let hash: String = hex::encode(Sha256::digest(what)).chars().take(10).collect();
    format!("{}_backout_hand_{hash}_{kind}", database.name())
}

fn stamp() -> String {
    jiff::Timestamp::now().strftime("%Y%m%dt%H%M%S%3fz").to_string()
}

/// Who does it, as the database remembers it.
fn by_hand() -> String {
    format!("by-hand/{}", stamp())
}

fn loss(loss: &TableLoss) -> serde_json::Value {
    let TableLoss { table, inserted, changed, deleted, basis: _, untold } = loss;
    json!({"table": table, "inserted": inserted, "changed": changed, "deleted": deleted, "untold": untold})
}
