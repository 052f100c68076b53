//! `BackupPoint`: the inventory of a database's backup points.

use jiff::Timestamp;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Span;

/// One consistent, verified copy of a database at one instant. Made by Backout; the files are in the object store.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "backout.dev",
    version = "v1alpha1",
    kind = "BackupPoint",
    plural = "backuppoints",
    namespaced,
    status = "BackupPointStatus",
    category = "backout",
    doc = "A consistent, verified copy of a database at one instant",
    printcolumn(name = "Release", type_ = "string", json_path = ".spec.release"),
    printcolumn(name = "Before", type_ = "integer", json_path = ".spec.before"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".spec.reason"),
    printcolumn(name = "Verified", type_ = "boolean", json_path = ".status.verified"),
    printcolumn(name = "Schema", type_ = "integer", json_path = ".status.schemaVersion"),
    printcolumn(name = "Rows", type_ = "integer", json_path = ".status.rows"),
    printcolumn(name = "Bytes", type_ = "integer", json_path = ".status.bytes"),
    printcolumn(name = "Rehearsed", type_ = "string", json_path = ".status.rehearsed.outcome"),
    printcolumn(name = "Restores in", type_ = "string", json_path = ".status.rehearsed.took"),
    printcolumn(name = "Taken", type_ = "date", json_path = ".status.takenAt"),
    printcolumn(name = "Location", type_ = "string", json_path = ".status.location", priority = 1)
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self == oldSelf").message("a backup point can't be changed once it is taken"))]
pub struct BackupPointSpec {
    /// Name of the Release whose database this is.
    pub release: String,
    /// The release number that was about to be deployed when the point was taken, if one was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<u64>,
    pub reason: PointReason,
    /// `host:port/name` of the database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
}

/// Why the point was taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PointReason {
    /// Right before a release with migrations.
    #[default]
    PreDeploy,
    /// By spec.database.backup.schedule.
    Scheduled,
    /// Somebody asked for it.
    Manual,
    /// Before down scripts, by spec.rollback.emergencyPoint.
    Emergency,
}

impl PointReason {
    /// Nothing waits for it: it is taken beside whatever else goes on.
    pub const fn is_unbound(self) -> bool {
        match self {
            Self::Scheduled | Self::Manual => true,
            Self::PreDeploy | Self::Emergency => false,
        }
    }
}

/// What was captured, as its manifest in the object store says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupPointStatus {
    /// The manifest was written and its digest holds.
    #[serde(default)]
    pub verified: bool,
    /// Object store URL of the folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
    /// sha256 of the manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taken_at: Option<Timestamp>,
    /// Binlog file and offset of the snapshot, where the server has a binlog.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<String>,
    /// GTID of the snapshot, where the server has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gtid: Option<String>,
    /// Highest migration applied; absent when none was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema_version: Option<u64>,
    /// All migrations applied, ascending: a release runs on exactly its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migrations: Option<Vec<u64>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tables: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// Compressed bytes in the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Git revision of the release that ran when the point was taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// Whether it was restored once to try it; absent: not tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rehearsed: Option<Rehearsed>,
}

/// A restore into a schema of its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Rehearsed {
    pub at: Timestamp,
    pub outcome: RehearsalOutcome,
    /// How long loading and comparing took: what a restore would take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub took: Option<Span>,
    /// What was found.
    pub message: String,
}

impl Rehearsed {
    pub fn has_passed(&self) -> bool {
        self.outcome == RehearsalOutcome::Passed
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RehearsalOutcome {
    /// Every row is what was captured, and the server finds no fault with the tables.
    Passed,
    /// It can't be restored: it is never chosen.
    Failed,
}
