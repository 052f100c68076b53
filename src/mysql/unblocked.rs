//! Statements that need tables for themselves, without keeping anybody waiting.
//!
//! One that waits for a lock stops everybody who comes after it. So none waits: it gives up at once and tries again.

use std::collections::BTreeSet;
use std::fmt;
use std::time::{Duration, Instant};

use super::endpoint::{Row, Session};
use super::error::Result;
use super::ident::literal;

/// Between two attempts. Each blocks new queries for about a millisecond.
pub(super) const RETRY_EVERY: Duration = Duration::from_millis(20);
/// The server's "lock wait timeout exceeded".
pub(super) const LOCK_WAIT: u16 = 1205;
/// Characters of a blocking statement that are looked at: comments may come before its first word.
const LONGEST_OPENING: usize = 4096;

/// Runs a statement as soon as its tables are free, within `patience`.
pub(super) async fn unblocked(session: &mut Session, doing: &str, sql: &str, patience: Duration) -> Result<()> {
    session.run("stop waiting for locks", "SET lock_wait_timeout=0").await?;
    let begun = Instant::now();
    let done = loop {
        match session.run(doing, sql).await {
            Err(error) if error.code() == Some(LOCK_WAIT) && begun.elapsed() < patience => tokio::time::sleep(RETRY_EVERY).await,
            done => break done,
        }
    };
    session.run("wait for locks again", WAIT_AGAIN).await?;
    done.map(drop)
}

/// Ends what `SET lock_wait_timeout=0` began.
pub(super) const WAIT_AGAIN: &str = "SET lock_wait_timeout=5";

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

/// Best effort, in falling exactness: the holders of metadata locks (needs a plugin), open transactions (needs PROCESS), running statements.
pub(super) async fn blockers(session: &mut Session, database: &str) -> Vec<Blocker> {
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

fn blocker(row: &Row) -> Result<Blocker> {
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
