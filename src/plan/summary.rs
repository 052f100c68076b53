//! What the conditions say. One function sets them all, so that they never contradict each other.
//!
//! kstatus: `Ready` is always present; `Reconciling` and `Stalled` only while true.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::input::{Outlook, Unseen, World};
use crate::api::{
    Span,
    operation::{ApprovalState, Kind, Loss, Operation, OperationState, StepName, StepState},
    status::{HistoryEntry, Hold, Quarantined, ReleaseState, ReleaseStatus},
};

/// The state of a Release in one word and one sentence.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    ready: Ready,
    pub reason: &'static str,
    pub message: String,
    /// What `status.phase` shows.
    pub phase: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ready {
    True,
    /// At work.
    Progressing,
    /// At work, but something is in the way that may pass.
    Hindered,
    /// Not what was asked for, and at rest on purpose.
    Resting,
    /// Nothing more happens until a person acts.
    Stalled,
}

impl Verdict {
    /// Nothing is in the way: the next look may wait for the whole interval.
    pub fn settled(&self) -> bool {
        match self.ready {
            Ready::True | Ready::Resting | Ready::Stalled => true,
            Ready::Progressing | Ready::Hindered => false,
        }
    }

    pub fn is_stalled(&self) -> bool {
        self.ready == Ready::Stalled
    }

    pub fn is_ready(&self) -> bool {
        self.ready == Ready::True
    }

    pub fn ready(current: &HistoryEntry) -> Self {
        Self::new(
            Ready::True,
            "ReconciliationSucceeded",
            "Deployed",
            format!("release {} ({}) runs and its checks passed", current.release, current.version),
        )
    }

    pub fn pinned(current: &HistoryEntry) -> Self {
        Self::new(
            Ready::True,
            "PinnedByRollbackTo",
            "Pinned",
            format!(
                "release {} ({}) runs because spec.rollbackTo asks for it; remove that to let the source rule again",
                current.release, current.version
            ),
        )
    }

    pub fn suspended() -> Self {
        Self::new(Ready::Resting, "Suspended", "Suspended", "spec.suspend is true; set it to false to go on".to_owned())
    }

    pub fn rolled_back(failure: &Quarantined, current: &HistoryEntry) -> Self {
        Self::new(
            Ready::Resting,
            "RolledBack",
            "RolledBack",
            format!(
                "release {} ({}) at {} failed and was rolled back to release {} ({}); it is not tried again: push a fix, revert the commit, or annotate the Release with backout.dev/resetAt. {}",
                failure.release, failure.version, failure.revision, current.release, current.version, failure.reason
            ),
        )
    }

    pub fn quarantined(failure: &Quarantined) -> Self {
        Self::new(
            Ready::Resting,
            "Quarantined",
            "Quarantined",
            format!(
                "{} asks for version {}, which failed as release {} and is not tried again: push a fix, revert the commit, or annotate the Release with backout.dev/resetAt. {}",
                failure.revision, failure.version, failure.release, failure.reason
            ),
        )
    }

    pub fn unseen(unseen: &Unseen) -> Self {
        let ready = match unseen.outlook {
            Outlook::Passing => Ready::Hindered,
            Outlook::Lasting => Ready::Stalled,
        };
        Self::new(ready, unseen.reason, if ready == Ready::Stalled { "Stalled" } else { "Waiting" }, unseen.message.clone())
    }

    /// An operation failed behind its fence, and whether that may be taken down can't be told.
    pub fn fenced_and_unseen(operation: &Operation, unseen: &Unseen) -> Self {
        let Unseen { reason, message, outlook } = unseen;
        let message = format!(
            "{} release {} ({}) stopped, and the workloads stay scaled to zero until the database can be looked at: {message}",
            doing(operation.kind),
            operation.to,
            operation.version
        );
        Self::unseen(&Unseen { reason, message, outlook: *outlook })
    }

