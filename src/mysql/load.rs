//! Loading a backup into a shadow schema and proving that it is the backup.
//!
//! Touches nothing live. Idempotent by the shadow's sign: a shadow that is complete for the same manifest is left as it is, a half-loaded
//! one is built anew. No row is executed before the digest of every file was compared.

use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use object_store::ObjectStore;
use object_store::path::Path;

use super::beside::{self, Beside, Standing};
use super::endpoint::{Database, Session};
use super::error::{Error, Result};
use super::ident::quote;
use super::manifest::{self, Manifest, read_manifest};
use super::store::Download;
use super::{checksum, definition, grants, inspect};

/// A transaction ends after this many bytes of SQL: larger ones need more undo log and make replicas lag, and rolling one back takes longer.
const TRANSACTION_BYTES: usize = 16 * 1024 * 1024;

/// Compressed bytes that are unpacked at once. What they become is held in memory, up to many thousand times as much.
const SLICE: usize = 4 * 1024;

/// While files are compared the server hears something this often. Together with one request to the store less than the server waits for.
const SPEAK_EVERY: Duration = Duration::from_secs(30);

/// What stands in the shadow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    pub tables: usize,
    pub rows: u64,
    /// The digest of the manifest that was loaded.
    pub digest: String,
}

/// Builds `shadow` from the backup at `prefix`, or returns at once if it stands there already.
///
/// The shadow has every table with its definition, rows, indexes, foreign keys and counters, and each table's rows and checksum were
/// compared with the manifest.
///
/// # Errors
/// [`Error::NoBackup`], [`Error::Corrupt`] before anything is executed; [`Error::Schema`] for a name that does not begin with
/// `{database}_backout_` or a schema that this engine did not make; [`Error::Mismatch`] when what was loaded is not the backup.
pub async fn load(database: &Database, store: &Arc<dyn ObjectStore>, prefix: &Path, shadow: &str) -> Result<Loaded> {
    beside::check_name(database.name(), shadow)?;
    let Some(manifest) = read_manifest(store, prefix).await? else {
        return Err(Error::NoBackup { prefix: prefix.to_string() });
    };
    let loaded = Loaded { tables: manifest.tables.len(), rows: manifest.rows(), digest: manifest.digest.clone() };
    let mut session = database.locked().await?;
    match beside::sign(&mut session, shadow).await? {
        Some(sign) if sign.state == Standing::Complete && sign.digest == manifest.digest => {
            session.close().await;
            return Ok(loaded);
        }
        Some(sign) if sign.state == Standing::Aside => {
            let reason = "it holds what a cut-over replaced; choose another name or discard it first".to_owned();
            return Err(Error::Schema { schema: shadow.to_owned(), reason });
        }
        Some(_) | None => {}
    }
    let missing = grants::missing(&mut session, database.name()).await?;
    if !missing.is_empty() {
        return Err(database.missing(missing));
    }
    check_packets(&mut session, &manifest).await?;
    for file in std::iter::once(&manifest.schema).chain(manifest.tables.iter().map(|table| &table.file)) {
        verify(&mut session, store, prefix.clone().join(file.name.as_str()), &file.sha256).await?;
    }

    beside::drop_schema(&mut session, shadow).await?;
    let mut sign =
        Beside { schema: shadow.to_owned(), state: Standing::Loading, point: manifest.point.clone(), digest: manifest.digest.clone() };
    create(&mut session, &sign, &manifest).await?;
    for table in &manifest.tables {
        rows(&mut session, store, prefix, table).await?;
    }
    compare(&mut session, shadow, &manifest).await?;
    sign.state = Standing::Complete;
    beside::write_sign(&mut session, &sign).await?;
    session.close().await;
    Ok(loaded)
}

/// Reads a whole file and compares its digest. The server is spoken to meanwhile: it ends a session, and with it the lock, that is silent.
async fn verify(session: &mut Session, store: &Arc<dyn ObjectStore>, path: Path, sha256: &str) -> Result<()> {
    let mut download = Download::begin(store, path).await?;
    let mut spoken = Instant::now();
    while download.portion().await?.is_some() {
        if spoken.elapsed() > SPEAK_EVERY {
            session.run("keep the session", "DO 0").await?;
            spoken = Instant::now();
        }
    }
    download.finish(sha256)
}

/// Before anything is executed: a statement or value that the server would cut or refuse.
async fn check_packets(session: &mut Session, manifest: &Manifest) -> Result<()> {
    let limit = inspect::packet_limit(session).await?;
    for table in &manifest.tables {
        let bytes = table.longest_statement.max(table.longest_value);
        if bytes > limit {
            return Err(Error::TooLarge { table: table.name.clone(), bytes, limit });
        }
    }
    Ok(())
}

/// The schema with its sign and its empty tables.
async fn create(session: &mut Session, sign: &Beside, manifest: &Manifest) -> Result<()> {
    let schema = quote(&sign.schema);
    let sql = format!("CREATE DATABASE {schema} CHARACTER SET {} COLLATE {}", quote(&manifest.charset), quote(&manifest.collation));
    session.run("create the shadow schema", &sql).await?;
    beside::write_sign(session, sign).await?;
    session.run("enter the shadow schema", &format!("USE {schema}")).await?;
    for table in &manifest.tables {
        session.run_long(&format!("create table {}", table.name), table.definition.clone()).await?;
    }
    Ok(())
}

