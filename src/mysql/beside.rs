//! The schemas beside the live one: shadows, into which a backup is loaded, and asides, which hold what a cut-over replaced.
//!
//! Each carries a sign, a table of the engine's own that says what it is. A schema with tables but without a sign is nobody's to drop.

use std::collections::BTreeSet;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::endpoint::{Database, Session};
use super::error::{Error, Result};
use super::ident::{literal, qualified, quote};
use super::{inspect, swap};

/// The sign's table. It is not part of the backed-up and swapped set.
pub(super) const SIGN: &str = "_backout_beside";
/// Which chunks of the backup are in a shadow, each written in one transaction with its rows. Not part of that set either.
const CHUNKS: &str = "_backout_chunks";
/// What belongs to a schema and is no table, each as JSON by a name. Not part of it either.
const NOTES: &str = "_backout_notes";
/// The server's limit for a schema's name, in characters.
const NAME_LIMIT: usize = 64;

/// A schema beside the live one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beside {
    pub schema: String,
    pub state: Standing,
    /// The backup point that a shadow holds; for an aside its own name.
    pub point: String,
    /// The manifest's digest of a shadow; for an aside empty.
    pub digest: String,
}

/// What a schema beside the live one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// A load began and did not end.
    Loading,
    /// A shadow whose every table equals the backup's, at the time it was loaded.
    Complete,
    /// What a cut-over replaced.
    Aside,
}

impl Standing {
    fn word(self) -> &'static str {
        match self {
            Self::Loading => "loading",
            Self::Complete => "complete",
            Self::Aside => "aside",
        }
    }
}

/// Drops a shadow or aside that is not needed any more; done already if there is none.
///
/// # Errors
/// [`Error::Schema`] for a schema that this engine did not make.
pub async fn discard(database: &Database, schema: &str) -> Result<()> {
    check_name(database.name(), schema)?;
    let mut session = database.locked().await?;
    // Some of it may be in the live schema.
    swap::settle(&mut session, database).await?;
    drop_schema(&mut session, schema).await?;
    session.close().await;
    Ok(())
}

/// Drops what an earlier attempt left in a schema that is only tried in.
pub(super) async fn make_room(database: &Database, scratch: &str) -> Result<()> {
    check_name(database.name(), scratch)?;
    let mut session = database.session().await?;
    let there = sign(&mut session, scratch).await?;
    session.close().await;
    match there {
        Some(Beside { state: Standing::Aside, .. }) => {
            let reason = "it holds what a cut-over replaced; choose another name".to_owned();
            Err(Error::Schema { schema: scratch.to_owned(), reason })
        }
        Some(_) | None => discard(database, scratch).await,
    }
}

/// Only names that can't be the live schema's or anybody else's.
pub(super) fn check_name(database: &str, schema: &str) -> Result<()> {
    let prefix = format!("{database}_backout_");
    let reason = if !schema.starts_with(&prefix) || schema.len() == prefix.len() {
        format!("its name must begin with {prefix} and go on")
    } else if schema.chars().count() > NAME_LIMIT {
        format!("its name is longer than {NAME_LIMIT} characters")
    } else {
        return Ok(());
    };
    Err(Error::Schema { schema: schema.to_owned(), reason })
}

/// All schemas beside `database` that carry a sign.
pub(super) async fn all(session: &mut Session, database: &str) -> Result<Vec<Beside>> {
    let sql = format!("SELECT TABLE_SCHEMA FROM information_schema.TABLES WHERE TABLE_NAME = {}", literal(SIGN));
    let mut found = Vec::new();
    for row in session.rows("list the schemas beside the live one", &sql).await? {
        let schema = row.string(0)?;
        if check_name(database, &schema).is_ok()
            && let Some(beside) = read(session, &schema).await?
        {
            found.push(beside);
        }
    }
    found.sort_by(|a, b| a.schema.cmp(&b.schema));
    Ok(found)
}

/// The sign of a schema; `None` without one.
pub(super) async fn sign(session: &mut Session, schema: &str) -> Result<Option<Beside>> {
    if has_sign(session, schema).await? { read(session, schema).await } else { Ok(None) }
}

async fn has_sign(session: &mut Session, schema: &str) -> Result<bool> {
    inspect::has_table(session, schema, SIGN).await
}

async fn read(session: &mut Session, schema: &str) -> Result<Option<Beside>> {
    let sql = format!("SELECT state, point, digest FROM {} WHERE id = 1", qualified(schema, SIGN));
    let Some(row) = session.row("read the schema's sign", &sql).await? else { return Ok(None) };
    let state = match row.string(0)?.as_str() {
        "complete" => Standing::Complete,
        "aside" => Standing::Aside,
        _ => Standing::Loading,
    };
    Ok(Some(Beside { schema: schema.to_owned(), state, point: row.string(1)?, digest: row.string(2)? }))
}