    pub fn nothing_to_go_back_to(operation: &Operation, failure: &str) -> Self {
        Self::new(
            Ready::Stalled,
            "MissingRollbackTarget",
            "Stalled",
            format!(
                "release {} ({}) failed and no earlier release is known good: push a fix, or annotate the Release with backout.dev/resetAt. {failure}",
                operation.to, operation.version
            ),
        )
    }

    pub fn rollback_disabled(failure: &Quarantined) -> Self {
        Self::new(
            Ready::Stalled,
            "RollbackDisabled",
            "Stalled",
            format!(
                "release {} ({}) failed and spec.rollback.automatic is false: set spec.rollbackTo, push a fix, or annotate the Release with backout.dev/resetAt. {}",
                failure.release, failure.version, failure.reason
            ),
        )
    }

    pub fn left_fenced(current: &HistoryEntry) -> Self {
        Self::new(
            Ready::Stalled,
            "RollbackFailed",
            "Stalled",
            format!(
                "the workloads are scaled to zero since a rollback failed, and the database is not what release {} ({}) runs on: set spec.rollbackTo to the release that is to run, or push a fix",
                current.release, current.version
            ),
        )
    }

    pub fn database_changed(operation: &Operation) -> Self {
        Self::new(
            Ready::Hindered,
            "DatabaseChanged",
            "Waiting",
            format!(
                "operation {} was planned for {}, and spec.database names another now: put it back until the operation has ended",
                operation.id,
                operation.database.as_deref().unwrap_or("no database")
            ),
        )
    }

    pub fn contested(rivals: &[String]) -> Self {
        Self::new(
            Ready::Stalled,
            "TargetShared",
            "Stalled",
            format!("{}: one Release only may deploy to a container; remove it from one of them", rivals.join("; ")),
        )
    }

    pub fn drifts_again(differences: &[String], repaired: Timestamp) -> Self {
        Self::new(
            Ready::Hindered,
            "DriftsAgain",
            "Waiting",
            format!(
                "the workloads were put right at {repaired} and differ again: {}; find what changes them (kubectl get deployment -o yaml --show-managed-fields)",
                differences.join("; ")
            ),
        )
    }

    pub fn rollback_failed(operation: &Operation, failure: &str) -> Self {
        Self::new(
            Ready::Stalled,
            "RollbackFailed",
            "Stalled",
            format!(
                "the rollback to release {} ({}) stopped: mend what it names and annotate the Release with backout.dev/resetAt, set spec.rollbackTo to another release, or push a fix. {failure}",
                operation.to, operation.version
            ),
        )
    }

    pub fn repair_failed(operation: &Operation, failure: &str) -> Self {
        Self::new(
            Ready::Stalled,
            "RepairFailed",
            "Stalled",
            format!(
                "release {} ({}) could not be put right: mend what it names and annotate the Release with backout.dev/resetAt. {failure}",
                operation.to, operation.version
            ),
        )
    }

    pub fn no_such_target(name: &str, entry: Option<&HistoryEntry>, history: &[HistoryEntry]) -> Self {
        let good: Vec<String> = history
            .iter()
            .filter(|entry| entry.state == ReleaseState::KnownGood)
            .map(|entry| format!("{} ({})", entry.release, entry.version))
            .collect();
        let what = match entry {
            None => "is not in status.history".to_owned(),
            Some(entry) => format!("(release {}, {}) is {:?}", entry.release, entry.version, entry.state),
        };
        let choice = if good.is_empty() { "no release is known good".to_owned() } else { format!("known good are {}", good.join(", ")) };
        Self::new(
            Ready::Stalled,
            "MissingRollbackTarget",
            "Stalled",
            format!("spec.rollbackTo asks for {name}, which {what}: {choice}; name one of these or remove spec.rollbackTo"),
        )
    }

