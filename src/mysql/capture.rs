//! Taking a backup: one consistent snapshot of every base table into the object store.
//!
//! Writes nothing to the database. Idempotent by its manifest, which is written last: a complete backup is returned as it is, anything
//! half-written is overwritten file by file, and what is left of it is removed.
//!
//! Several sessions see the same instant ([`super::views`]) and share the work range by range ([`super::chunk`]). A table's metadata lock
//! is held only while a range of it is read, so DDL elsewhere does not queue up; DDL on a table between snapshot and reading is noticed
//! (the server's error 1412, or another definition) and fails the backup.
//!
//! Memory: each session holds one row, one portion of SQL and one of compressed bytes at a time, and what the store's client keeps of
//! the file at hand; nothing grows with the table.

use std::collections::BTreeSet;
use std::sync::Arc;

use object_store::path::Path;

use super::bookkeeping::State;
use super::checksum::TableSum;
use super::chunk::{Key, Range};
use super::crew::{self, Jobs};
use super::endpoint::{Database, SESSION, Session};
use super::error::{Error, Result};
use super::ident::{literal, quote};
use super::inspect::{self, Table};
use super::manifest::{self, Chunk, File, Head, Manifest};
use super::progress::{Counter, Part};
use super::rows::{Shape, Writer};
use super::store::{Store, Upload, sweep};
use super::stored::{self, StoredObject};
use super::summary::{Summary, read_summary};
use super::{definition, granted, sequence, swap, views};

/// What a backup is called and whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capture {
    /// The backup point's name.
    pub point: String,
    /// The operation that wants it.
    pub operation: String,
    /// The release number that is live.
    pub release: u64,
}

/// Rows are handed to the compressor once they make up this many bytes.
const PORTION: usize = 256 * 1024;
/// A file with more bytes of SQL than this many chunks ends with its row: a range of long rows becomes several files.
const LONGEST_FILE: u64 = 2;
/// Lets rows of a system-versioned table say since when and until when they were as they are.
const WITH_HISTORY: &str = "SET system_versioning_insert_history=1;\n";

/// Takes a consistent backup of the live schema into `prefix`, or finds the one that is there: for that it needs no key.
///
/// # Errors
/// [`Error::Unsupported`] and [`Error::MissingGrants`] before anything is read; [`Error::Moved`] when DDL came between: take it again;
/// [`Error::Corrupt`] when another point's manifest lies at `prefix`.
pub async fn capture(database: &Database, store: &Store, prefix: &Path, what: &Capture) -> Result<Summary> {
    captured(database, store, prefix, what, |manifest| manifest).await
}

/// Takes a backup of schema `from` of the same server for one of the database's own: somebody has loaded a dump into it. When that was taken,
/// and from where in the binary log, nothing here can tell.
///
/// # Errors
/// As [`capture`], of that schema; [`Error::Schema`] for the live one, and for one without tables: a restore would leave none.
pub async fn import(database: &Database, from: &str, store: &Store, prefix: &Path, what: &Capture) -> Result<Summary> {
    if from == database.name() {
        return Err(Error::Schema { schema: from.to_owned(), reason: "it is the live schema itself: capture it".to_owned() });
    }
    let source = database.in_schema(from);
    let mut session = source.session().await?;
    let is_empty = inspect::list(&mut session, from).await?.tables.is_empty();
    session.close().await;
    if is_empty {
        return Err(Error::Schema {
            schema: from.to_owned(),
            reason: "it holds no table that could be taken: load the dump into it first".to_owned(),
        });
    }
    let as_its_own = |manifest: Manifest| {
        let head = Head { database: database.name().to_owned(), position: None, ..manifest.head };
        Manifest { head, ..manifest }
    };
    captured(&source, store, prefix, what, as_its_own).await
}

async fn captured(
    database: &Database,
    store: &Store,
    prefix: &Path,
    what: &Capture,
    told: impl FnOnce(Manifest) -> Manifest,
) -> Result<Summary> {
    if let Some(there) = read_summary(store, prefix).await? {
        if there.head.point == what.point {
            return Ok(there);
        }
        let reason = format!("it belongs to backup point {}; give {} a prefix of its own", there.head.point, what.point);
        return Err(Error::Corrupt { path: prefix.to_string(), reason });
    }
    let mut session = database.locked().await?;
    swap::settle(&mut session, database).await?;
    let manifest = take(database, &mut session, store, prefix, what).await?;
    // An earlier try that did not come to its end may have cut the tables in other places.
    let names: BTreeSet<&str> = manifest.files().map(|file| file.name.as_str()).collect();
    sweep(store, prefix, |name| names.contains(name)).await?;
    session.close().await;
    told(manifest).write(store, prefix).await
}