/// Puts the sign up, or changes it.
pub(super) async fn write_sign(session: &mut Session, beside: &Beside) -> Result<()> {
    let Beside { schema, state, point, digest } = beside;
    let table = qualified(schema, SIGN);
    let sql = format!(
        "CREATE TABLE IF NOT EXISTS {table} (id TINYINT UNSIGNED NOT NULL PRIMARY KEY, state VARCHAR(16) NOT NULL, \
         point VARCHAR(255) NOT NULL, digest VARCHAR(64) NOT NULL) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin"
    );
    session.run("create the schema's sign", &sql).await?;
    let sql = format!("REPLACE INTO {table} VALUES (1, {}, {}, {})", literal(state.word()), literal(point), literal(digest));
    session.run("write the schema's sign", &sql).await.map(drop)
}

/// Makes the list of chunks; from then on the schema's tables are all there.
pub(super) async fn begin_chunks(session: &mut Session, schema: &str) -> Result<()> {
    let sql = format!(
        "CREATE TABLE {} (file VARCHAR(64) NOT NULL PRIMARY KEY) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin",
        qualified(schema, CHUNKS)
    );
    session.run("create the list of chunks", &sql).await.map(drop)
}

/// Lets the next load begin anew.
pub(super) async fn forget_chunks(session: &mut Session, schema: &str) -> Result<()> {
    session.run("drop the list of chunks", &format!("DROP TABLE IF EXISTS {}", qualified(schema, CHUNKS))).await.map(drop)
}

/// The statement that notes a chunk, for the transaction of its rows.
pub(super) fn chunk_noted(schema: &str, file: &str) -> String {
    format!("INSERT INTO {} VALUES ({})", qualified(schema, CHUNKS), literal(file))
}

/// The chunks that are in a shadow, by their files; `None` where it was not made as far as that.
pub(super) async fn chunks(session: &mut Session, schema: &str) -> Result<Option<BTreeSet<String>>> {
    if !inspect::has_table(session, schema, CHUNKS).await? {
        return Ok(None);
    }
    let rows = session.rows("read the list of chunks", &format!("SELECT file FROM {}", qualified(schema, CHUNKS))).await?;
    rows.iter().map(|row| row.string(0)).collect::<Result<_>>().map(Some)
}

/// What is kept of a schema beside its tables.
#[derive(Clone, Copy, Debug)]
pub(super) enum Note {
    /// The stored objects that belong to its tables.
    Objects,
    /// The tables that a cut-over moves in more than one step.
    Passing,
    /// A number that is counted up, to see how long a commit takes.
    Pulse,
}

impl Note {
    fn word(self) -> &'static str {
        match self {
            Self::Objects => "objects",
            Self::Passing => "passing",
            Self::Pulse => "pulse",
        }
    }
}

/// Keeps `content` in a schema, in place of what was kept there under that name.
pub(super) async fn keep(session: &mut Session, schema: &str, note: Note, content: &impl Serialize) -> Result<()> {
    let table = qualified(schema, NOTES);
    let sql = format!(
        "CREATE TABLE IF NOT EXISTS {table} (name VARCHAR(16) NOT NULL PRIMARY KEY, content LONGTEXT NOT NULL) \
         ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin"
    );
    session.run("create the schema's notes", &sql).await?;
    let content = serde_json::to_string(content)
        .map_err(|error| Error::Unreadable { doing: "write the schema's notes".to_owned(), reason: error.to_string() })?;
    let sql = format!("REPLACE INTO {table} VALUES ({}, {})", literal(note.word()), literal(&content));
    session.run("write the schema's notes", &sql).await.map(drop)
}

/// What was kept; `None` if nothing was.
pub(super) async fn kept<T: DeserializeOwned>(session: &mut Session, schema: &str, note: Note) -> Result<Option<T>> {
    const DOING: &str = "read the schema's notes";
    if !inspect::has_table(session, schema, NOTES).await? {
        return Ok(None);
    }
    let sql = format!("SELECT content FROM {} WHERE name = {}", qualified(schema, NOTES), literal(note.word()));
    let Some(row) = session.row(DOING, &sql).await? else { return Ok(None) };
    serde_json::from_str(&row.string(0)?)
        .map(Some)
        .map_err(|error| Error::Unreadable { doing: DOING.to_owned(), reason: error.to_string() })
}