    pub fn not_kept(name: &str, target: &HistoryEntry) -> Self {
        Self::new(
            Ready::Hindered,
            "ReleaseNotKept",
            "Waiting",
            format!(
                "ControllerRevision {name}-{} is missing, so release {} ({}) can't be gone back to: bring it back or choose another release",
                target.release, target.release, target.version
            ),
        )
    }

    pub fn no_way_back(target: &HistoryEntry, reasons: &[String]) -> Self {
        Self::new(
            Ready::Stalled,
            "NoWayBack",
            "Stalled",
            format!(
                "the database can't be taken back to release {} ({}): {}; remove the cause, or push a release that goes forward",
                target.release,
                target.version,
                reasons.join("; ")
            ),
        )
    }

    pub fn no_data_to_restore(point: &str, reason: &str) -> Self {
        Self::new(
            Ready::Stalled,
            "NoWayBack",
            "Stalled",
            format!("the data of {point} can't be brought back: {reason}; name another BackupPoint, or remove what asks for it"),
        )
    }

    pub fn data_restored(current: &HistoryEntry, point: &str) -> Self {
        Self::new(
            Ready::True,
            "PinnedByRollbackTo",
            "Pinned",
            format!(
                "release {} ({}) runs on the data of BackupPoint {point}, as spec.rollbackTo asks; remove that to let the source rule again",
                current.release, current.version
            ),
        )
    }

    pub fn undone(hold: &Hold, current: &HistoryEntry) -> Self {
        Self::new(
            Ready::Resting,
            "RollbackUndone",
            "RollbackUndone",
            format!(
                "release {} ({}) and its data run again since operation {} undid a rollback; that stays until something else is asked for, or the Release is annotated with backout.dev/resetAt",
                current.release, current.version, hold.operation
            ),
        )
    }

    pub fn shared(world: &World, owner: &str) -> Self {
        Self::new(
            Ready::Stalled,
            "DatabaseShared",
            "Stalled",
            format!(
                "the database of Release {}/{} is migrated by Release {owner}: let one Release bring all migrations of a schema. Where the other one is gone for good, forget it with: DELETE FROM {}._backout_owner",
                world.namespace,
                world.name,
                world.spec.database.as_ref().map_or("", |database| database.mysql.name.as_str())
            ),
        )
    }

    pub fn awaiting_approval(world: &World, operation: &Operation, loss: &Loss, other: Option<&str>) -> Self {
        let (World { namespace, name, .. }, digest) = (world, &operation.plan.digest);
        let other = other
            .map(|other| format!("; the approval that is there is for plan {other}, which is not this one, and changes nothing"))
            .unwrap_or_default();
        Self::new(
            Ready::Hindered,
            "AwaitingApproval",
            "AwaitingApproval",
            format!(
                "{} release {} ({}): {}{other}; approve with: kubectl -n {namespace} annotate --overwrite release/{name} backout.dev/approve={digest}",
                doing(operation.kind),
                operation.to,
                operation.version,
                loss
            ),
        )
    }

    pub fn flapping(times: usize, window: Duration, until: Timestamp) -> Self {
        Self::new(
            Ready::Hindered,
            "Flapping",
            "Waiting",
            format!(
                "the source asked for this release {times} times within {}; it is not switched to before {until}: stop what moves the source to and fro, or annotate the Release with backout.dev/resetAt",
                Span(window)
            ),
        )
    }

    pub fn too_many_rollbacks(failed: u64, others: usize, window: Span, target: &HistoryEntry, failure: &str) -> Self {
        Self::new(
            Ready::Stalled,
            "RollbackLimitReached",
            "Stalled",
            format!(
                "release {failed} failed, and {others} rollbacks were begun by themselves within {window} before (spec.rollback.limit): set spec.rollbackTo to release {} ({}) to go back, push a fix, or annotate the Release with backout.dev/resetAt. {failure}",
                target.release, target.version
            ),
        )
    }

