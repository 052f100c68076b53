//! The cut-over: every live table moves aside and every table of the shadow takes its place, in one `RENAME TABLE`.
//!
//! Idempotent by the marker that travels with the swapped set: if the live schema names the same operation, it is done. The rename itself is
//! atomic on the server, crash included, so there is no state in between. It never waits for a lock while it holds others, which would
//! stop every query on the tables it has already: it gives up at once and tries again.
//!
//! Undoing a cut-over is a cut-over whose source is the aside that the first one made: what was live before is live again, with its own
//! migrations, what came since goes into a new aside, and the emptied one is dropped. The marker and the owner are written into the source
//! before the rename, so they name the operation at work and its Release whatever the source held.

use std::collections::BTreeSet;
use std::fmt;
use std::time::{Duration, Instant};

use super::beside::{self, Beside, Standing};
use super::bookkeeping::{self, Marker};
use super::endpoint::{Database, Session};
use super::error::{Error, Result};
use super::ident::{literal, qualified, quote};
use super::inspect::{self, Table};
use super::owner::{self, Owner};

/// Between two attempts. Each blocks new queries for about a millisecond.
const RETRY_EVERY: Duration = Duration::from_millis(20);
/// Attempts, about a second's, after which the counters are raised again.
const RAISE_EVERY: u32 = 50;
/// Characters of a blocking statement that are looked at: comments may come before its first word.
const LONGEST_OPENING: usize = 4096;
/// The server's "lock wait timeout exceeded".
const LOCK_WAIT: u16 = 1205;
/// Ids left free above the live counter. Rows are still inserted between reading the counter and the rename, and their ids must not be
/// given out again. Narrow columns get none: they could run out.
const COUNTER_HEADROOM: u64 = 1000;

/// A cut-over.
#[derive(Clone, Debug)]
pub struct Swap {
    /// What becomes live: a loaded shadow, or an aside (to undo the cut-over that made it).
    pub shadow: String,
    /// Receives what is live now; must not exist yet, or be empty.
    pub aside: String,
    /// What the live schema will say of itself. `point` is the shadow's backup point; for an aside its own name.
    pub marker: Marker,
    /// The Release that wants it: the owner of what becomes live. `None`: whoever owns what is live now goes on to.
    pub owner: Option<Owner>,
    /// How long to keep trying while a transaction is open on one of the tables.
    pub deadline: Duration,
}

/// How it went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Swapped {
    /// How many tables the live schema has now; 0 if it had been done before.
    pub tables: usize,
    /// How many renames it took; 0 if it had been done before.
    pub attempts: u32,
    /// From the first rename to the one that went through.
    pub took: Duration,
}

/// Who keeps the tables from being renamed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocker {
    /// The server's process id, as `KILL` takes it.
    pub process: u64,
    pub user: String,
    pub host: String,
    /// What kind of statement it is running, by its first word; `None` while it is idle inside a transaction. Never the statement itself:
    /// it is somebody else's and may hold anything.
    pub statement: Option<String>,
    /// As the server names it, for example `Sending data`.
    pub state: String,
    /// How long its transaction, or its statement, lasts.
    pub seconds: u64,
}

impl fmt::Display for Blocker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { process, user, host, statement, state, seconds } = self;
        let statement = statement.as_deref().unwrap_or("idle in a transaction");
        let state = if state.is_empty() { String::new() } else { format!(", {state}") };
        write!(f, "process {process} of {user}@{host} since {seconds} s ({statement}{state})")
    }
}

