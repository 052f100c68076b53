//! Loading a backup into a shadow schema and proving that it is the backup.
//!
//! Touches nothing live. Idempotent by the shadow's sign: a shadow that is complete for the same manifest is left as it is, and one that is
//! half loaded for it goes on at the chunks that are not there. No row is executed before the digest of every file was compared.

use std::sync::Arc;
use std::time::{Duration, Instant};

use object_store::path::Path;

use super::beside::{self, Beside, Note, Set, Standing};
use super::crew;
use super::endpoint::{Database, Session};
use super::error::{Error, Result};
use super::ident::quote;
use super::manifest::{self, Chunk, Head, Manifest};
use super::pace::Pace;
use super::progress::{Counter, Part};
use super::store::{Store, Unpacked};
use super::{checksum, definition, files, grants, inspect, lock, recreate, sequence};

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
/// The shadow has every table with its definition, rows, indexes, foreign keys and counters, and each chunk's rows and checksum were
/// compared with the manifest.
///
/// # Errors
/// [`Error::NoBackup`], [`Error::Corrupt`] before anything is executed; [`Error::Schema`] for a name that does not begin with
/// `{database}_backout_` or a schema that this engine did not make; [`Error::Mismatch`] when what was loaded is not the backup.
pub async fn load(database: &Database, store: &Store, prefix: &Path, shadow: &str) -> Result<Loaded> {
    beside::check_name(database.name(), shadow)?;
    let manifest = files::complete(store, prefix).await?;
    let loaded = Loaded { tables: manifest.tables.len(), rows: manifest.rows(), digest: manifest.head.digest.clone() };
    let mut session = database.locked().await?;
    let there = beside::sign(&mut session, shadow).await?;
    match &there {
        Some(sign) if sign.state == Standing::Complete && sign.digest == manifest.head.digest => {
            session.close().await;
            return Ok(loaded);
        }
        Some(sign) if sign.state == Standing::Aside => {
            let reason = "it holds what a cut-over replaced; choose another name or discard it first".to_owned();
            return Err(Error::Schema { schema: shadow.to_owned(), reason });
        }
        Some(_) | None => {}
    }
    grants::suffice(&mut session, database, &manifest.objects).await?;
    check_packets(&mut session, &manifest).await?;
    // Those of an operator that was killed: the server ends them once they have done what they were at.
    lock::alone(&mut session, database.name()).await?;
    let counter = database.listening().begin(Part::Verify, manifest.bytes());
    for file in manifest.files() {
        crew::beside(&mut session, files::whole(store, prefix, file)).await?;
        counter.add(file.bytes);
    }

    let begun = there.is_some_and(|sign| sign.digest == manifest.head.digest);
    let noted = if begun { beside::chunks(&mut session, shadow).await? } else { None };
    if noted.is_none() {
        beside::drop_schema(&mut session, shadow).await?;
        create(&mut session, shadow, &manifest).await?;
    }
    let noted = noted.unwrap_or_default();
    let mut helpers = helpers(database).await?;
    let pace = if database.yields() { Some(Pace::begin(database, shadow).await?) } else { None };
    let work = Arc::new(Work { store: store.clone(), prefix: prefix.clone(), shadow: shadow.to_owned(), pace });
    let chunks = manifest.tables.iter().flat_map(|table| table.chunks.iter().map(|chunk| (table.name.clone(), chunk.clone())));
    let left: Vec<_> = chunks.filter(|(_, chunk)| !noted.contains(&chunk.file.name)).collect();
    let counter = database.listening().begin(Part::Load, left.iter().map(|(_, chunk)| chunk.sum.rows).sum());
    helpers = work.each(&mut session, helpers, left, counter, Work::load).await?;

    let counter = database.listening().begin(Part::Compare, loaded.rows);
    let compared = compare(&work, &mut session, helpers, &manifest, counter).await;
    if let Err(Error::Mismatch { .. }) = &compared {
        // The next one begins anew.
        beside::forget_chunks(&mut session, shadow).await?;
    }
    crew::dismiss(compared?).await;
    // With its pulse.
    drop(work);
    recreate::try_in(&mut session, shadow, &manifest.objects).await?;
    beside::keep(&mut session, shadow, Note::Objects, &manifest.objects).await?;
    beside::forget(&mut session, shadow, Note::Pulse).await?;
    beside::write_sign(&mut session, &sign(shadow, &manifest, Standing::Complete)).await?;
    session.close().await;
    Ok(loaded)
}

