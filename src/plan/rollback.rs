//! Rollback: go back to a known good release by the first way that is possible, doing only what differs. And Restore: bring
//! back the data of a backup point under the release that runs.

use super::{
    Decision, Verdict, drift,
    input::{DatabaseSeen, PointSeen, Seen, World},
    journal,
    report::{self, Aim, Draft},
    safety,
    target::rest,
};
use crate::api::{
    Content,
    backup_point::{PointReason, RehearsalOutcome, Rehearsed},
    names,
    operation::{Action, ApprovalState, Kind, Revert, Risk, Scale, Tolerated, Use},
    release::{ApprovalPolicy, EmergencyPoint, Method},
    status::HistoryEntry,
};

/// Why a rollback is planned, and by which ways the database may be taken back.
pub struct Why {
    pub cause: String,
    /// The failed release that it answers.
    pub remediates: Option<u64>,
    /// In order of preference.
    pub methods: Vec<Method>,
}

impl Why {
    /// Asked for by the source or the spec: every way that the spec allows.
    pub fn asked(world: &World, cause: String) -> Self {
        Self { cause, remediates: None, methods: world.spec.rollback.database.clone() }
    }
}

/// Plans the way back to `target`, or says why there is none.
pub fn plan(world: &World, target: &HistoryEntry, why: &Why) -> Decision {
    let Some(kept) = world.kept.get(&target.release) else {
        return rest(world, Verdict::not_kept(&world.name, target));
    };
    let Chosen { way, reason, not_chosen } = match (&world.spec.database, &world.database) {
        (None, _) => Chosen { way: Way::Nothing, reason: "spec.database names no database".to_owned(), not_chosen: Vec::new() },
        (Some(_), None) => return Decision::LookAtDatabase,
        (Some(_), Some(Seen::Unknown(unseen))) => return rest(world, Verdict::unseen(unseen)),
        (Some(_), Some(Seen::Known(database))) => match choose(world, database, target, &kept.content, &why.methods) {
            Ok(Chosen { way: Way::RevertSchema { .. } | Way::Restore { .. }, .. }) if database.other_owner.is_some() => {
                return rest(world, Verdict::shared(world, database.other_owner.as_deref().unwrap_or_default()));
            }
            Ok(chosen) => chosen,
            Err(reasons) => return rest(world, Verdict::no_way_back(target, &reasons)),
        },
    };
    let scales = match scales(world) {
        Ok(scales) => scales,
        Err(decision) => return decision,
    };
    let change = change(world, way, target.release);
    let deploy = if drift::application_stays(world, &kept.content) { Deploy::Stays } else { Deploy::Release(target.release) };
    let actions = actions(world, target.release, change, deploy, scales);
    report::begin(
        world,
        Draft {
            kind: Kind::Rollback,
            aim: Aim::from(target),
            cause: why.cause.clone(),
            remediates: why.remediates,
            undoes: None,
            why: reason,
            not_chosen,
            actions,
        },
    )
}

/// Plans bringing back the data of `name` under `current`, or says why that can't be.
pub fn data(world: &World, current: &HistoryEntry, name: &str) -> Decision {
    let Some(kept) = world.kept.get(&current.release) else {
        return rest(world, Verdict::not_kept(&world.name, current));
    };
    let database = match (&world.spec.database, &world.database) {
        (None, _) => return rest(world, Verdict::no_data_to_restore(name, "spec.database names no database")),
        (Some(_), None) => return Decision::LookAtDatabase,
        (Some(_), Some(Seen::Unknown(unseen))) => return rest(world, Verdict::unseen(unseen)),
        (Some(_), Some(Seen::Known(database))) => database,
    };
    if let Some(owner) = &database.other_owner {
        return rest(world, Verdict::shared(world, owner));
    }
    if let Err(reason) = carried(database).and_then(|()| fitting(world, name, current, &kept.content)) {
        return rest(world, Verdict::no_data_to_restore(name, &reason));
    }
    let scales = match scales(world) {
        Ok(scales) => scales,
        Err(decision) => return decision,
    };
    let change = change(world, Way::Restore { point: name.to_owned() }, current.release);
    let actions = actions(world, current.release, change, Deploy::Stays, scales);
    report::begin(
        world,
        Draft {
            kind: Kind::Restore,
            aim: Aim::from(current),
            cause: format!("spec.rollbackTo asks for the data of BackupPoint {name}"),
            remediates: None,
            undoes: None,
            why: format!("it holds the schema of release {} ({}), which goes on running", current.release, current.version),
            not_chosen: Vec::new(),
            actions,
        },
    )
}

