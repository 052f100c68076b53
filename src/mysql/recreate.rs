//! Makes the stored objects of a schema what they should be, and tries beforehand whether that can be done.
//!
//! Idempotent: what is there as it should be is left alone.

use std::time::Duration;

use super::endpoint::{SESSION, Session};
use super::error::{Error, Result};
use super::ident::quote;
use super::stored::{self, StoredKind, StoredObject};
use super::unblocked::unblocked;

/// The server's note that the definer of what was made does not exist.
const NO_DEFINER: u64 = 1449;

/// Makes all of `objects` in a schema without stored objects of its own and takes them away again: definers exist, privileges suffice,
/// the server takes every text. Events don't fire meanwhile.
///
/// # Errors
/// [`Error::Definer`]; [`Error::Refused`] in the server's words, naming the object.
pub(super) async fn try_in(session: &mut Session, schema: &str, objects: &[StoredObject]) -> Result<()> {
    // Of a try that was cut off.
    drop_all(session, schema).await?;
    session.run("enter the schema", &format!("USE {}", quote(schema))).await?;
    make_all(session, objects.iter().collect(), StoredObject::create_idle).await?;
    drop_all(session, schema).await
}

/// Makes the routines, views and events of the live schema, in which the session is, those among `wanted`, and drops all others. Its
/// triggers are [`triggers`]'.
///
/// # Errors
/// As [`try_in`].
pub(super) async fn objects(session: &mut Session, schema: &str, wanted: &[StoredObject]) -> Result<()> {
    session.run("enter the schema", &format!("USE {}", quote(schema))).await?;
    let mut missing = Vec::new();
    let listed = stored::list(session, schema).await?;
    for other in listed.iter().rev().filter(|other| other.kind != StoredKind::Trigger) {
        if wanted.iter().all(|object| (object.kind, &object.name) != (other.kind, &other.name)) {
            drop_one(session, other.kind, &other.name).await?;
        }
    }
    for object in wanted.iter().filter(|object| object.kind != StoredKind::Trigger) {
        if !stands(session, schema, &listed, object).await? {
            missing.push(object);
        }
    }
    make_all(session, missing, StoredObject::create).await
}

/// Gives the tables of the live schema, in which the session is, the triggers among `wanted` in place of passing ones: `passing` gives the
/// name of each one's. Nobody writes to the tables meanwhile, so no row goes without a trigger or meets two.
///
/// # Errors
/// As [`try_in`]; [`Error::Refused`] with the server's lock timeout when a table was in use for all of `patience`.
pub(super) async fn triggers(
    session: &mut Session,
    schema: &str,
    wanted: &[StoredObject],
    passing: impl Fn(usize) -> String,
    patience: Duration,
) -> Result<()> {
    let listed = stored::list(session, schema).await?;
    let (mut wanted_triggers, mut tables) = (Vec::new(), Vec::new());
    for (number, trigger) in wanted.iter().filter(|object| object.kind == StoredKind::Trigger).enumerate() {
        wanted_triggers.push((number, trigger, stands(session, schema, &listed, trigger).await?));
        tables.extend(trigger.on.as_ref().map(|on| format!("{} WRITE", quote(&on.table))));
    }
    if tables.is_empty() {
        return Ok(());
    }
    tables.sort();
    tables.dedup();
    unblocked(session, "hold back writes while triggers are made", &format!("LOCK TABLES {}", tables.join(", ")), patience).await?;
    let made = async {
        for (number, trigger, stands) in wanted_triggers {
            if !stands {
                make(session, trigger, trigger.create()).await?;
            }
            drop_one(session, StoredKind::Trigger, &passing(number)).await?;
        }
        Ok(())
    }
    .await;
    // After an error the session is closed, which frees them as well; this is sooner.
    let unlocked = session.run("let writes go on", "UNLOCK TABLES").await;
    made.and(unlocked.map(drop))
}

/// Makes a trigger under another name on another table of the schema that the session is in.
pub(super) async fn passing_trigger(session: &mut Session, trigger: &StoredObject, name: &str, table: &str) -> Result<()> {
    make(session, trigger, trigger.create_trigger(name, table)).await
}

/// Whether the live schema has it as it should be. Of a text that can't be read that is not known, and it is made anew.
async fn stands(session: &mut Session, schema: &str, listed: &[stored::Listed], object: &StoredObject) -> Result<bool> {
    let Some(there) = listed.iter().find(|there| (there.kind, &there.name) == (object.kind, &object.name)) else { return Ok(false) };
    match stored::text(session, schema, there.clone()).await {
        Ok(there) => Ok(there == *object),
        Err(Error::Unreadable { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// In their order; a view that needs another one is tried again after it.
async fn make_all(session: &mut Session, mut left: Vec<&StoredObject>, sql: impl Fn(&StoredObject) -> String) -> Result<()> {
    while !left.is_empty() {
        let (before, mut failed, mut reason) = (left.len(), Vec::new(), None);
        for object in left {
            match make(session, object, sql(object)).await {
                Ok(()) => {}
                Err(error @ Error::Refused { .. }) if object.kind == StoredKind::View => {
                    failed.push(object);
                    reason.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        if let Some(reason) = reason.filter(|_| failed.len() == before) {
            return Err(reason);
        }
        left = failed;
    }
    Ok(())
}

async fn make(session: &mut Session, object: &StoredObject, sql: String) -> Result<()> {
    let doing = format!("create {object}");
    session.run(&doing, &object.settings()).await?;
    let made = session.run(&doing, &sql).await;
    let warnings = if made.is_ok() { session.rows(&doing, "SHOW WARNINGS").await? } else { Vec::new() };
    session.run("prepare the session", SESSION).await?;
    made?;
    for warning in warnings {
        if warning.count(1)? == NO_DEFINER {
            return Err(Error::Definer { object: object.to_string(), definer: object.definer.clone() });
        }
    }
    Ok(())
}

async fn drop_all(session: &mut Session, schema: &str) -> Result<()> {
    let listed = stored::list(session, schema).await?;
    session.run("enter the schema", &format!("USE {}", quote(schema))).await?;
    for object in listed.iter().rev() {
        drop_one(session, object.kind, &object.name).await?;
    }
    Ok(())
}

async fn drop_one(session: &mut Session, kind: StoredKind, name: &str) -> Result<()> {
    let word = kind.word();
    let doing = format!("drop {} {name}", word.to_lowercase());
    let is_package = matches!(kind, StoredKind::Package | StoredKind::PackageBody);
    if is_package {
        // Under another mode the server knows no such statement.
        session.run(&doing, "SET sql_mode='ORACLE'").await?;
    }
    session.run(&doing, &format!("DROP {word} IF EXISTS {}", quote(name))).await?;
    if is_package {
        session.run("prepare the session", SESSION).await?;
    }
    Ok(())
}
