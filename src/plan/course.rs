//! The course of an operation that runs: which step is next, whether it waits for a person, and whether it gives way to
//! something newer.

use std::time::Duration;

use jiff::Timestamp;

use super::{
    Decision, Verdict,
    approval::{self, Gate},
    containment, drift,
    input::{DatabaseSeen, Life, Seen, World},
    journal::{self, has_changed_things},
    report, retention,
    target::{self, Pin, asked, pin},
    undo,
};
use crate::api::{
    backup_point::PointReason,
    operation::{Action, Approval, ApprovalState, Kind, Operation, OperationState, Step, StepName, StepState},
    release::{ApprovalPolicy, EmergencyPoint},
    status::{ReleaseState, ReleaseStatus},
};

/// Should the clock have jumped between two looks.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Picks the step to run, or the end of the operation.
pub fn next(world: &World, operation: &Operation) -> Decision {
    let Some((index, step)) = operation.steps.iter().enumerate().find(|(_, step)| step.state != StepState::Done) else {
        return Decision::Close(OperationState::Succeeded);
    };
    if step.state == StepState::Failed {
        return after_failed_step(world, operation, index);
    }
    if let Some(verdict) = moved(world, operation) {
        // Where it can give way, it is planned anew for what is named now; else it would end in two halves.
        return if cancellable(operation, step) {
            Decision::Close(OperationState::Superseded)
        } else {
            Decision::Rest { verdict, again: world.spec.retry_interval.0.max(LOOK_AGAIN) }
        };
    }
    if cancellable(operation, step) && (newer_wanted(world, operation) || neglects(world, operation) || is_outdated(world, &step.action)) {
        return Decision::Close(OperationState::Superseded);
    }
    match step.retry_at {
        Some(at) if at > world.now => pause(world, operation, at),
        Some(_) | None => gated(world, operation, index, step),
    }
}

/// The spec names another database or other workloads than the operation was planned for.
pub fn moved(world: &World, operation: &Operation) -> Option<Verdict> {
    if operation.database != report::place(&world.spec) {
        return Some(Verdict::database_changed(operation));
    }
    // One that an older version began does not say.
    let planned = operation.target.as_ref()?;
    (*planned != report::workloads(&world.spec)).then(|| Verdict::target_changed(operation, planned))
}

/// An operation that failed behind its own fence takes it down again, where what ran before, or what it led to, fits the
/// database as it is; or where the database is as it was when what ran before ran on it. Whether that is so the database says,
/// not the record.
fn after_failed_step(world: &World, operation: &Operation, failed: usize) -> Decision {
    if let Some(decision) = containment::before_the_end(world, operation) {
        return decision;
    }
    let failure = Decision::Close(OperationState::Failed);
    let unfence = operation.steps.iter().enumerate().skip(failed).find(|(_, step)| step.name == StepName::Unfence);
    let goes_back = matches!(operation.kind, Kind::Rollback | Kind::Restore | Kind::Undo);
    let (Some((index, unfence)), true) = (unfence, goes_back && journal::open_fence(&world.status).is_some()) else { return failure };
    if unfence.state == StepState::Failed {
        return failure;
    }
    let done = |name: fn(StepName) -> bool| operation.steps.iter().filter(|step| name(step.name)).all(|step| step.state == StepState::Done);
    let arrived = done(StepName::changes_database) && done(|name| name == StepName::Deploy);
    let fits = match &world.database {
        _ if arrived => true,
        // What comes next is planned for the database that is named now.
        _ if operation.database != report::place(&world.spec) => false,
        None => return Decision::LookAtDatabase,
        // Closed now, it would rest for good although the application could run once the database is back.
        Some(Seen::Unknown(unseen)) if target::reset(world).is_none() => {
            return target::rest(world, Verdict::stopped_and_unseen(operation, "the workloads stay scaled to zero", unseen));
        }
        Some(Seen::Unknown(_)) => false,
        Some(Seen::Known(database)) => {
            let fits_current = || world.current().is_some_and(|current| drift::database_fits(world, database, current));
            left_as_it_was(world, operation, database) || fits_current()
        }
    };
    match unfence.retry_at {
        _ if !fits => failure,
        Some(at) if at > world.now => pause(world, operation, at),
        Some(_) | None => Decision::Run { step: index },
    }
}

/// Nothing of the operation is left in the database, whose schema need not be exactly the release's: a migration is applied
/// before its release comes up. And the workloads are still what they were when the operation put up the fence.
fn left_as_it_was(world: &World, operation: &Operation, database: &DatabaseSeen) -> bool {
    let whole = |version: u64| database.applied.iter().any(|applied| applied.version == version && applied.trouble.is_none());
    let untouched = operation.steps.iter().all(|step| match &step.action {
        Action::RevertSchema { migrations, .. } => migrations.iter().all(|revert| whole(revert.migration)),
        Action::Restore { .. } => database.swapped_by.as_ref() != Some(&format!("{}/{}", world.uid, operation.id)),
        Action::Deploy { .. } => step.state == StepState::Pending,
        Action::Keep { .. }
        | Action::Preflight { .. }
        | Action::BackUp { .. }
        | Action::FlushCache { .. }
        | Action::Verify { .. }
        | Action::Bake { .. }
        | Action::Migrate { .. }
        | Action::Stage { .. }
        | Action::Fence { .. }
        | Action::Approve { .. }
        | Action::Discard { .. }
        | Action::Rehearse { .. }
        | Action::RehearseMigrations { .. }
        | Action::Expire { .. }
        | Action::Unfence { .. } => true,
    });
    untouched && !journal::began_down(operation)
}