    pub fn illegal_journal(operation: &Operation, fault: &str) -> Self {
        Self::new(
            Ready::Stalled,
            "InvalidJournal",
            "Stalled",
            format!(
                "status.operation {} is not one that Backout wrote: {fault}; look at the workloads and the database, then annotate the Release with backout.dev/resetAt to decide anew from what is live",
                operation.id
            ),
        )
    }

    pub fn invalid(error: &str) -> Self {
        Self::new(Ready::Stalled, "InvalidSpec", "Stalled", format!("the Release can't be read: {error}; correct the field"))
    }

    /// While an operation runs.
    pub fn progressing(operation: &Operation) -> Self {
        let step = operation.steps.iter().find(|step| step.state != StepState::Done);
        let what = doing(operation.kind);
        let Some(step) = step else {
            return Self::new(
                Ready::Progressing,
                "Progressing",
                "Finishing",
                format!("{what} release {} ({})", operation.to, operation.version),
            );
        };
        let mut message = format!("{what} release {} ({}): {}", operation.to, operation.version, step.name.as_str());
        if let Some(detail) = &step.message {
            message.push_str(": ");
            message.push_str(detail);
        }
        match (step.name, step.retry_at) {
            (StepName::Keep | StepName::Preflight, Some(_)) => Self::new(Ready::Hindered, "PreflightFailed", step.name.phase(), message),
            (_, Some(_)) => Self::new(Ready::Progressing, "ProgressingWithRetry", step.name.phase(), message),
            (_, None) => Self::new(Ready::Progressing, "Progressing", step.name.phase(), message),
        }
    }

    fn new(ready: Ready, reason: &'static str, phase: &'static str, message: String) -> Self {
        Self { ready, reason, message, phase }
    }
}

/// A kind of operation as what is being done.
fn doing(kind: Kind) -> &'static str {
    match kind {
        Kind::Deploy => "deploying",
        Kind::Rollback => "rolling back to",
        Kind::Repair => "repairing",
        Kind::Restore => "restoring data under",
        Kind::Undo => "undoing the rollback from",
        Kind::Cleanup => "cleaning up beside",
        Kind::Leave => "letting go of",
    }
}

/// The status with its conditions, phase and observed generation as the verdict has them.
pub fn apply(mut status: ReleaseStatus, verdict: &Verdict, generation: i64, now: Timestamp) -> ReleaseStatus {
    let mut wanted: Vec<(&str, &str, &str, String)> = Vec::new();
    let ready = match verdict.ready {
        Ready::True => "True",
        Ready::Progressing => "Unknown",
        Ready::Hindered | Ready::Resting | Ready::Stalled => "False",
    };
    wanted.push(("Ready", ready, verdict.reason, verdict.message.clone()));
    match verdict.ready {
        Ready::Progressing | Ready::Hindered => wanted.push(("Reconciling", "True", verdict.reason, verdict.message.clone())),
        Ready::Stalled => wanted.push(("Stalled", "True", verdict.reason, verdict.message.clone())),
        Ready::True | Ready::Resting => {}
    }
    wanted.extend(backup_ready(&status));
    wanted.extend(healthy(&status));
    wanted.extend(verified(&status));
    wanted.extend(remediated(&status));
    wanted.extend(approved(&status));

    status.conditions = wanted
        .into_iter()
        .map(|(type_, state, reason, message)| {
            let old = status.conditions.iter().find(|condition| condition.type_ == type_);
            Condition {
                type_: type_.to_owned(),
                status: state.to_owned(),
                reason: reason.to_owned(),
                message: truncated(message),
                observed_generation: Some(generation),
                last_transition_time: match old {
                    Some(old) if old.status == state => old.last_transition_time.clone(),
                    Some(_) | None => Time(now),
                },
            }
        })
        .collect();
    status.phase = Some(verdict.phase.to_owned());
    status.observed_generation = generation;
    status
}

