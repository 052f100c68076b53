//! Which Release a schema belongs to: a fact of the database, so that two Releases that name one schema are told apart by whoever comes
//! second, whatever either remembers.
//!
//! The owner stands in a table of its own beside the bookkeeping of migrations. It is recorded in one transaction with the first
//! migration, and no other Release may migrate, revert or cut over from then on. The table is backed up, loaded and swapped with all
//! others; a cut-over writes its own Release into the set that becomes live, so that the owner is never one from the time of the backup. A
//! schema without the table, or with an empty one, has no owner yet.
//!
//! With it stands the number of the Release's newest operation that has written. An older one is refused: a process that was frozen in the
//! middle of its work, and wakes when another has gone on in its place, changes nothing any more.

use serde::{Deserialize, Serialize};

use super::bookkeeping::OPTIONS;
use super::endpoint::{Database, Session};
use super::error::{Error, Result};
use super::ident::{literal, qualified};
use super::inspect;

/// One row: the Release that migrates this schema.
pub const OWNER: &str = "_backout_owner";

/// A Release. It is known by its uid; the names say which one it was made again as, and are for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    pub uid: String,
    /// Identity of its cluster: a Release of the same name in another one is another.
    pub cluster: String,
    pub namespace: String,
    pub name: String,
    /// Number of the operation that writes; as recorded, of the newest that has.
    pub operation: u64,
}

/// Forgets the owner if it is `uid`; done already otherwise.
///
/// # Errors
/// Anything about getting in; [`Error::Busy`] while an operation is at work.
pub async fn release_ownership(database: &Database, uid: &str) -> Result<()> {
    let mut session = database.locked().await?;
    if recorded(&mut session, database.name()).await?.is_some_and(|owner| owner.uid == uid) {
        let sql = format!("DELETE FROM {} WHERE uid = {}", qualified(database.name(), OWNER), literal(uid));
        session.run("forget the owner", &sql).await?;
    }
    session.close().await;
    Ok(())
}

/// Makes `owner` the owner, whoever was it before: the caller has decided.
///
/// # Errors
/// As [`release_ownership`].
pub async fn take_ownership(database: &Database, owner: &Owner) -> Result<()> {
    let mut session = database.locked().await?;
    create(&mut session, database.name()).await?;
    write(&mut session, database.name(), owner).await?;
    session.close().await;
    Ok(())
}

/// Who owns `schema`.
pub(super) async fn recorded(session: &mut Session, schema: &str) -> Result<Option<Owner>> {
    if !inspect::has_table(session, schema, OWNER).await? {
        return Ok(None);
    }
    let sql = format!("SELECT uid, cluster, namespace, name, operation FROM {} WHERE id = 1", qualified(schema, OWNER));
    match session.row("read the owner", &sql).await? {
        Some(row) => Ok(Some(Owner {
            uid: row.string(0)?,
            cluster: row.string(1)?,
            namespace: row.string(2)?,
            name: row.string(3)?,
            operation: row.count(4)?,
        })),
        None => Ok(None),
    }
}

/// Who owns the live schema: `owner` or nobody yet, else [`Error::Owned`]. From now on no older operation of `owner` may write; if this
/// is one, [`Error::Outdated`].
pub(super) async fn claim(session: &mut Session, database: &Database, owner: &Owner) -> Result<Option<Owner>> {
    let schema = database.name();
    let Some(recorded) = recorded(session, schema).await? else { return Ok(None) };
    if recorded.uid != owner.uid {
        return Err(Error::Owned { database: schema.to_owned(), owner: Box::new(recorded) });
    }
    if recorded.operation > owner.operation {
        return Err(Error::Outdated { database: schema.to_owned(), operation: owner.operation, newest: recorded.operation });
    }
    if recorded.operation < owner.operation {
        write(session, schema, owner).await?;
    }
    Ok(Some(recorded))
}

pub(super) async fn create(session: &mut Session, schema: &str) -> Result<()> {
    let sql = format!(
        "CREATE TABLE IF NOT EXISTS {} (id TINYINT UNSIGNED NOT NULL PRIMARY KEY, uid VARCHAR(255) NOT NULL, \
         cluster VARCHAR(255) NOT NULL, namespace VARCHAR(255) NOT NULL, name VARCHAR(255) NOT NULL, operation BIGINT UNSIGNED NOT NULL, since DATETIME(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6)) {OPTIONS}",
        qualified(schema, OWNER)
    );
    session.run("create the owner's table", &sql).await.map(drop)
}

/// Makes `owner` the owner recorded in `schema`; without one, nobody.
pub(super) async fn put(session: &mut Session, schema: &str, owner: Option<&Owner>) -> Result<()> {
    create(session, schema).await?;
    match owner {
        Some(owner) => write(session, schema, owner).await,
        None => session.run("forget the owner", &format!("DELETE FROM {}", qualified(schema, OWNER))).await.map(drop),
    }
}

/// Replaces the owner in `schema`, whose table must exist.
pub(super) async fn write(session: &mut Session, schema: &str, owner: &Owner) -> Result<()> {
    let Owner { uid, cluster, namespace, name, operation } = owner;
    let sql = format!(
        "REPLACE INTO {} (id, uid, cluster, namespace, name, operation) VALUES (1, {}, {}, {}, {}, {operation})",
        qualified(schema, OWNER),
        literal(uid),
        literal(cluster),
        literal(namespace),
        literal(name)
    );
    session.run("write the owner", &sql).await.map(drop)
}
