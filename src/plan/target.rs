//! Which release should run, and what that makes of the moment: in sync, deploy, roll back, repair, or stop.

use std::time::Duration;

use super::{
    Decision, Verdict, deploy, drift,
    input::{Desired, Outlook, Seen, Unseen, World},
    journal,
    rollback::{self, Why},
};
use crate::api::{
    operation::{Kind, Operation, OperationState, StepName, StepState},
    release::Method,
    status::{HistoryEntry, ReleaseState},
};

/// Decides while no operation runs.
pub fn choose(world: &World) -> Decision {
    if let Some(token) = &world.reset_at
        && world.status.last_handled_reset_at.as_ref() != Some(token)
    {
        return Decision::Reset { token: token.clone() };
    }
    if world.spec.suspend {
        return rest(world, Verdict::suspended());
    }
    let failed = world.status.operation.as_ref().filter(|operation| operation.state == OperationState::Failed);
    if let Some(decision) = failed.and_then(|operation| after_failure(world, operation)) {
        return decision;
    }
    if let Some(pin) = &world.spec.rollback_to {
        return pinned(world, pin.release);
    }
    match &world.desired {
        Seen::Unknown(unseen) => rest(world, Verdict::unseen(unseen)),
        Seen::Known(desired) => wanted(world, desired),
    }
}

/// The source rules.
fn wanted(world: &World, desired: &Desired) -> Decision {
    if let Some(failure) = world.status.quarantine.iter().find(|entry| entry.digest == desired.digest) {
        if let Some(answer) = unanswered(world) {
            return answer;
        }
        let current = world.current();
        let verdict = match (&world.status.operation, current) {
            (Some(operation), Some(current)) if operation.remediates == Some(failure.release) => Verdict::rolled_back(failure, current),
            _ => Verdict::quarantined(failure),
        };
        return match current {
            Some(current) if current.state == ReleaseState::KnownGood => hold(world, current, verdict),
            Some(_) | None => in_sync(world, verdict),
        };
    }
    if let Some(current) = world.current()
        && current.digest == desired.digest
        && current.state == ReleaseState::KnownGood
    {
        return hold(world, current, Verdict::ready(current));
    }
    let known_good = world
        .status
        .history
        .iter()
        .filter(|entry| entry.state == ReleaseState::KnownGood && entry.digest == desired.digest)
        // One above what is deployed was left by a rollback that did not come to its end: the way there is forward.
        .filter(|entry| world.status.release.is_some_and(|deployed| entry.release <= deployed))
        .max_by_key(|entry| entry.release);
    match known_good {
        Some(target) => rollback::plan(
            world,
            target,
            &Why::asked(world, format!("{} asks for a known good release: {}", desired.revision, desired.cause)),
        ),
        None => match deploy::plan(world, desired) {
            Decision::Rest { verdict, again } => instead(world).unwrap_or(Decision::Rest { verdict, again }),
            decision => decision,
        },
    }
}

/// What can be done where the way forward is barred: take back what a failure left, or take down a fence that was left up.
fn instead(world: &World) -> Option<Decision> {
    let can_begin = |decision: &Decision| matches!(decision, Decision::Begin(_) | Decision::LookAtDatabase);
    let behind_a_fence = || {
        let current = world.current().filter(|current| current.state == ReleaseState::KnownGood)?;
        journal::open_fence(&world.status)?;
        Some(bring_back(world, current))
    };
    unanswered(world).filter(can_begin).or_else(|| behind_a_fence().filter(can_begin))
}

/// `spec.rollbackTo` rules while it is there.
fn pinned(world: &World, number: u64) -> Decision {
    match world.entry(number) {
        Some(target) if target.state == ReleaseState::KnownGood && world.status.release == Some(number) => {
            hold(world, target, Verdict::pinned(target))
        }
        Some(target) if target.state == ReleaseState::KnownGood => {
            rollback::plan(world, target, &Why::asked(world, format!("spec.rollbackTo asks for release {number}")))
        }
        other => rest(world, Verdict::no_such_target(number, other, &world.status.history)),
    }
}

/// The known good release that is deployed should run. What a later one left in the database, or a fence that still stands,
/// is taken back first.
fn hold(world: &World, current: &HistoryEntry, verdict: Verdict) -> Decision {
    let left = world.status.history.iter().any(|entry| entry.release > current.release && entry.undone_at.is_none());
    if left || journal::open_fence(&world.status).is_some() { bring_back(world, current) } else { in_sync(world, verdict) }
}

fn bring_back(world: &World, current: &HistoryEntry) -> Decision {
    let cause = format!("release {} ({}) is to run, and what came after it is not undone", current.release, current.version);
    rollback::plan(world, current, &Why::asked(world, cause))
}

/// What runs should run: make sure that it does.
fn in_sync(world: &World, verdict: Verdict) -> Decision {
    let Some(current) = world.current() else { return rest(world, verdict) };
    match drift::find(world, current) {
        Seen::Unknown(unseen) => rest(world, Verdict::unseen(&unseen)),
        Seen::Known(differences) if differences.is_empty() => rest(world, verdict),
        Seen::Known(differences) => drift::repair(world, current, &differences),
    }
}

