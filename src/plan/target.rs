//! Which release should run, and what that makes of the moment: in sync, deploy, roll back, repair, or stop.

use std::time::Duration;

use super::{
    Decision, Verdict, conditions, containment, damping, deploy, drift, exact, housekeeping,
    input::{Desired, Outlook, Seen, Unseen, World},
    journal,
    rollback::{self, Why},
    undo,
};
use crate::api::{
    operation::{ApprovalState, Kind, Operation, OperationState, StepName, StepState},
    release::{Method, RollbackTo},
    status::{HistoryEntry, ReleaseState},
};

/// A person asks to forget failures.
pub fn reset(world: &World) -> Option<Decision> {
    let token = world.reset_at.as_ref().filter(|token| world.status.last_handled_reset_at.as_ref() != Some(token))?;
    Some(Decision::Reset { token: token.clone() })
}

/// Decides while no operation runs.
pub fn choose(world: &World) -> Decision {
    containment::at_rest(world, chosen(world))
}

fn chosen(world: &World) -> Decision {
    if let Some(decision) = reset(world) {
        return decision;
    }
    if world.spec.suspend {
        return rest(world, Verdict::suspended());
    }
    if !world.rivals.is_empty() {
        return rest(world, Verdict::contested(&world.rivals));
    }
    if let Some(decision) = undo::requested(world) {
        return decision;
    }
    let failed = world.status.operation.as_ref().filter(|operation| operation.state == OperationState::Failed);
    if let Some(decision) = failed.and_then(|operation| after_failure(world, operation)) {
        return decision;
    }
    if let (Some(hold), Some(current)) = (&world.status.hold, world.current())
        && asked(world).is_none_or(|asked| asked == hold.wanted)
    {
        return in_sync(world, Verdict::undone(hold, current));
    }
    match pin(world) {
        Some(Pin::Release { name, entry }) => return pinned(world, &name, entry),
        Some(Pin::Data { point }) => return pinned_data(world, point),
        None => {}
    }
    match &world.desired {
        Seen::Unknown(unseen) => rest(world, Verdict::unseen(unseen)),
        Seen::Known(desired) => wanted(world, desired),
    }
}

/// What `spec.rollbackTo` names.
pub enum Pin<'a> {
    Release { name: String, entry: Option<&'a HistoryEntry> },
    Data { point: &'a str },
}

/// What `spec.rollbackTo` names, while it is there.
pub fn pin(world: &World) -> Option<Pin<'_>> {
    let RollbackTo { release, version, backup_point } = world.spec.rollback_to.as_ref()?;
    Some(match (release, version, backup_point) {
        (_, _, Some(point)) => Pin::Data { point },
        (Some(number), _, None) => Pin::Release { name: format!("release {number}"), entry: world.entry(*number) },
        (None, Some(version), None) => {
            let of_version = || world.status.history.iter().filter(|entry| entry.version == *version);
            let entry = of_version().filter(|entry| entry.state == ReleaseState::KnownGood).max_by_key(|entry| entry.release);
            Pin::Release { name: format!("version {version}"), entry: entry.or_else(|| of_version().max_by_key(|entry| entry.release)) }
        }
        // The API server refuses it; from anywhere else it names nothing.
        (None, None, None) => Pin::Release { name: "no release".to_owned(), entry: None },
    })
}

