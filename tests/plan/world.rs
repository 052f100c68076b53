//! Builders: a world is what it is by default, but for what a row says. And the short form in which decisions are compared.

use std::collections::{BTreeMap, BTreeSet};

use backout::{
    api::{
        Content, Kept, Migration,
        backup_point::PointReason,
        names,
        operation::{
            Action, Expired, Kind, Operation, OperationState, Ownership, Plan, Revert, Risk, Scale, Step, StepName, StepState, Tolerated,
        },
        release::{ApprovalPolicy, CarryForward, ReleaseSpec, RollbackTo},
        status::{HistoryEntry, Quarantined, ReleaseState, ReleaseStatus},
    },
    plan::{
        Decision, decide,
        input::{
            AppliedSeen, ContainerSeen, DatabaseSeen, Desired, EnvSource, Life, Outlook, PointSeen, Rollout, Seen, Unseen, WorkloadSeen,
            World,
        },
        journal::{self, Request},
        summary,
    },
};
use jiff::Timestamp;
use serde_json::json;

pub fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).expect("the instant is within range")
}

/// Release content by number, with these migrations.
pub fn content(number: u64, migrations: &[u64]) -> Content {
    Content {
        version: format!("{number}.0.0"),
        images: BTreeMap::from([("app".to_owned(), format!("shop:{number}"))]),
        config: BTreeMap::from([("NUMBER".to_owned(), number.to_string())]),
        secrets: BTreeSet::new(),
        migrations: migrations.iter().map(|version| migration(*version)).collect(),
    }
}

pub fn migration(version: u64) -> Migration {
    Migration { version, name: "change".to_owned(), up: format!("up {version}"), down: Some(format!("down {version}")) }
}

pub fn unseen(reason: &'static str) -> Unseen {
    Unseen { reason, message: "it does not answer".to_owned(), outlook: Outlook::Passing }
}

/// A Release with a database and a cache; nothing was deployed yet, and git asks for content 1 with migration 1.
#[derive(Clone)]
pub struct Given(pub World);

impl Given {
    pub fn new() -> Self {
        Self(World {
            now: at(1000),
            namespace: "shops".to_owned(),
            name: "shop".to_owned(),
            uid: "0d9c".to_owned(),
            generation: 1,
            spec: spec(),
            status: ReleaseStatus::default(),
            reset_at: None,
            backup_at: None,
            undo: None,
            approve: None,
            life: Life::Wanted,
            rivals: Vec::new(),
            desired: Seen::Unknown(unseen("NotYetSet")),
            kept: BTreeMap::new(),
            workloads: Seen::Known(vec![workload(BTreeMap::new())]),
            database: Some(Seen::Known(DatabaseSeen::default())),
            points: BTreeMap::new(),
        })
        .asks(content(1, &[1]))
    }

    /// Releases 1 (migration 1) and 2 (migrations 1 and 2) are known good, 2 is deployed, and git asks for 2.
    pub fn two_releases() -> Self {
        Self::new()
            .release(1, content(1, &[1]), ReleaseState::KnownGood)
            .release(2, content(2, &[1, 2]), ReleaseState::KnownGood)
            .deployed(2)
            .applied(&[1, 2])
            .asks(content(2, &[1, 2]))
    }

    /// As [`Self::two_releases`], and release 3 (migrations 1 to 3), which git asks for, failed at `step`.
    pub fn failed_deploy(step: StepName) -> Self {
        let mut given = Self::two_releases().release(3, content(3, &[1, 2, 3]), ReleaseState::Deploying).asks(content(3, &[1, 2, 3]));
        let names = [StepName::Keep, StepName::Preflight, StepName::BackUp, StepName::Migrate, StepName::Deploy, StepName::Verify];
        let reached = names.iter().position(|name| *name == step).expect("a deploy has the step");
        if reached >= 3 {
            given = given.applied(&[1, 2, 3]);
        }
        if reached >= 4 {
            given = given.deployed(3);
        }
        let operation = operation(&given.0, Kind::Deploy, 3, &names).failed_at(step);
        given.running(operation).closed(OperationState::Failed)
    }

    pub fn asks(mut self, content: Content) -> Self {
        let digest = content.digest();
        let revision = format!("main@{}", content.version);
        self.0.desired = Seen::Known(Desired { content, digest, revision, cause: "a commit".to_owned() });
        self
    }

    pub fn asks_unseen(mut self) -> Self {
        self.0.desired = Seen::Unknown(unseen("GitOperationFailed"));
        self
    }

