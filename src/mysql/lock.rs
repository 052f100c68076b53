//! One writer for each database.
//!
//! A named lock of the server, held by the session that does the work. It lives exactly as long as that session's last statement, so whoever
//! comes after a killed operator waits for what that one left running instead of interleaving with it.

use sha2::{Digest, Sha256};

use super::endpoint::Session;
use super::error::{Error, Result};
use super::ident::literal;

/// Seconds to wait before saying busy. Short, since the caller tries again anyway.
const WAIT_SECONDS: u32 = 5;

/// Takes the lock for the rest of the session, or says [`Error::Busy`].
pub(super) async fn take(session: &mut Session, database: &str) -> Result<()> {
    get(session, database, &name("backout", database)).await
}

/// Sessions that may write for the holder of the lock at the same time.
pub(super) const MOST_HELPERS: usize = 16;

/// Marks the session as helper `number` of the lock's holder, from 0 and below [`MOST_HELPERS`].
pub(super) async fn help(session: &mut Session, database: &str, number: usize) -> Result<()> {
    get(session, database, &helper(database, number)).await
}

/// Says [`Error::Busy`] while a helper of an earlier holder is still there: its last statement may take effect yet.
pub(super) async fn alone(session: &mut Session, database: &str) -> Result<()> {
    let used: Vec<String> = (0..MOST_HELPERS).map(|number| format!("IS_USED_LOCK({})", literal(&helper(database, number)))).collect();
    let row = session.row("look for helpers of an earlier holder", &format!("SELECT COALESCE({})", used.join(","))).await?;
    match row.map(|row| row.number(0)).transpose()?.flatten() {
        None => Ok(()),
        Some(_) => Err(Error::Busy { database: database.to_owned() }),
    }
}

async fn get(session: &mut Session, database: &str, lock: &str) -> Result<()> {
    let row = session.row("take the lock of the database", &format!("SELECT GET_LOCK({}, {WAIT_SECONDS})", literal(lock))).await?;
    match row.map(|row| row.number(0)).transpose()?.flatten() {
        Some(1) => Ok(()),
        _ => Err(Error::Busy { database: database.to_owned() }),
    }
}

fn helper(database: &str, number: usize) -> String {
    name(&format!("backout-helper-{number}"), database)
}

/// Whether another session holds the lock: a statement of a killed predecessor may still take effect.
pub(super) async fn is_held_elsewhere(session: &mut Session, database: &str) -> Result<bool> {
    let sql = format!("SELECT COALESCE(IS_USED_LOCK({}), CONNECTION_ID()) <> CONNECTION_ID()", literal(&name("backout", database)));
    Ok(session.row("look at the lock of the database", &sql).await?.map(|row| row.count(0)).transpose()? != Some(0))
}

/// Servers limit lock names to 64 characters, which a long schema name would exceed.
fn name(kind: &str, database: &str) -> String {
    let name = format!("{kind}:{database}");
    if name.chars().count() <= 64 {
        name
    } else {
        format!("{kind}:{}", hex::encode(Sha256::digest(database)).chars().take(40).collect::<String>())
    }
}