/// The statement that counts [`Note::Pulse`] up.
pub(super) fn pulse(schema: &str) -> String {
    format!("UPDATE {} SET content = content + 1 WHERE name = {}", qualified(schema, NOTES), literal(Note::Pulse.word()))
}

/// Keeps it no longer.
pub(super) async fn forget(session: &mut Session, schema: &str, note: Note) -> Result<()> {
    let sql = format!("DELETE FROM {} WHERE name = {}", qualified(schema, NOTES), literal(note.word()));
    session.run("delete the schema's notes", &sql).await.map(drop)
}

/// All schemas beside `database` of which something is kept.
pub(super) async fn noted(session: &mut Session, database: &str) -> Result<Vec<String>> {
    let sql = format!("SELECT TABLE_SCHEMA FROM information_schema.TABLES WHERE TABLE_NAME = {}", literal(NOTES));
    let rows = session.rows("list the schemas beside the live one", &sql).await?;
    let schemas = rows.iter().map(|row| row.string(0)).collect::<Result<Vec<_>>>()?;
    Ok(schemas.into_iter().filter(|schema| check_name(database, schema).is_ok()).collect())
}

/// Whether the server has this schema.
pub(super) async fn exists(session: &mut Session, schema: &str) -> Result<bool> {
    let sql = format!("SELECT 1 FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = {}", literal(schema));
    Ok(session.row("look for the schema", &sql).await?.is_some())
}

/// What of a schema moves in a cut-over.
pub(super) struct Set {
    pub tables: Vec<inspect::Table>,
    pub sequences: Vec<String>,
}

impl Set {
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty() && self.sequences.is_empty()
    }
}

/// The schema's tables and sequences, without the sign.
pub(super) async fn set(session: &mut Session, schema: &str) -> Result<Set> {
    let inspect::Listing { mut tables, sequences, .. } = inspect::list(session, schema).await?;
    tables.retain(|table| !is_ours(&table.name));
    Ok(Set { tables, sequences })
}

/// The schema's tables without the sign.
pub(super) async fn tables(session: &mut Session, schema: &str) -> Result<Vec<inspect::Table>> {
    Ok(set(session, schema).await?.tables)
}

fn is_ours(table: &str) -> bool {
    matches!(table, SIGN | CHUNKS | NOTES)
}

/// Drops a schema whose name was checked, if this engine made it or nothing else is in it. What was only loaded, or tried, is dropped
/// whatever migrations have made in it; among what a cut-over replaced may be objects that somebody put there.
pub(super) async fn drop_schema(session: &mut Session, schema: &str) -> Result<()> {
    if !exists(session, schema).await? {
        return Ok(());
    }
    let listing = inspect::list(session, schema).await?;
    let sign = sign(session, schema).await?;
    let is_foreign = match sign.map(|sign| sign.state) {
        Some(Standing::Loading | Standing::Complete) => false,
        // What only a server that was set up otherwise can't carry was moved here all the same.
        Some(Standing::Aside) => listing.unsupported.iter().any(|object| object.kind != inspect::Kind::SystemVersionedTable),
        None => {
            let has_tables = listing.tables.iter().any(|table| !is_ours(&table.name));
            has_tables || !listing.sequences.is_empty() || !listing.unsupported.is_empty()
        }
    };
    if is_foreign {
        let reason = "it holds objects that Backout did not put there; look at it and drop it by hand".to_owned();
        return Err(Error::Schema { schema: schema.to_owned(), reason });
    }
    // One after another, the sign last: a crash in between leaves a schema that is still known as ours. First what says that something is
    // in it.
    forget_chunks(session, schema).await?;
    for table in listing.tables.iter().filter(|table| table.name != SIGN) {
        session.run_long("drop a table of the schema", format!("DROP TABLE IF EXISTS {}", qualified(schema, &table.name))).await?;
    }
    for name in &listing.sequences {
        session.run("drop a sequence of the schema", &format!("DROP SEQUENCE IF EXISTS {}", qualified(schema, name))).await?;
    }
    session.run_long("drop the schema", format!("DROP DATABASE IF EXISTS {}", quote(schema))).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::check_name;

    #[test]
    fn only_schemas_beside_the_live_one_are_touched() {
        for (schema, accepted) in
            [("shop_backout_p1", true), ("shop", false), ("shop_backout_", false), ("shopping_backout_p1", false), ("mysql", false)]
        {
            assert_eq!(check_name("shop", schema).is_ok(), accepted, "{schema}");
        }
        assert!(check_name("shop", &format!("shop_backout_{}", "x".repeat(60))).is_err());
    }
}