/// Definitions, rows and checksums against the manifest.
async fn compare(
    work: &Arc<Work>,
    session: &mut Session,
    helpers: Vec<Session>,
    manifest: &Manifest,
    counter: Counter,
) -> Result<Vec<Session>> {
    let Set { tables, sequences } = beside::set(session, &work.shadow).await?;
    sequence::compare(session, &work.shadow, &sequences, &manifest.sequences).await?;
    let tables = definitions(session, &work.shadow, tables, manifest).await?.into_iter().map(Arc::new);
    let of_table = |(table, expected): (Arc<inspect::Table>, &manifest::Table)| {
        expected.chunks.iter().map(|chunk| (Arc::clone(&table), chunk.clone())).collect::<Vec<_>>()
    };
    work.each(session, helpers, tables.zip(&manifest.tables).flat_map(of_table).collect(), counter, Work::compare).await
}

/// Sessions that write for the one that holds the lock.
async fn helpers(database: &Database) -> Result<Vec<Session>> {
    let mut helpers = Vec::new();
    for number in 0..database.connections() {
        let mut helper = database.session().await?;
        lock::help(&mut helper, database.name(), number).await?;
        helpers.push(helper);
    }
    Ok(helpers)
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

fn sign(shadow: &str, Manifest { head: Head { point, digest, .. }, .. }: &Manifest, state: Standing) -> Beside {
    Beside { schema: shadow.to_owned(), state, point: point.clone(), digest: digest.clone() }
}

/// The schema with its sign and its empty tables.
async fn create(session: &mut Session, shadow: &str, manifest: &Manifest) -> Result<()> {
    let schema = quote(shadow);
    let Manifest { head: Head { charset, collation, .. }, sequences, tables, .. } = manifest;
    let sql = format!("CREATE DATABASE {schema} CHARACTER SET {} COLLATE {}", quote(charset), quote(collation));
    session.run("create the shadow schema", &sql).await?;
    beside::write_sign(session, &sign(shadow, manifest, Standing::Loading)).await?;
    session.run("enter the shadow schema", &format!("USE {schema}")).await?;
    sequence::create(session, sequences).await?;
    for table in tables {
        session.run_long(&format!("create table {}", table.name), table.definition.clone()).await?;
    }
    beside::begin_chunks(session, shadow).await
}

/// The shadow's tables in the manifest's order, whose definitions are those of the manifest.
async fn definitions(
    session: &mut Session,
    shadow: &str,
    mut found: Vec<inspect::Table>,
    manifest: &Manifest,
) -> Result<Vec<inspect::Table>> {
    for table in &found {
        if manifest.tables.iter().all(|expected| expected.name != table.name) {
            return Err(mismatch(shadow, &table.name, "the backup has no such table".to_owned()));
        }
    }
    let mut tables = Vec::new();
    for expected in &manifest.tables {
        let Some(at) = found.iter().position(|table| table.name == expected.name) else {
            return Err(mismatch(shadow, &expected.name, "it was not created".to_owned()));
        };
        let definition = definition::of(session, shadow, &expected.name).await?;
        if definition::without_counter(&definition) != definition::without_counter(&expected.definition) {
            return Err(mismatch(shadow, &expected.name, format!("its definition became {definition}")));
        }
        tables.push(found.swap_remove(at));
    }
    Ok(tables)
}

fn mismatch(shadow: &str, table: &str, reason: String) -> Error {
    Error::Mismatch { schema: shadow.to_owned(), table: table.to_owned(), reason }
}

/// What all sessions need.
struct Work {
    store: Store,
    prefix: Path,
    shadow: String,
    /// None: as fast as it goes.
    pace: Option<Pace>,
}

impl Work {
    /// Lets the helpers do something with each of `jobs`, tells how many rows that were, and keeps the holder's session meanwhile.
    async fn each<J: Send + 'static, F: Future<Output = Result<(Session, u64)>> + Send + 'static>(
        self: &Arc<Self>,
        holder: &mut Session,
        helpers: Vec<Session>,
        jobs: Vec<J>,
        counter: Counter,
        act: impl Fn(Arc<Self>, Session, J) -> F + Clone + Send + 'static,
    ) -> Result<Vec<Session>> {
        let (work, counter) = (Arc::clone(self), Arc::new(counter));
        let done = crew::share(helpers, jobs, move |session, job, _| {
            let (done, counter) = (act(Arc::clone(&work), session, job), Arc::clone(&counter));
            async move {
                let (session, rows) = done.await?;
                counter.add(rows);
                Ok((session, ()))
            }
        });
        Ok(crew::beside(holder, done).await?.0)
    }

    /// Executes a chunk's file line by line, in one transaction with the note that it is there.
    async fn load(self: Arc<Self>, mut session: Session, (table, Chunk { file, sum, .. }): (String, Chunk)) -> Result<(Session, u64)> {
        let doing = format!("load table {table}");
        let path = self.prefix.clone().join(file.name.as_str());
        let mut unpacked = Unpacked::begin(&self.store, path.clone()).await?;
        let mut lines = Lines::default();
        session.run(&doing, &format!("USE {}", quote(&self.shadow))).await?;
        session.run(&doing, "START TRANSACTION").await?;
        while let Some(bytes) = unpacked.next().await? {
            lines.push(&bytes);
            self.execute(&mut session, &doing, &mut lines, &path).await?;
        }
        // Compared before; again, because the file could have been replaced meanwhile.
        unpacked.finish(&file.sha256)?;
        if !lines.rest.is_empty() {
            return Err(Error::Corrupt { path: path.to_string(), reason: "its last line is not complete".to_owned() });
        }
        session.run(&doing, &beside::chunk_noted(&self.shadow, &file.name)).await?;
        session.run_long(&doing, "COMMIT".to_owned()).await?;
        Ok((session, sum.rows))
    }

    /// A chunk's rows and checksum against the manifest.
    async fn compare(
        self: Arc<Self>,
        mut session: Session,
        (table, Chunk { range, sum: expected, .. }): (Arc<inspect::Table>, Chunk),
    ) -> Result<(Session, u64)> {
        let begun = Instant::now();
        let sum = checksum::sum_of(&mut session, &self.shadow, &table, &range).await?;
        self.rest(begun.elapsed()).await;
        let part = range.condition(&table.key, &table.name).map(|rows| format!(" where {rows}")).unwrap_or_default();
        if sum.rows != expected.rows {
            return Err(mismatch(&self.shadow, &table.name, format!("{} rows{part} instead of {}", sum.rows, expected.rows)));
        }
        if sum != expected {
            return Err(mismatch(&self.shadow, &table.name, format!("as many rows{part}, but other values")));
        }
        Ok((session, sum.rows))
    }

    async fn execute(&self, session: &mut Session, doing: &str, lines: &mut Lines, path: &Path) -> Result<()> {
        while let Some(line) = lines.next() {
            let sql = String::from_utf8(line).map_err(|error| Error::Corrupt { path: path.to_string(), reason: error.to_string() })?;
            let begun = Instant::now();
            session.run_long(doing, sql).await?;
            self.rest(begun.elapsed()).await;
        }
        Ok(())
    }

    async fn rest(&self, worked: Duration) {
        if let Some(pace) = &self.pace {
            pace.rest(worked).await;
        }
    }
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