    /// A release in history and kept; each brought the migration of its number, with a backup point before it.
    pub fn release(mut self, number: u64, content: Content, state: ReleaseState) -> Self {
        let point = names::point("shop", number);
        let before: Vec<u64> = content.migrations.iter().map(|migration| migration.version).filter(|version| *version < number).collect();
        self.0.status.history.insert(
            0,
            HistoryEntry {
                release: number,
                version: content.version.clone(),
                digest: content.digest(),
                revision: format!("main@{}", content.version),
                state,
                started_at: at(number as i64),
                verified_at: None,
                undone_at: (state == ReleaseState::Undone).then(|| at(500)),
                backup_point: Some(point.clone()),
                approval: None,
            },
        );
        self.0.points.insert(
            point,
            PointSeen {
                before: Some(number),
                database: None,
                verified: true,
                migrations: Some(before.clone()),
                taken_at: Some(at(number as i64)),
                rehearsed: None,
                location: Some(format!("file:///var/lib/backout/backups/shops/0d9c/shop-{number}-predeploy")),
                life: Life::Wanted,
            },
        );
        self.0.kept.insert(number, Kept { content, revision: format!("main@{number}"), secret_keys: BTreeMap::new() });
        self.0.status.releases = number;
        self.0.status.operations = number;
        self
    }

    pub fn entry(mut self, number: u64, change: impl FnOnce(&mut HistoryEntry)) -> Self {
        change(self.0.status.history.iter_mut().find(|entry| entry.release == number).expect("the row names a release that is there"));
        self
    }

    /// The release is deployed, and the workloads are as it wants them.
    pub fn deployed(mut self, number: u64) -> Self {
        self.0.status.release = Some(number);
        let kept = self.0.kept.get(&number).expect("the row names a release that is kept");
        let map = names::config_map("shop", &kept.content.config);
        let env =
            kept.content.config.keys().map(|key| (key.clone(), EnvSource::ConfigMap { name: map.clone(), key: key.clone() })).collect();
        let image = kept.content.images.get("app").cloned().unwrap_or_default();
        let containers = BTreeMap::from([("app".to_owned(), ContainerSeen { image, env })]);
        self.0.workloads = Seen::Known(vec![workload(containers)]);
        self
    }

    pub fn workload(mut self, change: impl FnOnce(&mut WorkloadSeen)) -> Self {
        if let Seen::Known(workloads) = &mut self.0.workloads {
            change(workloads.first_mut().expect("the fixture has one workload"));
        }
        self
    }

    pub fn applied(self, versions: &[u64]) -> Self {
        let applied = versions.iter().map(|version| AppliedSeen {
            version: *version,
            name: "change".to_owned(),
            checksum: migration(*version).checksum(),
            release: *version,
            trouble: None,
        });
        let applied = applied.collect();
        self.database(|database| database.applied = applied)
    }

    pub fn database(mut self, change: impl FnOnce(&mut DatabaseSeen)) -> Self {
        if let Some(Seen::Known(database)) = &mut self.0.database {
            change(database);
        }
        self
    }

    pub fn half_way(self, version: u64) -> Self {
        self.database(|database| {
            for applied in database.applied.iter_mut().filter(|applied| applied.version == version) {
                applied.trouble = Some(format!("migration {version} stands half way"));
            }
        })
    }

    pub fn no_down(mut self, version: u64) -> Self {
        for migration in self.0.kept.values_mut().flat_map(|kept| kept.content.migrations.iter_mut()) {
            if migration.version == version {
                migration.down = None;
            }
        }
        self
    }

    pub fn with(mut self, change: impl FnOnce(&mut World)) -> Self {
        change(&mut self.0);
        self
    }

    pub fn spec(mut self, change: impl FnOnce(&mut ReleaseSpec)) -> Self {
        change(&mut self.0.spec);
        self
    }

    pub fn pinned(self, release: u64) -> Self {
        self.spec(|spec| spec.rollback_to = Some(RollbackTo { release: Some(release), version: None, backup_point: None }))
    }

    pub fn quarantined(mut self, content: &Content, release: u64) -> Self {
        self.0.status.quarantine.push(Quarantined {
            digest: content.digest(),
            version: content.version.clone(),
            revision: "main@bad".to_owned(),
            release,
            reason: "Verify: check health failed".to_owned(),
            at: at(900),
        });
        self
    }

    pub fn running(mut self, operation: Operation) -> Self {
        self.0.status.operations = operation.id;
        self.0.status.operation = Some(operation);
        self
    }

    pub fn closed(self, end: OperationState) -> Self {
        self.closed_at(end, 950)
    }

    pub fn closed_at(mut self, end: OperationState, seconds: i64) -> Self {
        self.0.status = journal::closed(self.0.status, end, at(seconds)).expect("the row has a running operation");
        self
    }

