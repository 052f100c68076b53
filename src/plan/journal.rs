//! The journal of one operation: what beginning, running and ending it makes of the status.
//!
//! Every transition of `status.operation` is in this file. `record` writes what comes out of here; the crash simulation
//! drives the same functions.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::account;
use crate::api::{
    Span,
    operation::{Action, Approval, ApprovalState, Kind, Loss, Operation, OperationState, Scale, Step, StepName, StepState},
    progress::Progress,
    status::{
        AutomaticRollback, HISTORY_LIMIT, HistoryEntry, Hold, Quarantined, RECENT_LIMIT, ReleaseState, ReleaseStatus, Switch, Upkeep,
    },
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
    /// What would be lost, while nothing is touched. Whether it goes on is not for the step to say.
    Measured { loss: Loss },
    /// The step would take away more than was measured when nobody had to be asked, and has not touched anything.
    Unapproved { message: String },
}

/// Longest pause between two tries of a step: a person who has mended the cause should not have to wait long.
const LONGEST_BACKOFF: Duration = Duration::from_secs(30);

/// Whether a stored operation is one that this file could have written; else what is wrong with it.
pub fn legal(operation: &Operation) -> Result<(), String> {
    let mut ended = false;
    let failed = operation.steps.iter().any(|step| step.state == StepState::Failed);
    for step in &operation.steps {
        let name = step.name.as_str();
        if step.name != step.action.name() {
            return Err(format!("step {name} holds the action of a step {}", step.action.name().as_str()));
        }
        match step.state {
            // After a failure the fence is taken down where that is safe, and put up where it is not safe without.
            StepState::Done | StepState::Started | StepState::Failed
                if ended && !(failed && matches!(step.name, StepName::Fence | StepName::Unfence)) =>
            {
                return Err(format!("step {name} was begun before the one in front of it was done"));
            }
            StepState::Done => {}
            StepState::Started | StepState::Failed if step.started_at.is_none() => {
                return Err(format!("step {name} is {:?} but was never begun", step.state));
            }
            StepState::Pending | StepState::Started | StepState::Failed => ended = true,
        }
    }
    if operation.steps.is_empty() { Err("it has no steps".to_owned()) } else { Ok(()) }
}

/// Whether a step was begun after which the world is not what it was.
pub fn has_changed_things(operation: &Operation) -> bool {
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
            progress: None,
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
                approval: None,
            },
        );
        trim(&mut status);
    }
    remember(&mut status, &operation);
    if let Some(undone) = operation.undoes {
        status.last_handled_undo = Some(undone.to_string());
    }
    status.operation = Some(operation);
    status
}

/// What the bounds on loops count: answers to failures, and what else was asked for.
fn remember(status: &mut ReleaseStatus, operation: &Operation) {
    match operation.kind {
        Kind::Deploy | Kind::Rollback | Kind::Restore | Kind::Undo => status.hold = None,
        Kind::Repair | Kind::Cleanup | Kind::Backup | Kind::Rehearse | Kind::Leave => return,
    }
    let at = operation.started_at;
    if let Some(release) = operation.remediates {
        status.automatic_rollbacks.retain(|rollback| rollback.release != release);
        status.automatic_rollbacks.insert(0, AutomaticRollback { release, at });
        status.automatic_rollbacks.truncate(RECENT_LIMIT);
    } else if status.switches.first().is_none_or(|switch| switch.digest != operation.digest) {
        status.switches.insert(0, Switch { digest: operation.digest.clone(), at });
        status.switches.truncate(RECENT_LIMIT);
    }
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
    let leads_somewhere = match operation.kind {
        Kind::Deploy | Kind::Rollback | Kind::Undo | Kind::Leave => true,
        Kind::Repair | Kind::Restore | Kind::Cleanup | Kind::Backup | Kind::Rehearse => false,
    };
    let (to, version, revision) = (operation.to, operation.version.clone(), operation.revision.clone());
    let step = operation.steps.get_mut(index)?;
    match step.state {
        StepState::Pending => {
            step.state = StepState::Started;
            step.started_at = Some(now);
            // It has waited for its turn before.
            step.message = None;
        }
        StepState::Started => {}
        StepState::Done | StepState::Failed => return None,
    }
    step.attempt += 1;
    step.retry_at = None;
    step.progress = None;
    let name = step.name;
    let action = step.action.clone();
    account::begun(&mut status, &action, now);
    // From here on the workloads may run it; where they stay as they are, from the first check of it.
    if matches!(name, StepName::Deploy | StepName::Verify) && leads_somewhere {
        status.release = Some(to);
        status.version = Some(version);
        status.last_applied_revision = Some(revision);
    }
    Some(status)
}

