//! Taking a backup: one consistent snapshot of every base table into the object store.
//!
//! Writes nothing to the database. Idempotent by its manifest, which is written last: a complete backup is returned as it is, anything
//! half-written is overwritten file by file.
//!
//! Several sessions see the same instant ([`super::views`]) and share the work range by range ([`super::chunk`]). A table's metadata lock
//! is held only while a range of it is read, so DDL elsewhere does not queue up; DDL on a table between snapshot and reading is noticed
//! (the server's error 1412, or another definition) and fails the backup.
//!
//! Memory: each session holds one row, one portion of SQL and one of compressed bytes at a time, and what the store's client keeps of
//! the file at hand; nothing grows with the table.

use std::sync::Arc;

use object_store::ObjectStore;
use object_store::path::Path;

use super::bookkeeping::State;
use super::checksum::TableSum;
use super::chunk::{Key, Range};
use super::crew::{self, Jobs};
use super::endpoint::{Database, SESSION, Session};
use super::error::{Error, Result};
use super::ident::{literal, quote};
use super::inspect::{self, Table};
use super::manifest::{self, Chunk, File, Manifest, read_manifest};
use super::progress::Counter;
use super::rows::{Shape, Writer};
use super::store::Upload;
use super::{definition, progress, views};

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

/// Takes a consistent backup of the live schema into `prefix`, or returns the one that is there.
///
/// # Errors
/// [`Error::Unsupported`] and [`Error::MissingGrants`] before anything is read; [`Error::Moved`] when DDL came between: take it again;
/// [`Error::Corrupt`] when another point's manifest lies at `prefix`.
pub async fn capture(database: &Database, store: &Arc<dyn ObjectStore>, prefix: &Path, what: &Capture) -> Result<Manifest> {
    if let Some(manifest) = read_manifest(store, prefix).await? {
        if manifest.point == what.point {
            return Ok(manifest);
        }
        let reason = format!("it belongs to backup point {}; give {} a prefix of its own", manifest.point, what.point);
        return Err(Error::Corrupt { path: prefix.to_string(), reason });
    }
    let mut session = database.locked().await?;
    let manifest = take(database, &mut session, store, prefix, what).await?;
    session.close().await;
    manifest.write(store, prefix).await
}

async fn take(database: &Database, session: &mut Session, store: &Arc<dyn ObjectStore>, prefix: &Path, what: &Capture) -> Result<Manifest> {
    // Definitions first: if one is the same under the snapshot, the columns listed in between belong to it.
    let names: Vec<String> = inspect::list(session, database.name()).await?.tables.into_iter().map(|table| table.name).collect();
    let mut definitions = Vec::new();
    for name in &names {
        definitions.push(definition::without_counter(&definition::of(session, database.name(), name).await?));
    }
    let inventory = inspect::look_strictly(database, session).await?;
    if inventory.tables.iter().map(|table| &table.name).ne(&names) {
        return Err(moved_set(&names, &inventory.tables));
    }
    let (charset, collation) = defaults(session, database.name()).await?;
    let views = views::open(database, database.connections()).await?;

    let work = Arc::new(Work {
        schema: database.name().to_owned(),
        chunk: database.chunk(),
        progress: database.listening().begin(progress::Part::Capture, inventory.tables.iter().map(|table| table.estimated_rows).sum()),
        store: Arc::clone(store),
        prefix: prefix.clone(),
        tables: inventory.tables.iter().cloned().zip(definitions).collect(),
    });
    let jobs = Jobs::new((0..work.tables.len()).map(|table| Job { table, number: 1, after: None }));
    let brings = Arc::clone(&jobs);
    let read = crew::share(views.sessions, &jobs, move |session, job| Arc::clone(&work).chunk(session, job, Arc::clone(&brings)));
    let (sessions, parts) = crew::beside(session, read).await?;
    views::close(sessions).await;
    let after = inspect::list(session, database.name()).await?.tables;
    if after.iter().map(|table| &table.name).ne(&names) {
        return Err(moved_set(&names, &after));
    }
    let tables = gathered(&inventory.tables, parts);

    // Sorts before the tables' files, so that one `zstd -dc *.sql.zst` restores everything in order.
    let name = "0000-schema.sql.zst".to_owned();
    let mut upload = Upload::begin(store, prefix.clone().join(name.as_str()))?;
    let definitions: String = tables.iter().map(|table| format!("{};\n", table.definition)).collect();
    upload.write(format!("{SESSION};\n{definitions}").as_bytes()).await?;
    let written = upload.finish().await?;
    let mut migrations: Vec<u64> = inventory.migrations.iter().filter(|row| row.state == State::Applied).map(|row| row.version).collect();
    migrations.sort_unstable();
    Ok(Manifest {
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
        schema: File { name, bytes: written.size, sha256: written.sha256 },
        tables,
    })
}

