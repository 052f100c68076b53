//! Applying and taking back migrations, each statement exactly once whatever is killed when.
//!
//! Progress stands in `_backout_migrations`. A data statement is committed in one transaction with its progress. A DDL statement commits by
//! itself, so before it runs, its place and the schema's fingerprint are recorded; when it is found in flight after a crash, an unchanged
//! fingerprint says that it did not run and a changed one that it did, because MariaDB's DDL is atomic. The database's lock makes sure that
//! the statement of a killed predecessor has ended before anybody looks. So both functions can simply be called again. A record of which
//! nothing took effect counts as none: nothing stands half way.

use sha2::{Digest, Sha256};

use crate::error::Class;

use super::bookkeeping::{self, Applied, MIGRATIONS, State};
use super::definition::fingerprint;
use super::endpoint::{Database, Session};
use super::error::{Error, Result, SchemaState};
use super::ident::{literal, quote};
use super::owner::{self, Owner};
use super::script::{self, Effect, Refusal, Statement};

/// A schema change as the release names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Migration {
    pub version: u64,
    pub name: String,
    /// The up script.
    pub sql: String,
    /// Of the file; a recorded migration with another one is refused.
    pub checksum: String,
}

/// How a call went that went well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// This call did it, or finished what an earlier one had begun.
    Done,
    /// Nothing was left to do.
    AlreadyDone,
}

/// Migrations run under MariaDB's own defaults, the same on every server, not under the lenient settings that backups need.
const SESSION: &str = "SET sql_mode='STRICT_TRANS_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_AUTO_CREATE_USER,NO_ENGINE_SUBSTITUTION', \
    foreign_key_checks=1, check_constraint_checks=1, innodb_strict_mode=1";
/// The server's "unknown table", from the second run of a `DROP TABLE a, b`.
const UNKNOWN_TABLE: u16 = 1051;

/// Applies one migration for a release of `owner` and records it; the first one makes `owner` the schema's owner. Call it again after any failure that is transient: it continues where it was.
///
/// # Errors
/// [`Error::Owned`] and [`Error::MigrationRefused`] before anything runs; [`Error::MigrationChanged`]; [`Error::Migration`] says which statement failed and
/// what state the schema is in.
pub async fn apply(database: &Database, migration: &Migration, release: u64, owner: &Owner) -> Result<Outcome> {
    let Migration { version, name, sql, checksum } = migration;
    let statements = statements(*version, name, sql)?;
    let mut session = begin(database).await?;
    let recorded = owner::claim(&mut session, database, owner).await?;
    let mut found = find(&mut session, database, *version).await?;
    if let Some(row) = &found
        && bookkeeping::is_untouched(&mut session, database.name(), row).await?
    {
        // Whoever recorded it did nothing: what runs now is this release's file, and this release brought it.
        found = None;
    }
    let row = match found {
        Some(row) => row,
        None => {
            let new_owner = if recorded.is_none() { Some(owner) } else { None };
            record(&mut session, database, migration, release, new_owner).await?
        }
    };
    if row.checksum != *checksum {
        let (name, recorded, given) = (name.clone(), row.checksum, checksum.clone());
        return Err(Error::MigrationChanged { version: *version, name, recorded, given });
    }
    match row.state {
        State::Applied => {
            session.close().await;
            return Ok(Outcome::AlreadyDone);
        }
        State::Intended | State::Applying => {}
        State::Reverting => return Err(refused(&row, "it is being taken back: finish that first")),
        State::Failed => return Err(half_migrated(&row, statements.len())),
    }
    Run { database, session: &mut session, row: &row, statements: &statements, direction: Direction::Up }.all().await?;
    let sql = format!("state = {}, finished_at = CURRENT_TIMESTAMP(6)", literal(State::Applied.word()));
    update(&mut session, *version, &sql).await?;
    session.close().await;
    Ok(Outcome::Done)
}

/// Takes one migration back with its down script and forgets it. Call it again after any failure that is transient.
///
/// # Errors
/// As [`apply`].
pub async fn revert(database: &Database, version: u64, down_sql: &str, owner: &Owner) -> Result<Outcome> {
    let mut session = begin(database).await?;
    owner::claim(&mut session, database, owner).await?;
    let Some(mut row) = find(&mut session, database, version).await? else {
        session.close().await;
        return Ok(Outcome::AlreadyDone);
    };
    let statements = statements(version, &row.name, down_sql)?;
    let checksum = hex::encode(Sha256::digest(down_sql));
    match row.state {
        State::Applied => {
            let sql = format!(
                "state = {}, statements_done = 0, fingerprint = NULL, down_checksum = {}",
                literal(State::Reverting.word()),
                literal(&checksum)
            );
            update(&mut session, version, &sql).await?;
            row.statements_done = 0;
            row.fingerprint = None;
        }
        State::Reverting if row.down_checksum.as_deref() == Some(&checksum) => {}
        State::Reverting => {
            let recorded = row.down_checksum.unwrap_or_default();
            return Err(Error::MigrationChanged { version, name: row.name, recorded, given: checksum });
        }
        State::Intended | State::Applying => return Err(refused(&row, "it is being applied: finish that first")),
        State::Failed => return Err(half_migrated(&row, statements.len())),
    }
    Run { database, session: &mut session, row: &row, statements: &statements, direction: Direction::Down }.all().await?;
    session.run("forget the migration", &format!("DELETE FROM {} WHERE version = {version}", quote(MIGRATIONS))).await?;
    session.close().await;
    Ok(Outcome::Done)
}

