//! The engine's own tables in the live schema. They are backed up, loaded and swapped with all others, so that what they say always
//! belongs to the data beside them: after a cut-over, the applied migrations are those of the backup point, and the marker says which.
//! The third one is the [owner's](super::owner).

use serde::{Deserialize, Serialize};

use super::endpoint::Session;
use super::error::Result;
use super::ident::{literal, qualified};
use super::owner::OWNER;
use super::stored::PASSING;
use super::{definition, inspect, lock};

/// One row for each migration that is applied or under way.
pub const MIGRATIONS: &str = "_backout_migrations";
/// One row: what was swapped in last.
pub const MARKER: &str = "_backout";

/// Whether a table is the engine's own: not part of what users would lose, and no part of their schema.
pub(super) fn is_own(table: &str) -> bool {
    matches!(table, MIGRATIONS | MARKER | OWNER) || table.starts_with(PASSING)
}

/// Which backup point, by which operation, for which release. Written into the shadow before the cut-over, so whether the cut-over
/// happened is a fact of the live database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker {
    pub point: String,
    /// Unique for each cut-over that is wanted: the same operation is never swapped in twice.
    pub operation: String,
    /// The release number.
    pub release: u64,
}

/// A recorded migration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    pub version: u64,
    pub name: String,
    /// Of the file that was applied.
    pub checksum: String,
    pub state: State,
    /// The release number that brought it.
    pub release: u64,
    /// How many statements are done; those that change only the session count with the next one.
    pub statements_done: usize,
    /// The schema's fingerprint before the statement that is under way, if it is DDL.
    pub(super) fingerprint: Option<String>,
    /// Of the script that takes it back, once that is under way.
    pub(super) down_checksum: Option<String>,
    /// Why it failed; while a statement is under way whose effect can't be seen, that.
    pub message: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Recorded, and nothing of it took effect yet. Stored as `applying`: [`is_untouched`] tells.
    Intended,
    Applying,
    Applied,
    Reverting,
    /// Half-migrated: some statements took effect, and the next one can't.
    Failed,
}

impl State {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Intended | Self::Applying => "applying",
            Self::Applied => "applied",
            Self::Reverting => "reverting",
            Self::Failed => "failed",
        }
    }

    /// An unknown word is the work of hands: nothing goes on from there.
    fn from_word(word: &str) -> Self {
        match word {
            "applying" => Self::Applying,
            "applied" => Self::Applied,
            "reverting" => Self::Reverting,
            _ => Self::Failed,
        }
    }
}

/// The definitions, the same on every server: what they contain is part of backups and must load anywhere.
pub(super) const OPTIONS: &str = "ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin";

pub(super) async fn create_migrations(session: &mut Session, schema: &str) -> Result<()> {
    let sql = format!(
        "CREATE TABLE IF NOT EXISTS {} (version BIGINT UNSIGNED NOT NULL PRIMARY KEY, name VARCHAR(255) NOT NULL, \
         checksum VARCHAR(255) NOT NULL, state VARCHAR(16) NOT NULL, `release` BIGINT UNSIGNED NOT NULL, \
         statements_done INT UNSIGNED NOT NULL DEFAULT 0, fingerprint CHAR(64) NULL, down_checksum CHAR(64) NULL, message TEXT NULL, \
         started_at DATETIME(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6), finished_at DATETIME(6) NULL) {OPTIONS}",
        qualified(schema, MIGRATIONS)
    );
    session.run("create the table of migrations", &sql).await.map(drop)
}

pub(super) async fn create_marker(session: &mut Session, schema: &str) -> Result<()> {
    let sql = format!(
        "CREATE TABLE IF NOT EXISTS {} (id TINYINT UNSIGNED NOT NULL PRIMARY KEY, point VARCHAR(255) NOT NULL, \
         operation VARCHAR(255) NOT NULL, `release` BIGINT UNSIGNED NOT NULL, \
         written_at DATETIME(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6)) {OPTIONS}",
        qualified(schema, MARKER)
    );
    session.run("create the marker table", &sql).await.map(drop)
}

/// Replaces the marker in `schema`.
pub(super) async fn write_marker(session: &mut Session, schema: &str, marker: &Marker) -> Result<()> {
    let Marker { point, operation, release } = marker;
    let sql = format!(
        "REPLACE INTO {} (id, point, operation, `release`) VALUES (1, {}, {}, {release})",
        qualified(schema, MARKER),
        literal(point),
        literal(operation)
    );
    session.run("write the marker", &sql).await.map(drop)
}

/// The marker in `schema`, whose table must exist.
pub(super) async fn marker(session: &mut Session, schema: &str) -> Result<Option<Marker>> {
    if !inspect::has_table(session, schema, MARKER).await? {
        return Ok(None);
    }
    let sql = format!("SELECT point, operation, `release` FROM {} WHERE id = 1", qualified(schema, MARKER));
    match session.row("read the marker", &sql).await? {
        Some(row) => Ok(Some(Marker { point: row.string(0)?, operation: row.string(1)?, release: row.count(2)? })),
        None => Ok(None),
    }
}

/// Whether the migration is recorded as being applied, but nothing of it took effect: no statement is done, and the one that may be under
/// way has ended without a trace. An unchanged schema says so of a DDL statement, unless a message says that it can't be seen.
pub(super) async fn is_untouched(session: &mut Session, schema: &str, row: &Applied) -> Result<bool> {
    if row.state != State::Applying || row.statements_done > 0 || row.message.is_some() || lock::is_held_elsewhere(session, schema).await? {
        return Ok(false);
    }
    match &row.fingerprint {
        Some(before) => Ok(*before == definition::fingerprint(session, schema).await?),
        None => Ok(true),
    }
}

/// All recorded migrations by version; the table must exist.
pub(super) async fn applied(session: &mut Session, schema: &str) -> Result<Vec<Applied>> {
    let sql = format!(
        "SELECT version, name, checksum, state, `release`, statements_done, fingerprint, down_checksum, message FROM {} ORDER BY version",
        qualified(schema, MIGRATIONS)
    );
    let rows = session.rows("read the recorded migrations", &sql).await?;
    rows.iter()
        .map(|row| {
            Ok(Applied {
                version: row.count(0)?,
                name: row.string(1)?,
                checksum: row.string(2)?,
                state: State::from_word(&row.string(3)?),
                release: row.count(4)?,
                statements_done: usize::try_from(row.count(5)?).unwrap_or(usize::MAX),
                fingerprint: row.text(6)?,
                down_checksum: row.text(7)?,
                message: row.text(8)?,
            })
        })
        .collect()
}
