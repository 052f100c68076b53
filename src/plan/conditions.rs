//! What the conditions say. One function sets them all, so that they never contradict each other.
//!
//! kstatus: `Ready` is always present; `Reconciling` and `Stalled` only while true.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::summary::{Ready, Verdict};
use crate::api::{
    operation::{ApprovalState, OperationState, StepName, StepState},
    status::{ReleaseState, ReleaseStatus},
};

/// The status with its conditions, phase and observed generation as the verdict has them.
pub fn apply(mut status: ReleaseStatus, verdict: &Verdict, generation: i64, now: Timestamp) -> ReleaseStatus {
    let mut wanted: Vec<(&str, &str, &str, String)> = Vec::new();
    let ready = match verdict.ready {
        Ready::True => "True",
        Ready::Progressing | Ready::Beside => "Unknown",
        Ready::Hindered | Ready::Resting | Ready::Stalled => "False",
    };
    let as_before = ready_of(&status).filter(|_| verdict.ready == Ready::Beside).cloned();
    match &as_before {
        Some(before) => wanted.push(("Ready", &before.status, &before.reason, before.message.clone())),
        None => wanted.push(("Ready", ready, verdict.reason, verdict.message.clone())),
    }
    match verdict.ready {
        Ready::Progressing | Ready::Beside | Ready::Hindered => {
            wanted.push(("Reconciling", "True", verdict.reason, verdict.message.clone()))
        }
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

/// The condition `Ready`, once anything has been said.
pub fn ready_of(status: &ReleaseStatus) -> Option<&Condition> {
    status.conditions.iter().find(|condition| condition.type_ == "Ready")
}

/// Whether people have been told this.
pub fn says(status: &ReleaseStatus, verdict: &Verdict) -> bool {
    ready_of(status).is_some_and(|ready| ready.reason == verdict.reason)
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
            let approved = entry.approval.as_ref().map(|approval| {
                let (by, at) =
                    (approval.by.as_deref().unwrap_or("somebody"), approval.at.map(|at| format!(" at {at}")).unwrap_or_default());
                format!("; going back to it was approved by {by}{at}")
            });
            let message = format!("release {} ({}) is known good{}", entry.release, entry.version, approved.unwrap_or_default());
            ("Verified", "True", "KnownGood", message)
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