/// How the database is taken back.
enum Way {
    /// The target's migrations are those applied.
    Nothing,
    RevertSchema {
        scripts: Vec<Revert>,
        /// A backup point from before them.
        copy: Option<Action>,
    },
    Restore {
        point: String,
    },
}

struct Chosen {
    way: Way,
    reason: String,
    not_chosen: Vec<String>,
}

/// A change of the database, with what comes before it.
pub struct Change {
    /// What is loaded, or copied, while nobody has been asked yet and the application serves.
    pub before: Option<Action>,
    pub risk: Risk,
    pub action: Action,
}

/// Whether the workloads get something.
pub enum Deploy {
    Stays,
    Release(u64),
}

fn change(world: &World, way: Way, release: u64) -> Option<Change> {
    let database = world.spec.database.as_ref()?;
    match way {
        Way::Nothing => None,
        Way::RevertSchema { scripts: migrations, copy } => Some(Change {
            before: copy,
            risk: Risk::Scripts { migrations: migrations.clone() },
            action: Action::RevertSchema { migrations, tolerated: tolerated(world) },
        }),
        Way::Restore { point } => {
            let operation = world.status.operations + 1;
            let shadow = names::shadow(&database.mysql.name, &world.uid, &point);
            let since = world.points.get(&point).and_then(|point| point.taken_at);
            Some(Change {
                before: Some(Action::Stage { point: point.clone(), shadow: shadow.clone() }),
                risk: Risk::Replacement { schema: shadow.clone(), since },
                action: Action::Restore {
                    point,
                    shadow,
                    aside: names::aside(&database.mysql.name, &world.uid, operation),
                    release,
                    tolerated: tolerated(world),
                    keep: world.spec.rollback.keep_aside,
                    carry: world.spec.rollback.carry_forward,
                },
            })
        }
    }
}

/// The backup point from before down scripts, where the spec asks for one, or why there will be none: going back matters more. `target`:
/// what is gone back to, where nothing runs that is known.
fn emergency(world: &World, database: &DatabaseSeen, target: u64) -> Result<Option<Action>, String> {
    if world.spec.rollback.emergency_point == EmergencyPoint::Never {
        return Ok(None);
    }
    if journal::open_fence(&world.status).is_some() {
        return Err("the application is down for as long as that takes".to_owned());
    }
    carried(database)?;
    Ok(Some(Action::BackUp {
        release: world.status.release.unwrap_or(target),
        point: names::emergency_point(&world.name, &world.uid, world.status.operations + 1),
        reason: PointReason::Emergency,
        token: None,
    }))
}

/// What the workloads go back to behind a fence.
pub fn scales(world: &World) -> Result<Vec<Scale>, Decision> {
    match &world.workloads {
        Seen::Unknown(unseen) => Err(rest(world, Verdict::unseen(unseen))),
        Seen::Known(workloads) => {
            // What stands behind a fence shows no replicas of its own; a workload that is new in the spec does.
            let fenced = journal::open_fence(&world.status).unwrap_or_default();
            let new = workloads.iter().filter(|workload| fenced.iter().all(|scale| scale.name != workload.name));
            let new = new.map(|workload| Scale { name: workload.name.clone(), replicas: workload.replicas });
            Ok(fenced.iter().cloned().chain(new).collect())
        }
    }
}

/// When the next operation asks: as the spec says, or in any case where more would be lost than was measured before.
pub fn policy(world: &World) -> ApprovalPolicy {
    let last = world.status.operation.as_ref().and_then(|operation| operation.approval.as_ref());
    match (world.spec.rollback.approval, last.map(|approval| approval.state)) {
        (ApprovalPolicy::DataLoss, Some(ApprovalState::Outdated)) => ApprovalPolicy::Always,
        (policy, _) => policy,
    }
}

pub fn tolerated(world: &World) -> Tolerated {
    match policy(world) {
        ApprovalPolicy::Never => Tolerated::Any,
        ApprovalPolicy::DataLoss | ApprovalPolicy::Always => Tolerated::Approved,
    }
}