/// The source rules.
fn wanted(world: &World, desired: &Desired) -> Decision {
    if let Some(failure) = world.status.quarantine.iter().find(|entry| entry.digest == desired.digest) {
        if let Some(answer) = unanswered(world) {
            return answer;
        }
        let current = world.current();
        let not_answered = !world.spec.rollback.automatic && world.entry(failure.release).is_some_and(|entry| entry.undone_at.is_none());
        let verdict = match (&world.status.operation, current) {
            (Some(_), Some(_)) if not_answered => Verdict::rollback_disabled(failure),
            (Some(operation), Some(current)) if operation.remediates == Some(failure.release) => Verdict::rolled_back(failure, current),
            _ => Verdict::quarantined(failure),
        };
        return match current {
            // Nobody asked for going back: neither the source, which asks for the failed release, nor the policy.
            Some(current) if current.state == ReleaseState::KnownGood && !not_answered => hold(world, current, verdict),
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
        Some(target) => damped(world, &desired.digest, || {
            rollback::plan(
                world,
                target,
                &Why::asked(world, format!("{} asks for a known good release: {}", desired.revision, desired.cause)),
            )
        }),
        None => match damped(world, &desired.digest, || deploy::plan(world, desired)) {
            Decision::Rest { verdict, again } => instead(world).unwrap_or(Decision::Rest { verdict, again }),
            decision => decision,
        },
    }
}

fn damped(world: &World, digest: &str, plan: impl FnOnce() -> Decision) -> Decision {
    damping::flapping(world, digest).unwrap_or_else(plan)
}

/// What can be done where the way forward is barred: take back what a failure left, or take down a fence that was left up.
fn instead(world: &World) -> Option<Decision> {
    let can_begin = |decision: &Decision| matches!(decision, Decision::Begin(_) | Decision::LookAtDatabase);
    let behind_a_fence = || {
        let current = world.current().filter(|current| current.state == ReleaseState::KnownGood)?;
        // One that a failed migration left is not there because somebody wants to go back.
        world.status.operation.as_ref().filter(|last| last.kind != Kind::Deploy && journal::fence_of(last).is_some())?;
        Some(bring_back(world, current))
    };
    unanswered(world).filter(can_begin).or_else(|| behind_a_fence().filter(can_begin))
}

/// `spec.rollbackTo` rules while it is there.
fn pinned(world: &World, name: &str, entry: Option<&HistoryEntry>) -> Decision {
    match entry {
        Some(target) if target.state == ReleaseState::KnownGood && world.status.release == Some(target.release) => {
            hold(world, target, Verdict::pinned(target))
        }
        Some(target) if target.state == ReleaseState::KnownGood => {
            rollback::plan(world, target, &Why::asked(world, format!("spec.rollbackTo asks for {name}")))
        }
        other => rest(world, Verdict::no_such_target(name, other, &world.status.history)),
    }
}

/// The data of a backup point are brought back once; from then on the release that runs is held.
fn pinned_data(world: &World, point: &str) -> Decision {
    let Some(current) = world.current() else {
        return rest(world, Verdict::no_data_to_restore(point, "no release is deployed that its data could belong to"));
    };
    if world.status.restored_point.as_deref() == Some(point) {
        return in_sync(world, Verdict::data_restored(current, point));
    }
    rollback::data(world, current, point)
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
    if let Some(last) = world.status.operation.as_ref().filter(|last| journal::fence_of(last).is_some()) {
        let verdict = if last.kind == Kind::Deploy { verdict } else { Verdict::left_fenced(world, last, current) };
        return bring_up(world, current).unwrap_or_else(|| rest(world, verdict));
    }
    match drift::find(world, current) {
        Seen::Unknown(unseen) => rest(world, Verdict::unseen(&unseen)),
        Seen::Known(differences) if differences.is_empty() => match housekeeping::due(world, current) {
            // While it goes on, Ready stays what it is: that is said first.
            Some(Decision::Begin(_)) if !conditions::says(&world.status, &verdict) => Decision::Tell { verdict },
            Some(decision) => decision,
            None => until_next(world, rest(world, verdict)),
        },
        Seen::Known(differences) => match damping::repaired_lately(world, &differences) {
            Some(pause) => pause,
            None => drift::repair(world, current, &differences),
        },
    }
}

/// The application is down behind a fence that an operation left. It is taken down where the database is what the release that
/// is deployed runs on; else (`None`) a person has to say which release is to run.
pub fn bring_up(world: &World, current: &HistoryEntry) -> Option<Decision> {
    match &world.database {
        _ if world.spec.database.is_none() => {}
        None => return Some(Decision::LookAtDatabase),
        Some(Seen::Unknown(unseen)) => return Some(rest(world, Verdict::unseen(unseen))),
        Some(Seen::Known(database)) if drift::database_fits(world, database, current) => {}
        Some(Seen::Known(_)) => return None,
    }
    Some(drift::repair(world, current, &["the workloads are scaled to zero".to_owned()]))
}

/// The last operation failed. `None`: something new was asked for since, so decide as if it had not been.
fn after_failure(world: &World, operation: &Operation) -> Option<Decision> {
    let unchanged = operation.generation == world.generation && still_wanted(world, operation);
    match operation.kind {
        Kind::Deploy => {
            let target = world.known_good_before(operation.to);
            match (world.spec.rollback.automatic, target) {
                (true, Some(target)) => match answer(world, target, operation.to, &operation.version, &failure(operation)) {
                    // No way back for now, but perhaps one forward.
                    Decision::Rest { .. } if !unchanged => None,
                    decision => Some(decision),
                },
                (true, None) if unchanged => Some(rest(world, Verdict::nothing_to_go_back_to(operation, &failure(operation)))),
                (false, _) if unchanged => world
                    .status
                    .quarantine
                    .iter()
                    .find(|entry| entry.release == operation.to)
                    .map(|failure| rest(world, Verdict::rollback_disabled(failure))),
                (true | false, _) => None,
            }
        }
        Kind::Rollback => {
            match another_way(world, operation) {
                Some(Decision::Rest { .. }) if !unchanged => return None,
                Some(retry) => return Some(retry),
                None => {}
            }
            unchanged.then(|| stopped(world, operation))
        }
        // Planned again, and this time a person is asked.
        Kind::Undo if is_outdated(operation) => undo::again(world, operation),
        Kind::Restore if is_outdated(operation) => None,
        Kind::Restore | Kind::Undo => unchanged.then(|| stopped(world, operation)),
        // Nothing depends on it.
        Kind::Cleanup | Kind::Backup | Kind::Rehearse | Kind::Leave => None,
        Kind::Repair => unchanged.then(|| {
            let verdict = Verdict::repair_failed(operation, &failure(operation));
            let fenced = journal::fence_of(operation).is_some();
            rest(world, if fenced { verdict.fenced(world, &exact::fence(world)) } else { verdict })
        }),
    }
}

/// Going back failed and is not tried again by itself. A fence that it left is taken down where that has become safe since: the
/// operation itself could not, and what it tried once is not tried for ever.
fn stopped(world: &World, operation: &Operation) -> Decision {
    let untried = operation.steps.iter().any(|step| step.name == StepName::Unfence && step.state == StepState::Pending);
    let fenced = world.current().filter(|_| untried && journal::open_fence(&world.status).is_some());
    match fenced.and_then(|current| bring_up(world, current)) {
        Some(Decision::Rest { verdict, .. }) if verdict.is_stalled() => {}
        Some(decision) => return decision,
        None => {}
    }
    if world.spec.database.is_some() && world.database.is_none() && exact::depends_on_database(operation) {
        return Decision::LookAtDatabase;
    }
    rest(world, Verdict::rollback_failed(world, operation, &failure(operation)))
}

/// The rollback that answers the failure of release `failed`.
fn answer(world: &World, target: &HistoryEntry, failed: u64, version: &str, failure: &str) -> Decision {
    if let Some(stop) = damping::too_many_rollbacks(world, failed, target, failure) {
        return stop;
    }
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
        // More would be lost than was measured: the same way again, and this time a person is asked.
        StepName::RevertSchema | StepName::Restore if is_outdated(operation) => world.spec.rollback.database.clone(),
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

fn is_outdated(operation: &Operation) -> bool {
    operation.approval.as_ref().is_some_and(|approval| approval.state == ApprovalState::Outdated)
}

fn still_wanted(world: &World, operation: &Operation) -> bool {
    // What can't be seen is not something new.
    asked(world).is_none_or(|asked| asked == operation.wanted)
}

/// What is asked for now: a digest, or the data of a point. `None`: it can't be seen.
pub fn asked(world: &World) -> Option<String> {
    match (pin(world), &world.desired) {
        (Some(Pin::Release { entry, .. }), _) => Some(entry.map(|entry| entry.digest.clone()).unwrap_or_default()),
        (Some(Pin::Data { point }), _) => Some(format!("backup-point/{point}")),
        (None, Seen::Known(desired)) => Some(desired.digest.clone()),
        (None, Seen::Unknown(_)) => None,
    }
}

/// The message of the step that failed.
fn failure(operation: &Operation) -> String {
    operation.steps.iter().find(|step| step.state == StepState::Failed).map_or_else(
        || "no step of it failed".to_owned(),
        |step| format!("{}: {}", step.name.as_str(), step.message.as_deref().unwrap_or("no reason was recorded")),
    )
}

/// Rests no longer than until something is due.
fn until_next(world: &World, decision: Decision) -> Decision {
    match (decision, housekeeping::next(world)) {
        (Decision::Rest { verdict, again }, Some(next)) => {
            let left = journal::age(next, world.now);
            Decision::Rest { verdict, again: again.min(left.max(Duration::from_secs(1))) }
        }
        (decision, _) => decision,
    }
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

/// What the Release asks for, as an operation records it.
pub fn asked_digest(world: &World) -> String {
    // What can't be seen is taken for what was asked last, so that seeing it again is nothing new.
    let last = || world.status.operation.as_ref().map(|operation| operation.wanted.clone()).unwrap_or_default();
    asked(world).unwrap_or_else(last)
}
