//! Operations and their steps, as they stand in `status.operation`: the write-ahead record of everything Backout does.
//!
//! An operation is planned in full before its first step begins, and a step's [`Action`] holds every choice, so that
//! executing it after a crash needs no judgement.

use std::fmt;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Span,
    backup_point::PointReason,
    progress::Progress,
    release::{ApprovalPolicy, CarryForward},
};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Operation {
    /// Counts up for each operation of this Release; part of the names of what it makes.
    pub id: u64,
    pub kind: Kind,
    pub state: OperationState,
    /// Why it was begun, as a sentence.
    pub cause: String,
    /// What it will do and why in this way; written before its first step begins.
    #[serde(default)]
    pub plan: Plan,
    /// Data that it would take away, as measured before anything is taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<Loss>,
    /// Whether a person has to agree to that, and who did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<Approval>,
    /// Release number whose failure this rollback answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remediates: Option<u64>,
    /// The operation whose swap it takes back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undoes: Option<u64>,
    /// Release number that was deployed when it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<u64>,
    /// Release number that it leads to.
    pub to: u64,
    /// Version of the release that it leads to.
    pub version: String,
    /// Digest of the release that it leads to.
    pub digest: String,
    /// Source revision of the release that it leads to.
    pub revision: String,
    /// What the source asked for when it began: a failed operation is not tried again until this changes.
    pub wanted: String,
    /// The database and backup store that it was planned for; with others it does not go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// The workloads that it was planned for; with others it does not go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// `metadata.generation` when it began.
    pub generation: i64,
    pub started_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
    pub steps: Vec<Step>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Kind {
    /// Bring up a release that is not known good.
    Deploy,
    /// Go back to a known good release.
    Rollback,
    /// Put a workload right that differs from the release that should run.
    Repair,
    /// Bring back the data of a backup point; the release stays.
    Restore,
    /// Swap back what a rollback replaced, and the release that belongs to it.
    Undo,
    /// Drop schemas and backup points that are not needed any more.
    Cleanup,
    /// Take a backup point that no release asks for: by schedule, or on request.
    Backup,
    /// Prove that a backup point can be restored.
    Rehearse,
    /// Free what a deleted Release holds.
    Leave,
}

impl Kind {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Deploy => "Deploy",
            Self::Rollback => "Rollback",
            Self::Repair => "Repair",
            Self::Restore => "Restore",
            Self::Undo => "Undo",
            Self::Cleanup => "Cleanup",
            Self::Backup => "Backup",
            Self::Rehearse => "Rehearse",
            Self::Leave => "Leave",
        }
    }

    /// Housekeeping at rest: nothing waits for it, and what runs is not touched.
    pub const fn keeps_house(self) -> bool {
        matches!(self, Self::Cleanup | Self::Backup | Self::Rehearse)
    }
}

/// A backup point and the schema that it is loaded into.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Staged {
    pub point: String,
    pub shadow: String,
}

/// The report of a plan.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// Names this plan and no other: what an approval has to name.
    pub digest: String,
    /// Why this way.
    pub why: String,
    /// What the steps will do, in order.
    pub steps: Vec<String>,
    /// Ways that were not chosen, each with the reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_chosen: Vec<String>,
}

/// Data that goes when an operation goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Loss {
    /// Rows inserted since the point, changed since, deleted since (those come back).
    pub inserted: u64,
    pub changed: u64,
    pub deleted: u64,
    /// Rows and values that down scripts drop or change.
    #[serde(default)]
    pub by_scripts: u64,
    /// When the backup point was taken: what happened from then on is what goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// When measuring had come to its end.
    pub measured_at: Timestamp,
    /// How long that took.
    #[serde(default = "instant")]
    pub took: Span,
    /// One entry for each table, column or statement, at most [`Loss::LONGEST_LIST`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<String>,
    /// Something could not be counted, and is taken for a loss.
    #[serde(default)]
    pub uncertain: bool,
}

