//! What people are told: the state of a Release in one word and one sentence, with the way out of every stop.

use std::time::Duration;

use jiff::Timestamp;

pub use super::conditions::{apply, ready_of};
use super::{
    exact,
    input::{Outlook, Unseen, World},
    journal,
};
use crate::api::{
    Span,
    operation::{Kind, Loss, Operation, StepState},
    status::{AsideState, HistoryEntry, Hold, Quarantined, ReleaseState, ReleaseStatus},
};

/// The state of a Release in one word and one sentence.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    pub(super) ready: Ready,
    pub reason: &'static str,
    pub message: String,
    /// What `status.phase` shows.
    pub phase: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ready {
    True,
    /// At work.
    Progressing,
    /// At work beside what runs, which is as ready as it was.
    Beside,
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
            Ready::Progressing | Ready::Beside | Ready::Hindered => false,
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

    /// An operation stopped, and what follows from that can't be told.
    pub fn stopped_and_unseen(operation: &Operation, meanwhile: &str, unseen: &Unseen) -> Self {
        let Unseen { reason, message, outlook } = unseen;
        let message = format!(
            "{} release {} ({}) stopped, and {meanwhile} until the database can be looked at: {message}",
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

    /// `last` left the fence.
    pub fn left_fenced(world: &World, last: &Operation, current: &HistoryEntry) -> Self {
        Self::new(
            Ready::Stalled,
            "RollbackFailed",
            "Stalled",
            format!(
                "the database is not what release {} ({}) runs on. Now {}. Choose: {}",
                current.release,
                current.version,
                exact::state(world, last),
                exact::choices(world, last)
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

    pub fn target_changed(operation: &Operation, planned: &str) -> Self {
        Self::new(
            Ready::Hindered,
            "TargetChanged",
            "Waiting",
            format!(
                "operation {} was planned for {planned}, and spec.target names others now: put it back until the operation has ended",
                operation.id
            ),
        )
    }

    pub fn contested(rivals: &[String]) -> Self {
        Self::new(
            Ready::Stalled,
            "TargetShared",
            "Stalled",
            format!("{}: one Release only may deploy to a Deployment; remove it from one of them", rivals.join("; ")),
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

    pub fn rollback_failed(world: &World, operation: &Operation, failure: &str) -> Self {
        Self::new(
            Ready::Stalled,
            "RollbackFailed",
            "Stalled",
            format!(
                "{} release {} ({}) stopped at {failure}. Now {}. Choose: {}",
                doing(operation.kind),
                operation.to,
                operation.version,
                exact::state(world, operation),
                exact::choices(world, operation)
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

    /// The same, and something that whoever reads it has to know.
    pub fn and(mut self, more: &str) -> Self {
        self.message = format!("{}. {more}", self.message.trim_end_matches('.'));
        self
    }

    /// The same while the application is down behind a fence: that is a stop, whatever else it would be.
    pub fn fenced(self, world: &World, fence: &str) -> Self {
        let stops = matches!(self.ready, Ready::True | Ready::Resting) && !world.spec.suspend;
        let verdict = self.and(fence);
        if stops { Self { ready: Ready::Stalled, phase: "Stalled", ..verdict } } else { verdict }
    }

    /// While an operation runs.
    pub fn progressing(operation: &Operation) -> Self {
        let step = operation.steps.iter().find(|step| step.state != StepState::Done);
        let what = doing(operation.kind);
        let Some(step) = step else {
            return Self::new(
                if operation.kind.keeps_house() { Ready::Beside } else { Ready::Progressing },
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
        if let Some(progress) = &step.progress {
            message.push_str(&format!(": {progress}"));
        }
        match (step.name, step.retry_at) {
            (name, None) if operation.kind.keeps_house() => Self::new(Ready::Beside, "Progressing", name.phase(), message),
            (name, Some(_)) if operation.kind.keeps_house() => Self::new(Ready::Beside, "ProgressingWithRetry", name.phase(), message),
            // Behind a fence the application is down: that needs a person, though it is tried again by itself.
            (name, Some(_)) if name.only_prepares() && journal::fence_of(operation).is_some() => {
                Self::new(Ready::Stalled, "PreflightFailed", name.phase(), message)
            }
            (name, Some(_)) if name.only_prepares() => Self::new(Ready::Hindered, "PreflightFailed", name.phase(), message),
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
        Kind::Backup => "taking a backup point of",
        Kind::Rehearse => "rehearsing a restore beside",
        Kind::Leave => "letting go of",
    }
}

/// What is said when a deleted Release is let go that can't be read.
pub fn abandoned(error: &str) -> String {
    format!(
        "it was deleted and can't be read ({error}), so what it held could not be freed: its Deployments may be scaled to zero, and beside its database there may be schemas <database>_backout_… and, in it, the row of this Release in _backout_owner"
    )
}

/// What is said when a deleted Release is let go: all that stays.
pub fn farewell(status: &ReleaseStatus) -> String {
    let of = |state| {
        let asides = status.asides.iter().filter(|aside| aside.state == state);
        asides.map(|aside| aside.schema.as_str()).collect::<Vec<_>>().join(", ")
    };
    let (kept, expected) = (of(AsideState::Kept), of(AsideState::Expected));
    let mut note = "nothing is held any more; live tables and the files of backup points stay".to_owned();
    if let Some(workloads) = journal::open_fence(status) {
        let scales: Vec<String> = workloads.iter().map(|scale| format!("{} to {}", scale.name, scale.replicas)).collect();
        note = format!(
            "the workloads are left scaled to zero, because the database is not known to be what the deployed release runs on: look at it, then scale {}; live tables and the files of backup points stay",
            scales.join(", ")
        );
    }
    if !kept.is_empty() {
        note.push_str(&format!("; so do the schemas {kept}"));
    }
    if !expected.is_empty() {
        note.push_str(&format!("; so do, where a swap made them, {expected}"));
    }
    if !status.shadows.is_empty() {
        note.push_str(&format!("; these schemas could not be dropped and can be by hand: {}", status.shadows.join(", ")));
    }
    note
}
