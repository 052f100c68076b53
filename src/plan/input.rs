//! What was seen, in the shape that judgement needs. Written by `observe`, read by `plan`.

use std::collections::BTreeMap;

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use crate::api::{
    Content, Kept, Schedule,
    backup_point::Rehearsed,
    names,
    operation::{Operation, OperationState},
    release::ReleaseSpec,
    status::{HistoryEntry, ReleaseState, ReleaseStatus},
};

/// All that a decision about one Release may depend on.
#[derive(Clone, Debug)]
pub struct World {
    pub now: Timestamp,
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub generation: i64,
    pub spec: ReleaseSpec,
    pub status: ReleaseStatus,
    /// The `resetAt` token on the object.
    pub reset_at: Option<String>,
    /// The `backupAt` token on the object.
    pub backup_at: Option<String>,
    /// The `undo` token on the object.
    pub undo: Option<String>,
    pub approve: Option<ApprovalSeen>,
    pub life: Life,
    /// Other Releases, each with what it and this one both claim.
    pub rivals: Vec<String>,
    /// What the source asks for.
    pub desired: Seen<Desired>,
    /// Releases that can be gone back to, by number.
    pub kept: BTreeMap<u64, Kept>,
    pub workloads: Seen<Vec<WorkloadSeen>>,
    /// `None`: not looked at.
    pub database: Option<Seen<DatabaseSeen>>,
    /// Backup points by name.
    pub points: BTreeMap<String, PointSeen>,
}

impl World {
    pub fn running(&self) -> Option<&Operation> {
        self.status.operation.as_ref().filter(|operation| operation.state == OperationState::Running)
    }

    /// The history entry of release `number`.
    pub fn entry(&self, number: u64) -> Option<&HistoryEntry> {
        self.status.history.iter().find(|entry| entry.release == number)
    }

    /// The release that is deployed.
    pub fn current(&self) -> Option<&HistoryEntry> {
        self.status.release.and_then(|number| self.entry(number))
    }

    /// The newest known good release below `number`.
    pub fn known_good_before(&self, number: u64) -> Option<&HistoryEntry> {
        self.status
            .history
            .iter()
            .filter(|entry| entry.state == ReleaseState::KnownGood && entry.release < number)
            .max_by_key(|entry| entry.release)
    }

    /// Complete backup points of the database that `spec.database` names, with their names, by the time at which they were taken.
    pub fn own_points(&self) -> Vec<(&String, &PointSeen)> {
        let place = self.spec.database.as_ref().map(|database| database.mysql.place());
        let is_own = |point: &PointSeen| point.verified && place.is_some() && point.database == place;
        let mut points: Vec<_> = self.points.iter().filter(|(_, point)| is_own(point)).collect();
        points.sort_by_key(|(_, point)| point.taken_at);
        points
    }

    /// Whether a point lies in the store that `spec.database` names.
    pub fn is_stored_here(&self, name: &str, point: &PointSeen) -> bool {
        let folder = names::folder(&self.namespace, &self.uid, name);
        let here = self.spec.database.as_ref().map(|database| names::location(&database.backup.store.url, &folder));
        here.is_some() && point.location == here
    }

    /// The first time after `moment` that a schedule of this Release has. Each has its own constant share of the jitter.
    pub fn next_by(&self, schedule: &Schedule, moment: Timestamp) -> Option<Timestamp> {
        let [high, low, ..]: [u8; 32] = Sha256::digest(&self.uid).into();
        schedule.next_after(moment, f64::from(u16::from_be_bytes([high, low])) / f64::from(u16::MAX))
    }
}

/// Where the object is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    Wanted,
    /// Deleted, and kept only until what it holds is freed.
    Leaving,
}

/// The `approve` annotation on the object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApprovalSeen {
    /// The plan that it names.
    pub digest: String,
    /// Who set it, where the admission policy is installed.
    pub by: Option<String>,
}

/// Something that was looked for. What could not be seen is never taken for absent, and never for safe.
#[derive(Clone, Debug, PartialEq)]
pub enum Seen<T> {
    Known(T),
    Unknown(Unseen),
}

/// Why something could not be seen.
#[derive(Clone, Debug, PartialEq)]
pub struct Unseen {
    /// CamelCase, for a condition.
    pub reason: &'static str,
    /// Names the object and the remedy.
    pub message: String,
    pub outlook: Outlook,
}

/// Whether looking again can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outlook {
    /// It may come by itself.
    Passing,
    /// It stays until a person changes something.
    Lasting,
}

/// What the source resolves to.
#[derive(Clone, Debug, PartialEq)]
pub struct Desired {
    pub content: Content,
    pub digest: String,
    /// `main@sha1:<40 hex>`, or `inline@<digest>`.
    pub revision: String,
    /// Who asked for it and how, for people.
    pub cause: String,
}

#[derive(Clone, Debug, PartialEq)]
pub struct WorkloadSeen {
    pub name: String,
    pub replicas: i32,
    /// Whether all its pods run the newest template.
    pub rollout: Rollout,
    pub containers: BTreeMap<String, ContainerSeen>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rollout {
    Complete,
    Underway,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ContainerSeen {
    pub image: String,
    pub env: BTreeMap<String, EnvSource>,
}

/// Where an environment variable gets its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EnvSource {
    ConfigMap { name: String, key: String },
    Secret { name: String, key: String },
    Other,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct DatabaseSeen {
    /// Ascending by version.
    pub applied: Vec<AppliedSeen>,
    /// Objects that a backup point can't carry, each by kind and name.
    pub uncarried: Vec<String>,
    /// The exact GRANT statements for what the account lacks.
    pub missing_grants: Vec<String>,
    /// Transactions that are prepared and wait for their end: nothing can be swapped under them.
    pub prepared: Vec<String>,
    /// The operation that swapped the live tables in, as `uid/operation`.
    pub swapped_by: Option<String>,
    /// Another Release that migrates this schema, as `namespace/name`.
    pub other_owner: Option<String>,
}

impl DatabaseSeen {
    /// Whether no migration stands half way.
    pub fn is_whole(&self) -> bool {
        self.applied.iter().all(|applied| applied.trouble.is_none())
    }

    /// What stands half way, as sentences.
    pub fn troubles(&self) -> Vec<&str> {
        self.applied.iter().filter_map(|applied| applied.trouble.as_deref()).collect()
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct AppliedSeen {
    pub version: u64,
    pub name: String,
    pub checksum: String,
    /// The release that brought it.
    pub release: u64,
    /// `None`: whole. Else what stands half way.
    pub trouble: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct PointSeen {
    /// Release number before which it was taken.
    pub before: Option<u64>,
    /// The database that it was taken of; `None`: not recorded.
    pub database: Option<String>,
    pub verified: bool,
    /// The migrations in it, ascending; `None`: not recorded.
    pub migrations: Option<Vec<u64>>,
    pub taken_at: Option<Timestamp>,
    /// `None`: it was not tried.
    pub rehearsed: Option<Rehearsed>,
    /// Object store URL of its folder.
    pub location: Option<String>,
    pub life: Life,
}

impl PointSeen {
    /// It is complete, and nothing was found against it.
    pub fn is_sound(&self) -> bool {
        self.verified && self.rehearsed.as_ref().is_none_or(Rehearsed::has_passed)
    }
}
