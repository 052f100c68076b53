//! `Release.status`: what a user reads, and all that Backout remembers between two reconciles.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::operation::{Approval, Kind, Operation, OperationState, StepName};

#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReleaseStatus {
    /// Generation that the conditions speak of; -1 until the first look.
    #[serde(default = "never_observed")]
    pub observed_generation: i64,
    #[serde(default)]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// What Backout is doing, or the state it rests in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// Number of the release that is deployed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<u64>,
    /// Version of the release that is deployed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Source revision of the release that is deployed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_applied_revision: Option<String>,
    /// Source revision that was looked at last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_attempted_revision: Option<String>,
    /// Name of the newest backup point.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_backup_point: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_rollback_at: Option<Timestamp>,
    /// The operation that runs, or the last one that ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<Operation>,
    /// Releases that were begun, newest first, at most [`HISTORY_LIMIT`].
    #[serde(default)]
    pub history: Vec<HistoryEntry>,
    /// Digests that failed and are not tried again.
    #[serde(default)]
    pub quarantine: Vec<Quarantined>,
    /// Rollbacks that Backout began by itself, newest first, at most [`RECENT_LIMIT`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub automatic_rollbacks: Vec<AutomaticRollback>,
    /// What the source asked for and was begun, newest first, at most [`RECENT_LIMIT`]: shows one that flaps.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub switches: Vec<Switch>,
    /// Tables that were replaced and are kept, newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub asides: Vec<Aside>,
    /// Schemas that were loaded from a backup point and have not been swapped in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shadows: Vec<String>,
    /// How the last repair and the last of each kind of housekeeping ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub upkeep: Vec<Upkeep>,
    /// A rollback was undone: so long as the same is asked for, what it brought back stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<Hold>,
    /// The backup point that `spec.rollbackTo.backupPoint` named and whose data were brought back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored_point: Option<String>,
    /// Operations begun so far: the id of the last one.
    #[serde(default)]
    pub operations: u64,
    /// Release numbers given so far: the last one.
    #[serde(default)]
    pub releases: u64,
    /// The `backout.dev/requestedAt` token that was last acted on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_handled_requested_at: Option<String>,
    /// The `backout.dev/resetAt` token that was last acted on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_handled_reset_at: Option<String>,
    /// The `backout.dev/backupAt` token that the last point was taken for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_handled_backup_at: Option<String>,
    /// The `backout.dev/undo` token that was last acted on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_handled_undo: Option<String>,
}

/// Entries of the two short memories: the largest limit that a spec may set.
pub const RECENT_LIMIT: usize = 20;

/// Entries kept in `status.history`: with a migration-laden operation beside it the object stays far below etcd's limit.
pub const HISTORY_LIMIT: usize = 30;

fn never_observed() -> i64 {
    -1
}

impl Default for ReleaseStatus {
    fn default() -> Self {
        Self {
            observed_generation: never_observed(),
            conditions: Vec::new(),
            phase: None,
            release: None,
            version: None,
            last_applied_revision: None,
            last_attempted_revision: None,
            last_backup_point: None,
            last_rollback_at: None,
            operation: None,
            history: Vec::new(),
            quarantine: Vec::new(),
            automatic_rollbacks: Vec::new(),
            switches: Vec::new(),
            asides: Vec::new(),
            shadows: Vec::new(),
            upkeep: Vec::new(),
            hold: None,
            restored_point: None,
            operations: 0,
            releases: 0,
            last_handled_requested_at: None,
            last_handled_reset_at: None,
            last_handled_backup_at: None,
            last_handled_undo: None,
        }
    }
}

/// One release that Backout began to deploy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HistoryEntry {
    pub release: u64,
    pub version: String,
    pub digest: String,
    pub revision: String,
    pub state: ReleaseState,
    pub started_at: Timestamp,
    /// When it became known good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified_at: Option<Timestamp>,
    /// When a rollback took it back; a release without it still shapes what is live.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undone_at: Option<Timestamp>,
    /// Backup point from right before its migrations, where it had any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_point: Option<String>,
    /// The say of a person when it was gone back to last: who agreed to what that took away, and when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<Approval>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ReleaseState {
    /// Its deploy has not come to an end.
    Deploying,
    /// Its checks passed through its bake time, and it has not been undone since.
    KnownGood,
    /// A rollback took it back.
    Undone,
    /// It failed.
    Failed,
    /// Something newer was asked for before it was known good.
    Superseded,
}

/// A rollback that answered a failure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AutomaticRollback {
    /// The release that failed.
    pub release: u64,
    pub at: Timestamp,
}

/// A change that the source asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Switch {
    /// Digest of the release that was asked for.
    pub digest: String,
    pub at: Timestamp,
}

/// How a repair or a piece of housekeeping ended that was not given up for something else.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Upkeep {
    pub kind: Kind,
    /// Its first step: dropping a schema and deleting a point are both a clean-up.
    pub step: StepName,
    pub state: OperationState,
    pub started_at: Timestamp,
    pub finished_at: Timestamp,
}

/// Tables that a restore replaced: a copy of the last instant before it, and the way to undo it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Aside {
    pub schema: String,
    /// The operation that replaced them: what `backout.dev/undo` names.
    pub operation: u64,
    /// The release that ran on these tables.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<u64>,
    /// The release that the operation led to.
    pub to: u64,
    pub at: Timestamp,
    /// Dropped after this instant.
    pub until: Timestamp,
    #[serde(default)]
    pub state: AsideState,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AsideState {
    /// The swap was begun. Whether it happened, and so whether the schema is there, only the database can say.
    Expected,
    /// The tables are in it.
    #[default]
    Kept,
}

/// An undone rollback.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Hold {
    /// What was asked for when it was undone.
    pub wanted: String,
    /// The rollback that was undone.
    pub operation: u64,
}

/// A digest that failed, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Quarantined {
    pub digest: String,
    pub version: String,
    pub revision: String,
    /// The release number under which it failed.
    pub release: u64,
    pub reason: String,
    pub at: Timestamp,
}
