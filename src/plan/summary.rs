//! What the conditions say. One function sets them all, so that they never contradict each other.
//!
//! kstatus: `Ready` is always present; `Reconciling` and `Stalled` only while true.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::input::{Outlook, Unseen};
use crate::api::{
    operation::{Kind, Operation, OperationState, StepName, StepState},
    status::{HistoryEntry, Quarantined, ReleaseState, ReleaseStatus},
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

    pub fn rollback_disabled(operation: &Operation, failure: &str) -> Self {
        Self::new(
            Ready::Stalled,
            "RollbackDisabled",
            "Stalled",
            format!(
                "release {} ({}) failed and spec.rollback.automatic is false: set spec.rollbackTo, push a fix, or annotate the Release with backout.dev/resetAt. {failure}",
                operation.to, operation.version
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

    pub fn no_such_target(number: u64, entry: Option<&HistoryEntry>, history: &[HistoryEntry]) -> Self {
        let good: Vec<String> = history
            .iter()
            .filter(|entry| entry.state == ReleaseState::KnownGood)
            .map(|entry| format!("{} ({})", entry.release, entry.version))
            .collect();
        let what = match entry {
            None => "is not in status.history".to_owned(),
            Some(entry) => format!("({}) is {:?}", entry.version, entry.state),
        };
        let choice = if good.is_empty() { "no release is known good".to_owned() } else { format!("known good are {}", good.join(", ")) };
        Self::new(
            Ready::Stalled,
            "MissingRollbackTarget",
            "Stalled",
            format!("spec.rollbackTo asks for release {number}, which {what}: {choice}; name one of these or remove spec.rollbackTo"),
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

    pub fn invalid(error: &str) -> Self {
        Self::new(Ready::Stalled, "InvalidSpec", "Stalled", format!("the Release can't be read: {error}; correct the field"))
    }

    /// While an operation runs.
    pub fn progressing(operation: &Operation) -> Self {
        let step = operation.steps.iter().find(|step| step.state != StepState::Done);
        let what = match operation.kind {
            Kind::Deploy => "deploying",
            Kind::Rollback => "rolling back to",
            Kind::Repair => "repairing",
        };
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
