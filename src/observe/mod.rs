//! The eyes: git, workloads, database and backup points become one [`World`]. Reads only.
//!
//! What the API server holds comes from watch caches; the source is looked at once per interval; the database only when
//! `plan` asks for it. What can't be read is `Seen::Unknown` with its reason, never absent.

pub mod git;
mod git_cause;
mod git_error;
mod git_http;
mod git_known_hosts;
mod git_mirror;
mod git_openpgp;
mod git_signers;
mod git_ssh;
mod git_transport;
mod git_tree;
mod git_verify;
mod manifest;
mod workload;

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, Deployment};
use kube::{Api, Client, ResourceExt, api::ListParams, core::DeserializeGuard, runtime::reflector::Store};

use crate::{
    access::{self, Access},
    api::{
        BackupPoint, BackupPointStatus, Kept, Release, names,
        release::{GitSource, Workload},
    },
    cluster::{self, within},
    mysql,
    plan::heeds_source,
    plan::input::{AppliedSeen, ApprovalSeen, DatabaseSeen, Desired, Life, Outlook, PointSeen, Seen, Unseen, World},
};
pub use git::Error as GitError;
use git::{Freshness, Limits, Mirrors};

/// A look at a database takes a few queries on the catalogue; a server that needs longer is in trouble.
const DATABASE_TIMEOUT: Duration = Duration::from_secs(20);
/// How long one reconcile waits for the watch caches after a start; the next one waits again.
const PRIMING: Duration = Duration::from_secs(10);

/// Everything that can be looked at.
pub struct Eyes {
    pub releases: Store<DeserializeGuard<Release>>,
    pub deployments: Store<Deployment>,
    pub revisions: Store<ControllerRevision>,
    pub points: Store<BackupPoint>,
    pub access: Access,
    mirrors: Mirrors,
}

impl Eyes {
    /// `mirrors` is the folder for git mirrors; `limits` is what a fetch into one may take.
    pub fn new(
        releases: Store<DeserializeGuard<Release>>,
        deployments: Store<Deployment>,
        revisions: Store<ControllerRevision>,
        points: Store<BackupPoint>,
        access: Access,
        mirrors: PathBuf,
        limits: Limits,
    ) -> Result<Self, GitError> {
        Ok(Self { releases, deployments, revisions, points, access, mirrors: Mirrors::new(mirrors, limits)? })
    }

    /// Sees everything but the database.
    pub async fn observe(&self, release: &Release, now: Timestamp) -> World {
        let namespace = release.namespace().unwrap_or_default();
        let name = release.name_any();
        let status = release.status.clone().unwrap_or_default();
        let life = if release.metadata.deletion_timestamp.is_some() { Life::Leaving } else { Life::Wanted };
        let heeds = heeds_source(&status, life);
        World {
            now,
            namespace: namespace.clone(),
            uid: release.uid().unwrap_or_default(),
            generation: release.metadata.generation.unwrap_or_default(),
            spec: release.spec.clone(),
            status,
            reset_at: release.annotations().get(names::RESET_AT).cloned(),
            backup_at: release.annotations().get(names::BACKUP_AT).cloned(),
            undo: release.annotations().get(names::UNDO).cloned(),
            approve: release.annotations().get(names::APPROVE).map(|digest| ApprovalSeen {
                digest: digest.trim().to_owned(),
                by: release.annotations().get(names::APPROVED_BY).cloned(),
            }),
            rivals: self.rivals(release, &namespace, &name),
            life,
            desired: if heeds {
                self.desired(release, &namespace, now).await
            } else {
                Seen::Unknown(Unseen {
                    reason: "SourceUnavailable",
                    message: "the source was not looked at while an operation is finished".to_owned(),
                    outlook: Outlook::Passing,
                })
            },
            kept: kept(self.revisions.state().iter().map(AsRef::as_ref).filter(|object| belongs(*object, &namespace, &name))),
            workloads: workload::observe(&self.deployments, &namespace, &release.spec),
            database: None,
            points: seen_points(
                release,
                self.points.state().iter().map(AsRef::as_ref).filter(|object| belongs(*object, &namespace, &name)),
            ),
            name,
        }
    }

    /// Waits until every watch cache has been filled once: what it does not hold yet would look absent.
    pub async fn primed(&self) -> bool {
        let all =
            async { tokio::join!(self.deployments.wait_until_ready(), self.revisions.wait_until_ready(), self.points.wait_until_ready()) };
        matches!(tokio::time::timeout(PRIMING, all).await, Ok((Ok(()), Ok(()), Ok(()))))
    }

    /// Sees in the API server what [`Eyes::observe`] took from watch caches: a plan must not be made on what is older than what
    /// was done last.
    pub async fn afresh(&self, client: &Client, release: &Release, world: &mut World) -> Result<(), cluster::Error> {
        let (namespace, name) = (release.namespace().unwrap_or_default(), release.name_any());
        let ours = ListParams::default().labels(&format!("{}={name}", names::RELEASE_LABEL));
        let (revisions, points): (Api<ControllerRevision>, Api<BackupPoint>) =
            (Api::namespaced(client.clone(), &namespace), Api::namespaced(client.clone(), &namespace));
        let (revisions, points, workloads) = tokio::join!(
            within("listing ControllerRevisions", revisions.list(&ours)),
            within("listing BackupPoints", points.list(&ours)),
            workload::afresh(client, &namespace, &release.spec)
        );
        world.kept = kept(revisions?.items.iter());
        world.points = seen_points(release, points?.items.iter());
        world.workloads = workloads;
        Ok(())
    }