/// Makes the shadow live and keeps what it replaces in the aside.
///
/// # Errors
/// [`Error::Schema`] when the shadow is not complete for the marker's point or the aside holds something; [`Error::SwapBlocked`] at the
/// deadline, naming who blocks it. In each of them nothing was changed. After [`Error::Lost`] call it again: it finds out.
pub async fn swap(database: &Database, swap: &Swap) -> Result<Swapped> {
    beside::check_name(database.name(), &swap.shadow)?;
    beside::check_name(database.name(), &swap.aside)?;
    let mut session = database.locked().await?;
    let inventory = inspect::look_strictly(database, &mut session).await?;
    let swapped = if inventory.marker.as_ref().is_some_and(|live| live.operation == swap.marker.operation) {
        Swapped { tables: 0, attempts: 0, took: Duration::ZERO }
    } else {
        if let Some(owner) = &swap.owner {
            owner::claim(&mut session, database, owner).await?;
        }
        let replacement = prepare(&mut session, database, swap, &inventory.tables).await?;
        match rename(&mut session, database, swap, &inventory.tables, &replacement).await {
            Ok(swapped) => swapped,
            Err(error) => {
                // Best effort: an empty schema without a sign would be nobody's, should this never be tried again.
                if matches!(error, Error::SwapBlocked { .. }) {
                    let _ = beside::drop_schema(&mut session, &swap.aside).await;
                }
                return Err(error);
            }
        }
    };
    // Also when it had been done before: a crash may have come right after the rename.
    finish(&mut session, database, swap).await?;
    session.close().await;
    Ok(swapped)
}

/// Everything that can be done before the tables move. Returns the tables of the shadow.
async fn prepare(session: &mut Session, database: &Database, swap: &Swap, live: &[Table]) -> Result<Vec<Table>> {
    let refuse = |schema: &str, reason: String| Err(Error::Schema { schema: schema.to_owned(), reason });
    match beside::sign(session, &swap.shadow).await? {
        Some(Beside { state: Standing::Complete | Standing::Aside, point, .. }) if point == swap.marker.point => {}
        Some(Beside { state: Standing::Loading, .. }) => return refuse(&swap.shadow, "it is not completely loaded".to_owned()),
        Some(Beside { point, .. }) => {
            return refuse(&swap.shadow, format!("it holds {point}, not {}", swap.marker.point));
        }
        None => return refuse(&swap.shadow, "it is not there: load it first".to_owned()),
    }
    // They could not move with the tables, and what is left over keeps the emptied schema from being dropped.
    let mut unsupported = inspect::list(session, &swap.shadow).await?.unsupported;
    unsupported.extend(inspect::objects(session, &swap.shadow).await?);
    if !unsupported.is_empty() {
        return Err(Error::Unsupported { database: swap.shadow.clone(), objects: unsupported });
    }
    if !inspect::list(session, &swap.aside).await?.tables.is_empty() {
        return refuse(&swap.aside, "it holds tables: choose another name".to_owned());
    }
    // The sign is put up after the rename: before it the aside must be empty to be taken for unused.
    session.run("create the aside schema", &format!("CREATE DATABASE IF NOT EXISTS {}", quote(&swap.aside))).await?;
    bookkeeping::create_marker(session, &swap.shadow).await?;
    bookkeeping::write_marker(session, &swap.shadow, &swap.marker).await?;
    let owner = match &swap.owner {
        Some(owner) => Some(owner.clone()),
        None => owner::recorded(session, database.name()).await?,
    };
    owner::put(session, &swap.shadow, owner.as_ref()).await?;
    let replacement = beside::tables(session, &swap.shadow).await?;
    raise_counters(session, database.name(), live, &swap.shadow, &replacement, Headroom::Leave).await?;
    Ok(replacement)
}

