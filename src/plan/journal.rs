//! The journal of one operation: which step is next, what an outcome makes of it, and what its end makes of the status.
//!
//! Every transition of `status.operation` is in this file. `record` writes what comes out of here; the crash simulation
//! drives the same functions.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::{
    Decision,
    input::{Seen, World},
};
use crate::api::{
    Span,
    operation::{Action, Kind, Operation, OperationState, Scale, Step, StepName, StepState},
    status::{HISTORY_LIMIT, HistoryEntry, Quarantined, ReleaseState, ReleaseStatus},
};

/// How one run of a step ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// The step's effect stands.
    Done { message: String },
    /// The effect is on its way; look again after this time.
    Waiting { message: String, again: Duration, failures: Option<u32> },
    /// Something was away or busy: run the step again.
    Retry { message: String },
    /// The step refuses while nothing is touched; it asks again after the retry interval.
    Refused { message: String },
    /// The step can't be done.
    Failed { message: String },
}

/// Longest pause between two tries of a step: a person who has mended the cause should not have to wait long.
const LONGEST_BACKOFF: Duration = Duration::from_secs(30);

/// Picks the step to run, or the end of the operation.
pub fn next(world: &World, operation: &Operation) -> Decision {
    let Some((index, step)) = operation.steps.iter().enumerate().find(|(_, step)| step.state != StepState::Done) else {
        return Decision::Close(OperationState::Succeeded);
    };
    if step.state == StepState::Failed {
        return Decision::Close(OperationState::Failed);
    }
    if cancellable(operation, step) && newer_wanted(world, operation) {
        return Decision::Close(OperationState::Superseded);
    }
    match step.retry_at {
        Some(at) if at > world.now => Decision::Rest {
            verdict: super::Verdict::progressing(operation),
            again: Duration::try_from(at.duration_since(world.now)).unwrap_or(LONGEST_BACKOFF),
        },
        _ => Decision::Run { step: index },
    }
}

/// Waiting, verifying and baking give way to something newer. A database step that was begun never does, and a rollback
/// that has begun to change things is finished.
fn cancellable(operation: &Operation, step: &Step) -> bool {
    let database_at_work = step.state == StepState::Started && step.name.changes_database();
    match operation.kind {
        Kind::Deploy => !database_at_work,
        Kind::Rollback => step.name == StepName::Preflight,
        Kind::Repair => true,
    }
}

/// Something else is asked for. Where that can't be begun, what has begun to change things is not left half done for it.
fn newer_wanted(world: &World, operation: &Operation) -> bool {
    match (&world.spec.rollback_to, &world.desired) {
        (Some(pin), _) => world.entry(pin.release).is_some_and(|entry| {
            entry.digest != operation.wanted && (entry.state == ReleaseState::KnownGood || !has_changed_things(operation))
        }),
        (None, Seen::Known(desired)) => {
            let quarantined = world.status.quarantine.iter().any(|entry| entry.digest == desired.digest);
            desired.digest != operation.wanted && (!quarantined || !has_changed_things(operation))
        }
        (None, Seen::Unknown(_)) => false,
    }
}

/// Whether a step was begun after which the world is not what it was.
fn has_changed_things(operation: &Operation) -> bool {
    operation.steps.iter().any(|step| {
        step.state != StepState::Pending
            && (step.name.changes_database() || matches!(step.name, StepName::Deploy | StepName::Fence | StepName::Unfence))
    })
}

/// Steps as they stand before the operation begins.
pub fn pending_steps(actions: Vec<Action>) -> Vec<Step> {
    actions
        .into_iter()
        .map(|action| Step {
            name: action.name(),
            state: StepState::Pending,
            attempt: 0,
            started_at: None,
            finished_at: None,
            retry_at: None,
            failures: None,
            message: None,
            action,
        })
        .collect()
}

/// The status with `operation` begun.
pub fn opened(mut status: ReleaseStatus, operation: Operation) -> ReleaseStatus {
    status.operations = operation.id;
    if operation.kind == Kind::Deploy {
        status.releases = operation.to;
        status.history.insert(
            0,
            HistoryEntry {
                release: operation.to,
                version: operation.version.clone(),
                digest: operation.digest.clone(),
                revision: operation.revision.clone(),
                state: ReleaseState::Deploying,
                started_at: operation.started_at,
                verified_at: None,
                undone_at: None,
                backup_point: None,
            },
        );
        trim(&mut status);
    }
    status.operation = Some(operation);
    status
}