    /// What is decided once people have been told what has to be told first.
    pub fn decision(&self) -> Decision {
        match decide(&self.0) {
            Decision::Tell { verdict } => {
                let mut world = self.0.clone();
                world.status = summary::apply(world.status, &verdict, world.generation, world.now);
                decide(&world)
            }
            decision => decision,
        }
    }

    pub fn decides(&self) -> String {
        told(&self.decision())
    }
}

fn workload(containers: BTreeMap<String, ContainerSeen>) -> WorkloadSeen {
    WorkloadSeen { name: "shop".to_owned(), replicas: 3, rollout: Rollout::Complete, containers }
}

/// An operation that runs, all its steps pending.
pub fn operation(world: &World, kind: Kind, to: u64, steps: &[StepName]) -> Operation {
    let entry = world.entry(to);
    Operation {
        id: world.status.operations + 1,
        kind,
        state: OperationState::Running,
        cause: "a row of a table".to_owned(),
        plan: Plan { digest: "p1an".to_owned(), ..Plan::default() },
        loss: None,
        approval: None,
        remediates: None,
        undoes: None,
        from: world.status.release,
        to,
        version: format!("{to}.0.0"),
        digest: entry.map(|entry| entry.digest.clone()).unwrap_or_default(),
        revision: format!("main@{to}"),
        database: Some("db:3306/shop, file:///var/lib/backout/backups".to_owned()),
        target: Some("container app of Deployment shop".to_owned()),
        wanted: match &world.desired {
            Seen::Known(desired) => desired.digest.clone(),
            Seen::Unknown(_) => String::new(),
        },
        generation: world.generation,
        started_at: at(800),
        finished_at: None,
        steps: steps
            .iter()
            .map(|name| Step {
                name: *name,
                state: StepState::Pending,
                attempt: 0,
                started_at: None,
                finished_at: None,
                retry_at: None,
                failures: None,
                message: None,
                progress: None,
                action: action(*name, to),
            })
            .collect(),
    }
}

fn action(name: StepName, release: u64) -> Action {
    use backout::api::{Span, operation::Use};
    let workloads = vec![Scale { name: "shop".to_owned(), replicas: 3 }];
    let (point, shadow, aside) = ("shop-3-predeploy".to_owned(), "shadow".to_owned(), "aside".to_owned());
    match name {
        StepName::Keep => Action::Keep { release, digest: String::new(), revision: String::new() },
        StepName::Preflight => {
            Action::Preflight { release, migrations: Vec::new(), reverts: Vec::new(), database: Use::Needed, cache: Use::Needed }
        }
        StepName::BackUp => Action::BackUp { release, point: names::point("shop", release), reason: PointReason::PreDeploy, token: None },
        StepName::RehearseMigrations => Action::RehearseMigrations {
            release,
            migrations: vec![release],
            point: names::point("shop", release),
            scratch: shadow,
            within: Span::seconds(600),
            at_most: None,
        },
        StepName::Migrate => Action::Migrate { release, migrations: vec![release] },
        StepName::Deploy => Action::Deploy { release },
        StepName::FlushCache => Action::FlushCache { prefix: "shop:".to_owned() },
        StepName::Verify => Action::Verify { within: Span::seconds(60) },
        StepName::Bake => Action::Bake { hold: Span::seconds(60), every: Span::seconds(10), failure_threshold: 3, stage: None },
        StepName::Stage => Action::Stage { point, shadow },
        StepName::Fence => Action::Fence { workloads },
        StepName::RevertSchema => Action::RevertSchema { migrations: vec![Revert { migration: 3, release: 3 }], tolerated: Tolerated::Any },
        StepName::Restore => Action::Restore {
            point,
            shadow,
            aside,
            release,
            tolerated: Tolerated::Any,
            keep: Span::seconds(3600),
            carry: CarryForward::None,
        },
        StepName::Approve => Action::Approve { policy: ApprovalPolicy::DataLoss, risk: Risk::Replacement { schema: shadow, since: None } },
        StepName::Discard => Action::Discard { schemas: vec![shadow], ownership: Ownership::Kept },
        StepName::Rehearse => Action::Rehearse { point, scratch: shadow },
        StepName::Expire => Action::Expire { points: vec![Expired { point, why: "its time has passed".to_owned() }] },
        StepName::Unfence => Action::Unfence { workloads },
    }
}

/// How far an operation of a row has come.
pub trait Progress {
    /// Everything before the step is done, and the step is in this state.
    fn at(self, step: StepName, state: StepState) -> Self;
    fn failed_at(self, step: StepName) -> Self;
}

impl Progress for Operation {
    fn at(mut self, step: StepName, state: StepState) -> Self {
        for entry in &mut self.steps {
            entry.attempt = 1;
            entry.started_at = Some(at(810));
            if entry.name == step {
                entry.state = state;
                entry.attempt = u32::from(state != StepState::Pending);
                break;
            }
            entry.state = StepState::Done;
        }
        self
    }

