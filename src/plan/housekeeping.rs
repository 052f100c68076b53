//! Housekeeping at rest: replaced tables whose time has passed, and shadows that nothing will swap in any more, are dropped, backup
//! points whose time has passed are deleted, those that are due are taken, and the newest one is rehearsed. One thing at a time, and
//! anything that is asked for goes first.

use std::time::Duration;

use jiff::Timestamp;

use super::{
    Decision, backup,
    input::World,
    journal::age,
    rehearsal,
    report::{self, Aim, Draft},
    retention,
};
use crate::api::{
    operation::{Action, Kind, OperationState, Ownership, StepName},
    status::{HistoryEntry, Upkeep},
};

/// After one that failed the next of its kind is not tried at once: nothing waits for it.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(3600);

/// What is due, if anything.
pub fn due(world: &World, current: &HistoryEntry) -> Option<Decision> {
    if world.spec.database.is_none() {
        return backup::refused(world);
    }
    let begin = |(kind, cause, why, action)| begin(world, current, (kind, cause), why, action);
    let when = |step| may_begin(world, step).then_some(());
    let discard = || when(StepName::Discard).and_then(|()| discard(world)).map(begin);
    let expire = || when(StepName::Expire).and_then(|()| retention::due(world, current));
    let back_up = || when(StepName::BackUp).and_then(|()| backup::due(world, current)).map(begin);
    let rehearse = || when(StepName::Rehearse).and_then(|()| rehearsal::due(world)).map(begin);
    discard().or_else(expire).or_else(back_up).or_else(rehearse)
}

/// When something becomes due that is not now, as far as that is known beforehand.
pub fn next(world: &World) -> Option<Timestamp> {
    let asides = world.status.asides.iter().map(|aside| aside.until);
    asides.chain(backup::next(world)).chain(rehearsal::next(world)).filter(|at| *at > world.now).min()
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

/// Not where the last of its kind failed a moment ago. Whatever else came after that.
fn may_begin(world: &World, step: StepName) -> bool {
    let failed = |upkeep: &Upkeep| upkeep.step == step && upkeep.kind.keeps_house() && upkeep.state == OperationState::Failed;
    let pauses = |upkeep: &Upkeep| failed(upkeep) && age(world.now, upkeep.finished_at) < PAUSE_AFTER_FAILURE;
    !world.status.upkeep.iter().any(pauses)
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