/// Keeps the newest entries, whatever is deployed or could be gone back to next, and the backup point for that.
fn trim(status: &mut ReleaseStatus) {
    let current = status.release;
    let last_good = status.history.iter().filter(|entry| entry.state == ReleaseState::KnownGood).map(|entry| entry.release).max();
    let first_point = status
        .history
        .iter()
        .filter(|entry| Some(entry.release) > last_good && entry.undone_at.is_none() && entry.backup_point.is_some())
        .map(|entry| entry.release)
        .min();
    let mut seen = 0;
    status.history.retain(|entry| {
        seen += 1;
        seen <= HISTORY_LIMIT || [current, last_good, first_point].contains(&Some(entry.release))
    });
}

/// The status with step `index` begun. `None`: there is no such step, or it may not be begun.
pub fn started(mut status: ReleaseStatus, index: usize, now: Timestamp) -> Option<ReleaseStatus> {
    let operation = status.operation.as_mut().filter(|operation| operation.state == OperationState::Running)?;
    let (to, version, revision) = (operation.to, operation.version.clone(), operation.revision.clone());
    let step = operation.steps.get_mut(index)?;
    match step.state {
        StepState::Pending => {
            step.state = StepState::Started;
            step.started_at = Some(now);
        }
        StepState::Started => {}
        StepState::Done | StepState::Failed => return None,
    }
    step.attempt += 1;
    step.retry_at = None;
    if step.name == StepName::Deploy {
        // From here on the workloads may run it.
        status.release = Some(to);
        status.version = Some(version);
        status.last_applied_revision = Some(revision);
    }
    Some(status)
}

/// The status after step `index` was run. `None`: the step is not one that runs.
pub fn settled(
    mut status: ReleaseStatus,
    index: usize,
    outcome: &Outcome,
    retry_interval: Span,
    timeout: Span,
    now: Timestamp,
) -> Option<ReleaseStatus> {
    let operation = status.operation.as_mut().filter(|operation| operation.state == OperationState::Running)?;
    let overdue = now.duration_since(clock_start(operation)) > signed(timeout.0);
    let to = operation.to;
    let step = operation.steps.get_mut(index).filter(|step| step.state == StepState::Started)?;
    let fail = |step: &mut Step, message: String| {
        step.state = StepState::Failed;
        step.finished_at = Some(now);
        step.retry_at = None;
        step.message = Some(message);
    };
    match outcome {
        Outcome::Done { message } => {
            step.state = StepState::Done;
            step.finished_at = Some(now);
            step.retry_at = None;
            step.failures = None;
            step.message = Some(message.clone());
        }
        Outcome::Waiting { message, .. } | Outcome::Retry { message } if overdue && limited(step.name) => {
            fail(step, format!("not done within {timeout} (spec.timeout): {message}"));
        }
        Outcome::Waiting { message, again: _, failures } => {
            step.failures = *failures;
            step.message = Some(message.clone());
        }
        Outcome::Retry { message } => {
            step.message = Some(message.clone());
            step.retry_at = after(now, backoff(step.attempt));
        }
        Outcome::Refused { message } => {
            step.message = Some(message.clone());
            step.retry_at = after(now, retry_interval.0);
        }
        Outcome::Failed { message } => fail(step, message.clone()),
    }
    if let (Outcome::Done { .. }, Action::BackUp { point, .. }) = (outcome, &step.action) {
        status.last_backup_point = Some(point.clone());
        if let Some(entry) = status.history.iter_mut().find(|entry| entry.release == to) {
            entry.backup_point = Some(point.clone());
        }
    }
    Some(status)
}

/// From when on an operation's time counts: how long Preflight waited for somebody to mend something is not its own.
fn clock_start(operation: &Operation) -> Timestamp {
    let preflight = operation.steps.iter().find(|step| step.name == StepName::Preflight);
    preflight.and_then(|step| step.finished_at).unwrap_or(operation.started_at)
}

/// Preflight waits for people, and Bake has an end of its own.
fn limited(step: StepName) -> bool {
    !matches!(step, StepName::Preflight | StepName::Bake)
}