/// Records that the migration is about to be applied, in place of a record of which nothing came, and who owns the schema if nobody did.
async fn record(
    session: &mut Session,
    database: &Database,
    migration: &Migration,
    release: u64,
    new_owner: Option<&Owner>,
) -> Result<Applied> {
    let Migration { version, name, sql: _, checksum } = migration;
    let doing = "record the migration";
    if new_owner.is_some() {
        owner::create(session, database.name()).await?;
    }
    session.run(doing, "START TRANSACTION").await?;
    if let Some(owner) = new_owner {
        owner::write(session, database.name(), owner).await?;
    }
    let sql = format!(
        "REPLACE INTO {} (version, name, checksum, state, `release`) VALUES ({version}, {}, {}, {}, {release})",
        quote(MIGRATIONS),
        literal(name),
        literal(checksum),
        literal(State::Intended.word())
    );
    session.run(doing, &sql).await?;
    session.run(doing, "COMMIT").await?;
    Ok(Applied {
        version: *version,
        name: name.clone(),
        checksum: checksum.clone(),
        state: State::Intended,
        release,
        statements_done: 0,
        fingerprint: None,
        down_checksum: None,
        message: None,
    })
}

async fn begin(database: &Database) -> Result<Session> {
    let mut session = database.locked().await?;
    session.run("prepare the session for migrations", SESSION).await?;
    bookkeeping::create_migrations(&mut session, database.name()).await?;
    Ok(session)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Up,
    Down,
}

/// One pass over the statements that are not done yet.
struct Run<'a> {
    database: &'a Database,
    session: &'a mut Session,
    row: &'a Applied,
    statements: &'a [Statement],
    direction: Direction,
}

