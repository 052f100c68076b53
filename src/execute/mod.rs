//! The hands: one file a step. A step's [`Action`] says everything; nothing here chooses.
//!
//! Every step asks live state first and does only what is left to do, so that running it again after a crash, or after an
//! answer that was lost, ends in the same state. What can't be found out is never taken for done.

mod approve;
mod back_up;
mod beside;
mod checks;
mod deploy;
mod discard;
mod expire;
mod fence;
mod flush_cache;
mod keep;
mod migrate;
mod preflight;
mod rehearse;
mod rehearse_migrations;
mod restore;
mod revert_schema;
mod stage;
mod verify;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use beside::Beside;
use futures::future::BoxFuture;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ControllerRevision;
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::{
    access::{self, Access},
    api::{
        Kept, Migration, Release,
        database::DatabaseSpec,
        names,
        operation::{Action, Revert, Step},
        progress::{Part, Unit},
        release::CacheSpec,
    },
    cache::{self, Cache},
    cluster::{self, within},
    error::Class,
    expression::Evaluator,
    lease::Leadership,
    mysql::{self, Database, Loaded, Rehearsal},
    plan::{input::Desired, journal::Outcome, pace::Seen},
    record::{self, Pen},
    target::{self, kubernetes::Kubernetes},
};

/// What the hands hold.
#[derive(Clone)]
pub struct Hands {
    client: Client,
    access: Access,
    http: reqwest::Client,
    evaluator: Evaluator,
    pen: Pen,
    streams: Arc<Semaphore>,
    beside: Arc<Semaphore>,
    rehearsals: Beside<Rehearsal>,
    captures: Beside<back_up::Taken>,
    stages: Beside<Loaded>,
    leadership: Leadership,
}

/// Backups and loads at the same time. Each holds a few MiB of rows and compressed portions, and many Releases may be worked
/// on at once: without a limit of their own, a push to all of them would take the memory of the pod.
const STREAMS: usize = 16;
/// Those of them that nobody waits for have places of their own, so that a rollback never queues behind a night's scheduled points.
const BESIDE: usize = 4;
/// The file that this process was started from, also where it was replaced or removed since.
const THIS_PROGRAM: &str = "/proc/self/exe";
/// Pause before one that found no place asks again.
const NEXT_PLACE: Duration = Duration::from_secs(1);

/// One of the places that there are.
pub type Place = OwnedSemaphorePermit;

/// Every place is taken.
pub struct Full {
    pub message: String,
    pub again: Duration,
}

impl Hands {
    pub fn new(client: Client, access: Access, pen: Pen, leadership: Leadership) -> Result<Self, reqwest::Error> {
        Ok(Self {
            http: checks::client()?,
            evaluator: Evaluator::new(THIS_PROGRAM.into()),
            client,
            access,
            pen,
            streams: Arc::new(Semaphore::new(STREAMS - BESIDE)),
            beside: Arc::new(Semaphore::new(BESIDE)),
            rehearsals: Beside::default(),
            captures: Beside::default(),
            stages: Beside::default(),
            leadership,
        })
    }

    /// A place for a step that reads or writes a whole database. It is asked for before the step is begun, so that waiting for
    /// it counts against no deadline, and held until the step has run, or what it has begun beside.
    pub fn place(&self, release: &Release, step: &Step) -> Result<Option<Place>, Full> {
        let (places, count, what) = match &step.action {
            Action::BackUp { .. } | Action::Stage { .. } | Action::RehearseMigrations { .. } if !step.action.is_unbound_backup() => {
                (&self.streams, STREAMS - BESIDE, "backups and loads")
            }
            Action::BackUp { .. } | Action::Rehearse { .. } if self.captures.runs(release) || self.rehearsals.runs(release) => {
                return Ok(None);
            }
            Action::BackUp { .. } | Action::Rehearse { .. } => (&self.beside, BESIDE, "scheduled backups and rehearsals"),
            _ => return Ok(None),
        };
        let message = || format!("waiting for its turn: {count} {what} of other Releases are under way");
        Arc::clone(places).try_acquire_owned().map(Some).map_err(|_| Full { message: message(), again: NEXT_PLACE })
    }