async fn take(database: &Database, session: &mut Session, store: &Store, prefix: &Path, what: &Capture) -> Result<Manifest> {
    // Definitions first: if one is the same under the snapshot, the columns listed in between belong to it.
    let names: Vec<String> = inspect::list(session, database.name()).await?.tables.into_iter().map(|table| table.name).collect();
    let mut definitions = Vec::new();
    for name in &names {
        definitions.push(definition::without_counter(&definition::of(session, database.name(), name).await?));
    }
    let inventory = inspect::look_strictly(database, session).await?;
    let objects = stored::read(session, database.name()).await?;
    let sequences = sequence::read(session, database.name(), &inventory.sequences).await?;
    if inventory.tables.iter().map(|table| &table.name).ne(&names) {
        return Err(moved_set(&names, &inventory.tables));
    }
    let (charset, collation) = defaults(session, database.name()).await?;
    let views = views::open(database, database.connections()).await?;

    let work = Arc::new(Work {
        schema: database.name().to_owned(),
        chunk: database.chunk(),
        progress: database.listening().begin(Part::Capture, inventory.tables.iter().map(|table| table.estimated_rows).sum()),
        store: store.clone(),
        prefix: prefix.clone(),
    });
    let sources = inventory.tables.iter().cloned().zip(definitions).enumerate();
    let jobs = sources.map(|(index, (table, expected))| Job {
        source: Arc::new(Source { number: index + 1, table, expected }),
        range: 1,
        after: None,
    });
    let read = crew::share(views.sessions, jobs, move |session, job, jobs| Arc::clone(&work).range(session, job, jobs));
    let (sessions, pieces) = crew::beside(session, read).await?;
    crew::dismiss(sessions).await;
    let after = inspect::list(session, database.name()).await?;
    if after.tables.iter().map(|table| &table.name).ne(&names) {
        return Err(moved_set(&names, &after.tables));
    }
    let objects_after = stored::read(session, database.name()).await?;
    if objects_after != objects {
        return Err(Error::Moved { what: changed(&objects, &objects_after) });
    }
    // Read again: nothing that the rows of the snapshot hold is given out anew.
    let sequences_after = sequence::read(session, database.name(), &after.sequences).await?;
    if let Some(name) = sequence::changed(&sequences, &sequences_after) {
        return Err(Error::Moved { what: format!("sequence {name}") });
    }
    let tables = gathered(&inventory.tables, pieces);

    // Sorts before the tables' files, so that one `zstd -dc *.sql.zst` restores everything in order.
    let definitions: String = tables.iter().map(|table| format!("{};\n", table.definition)).collect();
    let schema = write(store, prefix, "0000-schema", &format!("{SESSION};\n{}{definitions}", sequence::script(&sequences_after))).await?;
    // And this one after them: triggers must not fire for rows that are restored.
    let stored = match objects.as_slice() {
        [] => None,
        objects => Some(write(store, prefix, "objects", &stored::script(objects)).await?),
    };
    let mut migrations: Vec<u64> = inventory.migrations.iter().filter(|row| row.state == State::Applied).map(|row| row.version).collect();
    migrations.sort_unstable();
    Ok(Manifest {
        head: Head {
            format: Manifest::FORMAT,
            digest: String::new(),
            point: what.point.clone(),
            operation: what.operation.clone(),
            release: what.release,
            database: database.name().to_owned(),
            charset,
            collation,
            server_version: inventory.server_version,
            taken_at: views.taken_at,
            position: views.position,
            agreement: views.agreement,
            schema_version: migrations.last().copied(),
            migrations: Some(migrations),
        },
        schema,
        sequences: sequences_after,
        tables,
        stored,
        objects,
        grants: granted::on(session, database.name()).await?,
    })
}

async fn write(store: &Store, prefix: &Path, stem: &str, text: &str) -> Result<File> {
    let name = format!("{stem}{}", store.ending());
    let mut upload = Upload::begin(store, prefix.clone().join(name.as_str()))?;
    upload.write(text.as_bytes()).await?;
    let written = upload.finish().await?;
    Ok(File { name, bytes: written.size, sha256: written.sha256 })
}

