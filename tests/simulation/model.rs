//! The world in memory: one Release object with resourceVersion and generation, git, the workload with its pods, the
//! cache; the database is in `database`. Effects are in `effects`.

use std::{collections::BTreeMap, sync::Arc};

use backout::{
    api::{
        Content, Kept, Migration, Span,
        database::{RehearseMigrations, Retention, StagePolicy},
        names,
        operation::Operation,
        release::{EmergencyPoint, ReleaseSpec, RollbackTo},
        status::ReleaseStatus,
    },
    plan::input::{
        ApprovalSeen, ContainerSeen, DatabaseSeen, Desired, EnvSource, Life, Outlook, PointSeen, Rollout, Seen, Unseen, WorkloadSeen, World,
    },
};
use jiff::Timestamp;
use serde_json::json;

use super::{
    database::{Point, Row, Server},
    event::{Change, Event, Plan, Script},
};

pub const NAME: &str = "shop";
pub const UID: &str = "0d9c";
/// Replicas that the user gave the workload.
pub const REPLICAS: i32 = 2;

#[derive(Clone)]
pub struct Model {
    pub now: Timestamp,
    /// `metadata.resourceVersion`: a write that carries another one is refused.
    pub version: u64,
    pub generation: i64,
    pub spec: Arc<ReleaseSpec>,
    pub status: Arc<ReleaseStatus>,
    pub reset_at: Option<String>,
    pub undo: Option<String>,
    pub approve: Option<ApprovalSeen>,
    pub life: Life,
    /// Nothing is left of the object.
    pub gone: bool,
    /// Every commit; `head` says which one the branch names.
    pub commits: Arc<Vec<Desired>>,
    pub head: usize,
    pub source_seen: bool,
    pub database_seen: bool,
    pub workloads_seen: bool,
    /// So many effects are answered by a server that is away.
    pub away: u32,
    pub kept: Arc<BTreeMap<u64, Kept>>,
    pub server: Server,
    pub workload: Workload,
    /// Keys that the application cached.
    pub cached: u64,
}