/// The last operation failed. `None`: something new was asked for since, so decide as if it had not been.
fn after_failure(world: &World, operation: &Operation) -> Option<Decision> {
    let unchanged = operation.generation == world.generation && still_wanted(world, operation);
    match operation.kind {
        Kind::Deploy => {
            let target = world.known_good_before(operation.to);
            match (world.spec.rollback.automatic, target) {
                (true, Some(target)) => match answer(world, target, operation.to, &operation.version, &failure(operation)) {
                    // No way back, but perhaps one forward.
                    Decision::Rest { verdict, .. } if verdict.is_stalled() && !unchanged => None,
                    decision => Some(decision),
                },
                (true, None) if unchanged => Some(rest(world, Verdict::nothing_to_go_back_to(operation, &failure(operation)))),
                (false, _) if unchanged => Some(rest(world, Verdict::rollback_disabled(operation, &failure(operation)))),
                (true | false, _) => None,
            }
        }
        Kind::Rollback => {
            if let Some(retry) = another_way(world, operation) {
                return Some(retry);
            }
            unchanged.then(|| rest(world, Verdict::rollback_failed(operation, &failure(operation))))
        }
        Kind::Repair => unchanged.then(|| rest(world, Verdict::repair_failed(operation, &failure(operation)))),
    }
}

/// The rollback that answers the failure of release `failed`.
fn answer(world: &World, target: &HistoryEntry, failed: u64, version: &str, failure: &str) -> Decision {
    let cause = format!("release {failed} ({version}) failed: {failure}");
    rollback::plan(world, target, &Why { cause, remediates: Some(failed), methods: world.spec.rollback.database.clone() })
}

/// The answer to the newest release's failure where none has come to its end: it gave way to something newer, or a person
/// changed the Release since.
fn unanswered(world: &World) -> Option<Decision> {
    let newest = world.status.history.iter().max_by_key(|entry| entry.release)?;
    if newest.state != ReleaseState::Failed || newest.undone_at.is_some() || !world.spec.rollback.automatic {
        return None;
    }
    let target = world.known_good_before(newest.release)?;
    let failure = world.status.quarantine.iter().find(|entry| entry.release == newest.release);
    let reason = failure.map_or("its reason was forgotten by a reset", |failure| failure.reason.as_str());
    Some(answer(world, target, newest.release, &newest.version, reason))
}

/// A rollback whose down scripts failed may still restore: the same target by the ways that are left.
fn another_way(world: &World, operation: &Operation) -> Option<Decision> {
    let failed = operation.steps.iter().find(|step| step.state == StepState::Failed)?;
    let left: Vec<Method> = match failed.name {
        StepName::RevertSchema => world.spec.rollback.database.iter().copied().filter(|method| *method == Method::Restore).collect(),
        _ => return None,
    };
    let target = world.entry(operation.to)?;
    match rollback::plan(world, target, &Why { cause: operation.cause.clone(), remediates: operation.remediates, methods: left }) {
        // Nothing is left: the failure itself is the better story.
        Decision::Rest { verdict, .. } if verdict.is_stalled() => None,
        decision => Some(decision),
    }
}

fn still_wanted(world: &World, operation: &Operation) -> bool {
    match (&world.spec.rollback_to, &world.desired) {
        (Some(pin), _) => world.entry(pin.release).is_some_and(|entry| entry.digest == operation.wanted),
        (None, Seen::Known(desired)) => desired.digest == operation.wanted,
        // What can't be seen is not something new.
        (None, Seen::Unknown(_)) => true,
    }
}

/// The message of the step that failed.
fn failure(operation: &Operation) -> String {
    operation.steps.iter().find(|step| step.state == StepState::Failed).map_or_else(
        || "no step of it failed".to_owned(),
        |step| format!("{}: {}", step.name.as_str(), step.message.as_deref().unwrap_or("no reason was recorded")),
    )
}

/// Rests until something changes; looks again after the interval that fits the verdict.
pub fn rest(world: &World, verdict: Verdict) -> Decision {
    let again = if verdict.settled() { world.spec.interval } else { world.spec.retry_interval.min(world.spec.interval) };
    // A source polled without pause would be a load on somebody else's server.
    Decision::Rest { verdict, again: again.0.max(Duration::from_millis(500)) }
}

/// The reasons why nothing can be begun, as one verdict.
pub fn refuse(world: &World, problems: &[String]) -> Decision {
    // Behind a fence the application is down: that is not a pause, but a stop that needs a person.
    let outlook = if journal::open_fence(&world.status).is_some() { Outlook::Lasting } else { Outlook::Passing };
    rest(world, Verdict::unseen(&Unseen { reason: "PreflightFailed", message: problems.join("; "), outlook }))
}

/// The digest that the Release asks for now.
pub fn asked_digest(world: &World) -> String {
    match (&world.spec.rollback_to, &world.desired) {
        (Some(pin), _) => world.entry(pin.release).map(|entry: &HistoryEntry| entry.digest.clone()).unwrap_or_default(),
        (None, Seen::Known(desired)) => desired.digest.clone(),
        // What can't be seen is taken for what was asked last, so that seeing it again is nothing new.
        (None, Seen::Unknown(_)) => world.status.operation.as_ref().map(|operation| operation.wanted.clone()).unwrap_or_default(),
    }
}