/// The steps of going back, in their order. The fence stands only while the database changes under the application: a shadow
/// is loaded, and a person is asked, while the application serves. On a half-migrated schema nothing runs: there it is up first.
pub fn actions(world: &World, release: u64, change: Option<Change>, deploy: Deploy, scales: Vec<Scale>) -> Vec<Action> {
    let policy = policy(world);
    let fence_was_left = journal::open_fence(&world.status).is_some();
    let half_migrated = match &world.database {
        Some(Seen::Known(database)) => !database.is_whole(),
        Some(Seen::Unknown(_)) | None => false,
    };
    let fence = || Action::Fence { workloads: scales.clone() };
    let unfence = || Action::Unfence { workloads: scales.clone() };

    let mut actions = Vec::new();
    let mut fenced = fence_was_left;
    // One that is up already is taken over first, so that giving way at Preflight can't forget it.
    if change.is_some() && (fence_was_left || half_migrated) {
        actions.push(fence());
        fenced = true;
    }
    actions.push(Action::Preflight {
        release,
        migrations: Vec::new(),
        reverts: match change.as_ref().map(|change| &change.risk) {
            Some(Risk::Scripts { migrations }) => migrations.clone(),
            Some(Risk::Replacement { .. }) | None => Vec::new(),
        },
        database: if change.is_some() { Use::Needed } else { Use::Untouched },
        cache: if world.spec.cache.is_some() { Use::Needed } else { Use::Untouched },
    });
    if let Some(Change { before, risk, action }) = change {
        actions.extend(before);
        // Measured whatever the policy says: what went, people want to know in any case.
        actions.push(Action::Approve { policy, risk });
        if !fenced {
            actions.push(fence());
            fenced = true;
        }
        actions.push(action);
    }
    match deploy {
        Deploy::Stays => {}
        Deploy::Release(release) => actions.push(Action::Deploy { release }),
    }
    if let Some(cache) = &world.spec.cache {
        actions.push(Action::FlushCache { prefix: cache.flush.prefix.clone() });
    }
    if fenced {
        actions.push(unfence());
    }
    actions.push(Action::Verify { within: world.spec.verify.timeout });
    actions
}

/// The first way that is possible, or why each is not.
fn choose(
    world: &World,
    database: &DatabaseSeen,
    target: &HistoryEntry,
    content: &Content,
    methods: &[Method],
) -> Result<Chosen, Vec<String>> {
    let extra: Vec<u64> = database
        .applied
        .iter()
        .map(|applied| applied.version)
        .filter(|version| content.migrations.iter().all(|migration| migration.version != *version))
        .collect();
    let missing: Vec<String> = content
        .migrations
        .iter()
        .filter(|migration| database.applied.iter().all(|applied| applied.version != migration.version))
        .map(crate::api::Migration::label)
        .collect();
    let half_way = database.troubles();
    if extra.is_empty() && missing.is_empty() && half_way.is_empty() {
        let reason = format!("the migrations of release {} are those applied: the database stays as it is", target.release);
        return Ok(Chosen { way: Way::Nothing, reason, not_chosen: Vec::new() });
    }

    let mut reasons = Vec::new();
    for method in methods {
        let possible = match method {
            Method::RevertSchema => revert(world, database, &extra, &missing, &half_way).map(|scripts| {
                let reason = "RevertSchema: every migration to undo has its down script";
                match emergency(world, database, target.release) {
                    Ok(copy) => (Way::RevertSchema { scripts, copy }, reason.to_owned()),
                    Err(why) => (Way::RevertSchema { scripts, copy: None }, format!("{reason}; no emergency point is taken: {why}")),
                }
            }),
            Method::Restore => restore(world, database, target, content).map(|point| {
                let reason = format!("Restore: BackupPoint {point} is from before the first release that is undone");
                (Way::Restore { point }, reason)
            }),
        };
        match possible {
            Ok((way, reason)) => return Ok(Chosen { way, reason, not_chosen: reasons }),
            Err(reason) => reasons.push(reason),
        }
    }
    if methods.is_empty() {
        reasons.push("spec.rollback.database leaves no way to take the database back".to_owned());
    }
    Err(reasons)
}