impl Loss {
    /// More would make the status unreadable, and etcd has a limit.
    pub const LONGEST_LIST: usize = 50;

    pub const fn is_none(&self) -> bool {
        self.inserted == 0 && self.changed == 0 && self.deleted == 0 && self.by_scripts == 0 && !self.uncertain
    }
}

const fn instant() -> Span {
    Span::seconds(0)
}

/// One sentence for people.
impl fmt::Display for Loss {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = [(self.inserted, "inserted"), (self.changed, "changed"), (self.deleted, "deleted")];
        let rows: Vec<String> =
            rows.into_iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} rows {what}")).collect();
        let since = self.since.map(|since| format!(" since {since}")).unwrap_or_default();
        let mut parts = Vec::new();
        if !rows.is_empty() {
            parts.push(format!("{}{since}", rows.join(", ")));
        }
        if self.by_scripts > 0 {
            parts.push(format!("{} rows or values dropped or changed by down scripts", self.by_scripts));
        }
        if self.uncertain {
            parts.push("statements whose effect can't be counted".to_owned());
        }
        if parts.is_empty() {
            return write!(formatter, "nothing would be lost{since}");
        }
        write!(formatter, "this would take away {}", parts.join(", and "))?;
        if self.details.is_empty() { Ok(()) } else { write!(formatter, " ({})", self.details.join("; ")) }
    }
}

/// A person's say in an operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Approval {
    pub state: ApprovalState,
    /// Who approved, as the admission policy recorded it; without the policy nobody can tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ApprovalState {
    /// Nobody has to be asked: nothing would be lost.
    NotNeeded,
    Waiting,
    Approved,
    /// More would be lost than was measured when nobody had to be asked.
    Outdated,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OperationState {
    Running,
    Succeeded,
    Failed,
    /// Given up before its end because something newer was asked for.
    Superseded,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    pub name: StepName,
    pub state: StepState,
    /// Counts the times it was begun; 0 before the first.
    pub attempt: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
    /// Not run again before this instant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<Timestamp>,
    /// Rounds of checks in a row that failed, while baking.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failures: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// How far it has come, where it moves rows and takes longer than a few seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    pub action: Action,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum StepState {
    Pending,
    Started,
    Done,
    Failed,
}

/// Steps by name, as people see them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum StepName {
    Keep,
    Preflight,
    BackUp,
    RehearseMigrations,
    Migrate,
    Deploy,
    FlushCache,
    Verify,
    Bake,
    Stage,
    Fence,
    RevertSchema,
    Restore,
    Unfence,
    Approve,
    Discard,
    Rehearse,
    Expire,
}