/// A table with its definition from before the snapshot.
struct Source {
    /// By name, from 1.
    number: usize,
    table: Table,
    expected: String,
}

/// The rows of a table from a key on.
struct Job {
    source: Arc<Source>,
    /// Which range of the table comes next, from 1.
    range: usize,
    after: Option<Vec<String>>,
}

/// What came of one.
struct Piece {
    source: Arc<Source>,
    range: usize,
    definition: String,
    chunks: Vec<Chunk>,
    longest_statement: u64,
    longest_value: u64,
}

/// What all sessions need.
struct Work {
    schema: String,
    /// Bytes of rows in a chunk.
    chunk: u64,
    progress: Counter,
    store: Store,
    prefix: Path,
}

impl Work {
    /// One range of rows under its session's read view. The rest of the table becomes another job, for whoever is free.
    async fn range(self: Arc<Self>, mut session: Session, job: Job, jobs: Arc<Jobs<Job>>) -> Result<(Session, Piece)> {
        session.run("mark the snapshot", "SAVEPOINT backout").await?;
        let name = job.source.table.name.clone();
        let piece = self.read(&mut session, job, &jobs).await.map_err(|error| moved(&name, error))?;
        // Frees the table's metadata lock; the read view stays.
        session.run("free the table", "ROLLBACK TO SAVEPOINT backout").await?;
        Ok((session, piece))
    }

    async fn read(&self, session: &mut Session, Job { source, range: number, after }: Job, jobs: &Jobs<Job>) -> Result<Piece> {
        let Source { table, expected, .. } = &*source;
        let doing = format!("back up table {}", table.name);
        // Takes the metadata lock and fails if the table is younger than the snapshot.
        session.run(&doing, &format!("SELECT 1 FROM {} LIMIT 1", quote(&table.name))).await?;
        let definition = definition::of(session, &self.schema, &table.name).await?;
        if definition::without_counter(&definition) != *expected {
            return Err(Error::Moved { what: format!("table {}", table.name) });
        }

        let key = Key::of(table);
        let range = match &key {
            Some(key) => key.range(session, (&self.schema, table), after, self.chunk).await?,
            None => Range::default(),
        };
        if range.upto.is_some() {
            jobs.push(Job { source: Arc::clone(&source), range: number + 1, after: range.upto.clone() });
        }

        let shape = Shape::of(table);
        let (select, width) = (shape.select(&range, key.as_ref()), shape.width());
        // Where a key has several rows, no file may end between them.
        let key = key.filter(|_| !table.is_versioned).map(|key| (shape.places(&key), key));
        let mut writer = Writer::new(shape);
        let mut files = Files {
            work: self,
            stem: format!("{:04}-{number:06}", source.number),
            settings: if table.is_versioned { WITH_HISTORY } else { "" },
            range,
            upload: None,
            sum: TableSum::default(),
            told: 0,
            chunks: Vec::new(),
        };
        let mut text = Vec::with_capacity(PORTION * 2);
        session.run(&doing, "SET character_set_results=NULL").await?;
        {
            let mut rows = session.stream(doing.clone(), select);
            while let Some(row) = rows.next().await? {
                let values = (1..=width).map(|index| row.bytes(index)).collect::<Result<Vec<_>>>()?;
                files.sum.add(row.count(width + 1)?);
                writer.push(&values, &mut text);
                let long = if text.len() >= PORTION { files.write(&mut text).await? > LONGEST_FILE * self.chunk } else { false };
                // Rows may be much longer than the server's average says.
                if let (Some((places, key)), true) = (&key, long) {
                    writer.finish(&mut text);
                    let end = key.literals(places.iter().map(|place| values.get(*place).copied().flatten()));
                    files.cut(&mut text, end).await?;
                }
            }
        }
        session.run(&doing, "SET character_set_results=utf8mb4").await?;
        writer.finish(&mut text);
        files.end(&mut text).await?;
        let (chunks, Writer { longest_statement, longest_value, .. }) = (files.chunks, writer);
        Ok(Piece { source, range: number, definition, chunks, longest_statement, longest_value })
    }
}

/// The files of one range: one, unless its rows are long.
struct Files<'a> {
    work: &'a Work,
    /// What the names of all of them begin with.
    stem: String,
    /// What the session that runs one needs besides [`SESSION`].
    settings: &'static str,
    /// Of the file at hand.
    range: Range,
    upload: Option<Open>,
    sum: TableSum,
    /// How many of its rows were told.
    told: u64,
    chunks: Vec<Chunk>,
}

