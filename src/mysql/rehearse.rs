//! Proof that a backup can be restored: it is loaded, compared and checked in a scratch schema, which is dropped again.

use std::time::{Duration, Instant};

use object_store::path::Path;

use super::beside;
use super::endpoint::Database;
use super::error::{Error, Result};
use super::ident::qualified;
use super::load::load;
use super::query::{Answer, query_in};
use super::store::Store;

/// A backup that was restored once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rehearsal {
    pub tables: usize,
    pub rows: u64,
    /// How long loading and comparing took: what a restore of it would take.
    pub took: Duration,
    /// Each question, with what the loaded tables say or why they say nothing.
    pub answers: Vec<(String, std::result::Result<Answer, String>)>,
}

/// Loads the backup at `prefix` into `scratch`, compares every chunk, lets the server check every table, puts `questions` (each one SELECT,
/// as [`query`](super::query()) takes them; the stored objects of the backup are not there) to them, and drops the schema. What an earlier
/// rehearsal left there is dropped first, so that the time is that of all of it.
///
/// # Errors
/// As [`load`]; [`Error::Mismatch`] also for a table that the server finds fault with; [`Error::Schema`] for a schema that holds what a
/// cut-over replaced. After another error than these something may be left in the schema.
pub async fn rehearse(database: &Database, store: &Store, prefix: &Path, scratch: &str, questions: &[String]) -> Result<Rehearsal> {
    beside::make_room(database, scratch).await?;
    let begun = Instant::now();
    let loaded = load(database, store, prefix, scratch).await;
    let took = begun.elapsed();
    let checked = match loaded {
        Ok(loaded) => {
            tried(database, scratch, questions).await.map(|answers| Rehearsal { tables: loaded.tables, rows: loaded.rows, took, answers })
        }
        Err(error) => Err(error),
    };
    if matches!(checked, Ok(_) | Err(Error::Mismatch { .. })) {
        beside::discard(database, scratch).await?;
    }
    checked
}

/// What the server says of the tables, and what they say themselves.
async fn tried(database: &Database, scratch: &str, questions: &[String]) -> Result<Vec<(String, std::result::Result<Answer, String>)>> {
    check(database, scratch).await?;
    let mut answers = Vec::new();
    for question in questions {
        let answer = query_in(database, scratch, question).await.map_err(|error| error.to_string());
        answers.push((question.clone(), answer));
    }
    Ok(answers)
}

async fn check(database: &Database, schema: &str) -> Result<()> {
    let mut session = database.session().await?;
    for table in beside::tables(&mut session, schema).await? {
        let sql = format!("CHECK TABLE {}", qualified(schema, &table.name));
        let rows = session.rows_long(&format!("check table {}", table.name), sql).await?;
        for row in &rows {
            let (kind, text) = (row.string(2)?, row.string(3)?);
            if kind.eq_ignore_ascii_case("error") || (kind.eq_ignore_ascii_case("status") && text != "OK") {
                return Err(Error::Mismatch { schema: schema.to_owned(), table: table.name, reason: format!("CHECK TABLE: {text}") });
            }
        }
    }
    session.close().await;
    Ok(())
}