async fn rename(session: &mut Session, database: &Database, swap: &Swap, live: &[Table], replacement: &[Table]) -> Result<Swapped> {
    let pairs = |tables: &[Table], from: &str, to: &str| -> Vec<String> {
        tables.iter().map(|table| format!("{} TO {}", qualified(from, &table.name), qualified(to, &table.name))).collect()
    };
    let mut moves = pairs(live, database.name(), &swap.aside);
    moves.extend(pairs(replacement, &swap.shadow, database.name()));
    let sql = format!("RENAME TABLE {}", moves.join(", "));

    session.run("stop waiting for locks", "SET lock_wait_timeout=0").await?;
    let begun = Instant::now();
    let mut attempts = 0;
    loop {
        attempts += 1;
        match session.run("cut over", &sql).await {
            Ok(_) => return Ok(Swapped { tables: replacement.len(), attempts, took: begun.elapsed() }),
            Err(error) if error.code() == Some(LOCK_WAIT) => {
                if begun.elapsed() >= swap.deadline {
                    let blockers = blockers(session, database.name()).await;
                    return Err(Error::SwapBlocked { database: database.name().to_owned(), attempts, waited: begun.elapsed(), blockers });
                }
            }
            Err(error) => return Err(error),
        }
        tokio::time::sleep(RETRY_EVERY).await;
        if attempts % RAISE_EVERY == 0 {
            // Meanwhile rows may have used up the headroom.
            let live = beside::tables(session, database.name()).await?;
            let replacement = beside::tables(session, &swap.shadow).await?;
            raise_counters(session, database.name(), &live, &swap.shadow, &replacement, Headroom::Leave).await?;
        }
    }
}

