//! The world in memory: one Release object with resourceVersion and generation, git, the workload with its pods, the
//! database with its shadows and asides, the backup points and the cache. Effects are in `effects`.

use std::collections::BTreeMap;

use backout::{
    api::{
        Content, Kept, Migration, names,
        operation::Operation,
        release::{Method, ReleaseSpec, RollbackTo},
        status::ReleaseStatus,
    },
    plan::input::{
        AppliedSeen, ContainerSeen, DatabaseSeen, Desired, EnvSource, Life, Outlook, PointSeen, Rollout, Seen, Unseen, WorkloadSeen, World,
    },
};
use jiff::Timestamp;
use serde_json::json;

use super::event::{Change, Event, Script};

pub const NAME: &str = "shop";
pub const UID: &str = "0d9c";
/// Replicas that the user gave the workload.
pub const REPLICAS: i32 = 2;

pub struct Model {
    pub now: Timestamp,
    /// `metadata.resourceVersion`: a write that carries another one is refused.
    pub version: u64,
    pub generation: i64,
    pub spec: ReleaseSpec,
    pub status: ReleaseStatus,
    pub reset_at: Option<String>,
    /// Every commit; `head` says which one the branch names.
    pub commits: Vec<Desired>,
    pub head: usize,
    pub source_seen: bool,
    pub database_seen: bool,
    pub workloads_seen: bool,
    /// So many effects are answered by a server that is away.
    pub away: u32,
    pub kept: BTreeMap<u64, Kept>,
    pub points: BTreeMap<String, Point>,
    pub live: Database,
    pub shadows: BTreeMap<String, Shadow>,
    pub asides: BTreeMap<String, Database>,
    pub workload: Workload,
    /// Keys that the application cached.
    pub cached: u64,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Database {
    pub applied: Vec<AppliedSeen>,
    pub rows: u64,
    /// Which operation swapped this set of tables in.
    pub marker: Option<String>,
}

pub struct Point {
    pub before: u64,
    pub content: Database,
}

pub struct Shadow {
    pub point: String,
    pub content: Database,
}

/// What the Deployment asks for, and what its pods are.
#[derive(Clone, Debug)]
pub struct Workload {
    pub asked: Pods,
    pub there: Pods,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Pods {
    pub replicas: i32,
    pub image: String,
    pub env: BTreeMap<String, EnvSource>,
}

/// The object as one reader got it.
#[derive(Clone)]
pub struct Snapshot {
    pub version: u64,
    pub generation: i64,
    pub spec: ReleaseSpec,
    pub status: ReleaseStatus,
    pub reset_at: Option<String>,
}

impl Snapshot {
    pub fn running(&self) -> Option<&Operation> {
        self.status.operation.as_ref().filter(|operation| operation.finished_at.is_none())
    }
}

impl Model {
    pub fn new() -> Self {
        let pods = Pods { replicas: REPLICAS, image: "shop:by-hand".to_owned(), env: BTreeMap::new() };
        Self {
            now: Timestamp::from_second(1_700_000_000).expect("the instant is within range"),
            version: 1,
            generation: 1,
            spec: spec(),
            status: ReleaseStatus::default(),
            reset_at: None,
            commits: vec![commit(0, "shop:0".to_owned(), Vec::new())],
            head: 0,
            source_seen: true,
            database_seen: true,
            workloads_seen: true,
            away: 0,
            kept: BTreeMap::new(),
            points: BTreeMap::new(),
            live: Database::default(),
            shadows: BTreeMap::new(),
            asides: BTreeMap::new(),
            workload: Workload { asked: pods.clone(), there: pods },
            cached: 0,
        }
    }

    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            version: self.version,
            generation: self.generation,
            spec: self.spec.clone(),
            status: self.status.clone(),
            reset_at: self.reset_at.clone(),
        }
    }

    /// What the branch names.
    pub fn wanted(&self) -> &Desired {
        self.commits.get(self.head).expect("head is always one of the commits")
    }

    pub fn desired(&self) -> Seen<Desired> {
        if !self.source_seen {
            return unseen("GitOperationFailed");
        }
        Seen::Known(self.wanted().clone())
    }

    pub fn database(&self) -> Seen<DatabaseSeen> {
        if !self.database_seen {
            return unseen("DatabaseUnavailable");
        }
        Seen::Known(DatabaseSeen {
            applied: self.live.applied.clone(),
            uncarried: Vec::new(),
            missing_grants: Vec::new(),
            other_owner: None,
            prepared: Vec::new(),
            swapped_by: self.live.marker.clone(),
        })
    }

    /// What the eyes make of the object as `read` and of everything else as it is.
    pub fn world(&self, read: &Snapshot) -> World {
        let asked = &self.workload.asked;
        let container = ContainerSeen { image: asked.image.clone(), env: asked.env.clone() };
        World {
            now: self.now,
            namespace: "shops".to_owned(),
            undo: None,
            approve: None,
            life: Life::Wanted,
            rivals: Vec::new(),
            name: NAME.to_owned(),
            uid: UID.to_owned(),
            generation: read.generation,
            spec: read.spec.clone(),
            status: read.status.clone(),
            reset_at: read.reset_at.clone(),
            desired: self.desired(),
            kept: self.kept.clone(),
            workloads: if self.workloads_seen {
                Seen::Known(vec![WorkloadSeen {
                    name: NAME.to_owned(),
                    replicas: asked.replicas,
                    rollout: Rollout::Complete,
                    containers: BTreeMap::from([("app".to_owned(), container)]),
                }])
            } else {
                unseen("TargetNotFound")
            },
            database: None,
            points: self
                .points
                .iter()
                .map(|(name, point)| {
                    let migrations = Some(point.content.applied.iter().map(|applied| applied.version).collect());
                    (name.clone(), PointSeen { before: point.before, database: None, verified: true, migrations, taken_at: None })
                })
                .collect(),
        }
    }