/// The status with step `index` waiting for its turn, as if it had not been begun: the time in a queue counts for nothing.
/// `None`: there is no such step, or it has ended.
pub fn queued(mut status: ReleaseStatus, index: usize, message: String) -> Option<ReleaseStatus> {
    let operation = status.operation.as_mut().filter(|operation| operation.state == OperationState::Running)?;
    let step = operation.steps.get_mut(index)?;
    match step.state {
        StepState::Pending | StepState::Started => {}
        StepState::Done | StepState::Failed => return None,
    }
    step.state = StepState::Pending;
    step.started_at = None;
    step.retry_at = None;
    step.message = Some(message);
    Some(status)
}

/// The status with a running step's word on how far it has come; `None` where it does not run.
pub fn progressed(mut status: ReleaseStatus, index: usize, progress: Progress) -> Option<ReleaseStatus> {
    let operation = status.operation.as_mut().filter(|operation| operation.state == OperationState::Running)?;
    let step = operation.steps.get_mut(index).filter(|step| step.state == StepState::Started)?;
    step.progress = Some(progress);
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
    let to = operation.to;
    let step = operation.steps.get_mut(index).filter(|step| step.state == StepState::Started)?;
    let age = step.started_at.map_or(SignedDuration::ZERO, |started| now.duration_since(started));
    let overdue = limit(&step.action, timeout).is_some_and(|limit| age > signed(limit.0));
    let fail = |step: &mut Step, message: String| {
        step.state = StepState::Failed;
        step.finished_at = Some(now);
        step.retry_at = None;
        step.message = Some(message);
    };
    step.progress = None;
    match outcome {
        Outcome::Done { message } => {
            step.state = StepState::Done;
            step.finished_at = Some(now);
            step.retry_at = None;
            step.failures = None;
            step.message = Some(message.clone());
        }
        Outcome::Waiting { message, .. } | Outcome::Retry { message } if overdue => {
            let limit = limit(&step.action, timeout).unwrap_or(timeout);
            fail(step, format!("not done within {limit}: {message}"));
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
        Outcome::Measured { loss } => {
            step.message = Some(loss.to_string());
            operation.loss = Some(loss.clone());
            let approval = Approval { state: ApprovalState::Waiting, by: None, at: None };
            operation.approval.get_or_insert(approval);
        }
        Outcome::Unapproved { message } => {
            fail(step, message.clone());
            operation.approval = Some(Approval { state: ApprovalState::Outdated, by: None, at: None });
        }
    }
    if let Outcome::Done { .. } = outcome {
        let step = status.operation.as_ref().and_then(|operation| operation.steps.get(index)).cloned();
        if let Some(step) = step {
            account::done(&mut status, &step.action, to, now);
        }
    }
    Some(status)
}

/// Whether the application was down before the operation planned anything of its own: behind a fence that was left, or because
/// the schema stood half way. No release ran on what such an operation replaces.
pub fn began_down(operation: &Operation) -> bool {
    operation.steps.first().is_some_and(|step| step.name == StepName::Fence)
}

/// The status with the gate opened. `None`: no gate is waiting there.
pub fn granted(mut status: ReleaseStatus, index: usize, approval: Approval, now: Timestamp) -> Option<ReleaseStatus> {
    let operation = status.operation.as_mut().filter(|operation| operation.state == OperationState::Running)?;
    let step = operation.steps.get_mut(index).filter(|step| step.state == StepState::Started && step.name == StepName::Approve)?;
    let unmeasured =
        || format!("what would be lost could not be measured: {}", step.message.as_deref().unwrap_or("no reason was recorded"));
    let loss = operation.loss.as_ref().map_or_else(unmeasured, ToString::to_string);
    step.state = StepState::Done;
    step.finished_at = Some(now);
    step.retry_at = None;
    step.message = Some(match approval.state {
        ApprovalState::Approved => {
            let by = approval.by.as_deref().unwrap_or("somebody (without the admission policy nobody can tell who)");
            format!("plan {} approved by {by}; {loss}", operation.plan.digest)
        }
        ApprovalState::NotNeeded | ApprovalState::Waiting | ApprovalState::Outdated => loss,
    });
    operation.approval = Some(approval.clone());
    let to = operation.to;
    // Who agreed has to be known for longer than until the next operation.
    mark(&mut status, to, |entry| entry.approval = (approval.state == ApprovalState::Approved).then_some(approval));
    Some(status)
}

/// Behind a fence the application is down: a cache that can't be flushed must not hold it there.
const FLUSH_LIMIT: Span = Span(Duration::from_secs(60));

/// How long one step may take. What only prepares has touched nothing when its time is over: it waits, for people or for a
/// server, and gives way to something newer; ending it would quarantine a release that was never tried. Bake has an end of its
/// own. What another step took is not held against it: a fence after an hour of loading must have its own time.
fn limit(action: &Action, timeout: Span) -> Option<Span> {
    if action.is_unbound_backup() {
        // Nothing else is looked after meanwhile.
        return Some(timeout);
    }
    match action.name() {
        StepName::Keep | StepName::Preflight | StepName::BackUp | StepName::RehearseMigrations | StepName::Approve | StepName::Bake => None,
        StepName::FlushCache => Some(timeout.min(FLUSH_LIMIT)),
        StepName::Migrate
        | StepName::Deploy
        | StepName::Verify
        | StepName::Stage
        | StepName::Fence
        | StepName::RevertSchema
        | StepName::Restore
        | StepName::Unfence
        | StepName::Discard
        | StepName::Rehearse
        | StepName::Expire => Some(timeout),
    }
}

/// The status with a Fence added to the operation that runs. `None`: none runs.
pub fn contained(mut status: ReleaseStatus, workloads: Vec<Scale>) -> Option<ReleaseStatus> {
    let operation = status.operation.as_mut().filter(|operation| operation.state == OperationState::Running)?;
    operation.steps.extend(pending_steps(vec![Action::Fence { workloads }]));
    Some(status)
}

/// The status with its operation ended. `None`: none runs.
pub fn closed(mut status: ReleaseStatus, end: OperationState, now: Timestamp) -> Option<ReleaseStatus> {
    let operation = status.operation.as_mut().filter(|operation| operation.state == OperationState::Running)?;
    operation.state = end;
    operation.finished_at = Some(now);
    let operation = operation.clone();
    if end != OperationState::Superseded {
        kept_up(&mut status, &operation, now);
    }
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
        (Kind::Restore, OperationState::Succeeded) => {
            status.restored_point = operation.steps.iter().find_map(|step| match &step.action {
                Action::Stage { point, .. } => Some(point.clone()),
                _ => None,
            });
        }
        (Kind::Undo, OperationState::Succeeded) => undone(&mut status, &operation),
        (Kind::Rollback | Kind::Restore | Kind::Undo, OperationState::Failed | OperationState::Superseded | OperationState::Running)
        | (Kind::Repair | Kind::Cleanup | Kind::Backup | Kind::Rehearse | Kind::Leave, _)
        | (Kind::Deploy, OperationState::Running) => {}
    }
    Some(status)
}