async fn finish(session: &mut Session, database: &Database, swap: &Swap) -> Result<()> {
    session.run("wait for locks again", "SET lock_wait_timeout=5").await?;
    // Once more, now that no new id can come into what stands aside.
    let replaced = beside::tables(session, &swap.aside).await?;
    let live = beside::tables(session, database.name()).await?;
    raise_counters(session, &swap.aside, &replaced, database.name(), &live, Headroom::None).await?;
    if beside::exists(session, &swap.aside).await? {
        let sign = Beside { schema: swap.aside.clone(), state: Standing::Aside, point: swap.aside.clone(), digest: String::new() };
        beside::write_sign(session, &sign).await?;
    }
    // Refused if anything but the sign is left in it.
    if beside::tables(session, &swap.shadow).await?.is_empty() {
        beside::drop_schema(session, &swap.shadow).await?;
    }
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Headroom {
    Leave,
    None,
}

/// Lets `to`'s counters begin where `from`'s have come to, so that no id is given out twice.
async fn raise_counters(
    session: &mut Session,
    from_schema: &str,
    from: &[Table],
    to_schema: &str,
    to: &[Table],
    headroom: Headroom,
) -> Result<()> {
    for table in from {
        let Some(twin) = to.iter().find(|twin| twin.name == table.name) else { continue };
        let (Some(used), Some(next)) = (table.auto_increment, twin.auto_increment) else { continue };
        let raised = match headroom {
            Headroom::Leave if counts_far(twin) => used.saturating_add(COUNTER_HEADROOM),
            Headroom::Leave | Headroom::None => used,
        };
        if raised > next {
            let sql = format!("ALTER TABLE {} AUTO_INCREMENT = {raised}", qualified(to_schema, &twin.name));
            session.run_long(&format!("raise the counter of table {} from {from_schema}", twin.name), sql).await?;
        }
    }
    Ok(())
}

/// Whether the counting column has room for [`COUNTER_HEADROOM`] many times over.
fn counts_far(table: &Table) -> bool {
    let counter = table.columns.iter().find(|column| Some(&column.name) == table.counter.as_ref());
    counter.is_some_and(|column| matches!(column.data_type.as_str(), "int" | "bigint"))
}

/// Best effort, in falling exactness: the holders of metadata locks (needs a plugin), open transactions (needs PROCESS), running statements.
async fn blockers(session: &mut Session, database: &str) -> Vec<Blocker> {
    let own = "p.ID <> CONNECTION_ID()";
    let columns = format!("p.ID, p.USER, p.HOST, LEFT(p.INFO, {LONGEST_OPENING}), p.STATE, ");
    let schema = literal(database);
    let locks = format!(
        "SELECT DISTINCT {columns} GREATEST(p.TIME, COALESCE(TIMESTAMPDIFF(SECOND, t.trx_started, NOW()), 0)) \
         FROM information_schema.METADATA_LOCK_INFO m JOIN information_schema.PROCESSLIST p ON p.ID = m.THREAD_ID \
         LEFT JOIN information_schema.INNODB_TRX t ON t.trx_mysql_thread_id = p.ID \
         WHERE m.TABLE_SCHEMA = {schema} AND m.LOCK_TYPE LIKE 'Table%' AND {own}"
    );
    let transactions = format!(
        "SELECT {columns} GREATEST(0, TIMESTAMPDIFF(SECOND, t.trx_started, NOW())) \
         FROM information_schema.INNODB_TRX t JOIN information_schema.PROCESSLIST p ON p.ID = t.trx_mysql_thread_id \
         WHERE {own} ORDER BY t.trx_started"
    );
    let statements = format!(
        "SELECT {columns} p.TIME FROM information_schema.PROCESSLIST p \
         WHERE {own} AND p.DB = {schema} AND p.COMMAND NOT IN ('Sleep', 'Daemon') ORDER BY p.TIME DESC"
    );
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    for sql in [locks, transactions, statements] {
        let Ok(rows) = session.rows("look who blocks the cut-over", &sql).await else { continue };
        for row in rows {
            if let Ok(blocker) = blocker(&row)
                && seen.insert(blocker.process)
            {
                found.push(blocker);
            }
        }
        if !found.is_empty() {
            break;
        }
    }
    found
}

fn blocker(row: &super::endpoint::Row) -> Result<Blocker> {
    Ok(Blocker {
        process: row.count(0)?,
        user: row.text(1)?.unwrap_or_default(),
        host: row.text(2)?.unwrap_or_default(),
        statement: row.text(3)?.map(|statement| kind(&statement)),
        state: row.text(4)?.unwrap_or_default(),
        seconds: row.text(5)?.and_then(|seconds| seconds.parse().ok()).unwrap_or(0),
    })
}

/// The first word of a statement, which may be cut off anywhere.
fn kind(statement: &str) -> String {
    let mut rest = statement.trim_start_matches(|c: char| c.is_whitespace() || c == '(');
    while let Some(comment) = rest.strip_prefix("/*").filter(|comment| !comment.starts_with(['!', 'M'])) {
        let after = comment.split_once("*/").map_or("", |(_, after)| after);
        rest = after.trim_start_matches(|c: char| c.is_whitespace() || c == '(');
    }
    let word: String = rest.chars().take_while(char::is_ascii_alphabetic).map(|c| c.to_ascii_uppercase()).collect();
    if KINDS.contains(&word.as_str()) { word } else { "another statement".to_owned() }
}

/// What may be named: only words of the language, since anything may stand at the beginning of what is no statement.
const KINDS: [&str; 22] = [
    "ALTER", "ANALYZE", "BEGIN", "CALL", "CHECK", "COMMIT", "CREATE", "DELETE", "DROP", "EXECUTE", "FLUSH", "INSERT", "LOAD", "LOCK",
    "OPTIMIZE", "RENAME", "REPLACE", "SELECT", "SET", "TRUNCATE", "UPDATE", "WITH",
];

#[cfg(test)]
mod tests {
    use super::kind;

    #[test]
    fn of_somebody_elses_statement_only_its_kind_is_told() {
        for (statement, expected) in [
            ("UPDATE users SET password = 'hush'", "UPDATE"),
            ("  ( select 'hush')", "SELECT"),
            ("/* hush */ /* more */\n insert into t values ('hush')", "INSERT"),
            ("/* hush that was cut", "another statement"),
            ("/*!50000 SELECT */ 'hush'", "another statement"),
            ("-- hush\nSELECT 1", "another statement"),
            ("hush", "another statement"),
            ("", "another statement"),
        ] {
            assert_eq!(kind(statement), expected, "{statement}");
        }
    }
}
