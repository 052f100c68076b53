//! Rollback: go back to a known good release by the first way that is possible, doing only what differs.

use super::{
    Decision, Verdict,
    input::{DatabaseSeen, Seen, World},
    journal, safety,
    target::{asked_digest, rest},
};
use crate::api::{
    Content, names,
    operation::{Action, Kind, Operation, OperationState, Revert, Scale, Use},
    release::Method,
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
    let way = match (&world.spec.database, &world.database) {
        (None, _) => Way::Nothing,
        (Some(_), None) => return Decision::LookAtDatabase,
        (Some(_), Some(Seen::Unknown(unseen))) => return rest(world, Verdict::unseen(unseen)),
        (Some(_), Some(Seen::Known(database))) => match choose(world, database, target, &kept.content, &why.methods) {
            Ok(way) => way,
            Err(reasons) => return rest(world, Verdict::no_way_back(target, &reasons)),
        },
    };
    let scales = match &world.workloads {
        Seen::Unknown(unseen) => return rest(world, Verdict::unseen(unseen)),
        Seen::Known(workloads) => journal::open_fence(&world.status).unwrap_or_else(|| {
            workloads.iter().map(|workload| Scale { name: workload.name.clone(), replicas: workload.replicas }).collect()
        }),
    };

    Decision::Begin(Box::new(Operation {
        id: world.status.operations + 1,
        kind: Kind::Rollback,
        state: OperationState::Running,
        cause: why.cause.clone(),
        remediates: why.remediates,
        from: world.status.release,
        to: target.release,
        version: target.version.clone(),
        digest: target.digest.clone(),
        revision: target.revision.clone(),
        wanted: asked_digest(world),
        generation: world.generation,
        started_at: world.now,
        finished_at: None,
        steps: journal::pending_steps(actions(world, target, way, scales)),
    }))
}

/// How the database is taken back.
enum Way {
    /// The target's migrations are those applied.
    Nothing,
    RevertSchema(Vec<Revert>),
    Restore {
        point: String,
    },
}

fn actions(world: &World, target: &HistoryEntry, way: Way, scales: Vec<Scale>) -> Vec<Action> {
    let release = target.release;
    let operation = world.status.operations + 1;
    let fence_was_left = journal::open_fence(&world.status).is_some();
    let mut actions = Vec::new();
    // Up already: taken over first, so that giving way at Preflight can't forget it.
    if fence_was_left && !matches!(way, Way::Nothing) {
        actions.push(Action::Fence { workloads: scales.clone() });
    }
    actions.push(Action::Preflight {
        release,
        migrations: Vec::new(),
        database: match way {
            Way::Nothing => Use::Untouched,
            Way::RevertSchema(_) | Way::Restore { .. } => Use::Needed,
        },
        cache: if world.spec.cache.is_some() { Use::Needed } else { Use::Untouched },
    });
    // The fence stands only while the database changes under the application; a shadow is loaded beside it before.
    let fenced = match (way, &world.spec.database) {
        (Way::Nothing, _) | (_, None) => None,
        (Way::RevertSchema(migrations), Some(_)) => Some((None, Action::RevertSchema { migrations })),
        (Way::Restore { point }, Some(database)) => {
            let shadow = names::shadow(&database.mysql.name, &world.uid, operation);
            let aside = names::aside(&database.mysql.name, &world.uid, operation);
            Some((Some(Action::Stage { point: point.clone(), shadow: shadow.clone() }), Action::Restore { point, shadow, aside, release }))
        }
    };
    let unfence = (fenced.is_some() || fence_was_left).then(|| Action::Unfence { workloads: scales.clone() });
    if let Some((stage, change)) = fenced {
        actions.extend(stage);
        if !fence_was_left {
            actions.push(Action::Fence { workloads: scales });
        }
        actions.push(change);
    }
    actions.push(Action::Deploy { release });
    if let Some(cache) = &world.spec.cache {
        actions.push(Action::FlushCache { prefix: cache.flush.prefix.clone() });
    }
    actions.extend(unfence);
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
) -> Result<Way, Vec<String>> {
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
    let half_way: Vec<String> = database.applied.iter().filter_map(|applied| applied.trouble.clone()).collect();
    if extra.is_empty() && missing.is_empty() && half_way.is_empty() {
        return Ok(Way::Nothing);
    }

    let mut reasons = Vec::new();
    for method in methods {
        let possible = match method {
            Method::RevertSchema => revert(world, database, &extra, &missing, &half_way).map(Way::RevertSchema),
            Method::Restore => restore(world, database, target, content).map(|point| Way::Restore { point }),
        };
        match possible {
            Ok(way) => return Ok(way),
            Err(reason) => reasons.push(reason),
        }
    }
    if methods.is_empty() {
        reasons.push("spec.rollback.database leaves no way to take the database back".to_owned());
    }
    Err(reasons)
}

/// Every migration to undo has its down script in a kept release; newest first.
fn revert(world: &World, database: &DatabaseSeen, extra: &[u64], missing: &[String], half_way: &[String]) -> Result<Vec<Revert>, String> {
    if !half_way.is_empty() {
        return Err(format!("RevertSchema: {}", half_way.join("; ")));
    }
    if !missing.is_empty() {
        return Err(format!("RevertSchema: the target needs migrations that are not applied: {}", missing.join(", ")));
    }
    if !database.missing_grants.is_empty() {
        return Err(format!("RevertSchema: {}", safety::grants(&database.missing_grants)));
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
    if !database.missing_grants.is_empty() {
        return Err(format!("Restore: {}", safety::grants(&database.missing_grants)));
    }
    if !database.uncarried.is_empty() {
        return Err(format!("Restore: a backup point can't carry {}", database.uncarried.join(", ")));
    }
    // A release that was taken back before no longer shapes what is live: its point would be too old.
    let name = world
        .status
        .history
        .iter()
        .filter(|entry| entry.release > target.release && entry.undone_at.is_none())
        .filter_map(|entry| entry.backup_point.as_ref().map(|point| (entry.release, point)))
        .min_by_key(|(release, _)| *release)
        .map(|(_, point)| point)
        .ok_or_else(|| format!("Restore: no release since {} has a backup point", target.release))?;
    let point = world.points.get(name).ok_or_else(|| format!("Restore: BackupPoint {name} is gone"))?;
    if !point.verified {
        return Err(format!("Restore: BackupPoint {name} is not verified"));
    }
    let needed = content.migrations.last().map(|migration| migration.version);
    if point.schema_version != needed {
        let shown = |version: Option<u64>| version.map_or_else(|| "none".to_owned(), |version| format!("{version:04}"));
        return Err(format!(
            "Restore: BackupPoint {name} holds schema version {}, but release {} needs {}",
            shown(point.schema_version),
            target.release,
            shown(needed)
        ));
    }
    Ok(name.clone())
}