/// What the Deployment asks for, and what its pods are.
#[derive(Clone, Debug)]
pub struct Workload {
    pub asked: Pods,
    pub there: Pods,
    /// The schema that the application ran on when the last fence went up.
    pub served: Vec<Row>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Pods {
    pub replicas: i32,
    pub image: String,
    pub env: BTreeMap<String, EnvSource>,
}

/// The object as one reader got it. What is large is shared between the many worlds that an exploration holds.
#[derive(Clone)]
pub struct Snapshot {
    pub version: u64,
    pub generation: i64,
    pub spec: Arc<ReleaseSpec>,
    pub status: Arc<ReleaseStatus>,
    pub reset_at: Option<String>,
    pub undo: Option<String>,
    pub approve: Option<ApprovalSeen>,
    pub life: Life,
}

impl Snapshot {
    /// To be changed.
    pub fn status(&self) -> ReleaseStatus {
        ReleaseStatus::clone(&self.status)
    }

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
            spec: Arc::new(spec()),
            status: Arc::default(),
            reset_at: None,
            undo: None,
            approve: None,
            life: Life::Wanted,
            gone: false,
            commits: Arc::new(vec![commit(0, "shop:0".to_owned(), Vec::new())]),
            head: 0,
            source_seen: true,
            database_seen: true,
            workloads_seen: true,
            away: 0,
            kept: Arc::default(),
            server: Server::default(),
            workload: Workload { asked: pods.clone(), there: pods, served: Vec::new() },
            cached: 0,
        }
    }

    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            version: self.version,
            generation: self.generation,
            spec: Arc::clone(&self.spec),
            status: Arc::clone(&self.status),
            reset_at: self.reset_at.clone(),
            undo: self.undo.clone(),
            approve: self.approve.clone(),
            life: self.life,
        }
    }

    /// An operation waits for a person.
    pub fn waits_for_approval(&self) -> bool {
        let ready = self.status.conditions.iter().find(|condition| condition.type_ == "Ready");
        ready.is_some_and(|condition| condition.reason == "AwaitingApproval")
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
        Seen::Known(self.server.seen())
    }

    /// What the eyes make of the object as `read` and of everything else as it is.
    pub fn world(&self, read: &Snapshot) -> World {
        let asked = &self.workload.asked;
        let container = ContainerSeen { image: asked.image.clone(), env: asked.env.clone() };
        World {
            now: self.now,
            namespace: "shops".to_owned(),
            undo: read.undo.clone(),
            approve: read.approve.clone(),
            life: read.life,
            rivals: Vec::new(),
            name: NAME.to_owned(),
            uid: UID.to_owned(),
            generation: read.generation,
            spec: ReleaseSpec::clone(&read.spec),
            status: read.status(),
            backup_at: None,
            reset_at: read.reset_at.clone(),
            desired: self.desired(),
            kept: BTreeMap::clone(&self.kept),
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
            points: self.server.points.iter().map(|(name, point)| (name.clone(), self.point_seen(name, point))).collect(),
        }
    }

    fn point_seen(&self, name: &str, point: &Point) -> PointSeen {
        PointSeen {
            before: point.before,
            database: None,
            verified: point.complete,
            migrations: Some(point.content.applied.iter().map(|row| row.version).collect()),
            taken_at: self.server.taken.get(name).copied(),
            location: Some(format!("file:///backups/shops/{UID}/{name}")),
            life: Life::Wanted,
            rehearsed: None,
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
            Event::KeepFor(seconds) => self.edit(|spec| {
                let retention = Retention { keep_for: Span::seconds(seconds), keep_last: 1 };
                spec.database.iter_mut().for_each(|database| {
                    database.backup.retention = Some(retention.clone());
                    database.backup.stage = StagePolicy::WhileBaking;
                });
            }),
            Event::RehearseMigrations => self.edit(|spec| {
                let rehearsal = RehearseMigrations { within: Span::seconds(60), at_most: None };
                spec.database.iter_mut().for_each(|database| database.rehearse_migrations = Some(rehearsal.clone()));
            }),
            Event::EmergencyPoints => self.edit(|spec| spec.rollback.emergency_point = EmergencyPoint::BeforeDownScripts),
            Event::Automatic(automatic) => self.edit(|spec| spec.rollback.automatic = automatic),
            Event::Methods(ref methods) => self.edit(|spec| spec.rollback.database.clone_from(methods)),
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
            Event::Approval(policy) => self.edit(|spec| spec.rollback.approval = policy),
            Event::Approve(plan) => {
                self.version += 1;
                let running = self.status.operation.as_ref().map(|operation| operation.plan.digest.clone());
                let digest = match plan {
                    Plan::This => running.unwrap_or_default(),
                    Plan::Another => "another".to_owned(),
                };
                self.approve = Some(ApprovalSeen { digest, by: None });
            }
            Event::Undo => {
                self.version += 1;
                self.undo = self.status.asides.first().map(|aside| aside.operation.to_string());
            }
            Event::Delete => {
                self.version += 1;
                self.life = Life::Leaving;
                // Before the first operation nothing holds the object.
                self.gone = self.status.operations == 0;
            }
            Event::SourceSeen(seen) => self.source_seen = seen,
            Event::DatabaseSeen(seen) => self.database_seen = seen,
            Event::WorkloadsSeen(seen) => self.workloads_seen = seen,
            Event::Away(effects) => self.away = effects,
            Event::Drift => self.workload.asked.image = "shop:by-hand".to_owned(),
            Event::Rows => self.server.live.rows += 1,
            Event::PointGone => {
                self.server.points.pop_last();
            }
            Event::Hours => {
                self.pass(std::time::Duration::from_hours(2));
                // No server keeps a silent session for so long.
                self.server.locked = false;
            }
            Event::Rounds(_) | Event::Crash(_) | Event::Meanwhile(..) | Event::Frozen { .. } | Event::Lost(..) | Event::StaleRead => {}
        }
    }

    fn edit(&mut self, change: impl FnOnce(&mut ReleaseSpec)) {
        change(Arc::make_mut(&mut self.spec));
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
        Arc::make_mut(&mut self.commits).push(commit(number, image, migrations));
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
        "database": {
            "mysql": {"host": "db", "name": "shop", "credentials": {"secretRef": {"name": "db"}}},
            "backup": {"store": {"url": "file:///backups"}},
        },
        "cache": {"redis": {"host": "cache"}, "flush": {"prefix": "shop:"}},
        "rollback": {"approval": "Never"},
        "verify": {"timeout": "2s", "bake": {"for": "3s", "every": "1s", "failureThreshold": 2}},
    }))
    .expect("the fixture is a valid spec")
}