/// Rests until a step may be tried again.
pub fn pause(world: &World, operation: &Operation, until: Timestamp) -> Decision {
    Decision::Rest {
        verdict: Verdict::progressing(operation),
        again: Duration::try_from(until.duration_since(world.now)).unwrap_or(LOOK_AGAIN),
    }
}

/// Runs the step, unless it is the gate before a loss of data that was measured: then it opens, or a person is waited for. Where
/// nobody would be asked, going back does not depend on the measure.
fn gated(world: &World, operation: &Operation, index: usize, step: &Step) -> Decision {
    let run = Decision::Run { step: index };
    let not_needed = Decision::Grant { step: index, approval: Approval { state: ApprovalState::NotNeeded, by: None, at: None } };
    if let (Action::Approve { policy: ApprovalPolicy::Never, .. }, StepState::Started, None) = (&step.action, step.state, &operation.loss)
        && step.attempt >= approval::TRIES
    {
        return not_needed;
    }
    let (Action::Approve { policy, .. }, StepState::Started, Some(loss)) = (&step.action, step.state, &operation.loss) else {
        return run;
    };
    match approval::gate(world, operation, *policy, loss) {
        Gate::NotNeeded => not_needed,
        Gate::Approved { by } => {
            Decision::Grant { step: index, approval: Approval { state: ApprovalState::Approved, by, at: Some(world.now) } }
        }
        Gate::Closed { other } if approval::is_fresh(loss, world.now) => Decision::Rest {
            verdict: Verdict::awaiting_approval(world, operation, loss, other.as_deref()),
            again: world.spec.interval.0.clamp(Duration::from_secs(1), approval::MEASURED_AGAIN),
        },
        Gate::Closed { .. } => run,
    }
}

/// Waiting, verifying and baking give way to something newer. A database step that was begun never does, and a rollback
/// that has begun to change things is finished.
fn cancellable(operation: &Operation, step: &Step) -> bool {
    let database_at_work = step.state == StepState::Started && step.name.changes_database();
    match operation.kind {
        Kind::Deploy => !database_at_work,
        // A shadow is loaded beside what is live: nothing is touched by giving it up.
        Kind::Rollback | Kind::Restore | Kind::Undo => step.name.only_prepares() || step.name == StepName::Stage,
        Kind::Repair | Kind::Cleanup | Kind::Backup | Kind::Rehearse => true,
        Kind::Leave => false,
    }
}

/// Whether the next decision depends on what the source asks for: not inside an operation that does not give way, and not for
/// a Release that is deleted. A source that hangs must not hold an application behind its fence.
pub fn heeds_source(status: &ReleaseStatus, life: Life) -> bool {
    let running = status.operation.as_ref().filter(|operation| operation.state == OperationState::Running);
    let step = |operation: &Operation| operation.steps.iter().find(|step| step.state != StepState::Done).cloned();
    match (life, running) {
        (Life::Leaving, _) => false,
        (Life::Wanted, None) => true,
        (Life::Wanted, Some(operation)) => step(operation).is_some_and(|step| cancellable(operation, &step)),
    }
}

/// Housekeeping, which nothing waits for, while what runs is not what should run, or somebody wants back what was replaced.
fn neglects(world: &World, operation: &Operation) -> bool {
    let differs = |current| matches!(drift::find(world, current), Seen::Known(differences) if !differences.is_empty());
    operation.kind.keeps_house() && (world.current().is_some_and(differs) || undo::requested(world).is_some())
}

/// A backup point that is about to be deleted may have become the last good one since that was decided; and one that can't be taken may
/// not be asked for any more.
fn is_outdated(world: &World, action: &Action) -> bool {
    match action {
        Action::Expire { points } => !retention::still_holds(world, points),
        Action::BackUp { reason: PointReason::Emergency, .. } => world.spec.rollback.emergency_point == EmergencyPoint::Never,
        _ => false,
    }
}

/// Something else is asked for. Where that can't be begun, what has begun to change things is not left half done for it.
fn newer_wanted(world: &World, operation: &Operation) -> bool {
    if asked(world).is_none_or(|asked| asked == operation.wanted) {
        return false;
    }
    let can_be_begun = match (pin(world), &world.desired) {
        (Some(Pin::Release { entry: None, .. }), _) | (None, Seen::Unknown(_)) => return false,
        (Some(Pin::Release { entry: Some(entry), .. }), _) => entry.state == ReleaseState::KnownGood,
        (Some(Pin::Data { point }), _) => world.points.get(point).is_some_and(|point| point.verified),
        (None, Seen::Known(desired)) => world.status.quarantine.iter().all(|entry| entry.digest != desired.digest),
    };
    can_be_begun || !has_changed_things(operation)
}
