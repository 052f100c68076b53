//! The eyes: git, workloads, database and backup points become one [`World`]. Reads only.
//!
//! What the API server holds comes from watch caches; the source is looked at once per interval; the database only when
//! `plan` asks for it. What can't be read is `Seen::Unknown` with its reason, never absent.

mod git;
mod git_http;
mod manifest;
mod workload;

use std::{path::PathBuf, sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, Deployment};
use kube::{Client, ResourceExt, runtime::reflector::Store};

use crate::{
    access::{self, Access},
    api::{BackupPoint, Kept, Release, names, release::GitSource},
    mysql,
    plan::input::{AppliedSeen, DatabaseSeen, Desired, Outlook, PointSeen, Seen, Unseen, WorkloadSeen, World},
};
pub use git::Error as GitError;
use git::{Freshness, Mirrors};

/// A look at a database takes a few queries on the catalogue; a server that needs longer is in trouble.
const DATABASE_TIMEOUT: Duration = Duration::from_secs(20);

/// Everything that can be looked at.
pub struct Eyes {
    pub deployments: Store<Deployment>,
    pub revisions: Store<ControllerRevision>,
    pub points: Store<BackupPoint>,
    pub access: Access,
    mirrors: Mirrors,
}

impl Eyes {
    /// `mirrors` is the folder for git mirrors.
    pub fn new(
        deployments: Store<Deployment>,
        revisions: Store<ControllerRevision>,
        points: Store<BackupPoint>,
        access: Access,
        mirrors: PathBuf,
    ) -> Result<Self, GitError> {
        Ok(Self { deployments, revisions, points, access, mirrors: Mirrors::new(mirrors)? })
    }

    /// Sees everything but the database.
    pub async fn observe(&self, release: &Release, now: Timestamp) -> World {
        let namespace = release.namespace().unwrap_or_default();
        let name = release.name_any();
        World {
            now,
            uid: release.uid().unwrap_or_default(),
            generation: release.metadata.generation.unwrap_or_default(),
            spec: release.spec.clone(),
            status: release.status.clone().unwrap_or_default(),
            reset_at: release.annotations().get(names::RESET_AT).cloned(),
            desired: self.desired(release, &namespace).await,
            kept: self.kept(&namespace, &name),
            workloads: workload::observe(&self.deployments, &namespace, &release.spec),
            database: None,
            points: self.points(&namespace, &name),
            name,
        }
    }

    /// Sees the workloads in the API server instead of the watch cache.
    pub async fn workloads(&self, client: &Client, release: &Release) -> Seen<Vec<WorkloadSeen>> {
        workload::afresh(client, &release.namespace().unwrap_or_default(), &release.spec).await
    }

    /// Sees the database; only useful where the spec names one.
    pub async fn database(&self, release: &Release) -> Seen<DatabaseSeen> {
        let Some(spec) = &release.spec.database else { return Seen::Known(DatabaseSeen::default()) };
        let namespace = release.namespace().unwrap_or_default();
        let database = match self.access.database(&namespace, spec).await {
            Ok(database) => database,
            Err(error) => return Seen::Unknown(unreachable(&error)),
        };
        match tokio::time::timeout(DATABASE_TIMEOUT, mysql::inspect(&database)).await {
            Ok(Ok(inventory)) => Seen::Known(seen(&inventory)),
            Ok(Err(error)) => Seen::Unknown(Unseen {
                reason: "DatabaseUnavailable",
                message: error.to_string(),
                // A wrong password is mended in a Secret, which nothing announces: it has to be tried again.
                outlook: Outlook::Passing,
            }),
            Err(_) => Seen::Unknown(Unseen {
                reason: "DatabaseUnavailable",
                message: format!("database {} did not answer within {} s", spec.mysql.name, DATABASE_TIMEOUT.as_secs()),
                outlook: Outlook::Passing,
            }),
        }
    }