/// The status with its operation ended. `None`: none runs.
pub fn closed(mut status: ReleaseStatus, end: OperationState, now: Timestamp) -> Option<ReleaseStatus> {
    let operation = status.operation.as_mut().filter(|operation| operation.state == OperationState::Running)?;
    operation.state = end;
    operation.finished_at = Some(now);
    let operation = operation.clone();
    match (operation.kind, end) {
        (Kind::Deploy, OperationState::Succeeded) => mark(&mut status, operation.to, |entry| {
            entry.state = ReleaseState::KnownGood;
            entry.verified_at = Some(now);
        }),
        (Kind::Deploy, OperationState::Superseded) => mark(&mut status, operation.to, |entry| {
            entry.state = ReleaseState::Superseded;
            // Nothing of it is live, so there is nothing to take back.
            entry.undone_at = (!has_changed_things(&operation)).then_some(now);
        }),
        (Kind::Deploy, OperationState::Failed) => {
            mark(&mut status, operation.to, |entry| entry.state = ReleaseState::Failed);
            let failed = operation.steps.iter().find(|step| step.state == StepState::Failed);
            status.quarantine.retain(|entry| entry.digest != operation.digest);
            status.quarantine.insert(
                0,
                Quarantined {
                    digest: operation.digest.clone(),
                    version: operation.version.clone(),
                    revision: operation.revision.clone(),
                    release: operation.to,
                    reason: failed.map_or_else(String::new, |step| {
                        format!("{}: {}", step.name.as_str(), step.message.as_deref().unwrap_or("no reason was recorded"))
                    }),
                    at: now,
                },
            );
            status.quarantine.truncate(HISTORY_LIMIT);
        }
        (Kind::Rollback, OperationState::Succeeded) => {
            status.last_rollback_at = Some(now);
            for entry in status.history.iter_mut().filter(|entry| entry.release > operation.to && entry.undone_at.is_none()) {
                entry.undone_at = Some(now);
                if entry.state == ReleaseState::KnownGood || entry.state == ReleaseState::Superseded {
                    entry.state = ReleaseState::Undone;
                }
            }
        }
        (Kind::Rollback, OperationState::Failed | OperationState::Superseded) | (Kind::Repair, _) | (_, OperationState::Running) => {}
    }
    Some(status)
}

/// The status with failures and quarantine forgotten, because a person asked for it. Where a rollback failed, it is the
/// rollback that is tried again: the release that it answers stays in quarantine.
pub fn reset(mut status: ReleaseStatus, token: String) -> ReleaseStatus {
    let failed = status.operation.as_mut().filter(|operation| operation.state == OperationState::Failed);
    let mut answers_failure = false;
    if let Some(operation) = failed {
        operation.state = OperationState::Superseded;
        answers_failure = operation.kind == Kind::Rollback && operation.remediates.is_some();
    }
    if !answers_failure {
        status.quarantine.clear();
    }
    status.last_handled_reset_at = Some(token);
    status
}

/// The replicas to go back to, where the last operation put up the fence and did not take it down.
pub fn open_fence(status: &ReleaseStatus) -> Option<Vec<Scale>> {
    let operation = status.operation.as_ref()?;
    let fenced = operation.steps.iter().any(|step| step.name == StepName::Fence && step.state != StepState::Pending);
    let unfence = operation.steps.iter().find_map(|step| match &step.action {
        Action::Unfence { workloads } => Some((workloads, step.state)),
        Action::Keep { .. }
        | Action::Preflight { .. }
        | Action::BackUp { .. }
        | Action::Migrate { .. }
        | Action::Deploy { .. }
        | Action::FlushCache { .. }
        | Action::Verify { .. }
        | Action::Bake { .. }
        | Action::Stage { .. }
        | Action::Fence { .. }
        | Action::RevertSchema { .. }
        | Action::Restore { .. } => None,
    });
    match unfence {
        // An Unfence without a Fence of its own was inherited from an operation before.
        Some((workloads, state))
            if state != StepState::Done && (fenced || !operation.steps.iter().any(|step| step.name == StepName::Fence)) =>
        {
            Some(workloads.clone())
        }
        Some(_) | None => None,
    }
}

fn mark(status: &mut ReleaseStatus, release: u64, change: impl FnOnce(&mut HistoryEntry)) {
    if let Some(entry) = status.history.iter_mut().find(|entry| entry.release == release) {
        change(entry);
    }
}

/// 1 s, 2 s, 4 s … [`LONGEST_BACKOFF`].
fn backoff(attempt: u32) -> Duration {
    Duration::from_secs(1_u64 << attempt.saturating_sub(1).min(5)).min(LONGEST_BACKOFF)
}

fn after(now: Timestamp, pause: Duration) -> Option<Timestamp> {
    now.checked_add(signed(pause)).ok()
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}
