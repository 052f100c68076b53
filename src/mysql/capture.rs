//! Taking a backup: one consistent snapshot of every base table into the object store.
//!
//! Writes nothing to the database. Idempotent by its manifest, which is written last: a complete backup is returned as it is, anything
//! half-written is overwritten file by file.
//!
//! One connection and one read view. A table's metadata lock is held only while that table is read, so DDL elsewhere does not queue up;
//! DDL on a table between snapshot and reading is noticed (the server's error 1412, or another definition) and fails the backup.

use std::sync::Arc;

use object_store::ObjectStore;
use object_store::path::Path;

use super::bookkeeping::State;
use super::endpoint::{Database, SESSION, Session};
use super::error::{Error, Result};
use super::ident::{literal, quote};
use super::inspect::{self, Table};
use super::manifest::{self, File, Manifest, Position, read_manifest};
use super::rows::{Shape, Writer};
use super::store::Upload;
use super::{checksum, definition};

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
    session.run("begin the snapshot", "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ").await?;
    session.run("begin the snapshot", "START TRANSACTION WITH CONSISTENT SNAPSHOT").await?;
    let taken_at = clock(session).await?;
    let position = position(session).await?;

    let mut tables = Vec::new();
    let mut script = format!("{SESSION};\n");
    for (index, (table, expected)) in inventory.tables.iter().zip(&definitions).enumerate() {
        session.run("mark the snapshot", "SAVEPOINT backout").await?;
        let file = format!("{:04}.sql.zst", index + 1);
        let entry = one(database, session, store, prefix, table, expected, file).await.map_err(|error| moved(&table.name, error))?;
        // Frees the table's metadata lock; the read view stays.
        session.run("free the table", "ROLLBACK TO SAVEPOINT backout").await?;
        script.push_str(&format!("{};\n", entry.definition));
        tables.push(entry);
    }
    session.run("end the snapshot", "COMMIT").await?;
    let after = inspect::list(session, database.name()).await?.tables;
    if after.iter().map(|table| &table.name).ne(&names) {
        return Err(moved_set(&names, &after));
    }

    // Sorts before the tables' files, so that one `zstd -dc *.sql.zst` restores everything in order.
    let name = "0000-schema.sql.zst".to_owned();
    let mut upload = Upload::begin(store, prefix.clone().join(name.as_str()))?;
    upload.write(script.as_bytes()).await?;
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
        taken_at,
        position,
        schema_version: migrations.last().copied(),
        migrations: Some(migrations),
        schema: File { name, bytes: written.size, sha256: written.sha256 },
        tables,
    })
}

/// One table: its definition, its rows and their sum, all under the same read view and the same metadata lock.
async fn one(
    database: &Database,
    session: &mut Session,
    store: &Arc<dyn ObjectStore>,
    prefix: &Path,
    table: &Table,
    expected: &str,
    file: String,
) -> Result<manifest::Table> {
    let doing = format!("back up table {}", table.name);
    // Takes the metadata lock and fails if the table is younger than the snapshot.
    session.run(&doing, &format!("SELECT 1 FROM {} LIMIT 1", quote(&table.name))).await?;
    let definition = definition::of(session, database.name(), &table.name).await?;
    if definition::without_counter(&definition) != expected {
        return Err(Error::Moved { table: table.name.clone() });
    }

    let shape = Shape::of(table);
    let select = shape.select();
    let mut writer = Writer::new(shape);
    let mut upload = Upload::begin(store, prefix.clone().join(file.as_str()))?;
    let mut text = format!("{SESSION};\n").into_bytes();
    session.run(&doing, "SET character_set_results=NULL").await?;
    let columns = table.columns.iter().filter(|column| column.content == inspect::Content::Given).count();
    {
        let mut rows = session.stream(doing.clone(), select);
        while let Some(row) = rows.next().await? {
            let mut values = Vec::with_capacity(columns);
            for index in 0..columns {
                values.push(row.bytes(index + 1)?);
            }
            writer.push(&values, &mut text);
            if text.len() >= PORTION {
                upload.write(&text).await?;
                text.clear();
            }
        }
    }
    session.run(&doing, "SET character_set_results=utf8mb4").await?;
    writer.finish(&mut text);
    upload.write(&text).await?;
    let written = upload.finish().await?;
    Ok(manifest::Table {
        name: table.name.clone(),
        definition,
        sum: checksum::sum(session, database.name(), table).await?,
        file: File { name: file, bytes: written.size, sha256: written.sha256 },
        longest_statement: writer.longest_statement,
        longest_value: writer.longest_value,
    })
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

async fn clock(session: &mut Session) -> Result<String> {
    match session.row("read the server's clock", "SELECT DATE_FORMAT(UTC_TIMESTAMP(6), '%Y-%m-%dT%H:%i:%s.%fZ')").await? {
        Some(row) => row.string(0),
        None => Ok(String::new()),
    }
}

/// The binary log's position that belongs to this transaction's snapshot: no lock is needed for it.
async fn position(session: &mut Session) -> Result<Option<Position>> {
    let mut file = String::new();
    let mut offset = 0;
    for row in session.rows("read the binary log's position", "SHOW STATUS LIKE 'binlog_snapshot_%'").await? {
        let value = row.text(1)?.unwrap_or_default();
        if row.string(0)?.eq_ignore_ascii_case("binlog_snapshot_file") {
            file = value;
        } else {
            offset = value.parse().unwrap_or(0);
        }
    }
    if file.is_empty() {
        return Ok(None);
    }
    let sql = format!("SELECT BINLOG_GTID_POS({}, {offset})", literal(&file));
    let gtid = match session.row("read the position as GTID", &sql).await {
        Ok(Some(row)) => row.text(0)?.filter(|gtid| !gtid.is_empty()),
        Ok(None) | Err(Error::Refused { .. }) => None,
        Err(error) => return Err(error),
    };
    Ok(Some(Position { file, offset, gtid }))
}