/// The rows of a table from a key on.
struct Job {
    table: usize,
    /// Which part of the table this is, from 1.
    number: usize,
    after: Option<Vec<String>>,
}

/// What came of one.
struct Part {
    table: usize,
    definition: String,
    chunks: Vec<Chunk>,
    longest_statement: u64,
    longest_value: u64,
}

/// What all sessions work on.
struct Work {
    schema: String,
    /// Bytes of rows in a chunk.
    chunk: u64,
    progress: Counter,
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    /// With their definitions from before the snapshot.
    tables: Vec<(Table, String)>,
}

impl Work {
    /// One range of rows under its session's read view. The rest of the table becomes another job, for whoever is free.
    async fn chunk(self: Arc<Self>, mut session: Session, job: Job, jobs: Arc<Jobs<Job>>) -> Result<(Session, Part)> {
        let Some((table, expected)) = self.tables.get(job.table) else {
            return Err(Error::Unreadable { doing: "back up".to_owned(), reason: "no such table".to_owned() });
        };
        session.run("mark the snapshot", "SAVEPOINT backout").await?;
        let part = self.read(&mut session, &job, &jobs, table, expected).await.map_err(|error| moved(&table.name, error))?;
        // Frees the table's metadata lock; the read view stays.
        session.run("free the table", "ROLLBACK TO SAVEPOINT backout").await?;
        Ok((session, part))
    }

    async fn read(&self, session: &mut Session, job: &Job, jobs: &Jobs<Job>, table: &Table, expected: &str) -> Result<Part> {
        let doing = format!("back up table {}", table.name);
        // Takes the metadata lock and fails if the table is younger than the snapshot.
        session.run(&doing, &format!("SELECT 1 FROM {} LIMIT 1", quote(&table.name))).await?;
        let definition = definition::of(session, &self.schema, &table.name).await?;
        if definition::without_counter(&definition) != expected {
            return Err(Error::Moved { table: table.name.clone() });
        }

        let key = Key::of(table);
        let mut range = Range { after: job.after.clone(), upto: None };
        if let Some(key) = &key {
            range.upto = key.end(session, (&self.schema, table), job.after.as_ref(), self.chunk).await?;
            if let Some(end) = range.upto.clone() {
                jobs.push(Job { table: job.table, number: job.number + 1, after: Some(end) });
            }
        }

        let shape = Shape::of(table);
        let (select, width, places) = (shape.select(&range, key.as_ref()), shape.width(), key.as_ref().map(|key| shape.places(key)));
        let mut writer = Writer::new(shape);
        let mut files = Files::new(self, job, range);
        files.open()?;
        let mut text = Vec::with_capacity(PORTION * 2);
        session.run(&doing, "SET character_set_results=NULL").await?;
        {
            let mut rows = session.stream(doing.clone(), select);
            while let Some(row) = rows.next().await? {
                let values = (1..=width).map(|index| row.bytes(index)).collect::<Result<Vec<_>>>()?;
                files.sum.add(row.count(width + 1)?);
                writer.push(&values, &mut text);
                if text.len() >= PORTION {
                    self.progress.add(files.counted());
                    files.write(&mut text).await?;
                }
                // Rows may be much longer than the server's average says.
                if let (Some(key), Some(places)) = (&key, &places)
                    && files.text_bytes > LONGEST_FILE * self.chunk
                {
                    writer.finish(&mut text);
                    self.progress.add(files.counted());
                    let end = key.literals(places.iter().map(|place| values.get(*place).copied().flatten()));
                    files.next(&mut text, end).await?;
                }
            }
        }
        session.run(&doing, "SET character_set_results=utf8mb4").await?;
        writer.finish(&mut text);
        self.progress.add(files.counted());
        files.end(&mut text).await?;
        let (longest_statement, longest_value) = (writer.longest_statement, writer.longest_value);
        Ok(Part { table: job.table, definition, chunks: files.chunks, longest_statement, longest_value })
    }
}

