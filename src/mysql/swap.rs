//! The cut-over: every live table moves aside and every table of the shadow takes its place, in one `RENAME TABLE`.
//!
//! Idempotent by the marker that travels with the swapped set: if the live schema names the same operation, it is done. The rename itself is
//! atomic on the server, crash included, so there is no state in between. It never waits for a lock while it holds others, which would
//! stop every query on the tables it has already: it gives up at once and tries again.
//!
//! Undoing a cut-over is a cut-over whose source is the aside that the first one made: what was live before is live again, with its own
//! migrations, what came since goes into a new aside, and the emptied one is dropped. The marker and the owner are written into the source
//! before the rename, so they name the operation at work and its Release whatever the source held.

use std::time::{Duration, Instant};

use super::beside::{self, Beside, Note, Set, Standing};
use super::bookkeeping::{self, Marker};
use super::counters::{self, Headroom};
use super::endpoint::{Database, Session};
use super::error::{Error, Result};
use super::ident::{qualified, quote};
use super::inspect;
use super::owner::{self, Owner};
use super::passing::{self, Passing};
use super::stored::{self, StoredObject};
use super::unblocked::{LOCK_WAIT, RETRY_EVERY, WAIT_AGAIN, blockers};
use super::{grants, recreate};

/// Attempts, about a second's, after which the counters are raised again.
const RAISE_EVERY: u32 = 50;
/// How long what comes after the rename keeps trying while tables are in use; then it is tried again later, and until then passing names
/// are all that is to be seen of it.
const SETTLING: Duration = Duration::from_secs(30);

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

/// Makes the shadow live and keeps what it replaces in the aside.
///
/// # Errors
/// [`Error::Schema`] when the shadow is not complete for the marker's point or the aside holds something; [`Error::SwapBlocked`] at the
/// deadline, naming who blocks it. In each of them nothing was changed. After [`Error::Lost`] call it again: it finds out.
pub async fn swap(database: &Database, swap: &Swap) -> Result<Swapped> {
    beside::check_name(database.name(), &swap.shadow)?;
    beside::check_name(database.name(), &swap.aside)?;
    let mut session = database.locked().await?;
    settle(&mut session, database).await?;
    let inventory = inspect::look_strictly(database, &mut session).await?;
    let swapped = if inventory.marker.as_ref().is_some_and(|live| live.operation == swap.marker.operation) {
        Swapped { tables: 0, attempts: 0, took: Duration::ZERO }
    } else {
        if let Some(owner) = &swap.owner {
            owner::claim(&mut session, database, owner).await?;
        }
        let live = Set { tables: inventory.tables, sequences: inventory.sequences };
        let Prepared { replacement, wanted, passing } = prepare(&mut session, database, swap, &live).await?;
        let renamed = match passing.arrive(&mut session, database.name(), &swap.shadow, &wanted).await {
            Ok(()) => rename(&mut session, database, swap, &live, &replacement, &passing).await,
            Err(error) => Err(error),
        };
        match renamed {
            Ok(swapped) => swapped,
            Err(error) => {
                // Best effort: what is left over is taken back by whoever comes next; an empty schema without a sign would be nobody's.
                if passing.withdraw(&mut session, database.name(), &swap.shadow).await.is_ok() && matches!(error, Error::SwapBlocked { .. })
                {
                    let _ = beside::drop_schema(&mut session, &swap.aside).await;
                }
                return Err(error);
            }
        }
    };
    // Also when it had been done before: a crash may have come right after the rename.
    finish(&mut session, database, &swap.shadow, &swap.aside).await?;
    session.close().await;
    Ok(swapped)
}

/// Ends a cut-over that was cut off after its rename, or takes back what one had begun before it.
pub(super) async fn settle(session: &mut Session, database: &Database) -> Result<()> {
    for shadow in beside::noted(session, database.name()).await? {
        let Some(passing) = beside::kept::<Passing>(session, &shadow, Note::Passing).await? else { continue };
        let live = bookkeeping::marker(session, database.name()).await?;
        if live.is_some_and(|live| live.operation == passing.operation) {
            finish(session, database, &shadow, &passing.aside).await?;
        } else {
            passing.withdraw(session, database.name(), &shadow).await?;
        }
    }
    session.run("enter the live schema", &format!("USE {}", quote(database.name()))).await.map(drop)
}

/// What is to be renamed.
struct Prepared {
    replacement: Set,
    /// The stored objects that belong to it.
    wanted: Vec<StoredObject>,
    passing: Passing,
}