    /// Older Releases that deploy to a Deployment of this one. Two containers of one Deployment are no way apart: a fence scales
    /// it as a whole, and what one Release applies to it the other would take away.
    fn rivals(&self, release: &Release, namespace: &str, name: &str) -> Vec<String> {
        let age = |release: &Release| (release.metadata.creation_timestamp.as_ref().map(|time| time.0), release.name_any());
        let ours = &release.spec.target.kubernetes.workloads;
        self.releases
            .state()
            .iter()
            .filter_map(|other| other.0.as_ref().ok().cloned())
            .filter(|other| other.namespace().as_deref() == Some(namespace) && other.name_any() != name && age(other) < age(release))
            .filter(|other| other.metadata.deletion_timestamp.is_none())
            .flat_map(|other| {
                let is_ours = |workload: &Workload| ours.iter().any(|our| (our.kind, &our.name) == (workload.kind, &workload.name));
                let shared = other.spec.target.kubernetes.workloads.iter().filter(|workload| is_ours(workload));
                let told = |workload: &Workload| {
                    format!("Release {} deploys to container {} of Deployment {} too", other.name_any(), workload.container, workload.name)
                };
                shared.map(told).collect::<Vec<_>>()
            })
            .collect()
    }

    /// Sees the database; only useful where the spec names one.
    pub async fn database(&self, release: &Release) -> Seen<DatabaseSeen> {
        let Some(spec) = &release.spec.database else { return Seen::Known(DatabaseSeen::default()) };
        let namespace = release.namespace().unwrap_or_default();
        let database = match self.access.database(&namespace, spec).await {
            Ok(database) => database,
            Err(error) => return Seen::Unknown(unreachable(&error)),
        };
        let cluster = match self.access.cluster().await {
            Ok(cluster) => cluster,
            Err(error) => return Seen::Unknown(unreachable(&error)),
        };
        match tokio::time::timeout(DATABASE_TIMEOUT, mysql::inspect(&database)).await {
            Ok(Ok(inventory)) => Seen::Known(seen(&inventory, cluster, &namespace, &release.name_any())),
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

    async fn desired(&self, release: &Release, namespace: &str, now: Timestamp) -> Seen<Desired> {
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
            Some(source) => self.git(release, namespace, &source.git, now).await,
            None => Seen::Unknown(Unseen {
                reason: "InvalidRelease",
                message: "neither spec.source nor spec.release is set: set one".to_owned(),
                outlook: Outlook::Lasting,
            }),
        }
    }

    async fn git(&self, release: &Release, namespace: &str, source: &GitSource, now: Timestamp) -> Seen<Desired> {
        let access = match self.access.git(namespace, source).await {
            Ok(access) => access,
            Err(error) => return Seen::Unknown(unreachable(&error)),
        };
        match self.mirrors.resolve(source, access, freshness(release), now).await {
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
}

/// Kept releases by number.
fn kept<'a>(revisions: impl Iterator<Item = &'a ControllerRevision>) -> BTreeMap<u64, Kept> {
    revisions
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

/// Points of this Release. One of another that had its name is collected with it, and its files lie in another folder.
fn seen_points<'a>(release: &Release, points: impl Iterator<Item = &'a BackupPoint>) -> BTreeMap<String, PointSeen> {
    let (name, uid) = (release.name_any(), release.uid().unwrap_or_default());
    let is_ours = |point: &&BackupPoint| point.spec.release == name && point.owner_references().iter().all(|owner| owner.uid == uid);
    points
        .filter(is_ours)
        .map(|point| {
            let status = point.status.clone().unwrap_or_default();
            let BackupPointStatus { verified, migrations, taken_at, location, rehearsed, .. } = status;
            let (before, database) = (point.spec.before, point.spec.database.clone());
            let life = if point.metadata.deletion_timestamp.is_some() { Life::Leaving } else { Life::Wanted };
            (point.name_any(), PointSeen { before, database, verified, migrations, taken_at, location, rehearsed, life })
        })
        .collect()
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
fn seen(inventory: &mysql::Inventory, cluster: &str, namespace: &str, name: &str) -> DatabaseSeen {
    DatabaseSeen {
        applied: inventory
            .migrations
            .iter()
            .filter(|applied| applied.state != mysql::State::Intended)
            .map(|applied| AppliedSeen {
                version: applied.version,
                name: applied.name.clone(),
                checksum: applied.checksum.clone(),
                release: applied.release,
                trouble: match applied.state {
                    mysql::State::Intended | mysql::State::Applied => None,
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
        prepared: inventory.prepared_transactions.clone(),
        swapped_by: inventory.marker.as_ref().map(|marker| marker.operation.clone()),
        other_owner: inventory
            .owner
            .as_ref()
            // One that was deleted and made again under its name goes on where the first one stopped.
            .filter(|owner| (owner.cluster.as_str(), owner.namespace.as_str(), owner.name.as_str()) != (cluster, namespace, name))
            .map(|owner| {
                let elsewhere = if owner.cluster == cluster { "" } else { " of another cluster" };
                format!("{}/{}{elsewhere}", owner.namespace, owner.name)
            }),
    }
}