type Row = (&'static str, &'static str, &'static str, String);

fn backup_ready(status: &ReleaseStatus) -> Option<Row> {
    let failed = status.operation.as_ref().and_then(|operation| {
        operation.steps.iter().find(|step| {
            step.name == StepName::BackUp
                && step.state != StepState::Done
                && step.attempt > 0
                && (step.state == StepState::Failed || step.retry_at.is_some())
        })
    });
    match (failed, &status.last_backup_point) {
        (Some(step), _) => Some(("BackupReady", "False", "BackUpFailed", step.message.clone().unwrap_or_default())),
        (None, Some(point)) => Some(("BackupReady", "True", "BackupPointVerified", format!("BackupPoint {point} is complete"))),
        (None, None) => None,
    }
}

fn healthy(status: &ReleaseStatus) -> Option<Row> {
    let step = status
        .operation
        .as_ref()?
        .steps
        .iter()
        .rev()
        .find(|step| (step.name == StepName::Verify || step.name == StepName::Bake) && step.state != StepState::Pending)?;
    let message = step.message.clone().unwrap_or_default();
    Some(match (step.state, step.name) {
        (StepState::Done, _) => ("Healthy", "True", "ChecksPassed", message),
        (StepState::Failed, _) => ("Healthy", "False", "HealthCheckFailed", message),
        (StepState::Started, StepName::Bake) if step.failures.unwrap_or(0) == 0 => ("Healthy", "True", "ChecksPassed", message),
        (StepState::Started | StepState::Pending, _) => ("Healthy", "Unknown", "Checking", message),
    })
}

fn verified(status: &ReleaseStatus) -> Option<Row> {
    let number = status.release?;
    let entry = status.history.iter().find(|entry| entry.release == number)?;
    Some(match entry.state {
        ReleaseState::KnownGood => {
            ("Verified", "True", "KnownGood", format!("release {} ({}) is known good", entry.release, entry.version))
        }
        ReleaseState::Deploying | ReleaseState::Undone | ReleaseState::Failed | ReleaseState::Superseded => {
            ("Verified", "False", "NotKnownGood", format!("release {} ({}) is {:?}", entry.release, entry.version, entry.state))
        }
    })
}

fn remediated(status: &ReleaseStatus) -> Option<Row> {
    let operation = status.operation.as_ref()?;
    let failed = operation.remediates?;
    let message = format!("failure of release {failed} answered by going back to release {} ({})", operation.to, operation.version);
    Some(match operation.state {
        OperationState::Succeeded => ("Remediated", "True", "RollbackSucceeded", message),
        OperationState::Failed => ("Remediated", "False", "RollbackFailed", message),
        OperationState::Running | OperationState::Superseded => ("Remediated", "Unknown", "RollingBack", message),
    })
}

fn approved(status: &ReleaseStatus) -> Option<Row> {
    let operation = status.operation.as_ref()?;
    let approval = operation.approval.as_ref()?;
    let loss = operation.loss.as_ref().map(ToString::to_string).unwrap_or_default();
    let message = format!("plan {}: {loss}", operation.plan.digest);
    Some(match approval.state {
        ApprovalState::NotNeeded => ("Approved", "True", "NotNeeded", message),
        ApprovalState::Waiting => ("Approved", "Unknown", "AwaitingApproval", message),
        ApprovalState::Approved => {
            ("Approved", "True", "Approved", format!("{message}; approved by {}", approval.by.as_deref().unwrap_or("somebody")))
        }
        ApprovalState::Outdated => ("Approved", "False", "Outdated", message),
    })
}

/// The API server refuses longer ones.
const LONGEST_MESSAGE: usize = 32_768;

fn truncated(mut message: String) -> String {
    if message.len() > LONGEST_MESSAGE {
        let end = (0..=LONGEST_MESSAGE - 4).rev().find(|index| message.is_char_boundary(*index)).unwrap_or(0);
        message.truncate(end);
        message.push('…');
    }
    message
}