/// The files of one job: one, unless its rows are long.
struct Files<'a> {
    work: &'a Work,
    job: &'a Job,
    range: Range,
    upload: Option<(String, Upload)>,
    sum: TableSum,
    /// Rows of this file that were told already.
    told: u64,
    text_bytes: u64,
    chunks: Vec<Chunk>,
}

impl<'a> Files<'a> {
    fn new(work: &'a Work, job: &'a Job, range: Range) -> Self {
        Self { work, job, range, upload: None, sum: TableSum::default(), told: 0, text_bytes: 0, chunks: Vec::new() }
    }

    /// Rows since this was asked last.
    fn counted(&mut self) -> u64 {
        let new = self.sum.rows - self.told;
        self.told = self.sum.rows;
        new
    }

    fn open(&mut self) -> Result<()> {
        let name = format!("{:04}-{:06}-{:04}.sql.zst", self.job.table + 1, self.job.number, self.chunks.len() + 1);
        let upload = Upload::begin(&self.work.store, self.work.prefix.clone().join(name.as_str()))?;
        self.upload = Some((name, upload));
        Ok(())
    }

    async fn write(&mut self, text: &mut Vec<u8>) -> Result<()> {
        let Some((_, upload)) = &mut self.upload else { return Ok(()) };
        if self.text_bytes == 0 {
            upload.write(format!("{SESSION};\n").as_bytes()).await?;
        }
        self.text_bytes += text.len() as u64;
        upload.write(text).await?;
        text.clear();
        Ok(())
    }

    /// Ends this file with the row whose key is `end`, and begins the next.
    async fn next(&mut self, text: &mut Vec<u8>, end: Vec<String>) -> Result<()> {
        let upto = self.range.upto.replace(end.clone());
        self.end(text).await?;
        self.range = Range { after: Some(end), upto };
        self.open()
    }

    async fn end(&mut self, text: &mut Vec<u8>) -> Result<()> {
        self.write(text).await?;
        let Some((name, upload)) = self.upload.take() else { return Ok(()) };
        let written = upload.finish().await?;
        (self.text_bytes, self.told) = (0, 0);
        self.chunks.push(Chunk {
            range: std::mem::take(&mut self.range),
            sum: std::mem::take(&mut self.sum),
            file: File { name, bytes: written.size, sha256: written.sha256 },
        });
        Ok(())
    }
}

/// The parts of each table, in the order of its key.
fn gathered(tables: &[Table], mut parts: Vec<Part>) -> Vec<manifest::Table> {
    // The names of their files are in that order.
    parts.sort_by(|a, b| a.chunks.first().map(|chunk| &chunk.file.name).cmp(&b.chunks.first().map(|chunk| &chunk.file.name)));
    let gather = |(index, table): (usize, &Table)| {
        let mut whole = manifest::Table {
            name: table.name.clone(),
            definition: String::new(),
            key: table.key.clone(),
            chunks: Vec::new(),
            longest_statement: 0,
            longest_value: 0,
        };
        for part in parts.iter().filter(|part| part.table == index) {
            whole.definition.clone_from(&part.definition);
            whole.chunks.extend(part.chunks.iter().cloned());
            whole.longest_statement = whole.longest_statement.max(part.longest_statement);
            whole.longest_value = whole.longest_value.max(part.longest_value);
        }
        whole
    };
    tables.iter().enumerate().map(gather).collect()
}

/// What the server says when DDL came between: definition changed, no such table, no such column, no such index.
fn moved(table: &str, error: Error) -> Error {
    match error.code() {
        Some(1412 | 1146 | 1054 | 1176) => Error::Moved { table: table.to_owned() },
        _ => error,
    }
}

fn moved_set(before: &[String], after: &[Table]) -> Error {
    let gone = before.iter().find(|name| after.iter().all(|table| table.name != **name));
    let new = after.iter().map(|table| &table.name).find(|name| !before.contains(name));
    Error::Moved { table: gone.or(new).cloned().unwrap_or_default() }
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