/// A file at hand.
struct Open {
    name: String,
    upload: Upload,
    text: u64,
}

impl Files<'_> {
    /// Hands on what is there, and says how much the file at hand has.
    async fn write(&mut self, text: &mut Vec<u8>) -> Result<u64> {
        let open = self.open().await?;
        open.text += text.len() as u64;
        open.upload.write(text).await?;
        let length = open.text;
        text.clear();
        self.work.progress.add(self.sum.rows - self.told);
        self.told = self.sum.rows;
        Ok(length)
    }

    async fn open(&mut self) -> Result<&mut Open> {
        let open = match self.upload.take() {
            Some(open) => open,
            None => {
                let name = format!("{}-{:04}{}", self.stem, self.chunks.len() + 1, self.work.store.ending());
                let mut upload = Upload::begin(&self.work.store, self.work.prefix.clone().join(name.as_str()))?;
                upload.write(format!("{SESSION};\n{}", self.settings).as_bytes()).await?;
                Open { name, upload, text: 0 }
            }
        };
        Ok(self.upload.insert(open))
    }

    /// Ends this file with the row whose key is `end`; what comes next goes into another.
    async fn cut(&mut self, text: &mut Vec<u8>, end: Vec<String>) -> Result<()> {
        let rest = Range { after: Some(end.clone()), upto: self.range.upto.replace(end) };
        self.end(text).await?;
        self.range = rest;
        Ok(())
    }

    async fn end(&mut self, text: &mut Vec<u8>) -> Result<()> {
        self.write(text).await?;
        let Some(Open { name, upload, .. }) = self.upload.take() else { return Ok(()) };
        let written = upload.finish().await?;
        self.told = 0;
        self.chunks.push(Chunk {
            range: std::mem::take(&mut self.range),
            sum: std::mem::take(&mut self.sum),
            file: File { name, bytes: written.size, sha256: written.sha256 },
        });
        Ok(())
    }
}

/// The tables, each with its chunks in the order of its key.
fn gathered(tables: &[Table], mut pieces: Vec<Piece>) -> Vec<manifest::Table> {
    pieces.sort_by_key(|piece| (piece.source.number, piece.range));
    let gather = |table: &Table| {
        let of_table: Vec<&Piece> = pieces.iter().filter(|piece| piece.source.table.name == table.name).collect();
        manifest::Table {
            name: table.name.clone(),
            definition: of_table.first().map(|piece| piece.definition.clone()).unwrap_or_default(),
            key: table.key.clone(),
            chunks: of_table.iter().flat_map(|piece| piece.chunks.iter().cloned()).collect(),
            longest_statement: of_table.iter().map(|piece| piece.longest_statement).max().unwrap_or(0),
            longest_value: of_table.iter().map(|piece| piece.longest_value).max().unwrap_or(0),
        }
    };
    tables.iter().map(gather).collect()
}

/// What the server says when DDL came between: definition changed, no such table, no such column, no such index.
fn moved(table: &str, error: Error) -> Error {
    match error.code() {
        Some(1412 | 1146 | 1054 | 1176) => Error::Moved { what: format!("table {table}") },
        _ => error,
    }
}

fn moved_set(before: &[String], after: &[Table]) -> Error {
    let gone = before.iter().find(|name| after.iter().all(|table| table.name != **name));
    let new = after.iter().map(|table| &table.name).find(|name| !before.contains(name));
    Error::Moved { what: format!("table {}", gone.or(new).cloned().unwrap_or_default()) }
}

/// The first object that is not as it was.
fn changed(before: &[StoredObject], after: &[StoredObject]) -> String {
    let other =
        |these: &[StoredObject], those: &[StoredObject]| these.iter().find(|object| !those.contains(object)).map(ToString::to_string);
    other(before, after).or_else(|| other(after, before)).unwrap_or_else(|| "the order of triggers".to_owned())
}

async fn defaults(session: &mut Session, schema: &str) -> Result<(String, String)> {
    let sql = format!(
        "SELECT DEFAULT_CHARACTER_SET_NAME, DEFAULT_COLLATION_NAME FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = {}",
        literal(schema)
    );
    match session.row("read the schema's defaults", &sql).await? {
        Some(row) => Ok((row.string(0)?, row.string(1)?)),
        None => Err(Error::Schema { schema: schema.to_owned(), reason: "it vanished".to_owned() }),
    }
}