impl Run<'_> {
    async fn all(mut self) -> Result<()> {
        let mut flight = self.row.fingerprint.clone();
        for (index, statement) in self.statements.iter().enumerate() {
            let done = index < self.row.statements_done;
            match statement.effect {
                Effect::Session => self.session(index, statement).await?,
                _ if done => {}
                Effect::Data => self.data(index, statement).await?,
                Effect::Definition | Effect::DropSeveral | Effect::Invisible | Effect::Emptying => {
                    self.definition(index, statement, flight.take()).await?;
                }
            }
        }
        Ok(())
    }

    /// Run in every session anew, so that the statements after it find what it set. By itself it is no progress: it leaves nothing.
    async fn session(&mut self, index: usize, statement: &Statement) -> Result<()> {
        match self.session.run_long(&self.doing(index), statement.text.clone()).await {
            Ok(_) => Ok(()),
            Err(error) => self.fail(index, error, None).await,
        }
    }

    async fn data(&mut self, index: usize, statement: &Statement) -> Result<()> {
        let doing = self.doing(index);
        self.session.run(&doing, "START TRANSACTION").await?;
        if let Err(error) = self.session.run_long(&doing, statement.text.clone()).await {
            // Also takes back what a statement did before it failed. A lost session takes it back by itself.
            if matches!(error, Error::Refused { .. }) {
                self.session.run(&doing, "ROLLBACK").await?;
            }
            return self.fail(index, error, None).await;
        }
        self.progress(index + 1).await?;
        self.session.run_long(&doing, "COMMIT".to_owned()).await.map(drop)
    }

    async fn definition(&mut self, index: usize, statement: &Statement, flight: Option<String>) -> Result<()> {
        let now = fingerprint(self.session, self.database.name()).await?;
        if let Some(before) = &flight {
            match (statement.effect, *before == now) {
                (Effect::Definition | Effect::Invisible | Effect::Emptying, false) => return self.progress(index + 1).await,
                (Effect::Invisible, true) => {
                    let message = "it was interrupted, and whether it ran can't be seen".to_owned();
                    return self.give_up(index, None, message).await;
                }
                _ => {}
            }
        }
        if flight.is_none() {
            let unseen = match statement.effect {
                Effect::Invisible | Effect::Emptying => {
                    literal(&format!("statement {} is under way, and its effect can't be seen", index + 1))
                }
                Effect::Data | Effect::Definition | Effect::DropSeveral | Effect::Session => "NULL".to_owned(),
            };
            update(self.session, self.row.version, &format!("fingerprint = {}, message = {unseen}", literal(&now))).await?;
        }
        match self.session.run_long(&self.doing(index), statement.text.clone()).await {
            Ok(_) => self.progress(index + 1).await,
            Err(error) if statement.effect == Effect::DropSeveral && flight.is_some() && error.code() == Some(UNKNOWN_TABLE) => {
                self.progress(index + 1).await
            }
            Err(error) => self.fail(index, error, Some(now)).await,
        }
    }

    /// Decides what a failed statement leaves behind. `before` is the fingerprint from before a DDL statement.
    async fn fail(&mut self, index: usize, error: Error, before: Option<String>) -> Result<()> {
        let Error::Refused { message, code, .. } = error else { return Err(error) };
        let transient = Error::Refused { doing: String::new(), code, message: String::new() }.class() == Class::Transient;
        let unchanged = match &before {
            Some(before) => fingerprint(self.session, self.database.name()).await? == *before,
            None => true,
        };
        let message = format!("error {code}: {message}");
        if transient && unchanged {
            if before.is_some() {
                update(self.session, self.row.version, "fingerprint = NULL, message = NULL").await?;
            }
            return Err(self.failed(index, Some(code), message, (SchemaState::Resumable, Class::Transient)));
        }
        let nothing_before = self.statements.iter().take(index).all(|statement| statement.effect == Effect::Session);
        if !unchanged || !nothing_before {
            return self.give_up(index, Some(code), message).await;
        }
        let version = self.row.version;
        match self.direction {
            Direction::Up => {
                self.session.run("forget the migration", &format!("DELETE FROM {} WHERE version = {version}", quote(MIGRATIONS))).await?;
            }
            Direction::Down => {
                let sql = format!("state = {}, fingerprint = NULL, message = NULL, down_checksum = NULL", literal(State::Applied.word()));
                update(self.session, version, &sql).await?;
            }
        }
        Err(self.failed(index, Some(code), message, (SchemaState::Untouched, Class::Permanent)))
    }

    async fn give_up(&mut self, index: usize, code: Option<u16>, message: String) -> Result<()> {
        let sql = format!("state = {}, statements_done = {index}, message = {}", literal(State::Failed.word()), literal(&message));
        update(self.session, self.row.version, &sql).await?;
        Err(self.failed(index, code, message, (SchemaState::HalfMigrated, Class::Permanent)))
    }

    fn failed(&self, index: usize, code: Option<u16>, message: String, (state, class): (SchemaState, Class)) -> Error {
        Error::Migration {
            version: self.row.version,
            name: self.row.name.clone(),
            statement: index + 1,
            of: self.statements.len(),
            code,
            message,
            state,
            class,
        }
    }

    async fn progress(&mut self, done: usize) -> Result<()> {
        update(self.session, self.row.version, &format!("statements_done = {done}, fingerprint = NULL, message = NULL")).await
    }

    fn doing(&self, index: usize) -> String {
        format!("migration {} {}, statement {}", self.row.version, self.row.name, index + 1)
    }
}

/// Whether a script can be taken apart into statements that the engine runs.
///
/// # Errors
/// [`Error::MigrationRefused`] with what stands in the way.
pub fn check_script(version: u64, name: &str, sql: &str) -> Result<()> {
    statements(version, name, sql).map(drop)
}

fn statements(version: u64, name: &str, sql: &str) -> Result<Vec<Statement>> {
    script::split(sql).map_err(|Refusal(reason)| Error::MigrationRefused { version, name: name.to_owned(), reason })
}

async fn find(session: &mut Session, database: &Database, version: u64) -> Result<Option<Applied>> {
    Ok(bookkeeping::applied(session, database.name()).await?.into_iter().find(|row| row.version == version))
}

async fn update(session: &mut Session, version: u64, change: &str) -> Result<()> {
    let sql = format!("UPDATE {} SET {change} WHERE version = {version}", quote(MIGRATIONS));
    session.run("record the migration's progress", &sql).await.map(drop)
}

fn refused(row: &Applied, reason: &str) -> Error {
    Error::MigrationRefused { version: row.version, name: row.name.clone(), reason: reason.to_owned() }
}

fn half_migrated(row: &Applied, of: usize) -> Error {
    Error::Migration {
        version: row.version,
        name: row.name.clone(),
        statement: row.statements_done.saturating_add(1),
        of,
        code: None,
        message: row.message.clone().unwrap_or_default(),
        state: SchemaState::HalfMigrated,
        class: Class::Permanent,
    }
}