    fn failed_at(self, step: StepName) -> Self {
        let mut operation = self.at(step, StepState::Failed);
        for entry in operation.steps.iter_mut().filter(|entry| entry.name == step) {
            entry.message = Some("it went wrong".to_owned());
        }
        operation
    }
}

/// A decision in a few words.
pub fn told(decision: &Decision) -> String {
    match decision {
        Decision::LookAtDatabase => "LookAtDatabase".to_owned(),
        Decision::Rest { verdict, .. } => {
            let word = if verdict.is_ready() {
                "Ready"
            } else if verdict.is_stalled() {
                "Stalled"
            } else if verdict.settled() {
                "Resting"
            } else {
                "Waiting"
            };
            format!("{word} {}", verdict.reason)
        }
        Decision::Tell { verdict } => format!("Tell {}", verdict.reason),
        Decision::Reset { token } => format!("Reset {token}"),
        Decision::Run { step } => format!("Run {step}"),
        Decision::Close(end) => format!("Close {end:?}"),
        Decision::Grant { step, approval } => {
            format!("Grant {step} {:?} by {}", approval.state, approval.by.as_deref().unwrap_or("nobody"))
        }
        Decision::Contain { workloads } => format!("Contain {}", scales_told(workloads)),
        Decision::Refuse { request: Request::Undo(token) | Request::BackUp(token), message } => format!("Refuse {token}: {message}"),
        Decision::Farewell => "Farewell".to_owned(),
        Decision::Begin(operation) => {
            let steps: Vec<String> = operation.steps.iter().map(|step| action_told(&step.action)).collect();
            let from = operation.from.map_or_else(|| "nothing".to_owned(), |from| from.to_string());
            let answers = operation.remediates.map(|release| format!(" for {release}")).unwrap_or_default();
            format!("{:?} {from} → {}{answers}: {}", operation.kind, operation.to, steps.join(", "))
        }
    }
}

fn scales_told(workloads: &[Scale]) -> String {
    workloads.iter().map(|scale| format!("{}={}", scale.name, scale.replicas)).collect::<Vec<_>>().join(" ")
}

fn action_told(action: &Action) -> String {
    let name = action.name().as_str();
    match action {
        Action::Keep { release, .. } | Action::Deploy { release } => format!("{name} {release}"),
        Action::Preflight { release, migrations, database, cache, .. } => {
            format!("{name} {release} {migrations:?} database={database:?} cache={cache:?}")
        }
        Action::BackUp { point, .. } | Action::Stage { point, .. } | Action::Restore { point, .. } => format!("{name} {point}"),
        Action::RehearseMigrations { release, migrations, .. } => format!("{name} {migrations:?} of {release}"),
        Action::Migrate { release, migrations } => format!("{name} {migrations:?} of {release}"),
        Action::FlushCache { prefix } => format!("{name} {prefix}"),
        Action::Verify { within } => format!("{name} {within}"),
        Action::Bake { hold, every, failure_threshold, stage } => {
            let stage = stage.as_ref().map(|stage| format!(" beside {}", stage.point)).unwrap_or_default();
            format!("{name} {hold}/{every}/{failure_threshold}{stage}")
        }
        Action::Fence { workloads } | Action::Unfence { workloads } => format!("{name} {}", scales_told(workloads)),
        Action::Approve { policy, .. } => format!("{name} {policy:?}"),
        Action::Discard { schemas, .. } => format!("{name} {}", schemas.join(" ")),
        Action::Rehearse { point, .. } => format!("{name} {point}"),
        Action::Expire { points } => {
            let points: Vec<&str> = points.iter().map(|expired| expired.point.as_str()).collect();
            format!("{name} {}", points.join(" "))
        }
        Action::RevertSchema { migrations, .. } => {
            let scripts: Vec<String> = migrations.iter().map(|Revert { migration, release }| format!("{migration} of {release}")).collect();
            format!("{name} {}", scripts.join(" "))
        }
    }
}

fn spec() -> ReleaseSpec {
    serde_json::from_value(json!({
        "source": {"git": {"url": "https://git.example/shop.git", "ref": {"branch": "main"}}},
        "target": {"kubernetes": {"workloads": [{"name": "shop", "container": "app"}]}},
        "database": {"mysql": {"host": "db", "name": "shop", "credentials": {"secretRef": {"name": "db"}}}},
        "cache": {"redis": {"host": "cache"}, "flush": {"prefix": "shop:"}},
        "rollback": {"approval": "Never"},
    }))
    .expect("the fixture is a valid spec")
}