/// Every migration to undo has its down script in a kept release; newest first.
fn revert(world: &World, database: &DatabaseSeen, extra: &[u64], missing: &[String], half_way: &[&str]) -> Result<Vec<Revert>, String> {
    if !half_way.is_empty() {
        return Err(format!("RevertSchema: {}", half_way.join("; ")));
    }
    if !missing.is_empty() {
        return Err(format!("RevertSchema: the target needs migrations that are not applied: {}", missing.join(", ")));
    }
    if !database.missing_grants.is_empty() {
        return Err(format!("RevertSchema: {}", safety::grants(&database.missing_grants)));
    }
    if !database.prepared.is_empty() {
        return Err(format!("RevertSchema: {}", safety::prepared(&database.prepared)));
    }
    let mut scripts: Vec<Revert> = Vec::new();
    for version in extra.iter().rev() {
        let applied = database.applied.iter().find(|applied| applied.version == *version);
        let holder = world.kept.iter().rev().find(|(_, kept)| {
            kept.content.migrations.iter().any(|migration| {
                migration.version == *version
                    && migration.down.is_some()
                    && applied.is_some_and(|applied| applied.checksum == migration.checksum())
            })
        });
        match (holder, applied) {
            (Some((release, _)), _) => scripts.push(Revert { migration: *version, release: *release }),
            (None, Some(applied)) => {
                return Err(format!(
                    "RevertSchema: migration {:04}_{} has no down script in any kept release",
                    applied.version, applied.name
                ));
            }
            (None, None) => return Err(format!("RevertSchema: migration {version:04} has no down script in any kept release")),
        }
    }
    Ok(scripts)
}

/// The point from before the first release that is undone: it holds the schema that the target ran on.
fn restore(world: &World, database: &DatabaseSeen, target: &HistoryEntry, content: &Content) -> Result<String, String> {
    let found = carried(database).and_then(|()| {
        let name = point(world, database, target, content)?;
        fitting(world, &name, target, content).map(|()| name)
    });
    found.map_err(|reason| format!("Restore: {reason}"))
}

/// What the database says decides: the release that brought the oldest migration to undo, and no release before that. One that
/// was taken back by a rollback that then failed on something else has left no migration, and its point would be too old.
fn point(world: &World, database: &DatabaseSeen, target: &HistoryEntry, content: &Content) -> Result<String, String> {
    let undone = |version: u64| content.migrations.iter().all(|migration| migration.version != version);
    let oldest =
        database.applied.iter().filter(|applied| undone(applied.version) || applied.trouble.is_some()).map(|applied| applied.release).min();
    let mut after = world.status.history.iter().filter(|entry| entry.release > target.release && entry.backup_point.is_some());
    let entry = match oldest {
        Some(release) => after.find(|entry| entry.release == release),
        // Nothing is to be undone, but something is missing: the newest copy that has it loses least.
        None => after.filter(|entry| entry.undone_at.is_none()).max_by_key(|entry| entry.release),
    };
    let release = oldest.unwrap_or(target.release);
    entry
        .and_then(|entry| entry.backup_point.clone())
        .ok_or_else(|| format!("no backup point from before release {release} is in status.history"))
}

/// A copy of the live tables can be made and put in their place.
fn carried(database: &DatabaseSeen) -> Result<(), String> {
    if !database.missing_grants.is_empty() {
        return Err(safety::grants(&database.missing_grants));
    }
    if !database.uncarried.is_empty() {
        return Err(format!("a backup point can't carry {}", database.uncarried.join(", ")));
    }
    if !database.prepared.is_empty() {
        return Err(safety::prepared(&database.prepared));
    }
    Ok(())
}

/// The point is whole, and holds the schema that `target` runs on.
fn fitting(world: &World, name: &str, target: &HistoryEntry, content: &Content) -> Result<(), String> {
    let PointSeen { before: _, verified, migrations, database, taken_at: _, rehearsed, location: _, life: _ } =
        world.points.get(name).ok_or_else(|| format!("BackupPoint {name} is gone"))?;
    if !verified {
        return Err(format!("BackupPoint {name} is not verified"));
    }
    if let Some(Rehearsed { outcome: RehearsalOutcome::Failed, message, .. }) = rehearsed {
        return Err(format!("BackupPoint {name} failed its rehearsal: {message}"));
    }
    let here = world.spec.database.as_ref().map(|database| database.mysql.place());
    if database.is_some() && *database != here {
        return Err(format!("BackupPoint {name} was taken of database {}", database.as_deref().unwrap_or_default()));
    }
    let Some(migrations) = migrations else {
        return Err(format!("BackupPoint {name} does not say which migrations it holds: it was taken by an older Backout"));
    };
    let needed: Vec<u64> = content.migrations.iter().map(|migration| migration.version).collect();
    if *migrations != needed {
        let without = |all: &[u64], others: &[u64]| {
            let left: Vec<String> = all.iter().filter(|one| !others.contains(one)).map(|one| format!("{one:04}")).collect();
            if left.is_empty() { "none".to_owned() } else { left.join(", ") }
        };
        return Err(format!(
            "BackupPoint {name} holds another schema than release {} runs on: it lacks migrations {} and has {} too many",
            target.release,
            without(&needed, migrations),
            without(migrations, &needed)
        ));
    }
    Ok(())
}
