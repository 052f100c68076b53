//! Housekeeping at rest: replaced tables whose time has passed, and shadows that nothing will swap in any more, are dropped, backup
//! points whose time has passed are deleted, those that are due are taken, and the newest one is rehearsed. One thing at a time, and
//! anything that is asked for goes first.

use std::time::Duration;

use super::{
    Decision, backup,
    input::World,
    report::{self, Aim, Draft},
    retention,
};
use crate::api::{
    database::RehearsePolicy,
    names,
    operation::{Action, Kind, OperationState, Ownership},
    status::HistoryEntry,
};

/// After one that failed the next of its kind is not tried at once: nothing waits for it.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(3600);

/// What is due, if anything.
pub fn due(world: &World, current: &HistoryEntry) -> Option<Decision> {
    world.spec.database.as_ref()?;
    if let Some((kind, cause, why, action)) = discard(world) {
        return allowed(world, kind).then(|| begin(world, current, (kind, cause), why, action));
    }
    if allowed(world, Kind::Cleanup)
        && let Some(decision) = retention::due(world, current)
    {
        return Some(decision);
    }
    if allowed(world, Kind::Backup)
        && let Some((kind, cause, why, action)) = backup::due(world, current)
    {
        return Some(begin(world, current, (kind, cause), why, action));
    }
    let (kind, cause, why, action) = rehearse(world)?;
    allowed(world, kind).then(|| begin(world, current, (kind, cause), why, action))
}

/// Begins an operation of one step.
pub fn begin(world: &World, current: &HistoryEntry, (kind, cause): (Kind, String), why: &str, action: Action) -> Decision {
    report::begin(
        world,
        Draft {
            kind,
            aim: Aim::from(current),
            cause,
            // Who reads the status must still see what the last rollback answered.
            remediates: world.status.operation.as_ref().and_then(|operation| operation.remediates),
            undoes: None,
            why: why.to_owned(),
            not_chosen: Vec::new(),
            actions: vec![action],
        },
    )
}

/// Kind, cause, reason and action.
pub type Due = (Kind, String, &'static str, Action);

fn allowed(world: &World, kind: Kind) -> bool {
    !world.status.operation.as_ref().is_some_and(|operation| {
        operation.kind == kind
            && operation.state == OperationState::Failed
            && operation
                .finished_at
                .is_some_and(|at| Duration::try_from(world.now.duration_since(at)).unwrap_or_default() < PAUSE_AFTER_FAILURE)
    })
}

fn discard(world: &World) -> Option<Due> {
    let expired = world.status.asides.iter().filter(|aside| aside.until <= world.now).map(|aside| aside.schema.clone());
    let schemas: Vec<String> = world.status.shadows.iter().cloned().chain(expired).collect();
    if schemas.is_empty() {
        return None;
    }
    let cause = format!("{} not needed any more", if schemas.len() == 1 { "a schema is" } else { "schemas are" });
    let why = "spec.rollback.keepAside has passed, or what loaded it was given up";
    Some((Kind::Cleanup, cause, why, Action::Discard { schemas, ownership: Ownership::Kept }))
}

/// The newest point of this database that was not tried yet. Older ones are what people chose not to try, or lost their turn.
fn rehearse(world: &World) -> Option<Due> {
    let database = world.spec.database.as_ref()?;
    if database.backup.rehearse != RehearsePolicy::AfterCapture {
        return None;
    }
    let (name, point) = world.own_points().pop()?;
    if point.rehearsed.is_some() {
        return None;
    }
    let scratch = names::shadow(&database.mysql.name, &world.uid, &format!("rehearsal of {name}"));
    let action = Action::Rehearse { point: name.clone(), scratch };
    Some((Kind::Rehearse, format!("{name} was taken and not tried yet"), "spec.database.backup.rehearse is AfterCapture", action))
}