    /// Runs one step of `release`'s operation in its place, and lets `listener` know how far it has come. `desired` is what the source holds
    /// now: only Keep reads it, and only where its digest is the one that was planned.
    pub async fn run(
        &self,
        release: &Release,
        step: &Step,
        place: Option<Place>,
        desired: Option<&Desired>,
        now: Timestamp,
        listener: &Listener,
    ) -> Outcome {
        let (namespace, name) = (release.namespace().unwrap_or_default(), release.name_any());
        let task = Task { hands: self, release, namespace, name, place: Mutex::new(place), listener };
        if !matches!(step.action, Action::Rehearse { .. }) {
            self.rehearsals.stop(task.uid());
        }
        if !matches!(step.action, Action::BackUp { .. }) {
            self.captures.stop(task.uid());
        }
        if !matches!(step.action, Action::Bake { .. }) {
            self.stages.stop(task.uid());
        }
        // In boxes: what a step keeps between its awaits would else all lie on the stack at once, for every kind of step.
        let work: BoxFuture<'_, Result<Outcome, Error>> = match &step.action {
            Action::Keep { release: number, digest, revision } => Box::pin(keep::run(&task, *number, digest, revision, desired)),
            Action::Preflight { release: number, migrations, reverts, database, cache } => {
                Box::pin(preflight::run(&task, *number, preflight::Scripts { migrations, reverts }, *database, *cache))
            }
            Action::BackUp { release: number, point, reason, token: _ } if reason.is_unbound() => {
                Box::pin(back_up::run_beside(&task, *number, point, *reason))
            }
            Action::BackUp { release: number, point, reason, token: _ } => {
                self.captures.stop(task.uid());
                Box::pin(back_up::run(&task, *number, point, *reason))
            }
            Action::RehearseMigrations { release: number, migrations, point, scratch, within, at_most } => {
                let copy = rehearse_migrations::Copy { point, scratch, within: within.0 };
                Box::pin(rehearse_migrations::run(&task, step.attempt, (*number, migrations), copy, *at_most))
            }
            Action::Migrate { release: number, migrations } => Box::pin(migrate::run(&task, *number, migrations)),
            Action::Deploy { release: number } => Box::pin(deploy::run(&task, step, *number)),
            Action::FlushCache { prefix } => Box::pin(flush_cache::run(&task, prefix)),
            Action::Verify { within } => Box::pin(verify::verify(&task, step, within.0, now)),
            Action::Bake { hold, every, failure_threshold, stage } => {
                let terms = verify::Terms { hold: hold.0, every: every.0, failure_threshold: *failure_threshold, stage: stage.as_ref() };
                Box::pin(verify::bake(&task, step, terms, now))
            }
            Action::Stage { point, shadow } => Box::pin(stage::run(&task, point, shadow)),
            Action::Fence { workloads } => Box::pin(fence::up(&task, workloads)),
            Action::Approve { policy: _, risk } => Box::pin(approve::run(&task, risk, now)),
            Action::RevertSchema { migrations, tolerated } => Box::pin(revert_schema::run(&task, migrations, *tolerated, now)),
            Action::Restore { point, shadow, aside, release: number, tolerated, keep: _, carry } => {
                let cut = restore::Cut { point, shadow, aside, release: *number, tolerated: *tolerated, carry: *carry };
                Box::pin(restore::run(&task, cut, now))
            }
            Action::Rehearse { point, scratch } => Box::pin(rehearse::run(&task, point, scratch, now)),
            Action::Discard { schemas, ownership } => Box::pin(discard::run(&task, schemas, *ownership)),
            Action::Expire { points } => Box::pin(expire::run(&task, points)),
            Action::Unfence { workloads } => Box::pin(fence::down(&task, step, workloads)),
        };
        work.await.unwrap_or_else(|error| match error.class() {
            Class::Transient | Class::Conflict => Outcome::Retry { message: error.to_string() },
            // Nothing is touched yet, so that nothing has to be taken back: it waits until the cause is mended, if anybody waits for it.
            Class::Permanent if step.name.only_prepares() && !step.action.is_unbound_backup() => {
                Outcome::Refused { message: error.to_string() }
            }
            Class::Permanent => Outcome::Failed { message: error.to_string() },
        })
    }
}