/// Everything that can be done before the tables move.
async fn prepare(session: &mut Session, database: &Database, swap: &Swap, live: &Set) -> Result<Prepared> {
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
    let unsupported = inspect::unsupported(session, &swap.shadow).await?;
    if !unsupported.is_empty() {
        return Err(Error::Unsupported { database: swap.shadow.clone(), objects: unsupported });
    }
    let strangers = stored::list(session, &swap.shadow).await?;
    if let Some(stranger) = strangers.first() {
        let reason = format!("{stranger} is in it, which Backout did not put there; drop it");
        return refuse(&swap.shadow, reason);
    }
    if !beside::set(session, &swap.aside).await?.is_empty() {
        return refuse(&swap.aside, "it holds tables: choose another name".to_owned());
    }
    let current = stored::read(session, database.name()).await?;
    // The sign is put up after the rename: before it the aside must be empty to be taken for unused.
    session.run("create the aside schema", &format!("CREATE DATABASE IF NOT EXISTS {}", quote(&swap.aside))).await?;
    beside::keep(session, &swap.aside, Note::Objects, &current).await?;
    bookkeeping::create_marker(session, &swap.shadow).await?;
    bookkeeping::write_marker(session, &swap.shadow, &swap.marker).await?;
    let owner = match &swap.owner {
        Some(owner) => Some(owner.clone()),
        None => owner::recorded(session, database.name()).await?,
    };
    owner::put(session, &swap.shadow, owner.as_ref()).await?;
    let replacement = beside::set(session, &swap.shadow).await?;
    let wanted = wanted(session, &swap.shadow, &replacement.tables, &current).await?;
    grants::suffice(session, database, &wanted).await?;
    let at = |table: &str| qualified(&swap.shadow, table);
    counters::raise(session, (database.name(), live), &replacement, at, Headroom::Leave).await?;
    let passing = passing::plan(
        session,
        (database.name(), &live.tables, &current),
        (&swap.shadow, &replacement.tables, &wanted),
        (&swap.marker.operation, &swap.aside),
    )
    .await?;
    Ok(Prepared { replacement, wanted, passing })
}

/// The stored objects that belong to the shadow's tables. One from before they were kept stays with those that are live.
async fn wanted(session: &mut Session, shadow: &str, tables: &[inspect::Table], current: &[StoredObject]) -> Result<Vec<StoredObject>> {
    if let Some(kept) = beside::kept(session, shadow, Note::Objects).await? {
        return Ok(kept);
    }
    let fits = |object: &&StoredObject| object.on.as_ref().is_none_or(|on| tables.iter().any(|table| table.name == on.table));
    let fitting: Vec<StoredObject> = current.iter().filter(fits).cloned().collect();
    beside::keep(session, shadow, Note::Objects, &fitting).await?;
    Ok(fitting)
}

async fn rename(
    session: &mut Session,
    database: &Database,
    swap: &Swap,
    live: &Set,
    replacement: &Set,
    passing: &Passing,
) -> Result<Swapped> {
    let sql = format!("RENAME TABLE {}", passing.moves(database.name(), live, &swap.shadow, replacement).join(", "));
    session.run("stop waiting for locks", "SET lock_wait_timeout=0").await?;
    let begun = Instant::now();
    let mut attempts = 0;
    loop {
        attempts += 1;
        match session.run("cut over", &sql).await {
            Ok(_) => return Ok(Swapped { tables: replacement.tables.len(), attempts, took: begun.elapsed() }),
            Err(error) if error.code() == Some(LOCK_WAIT) => {
                if begun.elapsed() >= swap.deadline {
                    let blockers = blockers(session, database.name()).await;
                    session.run("wait for locks again", WAIT_AGAIN).await?;
                    return Err(Error::SwapBlocked { database: database.name().to_owned(), attempts, waited: begun.elapsed(), blockers });
                }
            }
            Err(error) => return Err(error),
        }
        tokio::time::sleep(RETRY_EVERY).await;
        if attempts % RAISE_EVERY == 0 {
            // Meanwhile rows may have used up the headroom.
            let live = beside::set(session, database.name()).await?;
            let at = |table: &str| passing.place(database.name(), &swap.shadow, table);
            counters::raise(session, (database.name(), &live), replacement, at, Headroom::Leave).await?;
        }
    }
}

/// After the rename, and again after a crash in here.
async fn finish(session: &mut Session, database: &Database, shadow: &str, aside: &str) -> Result<()> {
    session.run("wait for locks again", WAIT_AGAIN).await?;
    let objects = beside::kept::<Vec<StoredObject>>(session, shadow, Note::Objects).await?;
    if let (Some(objects), Some(passing)) = (objects, beside::kept::<Passing>(session, shadow, Note::Passing).await?) {
        recreate::objects(session, database.name(), &objects).await?;
        passing.settle(session, database.name(), &objects, SETTLING).await?;
    }
    // Once more, now that no new id can come into what stands aside.
    let replaced = beside::set(session, aside).await?;
    let live = beside::set(session, database.name()).await?;
    counters::raise(session, (aside, &replaced), &live, |name| qualified(database.name(), name), Headroom::None).await?;
    if beside::exists(session, aside).await? {
        let sign = Beside { schema: aside.to_owned(), state: Standing::Aside, point: aside.to_owned(), digest: String::new() };
        beside::write_sign(session, &sign).await?;
    }
    // Refused if anything but the engine's own is left in it.
    if beside::set(session, shadow).await?.is_empty() {
        beside::drop_schema(session, shadow).await?;
    }
    Ok(())
}