    async fn desired(&self, release: &Release, namespace: &str) -> Seen<Desired> {
        if let Some(inline) = &release.spec.release {
            return match manifest::inline(inline) {
                Ok(content) => {
                    let digest = content.digest();
                    let revision = format!("inline@{digest}");
                    Seen::Known(Desired { content, digest, revision, cause: "spec.release was edited".to_owned() })
                }
                Err(error) => {
                    Seen::Unknown(Unseen { reason: "InvalidRelease", message: format!("spec.release: {error}"), outlook: Outlook::Lasting })
                }
            };
        }
        match &release.spec.source {
            Some(source) => self.git(release, namespace, &source.git).await,
            None => Seen::Unknown(Unseen {
                reason: "InvalidRelease",
                message: "neither spec.source nor spec.release is set: set one".to_owned(),
                outlook: Outlook::Lasting,
            }),
        }
    }

    async fn git(&self, release: &Release, namespace: &str, source: &GitSource) -> Seen<Desired> {
        let access = match self.access.git(namespace, source).await {
            Ok(access) => access,
            Err(error) => return Seen::Unknown(unreachable(&error)),
        };
        match self.mirrors.resolve(source, access, freshness(release)).await {
            Ok(found) => {
                let content = Arc::unwrap_or_clone(found.content);
                let digest = content.digest();
                Seen::Known(Desired { content, digest, revision: found.revision, cause: found.cause })
            }
            Err(error) => Seen::Unknown(Unseen {
                reason: error.reason(),
                message: error.to_string(),
                outlook: if error.is_passing() { Outlook::Passing } else { Outlook::Lasting },
            }),
        }
    }

    fn kept(&self, namespace: &str, name: &str) -> std::collections::BTreeMap<u64, Kept> {
        self.revisions
            .state()
            .iter()
            .filter(|revision| belongs(revision.as_ref(), namespace, name))
            .filter_map(|revision| {
                let number = u64::try_from(revision.revision).ok()?;
                let data = revision.data.as_ref()?;
                match serde_json::from_value(data.0.clone()) {
                    Ok(kept) => Some((number, kept)),
                    Err(error) => {
                        tracing::warn!(revision = revision.name_any(), %error, "a kept release can't be read");
                        None
                    }
                }
            })
            .collect()
    }

    fn points(&self, namespace: &str, name: &str) -> std::collections::BTreeMap<String, PointSeen> {
        self.points
            .state()
            .iter()
            .filter(|point| belongs(point.as_ref(), namespace, name))
            .map(|point| {
                let status = point.status.clone().unwrap_or_default();
                (
                    point.name_any(),
                    PointSeen { before: point.spec.before, verified: status.verified, schema_version: status.schema_version },
                )
            })
            .collect()
    }
}

/// A new `requestedAt` token asks for a look now; else what was fetched within the interval will do. Half a second is taken
/// off, so that a timer that fires exactly on the interval finds the last look too old.
fn freshness(release: &Release) -> Freshness {
    let token = release.annotations().get(names::REQUESTED_AT);
    let handled = release.status.as_ref().and_then(|status| status.last_handled_requested_at.as_ref());
    if token.is_some() && token != handled {
        Freshness::Now
    } else {
        Freshness::Within(release.spec.interval.0.saturating_sub(Duration::from_millis(500)))
    }
}

fn belongs(object: &impl ResourceExt, namespace: &str, release: &str) -> bool {
    object.namespace().as_deref() == Some(namespace) && object.labels().get(names::RELEASE_LABEL).is_some_and(|label| label == release)
}

/// A Secret is mended without anybody telling the Release, so that everything here may pass.
fn unreachable(error: &access::Error) -> Unseen {
    Unseen { reason: error.reason(), message: error.to_string(), outlook: Outlook::Passing }
}

/// The engine's inventory in the words of judgement.
fn seen(inventory: &mysql::Inventory) -> DatabaseSeen {
    DatabaseSeen {
        applied: inventory
            .migrations
            .iter()
            .map(|applied| AppliedSeen {
                version: applied.version,
                name: applied.name.clone(),
                checksum: applied.checksum.clone(),
                trouble: match applied.state {
                    mysql::State::Applied => None,
                    mysql::State::Applying | mysql::State::Reverting | mysql::State::Failed => Some(format!(
                        "migration {:04}_{} stands half way{}",
                        applied.version,
                        applied.name,
                        applied.message.as_ref().map(|message| format!(" ({message})")).unwrap_or_default()
                    )),
                },
            })
            .collect(),
        uncarried: inventory.unsupported.iter().map(ToString::to_string).collect(),
        missing_grants: inventory.missing_grants.clone(),
    }
}