/// Remembers a repair or a piece of housekeeping beyond the next operation: what failed is not tried again at once, and what was taken or put
/// right is known.
fn kept_up(status: &mut ReleaseStatus, operation: &Operation, now: Timestamp) {
    let Operation { kind, state, started_at, .. } = *operation;
    let Some(step) = operation.steps.first().filter(|_| kind == Kind::Repair || kind.keeps_house()) else { return };
    let step = if kind == Kind::Repair { StepName::Deploy } else { step.name };
    status.upkeep.retain(|upkeep| (upkeep.kind, upkeep.step) != (kind, step));
    status.upkeep.push(Upkeep { kind, step, state, started_at, finished_at: now });
}

/// A request by annotation, by its token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    Undo(String),
    BackUp(String),
}

/// The status with a request answered that can't be met.
pub fn refused(mut status: ReleaseStatus, request: Request) -> ReleaseStatus {
    match request {
        Request::Undo(token) => status.last_handled_undo = Some(token),
        Request::BackUp(token) => status.last_handled_backup_at = Some(token),
    }
    status
}

/// What a look at the object says, as far as it is remembered.
#[derive(Clone, Copy, Debug)]
pub struct Look<'a> {
    pub undo: Option<&'a str>,
    /// The backup point that `spec.rollbackTo` names.
    pub pinned_point: Option<&'a str>,
}