/// Executes a table's file line by line, in transactions of bounded size.
async fn rows(session: &mut Session, store: &Arc<dyn ObjectStore>, prefix: &Path, table: &manifest::Table) -> Result<()> {
    let doing = format!("load table {}", table.name);
    let path = prefix.clone().join(table.file.name.as_str());
    let corrupt = |reason: String| Error::Corrupt { path: path.to_string(), reason };
    let mut download = Download::begin(store, path.clone()).await?;
    let mut decoder = zstd::stream::write::Decoder::new(Vec::new()).map_err(|error| corrupt(error.to_string()))?;
    let mut lines = Lines::default();
    let mut work = Work { session, doing, uncommitted: 0 };
    work.run("START TRANSACTION".to_owned()).await?;
    while let Some(portion) = download.portion().await? {
        for slice in portion.chunks(SLICE) {
            decoder.write_all(slice).map_err(|error| corrupt(error.to_string()))?;
            lines.push(&std::mem::take(decoder.get_mut()));
            work.all(&mut lines, &path).await?;
        }
    }
    decoder.flush().map_err(|error| corrupt(error.to_string()))?;
    lines.push(&std::mem::take(decoder.get_mut()));
    work.all(&mut lines, &path).await?;
    work.run("COMMIT".to_owned()).await?;
    // Compared before; again, because the file could have been replaced meanwhile.
    download.finish(&table.file.sha256)?;
    if lines.rest.is_empty() { Ok(()) } else { Err(corrupt("its last line is not complete".to_owned())) }
}

/// The execution of one table's lines.
struct Work<'a> {
    session: &'a mut Session,
    doing: String,
    /// Bytes of SQL since the last commit.
    uncommitted: usize,
}

impl Work<'_> {
    async fn all(&mut self, lines: &mut Lines, path: &Path) -> Result<()> {
        while let Some(line) = lines.next() {
            let sql = String::from_utf8(line).map_err(|error| Error::Corrupt { path: path.to_string(), reason: error.to_string() })?;
            self.uncommitted += sql.len();
            self.run(sql).await?;
            if self.uncommitted > TRANSACTION_BYTES {
                self.run("COMMIT AND CHAIN".to_owned()).await?;
                self.uncommitted = 0;
            }
        }
        Ok(())
    }

    async fn run(&mut self, sql: String) -> Result<()> {
        self.session.run_long(&self.doing, sql).await.map(drop)
    }
}

/// Definitions, rows and checksums against the manifest.
async fn compare(session: &mut Session, shadow: &str, manifest: &Manifest) -> Result<()> {
    let mismatch = |table: &str, reason: String| Error::Mismatch { schema: shadow.to_owned(), table: table.to_owned(), reason };
    let found = beside::tables(session, shadow).await?;
    for table in &found {
        if manifest.tables.iter().all(|expected| expected.name != table.name) {
            return Err(mismatch(&table.name, "the backup has no such table".to_owned()));
        }
    }
    for expected in &manifest.tables {
        let Some(table) = found.iter().find(|table| table.name == expected.name) else {
            return Err(mismatch(&expected.name, "it was not created".to_owned()));
        };
        let definition = definition::of(session, shadow, &table.name).await?;
        if definition::without_counter(&definition) != definition::without_counter(&expected.definition) {
            return Err(mismatch(&table.name, format!("its definition became {definition}")));
        }
        let sum = checksum::sum(session, shadow, table).await?;
        if sum.rows != expected.sum.rows {
            return Err(mismatch(&table.name, format!("{} rows instead of {}", sum.rows, expected.sum.rows)));
        }
        if sum != expected.sum {
            return Err(mismatch(&table.name, "as many rows, but other values".to_owned()));
        }
    }
    Ok(())
}

/// Cuts bytes into lines. A line is a statement: no statement of a table's file contains a line break.
#[derive(Default)]
struct Lines {
    rest: Vec<u8>,
    ready: std::collections::VecDeque<Vec<u8>>,
}

impl Lines {
    fn push(&mut self, bytes: &[u8]) {
        let mut bytes = bytes;
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            let (line, after) = bytes.split_at(end + 1);
            self.rest.extend_from_slice(line);
            self.ready.push_back(std::mem::take(&mut self.rest));
            bytes = after;
        }
        self.rest.extend_from_slice(bytes);
    }

    fn next(&mut self) -> Option<Vec<u8>> {
        self.ready.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::Lines;

    #[test]
    fn lines_are_cut_wherever_the_portions_end() {
        let mut lines = Lines::default();
        let mut found = Vec::new();
        for portion in ["a;", "\nbb", ";\nc", ";\n\n", "d"] {
            lines.push(portion.as_bytes());
            while let Some(line) = lines.next() {
                found.push(String::from_utf8(line).expect("the test's text is ASCII"));
            }
        }
        assert_eq!(found, ["a;\n", "bb;\n", "c;\n", "\n"]);
        assert_eq!(lines.rest, b"d");
    }
}