    /// Time passes: pods become what is asked for.
    pub fn pass(&mut self, pause: std::time::Duration) {
        self.now = self.now.checked_add(pause).expect("a simulated history is short");
        self.workload.there = self.workload.asked.clone();
    }

    /// One disturbance from outside.
    pub fn disturb(&mut self, event: &Event) {
        match *event {
            Event::Commit(change) => self.commit(change),
            Event::Revert(back) => self.head = self.commits.len().saturating_sub(1 + back),
            Event::EditSpec => self.edit(|_| {}),
            Event::Automatic(automatic) => self.edit(|spec| spec.rollback.automatic = automatic),
            Event::RestoreOnly => self.edit(|spec| spec.rollback.database = vec![Method::Restore]),
            Event::EveryMethod => self.edit(|spec| spec.rollback.database = vec![Method::RevertSchema, Method::Restore]),
            Event::Pin(release) => {
                self.edit(|spec| spec.rollback_to = Some(RollbackTo { release: Some(release), version: None, backup_point: None }))
            }
            Event::Unpin => self.edit(|spec| spec.rollback_to = None),
            Event::Suspend(suspend) => self.edit(|spec| spec.suspend = suspend),
            Event::Reset => {
                // Annotations don't move the generation.
                self.version += 1;
                self.reset_at = Some(format!("token-{}", self.version));
            }
            Event::SourceSeen(seen) => self.source_seen = seen,
            Event::DatabaseSeen(seen) => self.database_seen = seen,
            Event::WorkloadsSeen(seen) => self.workloads_seen = seen,
            Event::Away(effects) => self.away = effects,
            Event::Drift => self.workload.asked.image = "shop:by-hand".to_owned(),
            Event::Rows => self.live.rows += 1,
            Event::PointGone => {
                self.points.pop_last();
            }
            Event::Hours => self.pass(std::time::Duration::from_hours(2)),
            Event::Rounds(_) | Event::Crash(_) | Event::Meanwhile(..) | Event::StaleRead => {}
        }
    }

    fn edit(&mut self, change: impl FnOnce(&mut ReleaseSpec)) {
        change(&mut self.spec);
        self.version += 1;
        self.generation += 1;
    }

    fn commit(&mut self, change: Change) {
        let number = self.commits.len() as u64;
        let mut migrations = self.wanted().content.migrations.clone();
        let mut add = |up: Script, down: Option<Script>| {
            migrations.push(Migration {
                // Unique, so that two branches of history never share a version with different text.
                version: number,
                name: "change".to_owned(),
                up: format!("{up:?} up {number}"),
                down: down.map(|down| format!("{down:?} down {number}")),
            });
        };
        let mut image = format!("shop:{number}");
        match change {
            Change::Config => {}
            Change::Unhealthy => image.push_str("-unhealthy"),
            Change::Crashing => image.push_str("-crashing"),
            Change::Schema(down) => add(Script::Works, down),
            Change::UnhealthySchema(down) => {
                image.push_str("-unhealthy");
                add(Script::Works, down);
            }
            Change::BrokenSchema(up) => add(up, Some(Script::Works)),
        }
        self.commits.push(commit(number, image, migrations));
        self.head = self.commits.len() - 1;
    }
}

fn unseen<T>(reason: &'static str) -> Seen<T> {
    Seen::Unknown(Unseen { reason, message: "it does not answer".to_owned(), outlook: Outlook::Passing })
}

fn commit(number: u64, image: String, migrations: Vec<Migration>) -> Desired {
    let content = Content {
        version: format!("{number}.0.0"),
        images: BTreeMap::from([("app".to_owned(), image)]),
        config: BTreeMap::from([("NUMBER".to_owned(), number.to_string())]),
        secrets: std::collections::BTreeSet::new(),
        migrations,
    };
    let digest = content.digest();
    Desired { content, digest, revision: format!("main@{number}"), cause: "a commit".to_owned() }
}

/// The environment that a release gives to its container.
pub fn environment(kept: &Kept) -> BTreeMap<String, EnvSource> {
    let name = names::config_map(NAME, &kept.content.config);
    kept.content.config.keys().map(|key| (key.clone(), EnvSource::ConfigMap { name: name.clone(), key: key.clone() })).collect()
}

fn spec() -> ReleaseSpec {
    serde_json::from_value(json!({
        "interval": "1m",
        "retryInterval": "5s",
        "timeout": "30m",
        "source": {"git": {"url": "https://git.example/shop.git", "ref": {"branch": "main"}}},
        "target": {"kubernetes": {"workloads": [{"name": NAME, "container": "app"}]}},
        "database": {"mysql": {"host": "db", "name": "shop", "credentials": {"secretRef": {"name": "db"}}}},
        "cache": {"redis": {"host": "cache"}, "flush": {"prefix": "shop:"}},
        "rollback": {"approval": "Never"},
        "verify": {"timeout": "2s", "bake": {"for": "3s", "every": "1s", "failureThreshold": 2}},
    }))
    .expect("the fixture is a valid spec")
}