impl StepName {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Keep => "Keep",
            Self::Preflight => "Preflight",
            Self::BackUp => "BackUp",
            Self::RehearseMigrations => "RehearseMigrations",
            Self::Migrate => "Migrate",
            Self::Deploy => "Deploy",
            Self::FlushCache => "FlushCache",
            Self::Verify => "Verify",
            Self::Bake => "Bake",
            Self::Stage => "Stage",
            Self::Fence => "Fence",
            Self::RevertSchema => "RevertSchema",
            Self::Restore => "Restore",
            Self::Unfence => "Unfence",
            Self::Approve => "Approve",
            Self::Discard => "Discard",
            Self::Rehearse => "Rehearse",
            Self::Expire => "Expire",
        }
    }

    /// What the Release is doing while this step runs: its `status.phase`.
    pub const fn phase(self) -> &'static str {
        match self {
            Self::Keep | Self::Preflight => "Preflight",
            Self::BackUp => "BackingUp",
            Self::Migrate => "Migrating",
            Self::Deploy => "Deploying",
            Self::FlushCache => "FlushingCache",
            Self::Verify => "Verifying",
            Self::Bake => "Baking",
            Self::Stage => "Staging",
            Self::Fence => "Fencing",
            Self::RevertSchema => "RevertingSchema",
            Self::Restore => "Restoring",
            Self::Unfence => "Unfencing",
            Self::Approve => "AwaitingApproval",
            Self::Discard | Self::Expire => "CleaningUp",
            Self::Rehearse | Self::RehearseMigrations => "Rehearsing",
        }
    }

    /// Whether the step only prepares: nothing that runs or is live has been touched when it gives up.
    pub const fn only_prepares(self) -> bool {
        match self {
            Self::Keep | Self::Preflight | Self::BackUp | Self::RehearseMigrations | Self::Approve => true,
            Self::Migrate
            | Self::Deploy
            | Self::FlushCache
            | Self::Verify
            | Self::Bake
            | Self::Stage
            | Self::Discard
            | Self::Rehearse
            | Self::Expire
            | Self::Fence
            | Self::RevertSchema
            | Self::Restore
            | Self::Unfence => false,
        }
    }

    /// Whether the step changes the database: such a step is never cancelled once begun.
    pub const fn changes_database(self) -> bool {
        match self {
            Self::Migrate | Self::RevertSchema | Self::Restore => true,
            Self::Keep
            | Self::Preflight
            | Self::BackUp
            | Self::RehearseMigrations
            | Self::Deploy
            | Self::FlushCache
            | Self::Verify
            | Self::Bake
            | Self::Stage
            | Self::Fence
            | Self::Approve
            | Self::Discard
            | Self::Rehearse
            | Self::Expire
            | Self::Unfence => false,
        }
    }
}

/// One effect with everything it needs to know.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Action {
    /// Store the release where it can be gone back to without git.
    #[serde(rename_all = "camelCase")]
    Keep { release: u64, digest: String, revision: String },
    /// Look at everything that the later steps need, and refuse before anything is touched.
    #[serde(rename_all = "camelCase")]
    Preflight {
        release: u64,
        /// Migrations that will be applied; each is looked at as a script.
        migrations: Vec<u64>,
        /// Migrations that will be taken back; so is each of these.
        #[serde(default)]
        reverts: Vec<Revert>,
        database: Use,
        cache: Use,
    },
    /// Capture the database.
    #[serde(rename_all = "camelCase")]
    BackUp {
        release: u64,
        point: String,
        #[serde(default)]
        reason: PointReason,
        /// The `backout.dev/backupAt` token that asks for it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        token: Option<String>,
    },
    /// Apply these migrations of the release, in this order, to a copy of the data, and take them back.
    #[serde(rename_all = "camelCase")]
    RehearseMigrations {
        release: u64,
        migrations: Vec<u64>,
        point: String,
        scratch: String,
        within: Span,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        at_most: Option<Span>,
    },
    /// Apply these migrations of the release, in this order.
    #[serde(rename_all = "camelCase")]
    Migrate { release: u64, migrations: Vec<u64> },
    /// Give the workloads the release's images, configuration and secrets, and wait for the rollout.
    #[serde(rename_all = "camelCase")]
    Deploy { release: u64 },
    /// Remove the keys below the prefix.
    #[serde(rename_all = "camelCase")]
    FlushCache { prefix: String },
    /// Every check must pass in one round, within the time.
    #[serde(rename_all = "camelCase")]
    Verify { within: Span },
    /// Checks go on passing for a while.
    #[serde(rename_all = "camelCase")]
    Bake {
        hold: Span,
        every: Span,
        failure_threshold: u32,
        /// What is loaded beside meanwhile, in case that they do not.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        stage: Option<Staged>,
    },
    /// Load a backup point into a shadow schema and prove that it equals the point.
    #[serde(rename_all = "camelCase")]
    Stage { point: String, shadow: String },
    /// Scale the workloads to zero and wait until their pods are gone.
    #[serde(rename_all = "camelCase")]
    Fence { workloads: Vec<Scale> },
    /// Measure what would be lost; where that needs a person's approval, wait for it.
    #[serde(rename_all = "camelCase")]
    Approve { policy: ApprovalPolicy, risk: Risk },
    /// Run these down scripts, in this order.
    #[serde(rename_all = "camelCase")]
    RevertSchema {
        migrations: Vec<Revert>,
        #[serde(default)]
        tolerated: Tolerated,
    },
    /// Swap the shadow for the live tables in one statement.
    #[serde(rename_all = "camelCase")]
    Restore {
        point: String,
        shadow: String,
        aside: String,
        release: u64,
        #[serde(default)]
        tolerated: Tolerated,
        /// How long the aside is kept.
        #[serde(default = "crate::api::release::keep_aside")]
        keep: Span,
        /// What becomes live again of what is replaced.
        #[serde(default)]
        carry: CarryForward,
    },
    /// Drop these schemas of Backout's own, and forget the ownership of the live one where the Release goes.
    #[serde(rename_all = "camelCase")]
    Discard { schemas: Vec<String>, ownership: Ownership },
    /// Load a backup point into a schema of its own, compare it, and drop that again.
    #[serde(rename_all = "camelCase")]
    Rehearse { point: String, scratch: String },
    /// Delete these backup points: their files, then their objects.
    #[serde(rename_all = "camelCase")]
    Expire { points: Vec<Expired> },
    /// Scale the workloads back to what they had.
    #[serde(rename_all = "camelCase")]
    Unfence { workloads: Vec<Scale> },
}