/// Everything that can stop a step.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Access(#[from] access::Error),
    #[error(transparent)]
    Cluster(#[from] cluster::Error),
    #[error(transparent)]
    Mysql(#[from] mysql::Error),
    #[error(transparent)]
    Cache(#[from] cache::Error),
    #[error(transparent)]
    Target(#[from] target::Error),
    #[error(transparent)]
    Record(#[from] record::Error),
    #[error("ControllerRevision {0} is missing; bring it back, or choose another release with spec.rollbackTo")]
    NotKept(String),
    #[error("ControllerRevision {0} belongs to a deleted Release of the same name and will be collected; waiting for that")]
    OfPredecessor(String),
    #[error("ControllerRevision {name} can't be read: {detail}")]
    Unreadable { name: String, detail: String },
    #[error("spec.{0} was removed while an operation needed it; put it back")]
    SpecGone(&'static str),
    #[error("another replica works now; it goes on with this step")]
    Replaced,
    #[error("{0}")]
    Inconsistent(String),
}

impl Error {
    fn class(&self) -> Class {
        match self {
            Self::Access(error) => error.class(),
            Self::Cluster(error) => error.class(),
            Self::Mysql(error) => error.class(),
            Self::Cache(error) => error.class(),
            Self::Target(error) => error.class(),
            Self::Record(error) => error.class(),
            // Each of these can be put right while the step waits.
            Self::NotKept(_) | Self::OfPredecessor(_) | Self::SpecGone(_) | Self::Replaced => Class::Transient,
            Self::Unreadable { .. } | Self::Inconsistent(_) => Class::Permanent,
        }
    }
}

/// One step at work on one Release.
struct Task<'a> {
    hands: &'a Hands,
    release: &'a Release,
    namespace: String,
    name: String,
    /// Until something that goes on beside takes it over.
    place: Mutex<Option<Place>>,
    listener: &'a Listener,
}

/// Holds the newest of what a step says of itself.
pub type Listener = watch::Sender<Option<Seen>>;

impl Task<'_> {
    /// Asked right before each effect of a step that has several: in between, this process may have been frozen and replaced.
    fn may_act(&self) -> Result<(), Error> {
        if self.hands.leadership.holds() { Ok(()) } else { Err(Error::Replaced) }
    }

    fn take_place(&self) -> Option<Place> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Since when somebody of this process could look.
    fn awake(&self, now: Timestamp) -> Timestamp {
        self.hands.leadership.since().unwrap_or(now)
    }

    fn kubernetes(&self) -> Kubernetes {
        Kubernetes::new(&self.hands.client, &self.namespace, names::MANAGER)
    }

    fn revisions(&self) -> Api<ControllerRevision> {
        Api::namespaced(self.hands.client.clone(), &self.namespace)
    }

    /// Reads a kept release from the API server: the watch cache may not have it yet.
    async fn kept(&self, number: u64) -> Result<Kept, Error> {
        let name = names::revision(&self.name, number);
        let found = within(format!("reading ControllerRevision {name}"), self.revisions().get_opt(&name)).await?;
        if let Some(revision) = &found
            && revision.owner_references().iter().any(|owner| owner.uid != self.uid())
        {
            return Err(Error::OfPredecessor(name));
        }
        let data = found.and_then(|revision| revision.data).ok_or_else(|| Error::NotKept(name.clone()))?;
        serde_json::from_value(data.0).map_err(|error| Error::Unreadable { name, detail: error.to_string() })
    }

    fn database_spec(&self) -> Result<&DatabaseSpec, Error> {
        self.release.spec.database.as_ref().ok_or(Error::SpecGone("database"))
    }

    fn cache_spec(&self) -> Result<&CacheSpec, Error> {
        self.release.spec.cache.as_ref().ok_or(Error::SpecGone("cache"))
    }

    async fn database(&self) -> Result<Database, Error> {
        let database = self.hands.access.database(&self.namespace, self.database_spec()?).await?;
        Ok(database.with_statement_timeout(self.release.spec.timeout.0))
    }

    /// To write into.
    async fn store(&self) -> Result<mysql::Store, Error> {
        Ok(self.hands.access.store(&self.namespace, &self.database_spec()?.backup).await?)
    }

    /// To read from, too.
    async fn readable_store(&self) -> Result<mysql::Store, Error> {
        Ok(self.hands.access.readable_store(&self.namespace, &self.database_spec()?.backup).await?)
    }

    /// The database, whose rows are all read or written: somebody wants to know how far that is.
    async fn heard_database(&self) -> Result<Database, Error> {
        let listener = self.listener.clone();
        Ok(self.database().await?.with_progress(move |progress| {
            listener.send_replace(Some(seen(progress)));
        }))
    }

    /// The database, to be changed. A Release that was made again under its name is still its owner; any other is refused.
    async fn own_database(&self) -> Result<Database, Error> {
        let database = self.database().await?;
        let (ours, recorded) = (self.owner().await?, mysql::inspect(&database).await?.owner);
        let named = |it: &mysql::Owner| (it.cluster.clone(), it.namespace.clone(), it.name.clone());
        let is_predecessor = |it: &mysql::Owner| it.uid != ours.uid && named(it) == named(&ours);
        if recorded.as_ref().is_some_and(is_predecessor) {
            self.may_act()?;
            mysql::take_ownership(&database, &ours).await?;
        }
        Ok(database)
    }

    async fn cache(&self) -> Result<Cache, Error> {
        Ok(self.hands.access.cache(&self.namespace, self.cache_spec()?).await?)
    }

    /// A migration and its down script, out of the kept release that has it.
    async fn down_script(&self, revert: &Revert) -> Result<(Migration, String), Error> {
        let Revert { migration: version, release } = revert;
        let kept = self.kept(*release).await?;
        let found = kept.content.migrations.into_iter().find(|migration| migration.version == *version);
        found
            .and_then(|migration| Some((migration.clone(), migration.down?)))
            .ok_or_else(|| Error::Inconsistent(format!("release {release} has no down script for migration {version:04}")))
    }

    fn uid(&self) -> &str {
        uid(self.release)
    }

    /// The Release as the database knows it.
    async fn owner(&self) -> Result<mysql::Owner, Error> {
        Ok(mysql::Owner {
            uid: self.uid().to_owned(),
            cluster: self.hands.access.cluster().await?.to_owned(),
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            operation: self.number(),
        })
    }

    /// Number of the operation that runs.
    fn number(&self) -> u64 {
        number(self.release)
    }

    /// Metadata of an object that stays when the Release goes, because what runs needs it.
    fn lasting_metadata(&self, name: &str) -> Value {
        json!({
            "name": name,
            "namespace": self.namespace,
            "labels": {names::MANAGED_BY.0: names::MANAGED_BY.1, names::RELEASE_LABEL: self.name},
        })
    }

    /// Metadata of an object that belongs to the Release and goes with it.
    fn metadata(&self, name: &str) -> Value {
        json!({
            "name": name,
            "namespace": self.namespace,
            "labels": {names::MANAGED_BY.0: names::MANAGED_BY.1, names::RELEASE_LABEL: self.name},
            "ownerReferences": [self.release.controller_owner_ref(&())],
        })
    }

    /// Folder of a backup point in the store.
    fn prefix(&self, point: &str) -> object_store::path::Path {
        object_store::path::Path::from(names::folder(&self.namespace, self.uid(), point))
    }

    /// The operation as the database knows it.
    fn operation(&self) -> String {
        operation(self.release)
    }
}

fn uid(release: &Release) -> &str {
    release.metadata.uid.as_deref().unwrap_or("no-uid")
}

fn number(release: &Release) -> u64 {
    release.status.as_ref().and_then(|status| status.operation.as_ref()).map_or(0, |operation| operation.id)
}

fn operation(release: &Release) -> String {
    names::operation(uid(release), number(release))
}

fn seen(mysql::Progress { part, done, total }: mysql::Progress) -> Seen {
    let (part, unit) = match part {
        mysql::Part::Capture => (Part::Capture, Unit::Rows),
        mysql::Part::Verify => (Part::Verify, Unit::Bytes),
        mysql::Part::Load => (Part::Load, Unit::Rows),
        mysql::Part::Compare => (Part::Compare, Unit::Rows),
    };
    Seen { part, done, total, unit }
}

/// A pause between two looks at something that is on its way; short, because each is one cheap request.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

fn done(message: impl Into<String>) -> Result<Outcome, Error> {
    Ok(Outcome::Done { message: message.into() })
}

fn waiting(message: impl Into<String>) -> Result<Outcome, Error> {
    Ok(Outcome::Waiting { message: message.into(), again: LOOK_AGAIN, failures: None })
}