/// The status with answers forgotten to what is not asked for any more: once a request is gone, the same one may be made again
/// and means it again.
pub fn looked(mut status: ReleaseStatus, look: Look<'_>) -> ReleaseStatus {
    let Look { undo, pinned_point } = look;
    if undo.is_none() {
        status.last_handled_undo = None;
    }
    if pinned_point.is_none() || status.restored_point.as_deref() != pinned_point {
        status.restored_point = None;
    }
    status
}

/// The status with the `requestedAt` token answered: the source was seen.
pub fn answered(mut status: ReleaseStatus, requested_at: Option<&str>) -> ReleaseStatus {
    if let Some(token) = requested_at {
        status.last_handled_requested_at = Some(token.to_owned());
    }
    status
}

/// A rollback was undone, and that stays until something else is asked for.
fn undone(status: &mut ReleaseStatus, operation: &Operation) {
    status.release = Some(operation.to);
    status.hold = Some(Hold { wanted: operation.wanted.clone(), operation: operation.id });
}

/// The status with failures and quarantine forgotten, because a person asked for it. Where a rollback failed, it is the
/// rollback that is tried again: the release that it answers stays in quarantine.
pub fn reset(mut status: ReleaseStatus, token: String) -> ReleaseStatus {
    // One that runs is reset only where its record can't be gone on from.
    let failed = status.operation.as_mut().filter(|operation| {
        operation.state == OperationState::Failed || (operation.state == OperationState::Running && legal(operation).is_err())
    });
    let mut answers_failure = false;
    if let Some(operation) = failed {
        operation.state = OperationState::Superseded;
        answers_failure = operation.kind == Kind::Rollback && operation.remediates.is_some();
    }
    if !answers_failure {
        status.quarantine.clear();
    }
    // An undo that did not come to its end may be asked for by the same token again.
    let undo = status.operation.as_ref().filter(|operation| operation.kind == Kind::Undo);
    if undo.is_some_and(|operation| operation.state == OperationState::Superseded) {
        status.last_handled_undo = None;
    }
    status.upkeep.retain(|upkeep| upkeep.state != OperationState::Failed);
    status.automatic_rollbacks.clear();
    status.switches.clear();
    status.hold = None;
    status.last_handled_reset_at = Some(token);
    status
}

/// The replicas to go back to, where the last operation put up the fence, or took one over, and did not take it down.
pub fn open_fence(status: &ReleaseStatus) -> Option<Vec<Scale>> {
    status.operation.as_ref().and_then(fence_of).cloned()
}

/// The same of one operation.
pub fn fence_of(operation: &Operation) -> Option<&Vec<Scale>> {
    let mut open = None;
    let mut first = true;
    for (index, step) in operation.steps.iter().enumerate() {
        match &step.action {
            Action::Fence { workloads } => {
                // As the very first step it may take over one that stands already. Where none does, scaling back changes nothing.
                if step.state != StepState::Pending || index == 0 {
                    open = Some(workloads);
                }
                first = false;
            }
            Action::Unfence { workloads } => {
                // Without a Fence before it, it takes down one from an operation before.
                if first {
                    open = Some(workloads);
                }
                if step.state == StepState::Done {
                    open = None;
                }
                first = false;
            }
            Action::Keep { .. }
            | Action::Preflight { .. }
            | Action::BackUp { .. }
            | Action::Migrate { .. }
            | Action::Deploy { .. }
            | Action::FlushCache { .. }
            | Action::Verify { .. }
            | Action::Bake { .. }
            | Action::Stage { .. }
            | Action::Approve { .. }
            | Action::RevertSchema { .. }
            | Action::Restore { .. }
            | Action::Discard { .. }
            | Action::Rehearse { .. }
            | Action::RehearseMigrations { .. }
            | Action::Expire { .. } => {}
        }
    }
    open
}

pub fn mark(status: &mut ReleaseStatus, release: u64, change: impl FnOnce(&mut HistoryEntry)) {
    if let Some(entry) = status.history.iter_mut().find(|entry| entry.release == release) {
        change(entry);
    }
}

/// 1 s, 2 s, 4 s … [`LONGEST_BACKOFF`].
fn backoff(attempt: u32) -> Duration {
    Duration::from_secs(1_u64 << attempt.saturating_sub(1).min(5)).min(LONGEST_BACKOFF)
}

/// How long ago `then` was; nothing where it is still to come.
pub fn age(now: Timestamp, then: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(then)).unwrap_or_default()
}

pub fn after(now: Timestamp, pause: Duration) -> Option<Timestamp> {
    now.checked_add(signed(pause)).ok()
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}