impl Action {
    /// A backup that no other step waits for.
    pub const fn is_unbound_backup(&self) -> bool {
        matches!(self, Self::BackUp { reason, .. } if reason.is_unbound())
    }

    pub const fn name(&self) -> StepName {
        match self {
            Self::Keep { .. } => StepName::Keep,
            Self::Preflight { .. } => StepName::Preflight,
            Self::BackUp { .. } => StepName::BackUp,
            Self::RehearseMigrations { .. } => StepName::RehearseMigrations,
            Self::Migrate { .. } => StepName::Migrate,
            Self::Deploy { .. } => StepName::Deploy,
            Self::FlushCache { .. } => StepName::FlushCache,
            Self::Verify { .. } => StepName::Verify,
            Self::Bake { .. } => StepName::Bake,
            Self::Stage { .. } => StepName::Stage,
            Self::Fence { .. } => StepName::Fence,
            Self::RevertSchema { .. } => StepName::RevertSchema,
            Self::Restore { .. } => StepName::Restore,
            Self::Unfence { .. } => StepName::Unfence,
            Self::Approve { .. } => StepName::Approve,
            Self::Discard { .. } => StepName::Discard,
            Self::Rehearse { .. } => StepName::Rehearse,
            Self::Expire { .. } => StepName::Expire,
        }
    }
}

/// Whether the operation touches a part of the world, and so whether Preflight must look at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Use {
    Untouched,
    Needed,
}

/// What an operation puts at risk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Risk {
    /// Rows that the live tables have and the tables that replace them don't.
    #[serde(rename_all = "camelCase")]
    Replacement { schema: String, since: Option<Timestamp> },
    /// What these down scripts drop or change.
    #[serde(rename_all = "camelCase")]
    Scripts { migrations: Vec<Revert> },
}

/// Which loss of data a step may cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Tolerated {
    /// The policy lets it go.
    #[default]
    Any,
    /// What was approved; none where nobody had to approve.
    Approved,
}

/// A backup point whose time has passed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Expired {
    pub point: String,
    /// Its age, and what the retention says about it.
    pub why: String,
}

/// What becomes of the ownership of a schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Ownership {
    Kept,
    Released,
}

/// A workload and the replicas that it has outside the fence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Scale {
    pub name: String,
    pub replicas: i32,
}

/// A migration to undo, and the kept release that has its down script.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Revert {
    pub migration: u64,
    pub release: u64,
}
