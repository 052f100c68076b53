//! Operations and their steps, as they stand in `status.operation`: the write-ahead record of everything Backout does.
//!
//! An operation is planned in full before its first step begins, and a step's [`Action`] holds every choice, so that
//! executing it after a crash needs no judgement.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Span;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Operation {
    /// Counts up for each operation of this Release; part of the names of what it makes.
    pub id: u64,
    pub kind: Kind,
    pub state: OperationState,
    /// Why it was begun, as a sentence.
    pub cause: String,
    /// Release number whose failure this rollback answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remediates: Option<u64>,
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
}

impl StepName {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Keep => "Keep",
            Self::Preflight => "Preflight",
            Self::BackUp => "BackUp",
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
        }
    }

    /// Whether the step only prepares: nothing that runs or is live has been touched when it gives up.
    pub const fn only_prepares(self) -> bool {
        match self {
            Self::Keep | Self::Preflight | Self::BackUp => true,
            Self::Migrate
            | Self::Deploy
            | Self::FlushCache
            | Self::Verify
            | Self::Bake
            | Self::Stage
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
            | Self::Deploy
            | Self::FlushCache
            | Self::Verify
            | Self::Bake
            | Self::Stage
            | Self::Fence
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
        database: Use,
        cache: Use,
    },
    /// Capture the database.
    #[serde(rename_all = "camelCase")]
    BackUp { release: u64, point: String },
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
    Bake { hold: Span, every: Span, failure_threshold: u32 },
    /// Load a backup point into a shadow schema and prove that it equals the point.
    #[serde(rename_all = "camelCase")]
    Stage { point: String, shadow: String },
    /// Scale the workloads to zero and wait until their pods are gone.
    #[serde(rename_all = "camelCase")]
    Fence { workloads: Vec<Scale> },
    /// Run these down scripts, in this order.
    #[serde(rename_all = "camelCase")]
    RevertSchema { migrations: Vec<Revert> },
    /// Swap the shadow for the live tables in one statement.
    #[serde(rename_all = "camelCase")]
    Restore { point: String, shadow: String, aside: String, release: u64 },
    /// Scale the workloads back to what they had.
    #[serde(rename_all = "camelCase")]
    Unfence { workloads: Vec<Scale> },
}

impl Action {
    pub const fn name(&self) -> StepName {
        match self {
            Self::Keep { .. } => StepName::Keep,
            Self::Preflight { .. } => StepName::Preflight,
            Self::BackUp { .. } => StepName::BackUp,
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
        }
    }
}

/// Whether the operation touches a part of the world, and so whether Preflight must look at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Use {
    Untouched,
    Needed,
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
