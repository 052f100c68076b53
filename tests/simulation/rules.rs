//! What must hold at every instant of every history, and at its end.

use std::collections::BTreeSet;

use backout::{
    api::{
        operation::{Action, Approval, ApprovalState, Kind, OperationState, Step, StepName, StepState, Tolerated},
        release::{ApprovalPolicy, Method, RollbackTo},
        status::{HistoryEntry, ReleaseState, ReleaseStatus},
    },
    plan::{
        Decision, Verdict,
        input::{Seen, World},
        summary,
    },
};

use super::{
    database::{RowState, Tables},
    driver::Rest,
    model::{Model, REPLICAS, Snapshot, Workload},
};

/// Reasons with which a Release may stop short of what is asked for.
pub const NAMED_STOPS: [&str; 11] = [
    "RollbackLimitReached",
    "Flapping",
    "RolledBack",
    "Quarantined",
    "MissingRollbackTarget",
    "RollbackDisabled",
    "RollbackFailed",
    "RepairFailed",
    "NoWayBack",
    "PreflightFailed",
    "RollbackUndone",
];

const fn destroys(step: StepName) -> bool {
    matches!(step, StepName::Fence | StepName::RevertSchema | StepName::Restore)
}

fn rule(holds: bool, broken: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(broken()) }
}

/// The same world gives the same decision; a quarantined digest is not deployed; only a rollback destroys.
pub fn of_decision(world: &World, decision: &Decision) -> Result<(), String> {
    let Decision::Begin(operation) = decision else {
        return Ok(());
    };
    rule(backout::plan::decide(world) == *decision, || "the same world gave two decisions".to_owned())?;
    let quarantined = world.status.quarantine.iter().any(|entry| entry.digest == operation.digest);
    rule(operation.kind != Kind::Deploy || !quarantined, || format!("{} is quarantined and deployed again", operation.version))?;
    let destructive = operation.steps.iter().any(|step| destroys(step.name));
    rule(matches!(operation.kind, Kind::Rollback | Kind::Undo) || !destructive, || format!("a {:?} would destroy", operation.kind))?;
    rule(operation.steps.iter().all(|step| step.state == StepState::Pending), || "a step was begun before it was recorded".to_owned())
}

/// What is about to run stands in the record as started, in an operation that runs; what takes data away was agreed to.
pub fn of_effect(model: &Model, operation: u64, step: &Step) -> Result<(), String> {
    let recorded = model
        .status
        .operation
        .as_ref()
        .filter(|recorded| recorded.id == operation && recorded.state == OperationState::Running)
        .ok_or_else(|| format!("{} runs, but its operation does not", step.name.as_str()))?;
    let started = recorded.steps.iter().any(|entry| entry.state == StepState::Started && entry.action == step.action);
    rule(started, || format!("{} runs without a Started entry", step.name.as_str()))?;
    let goes_back = matches!(recorded.kind, Kind::Rollback | Kind::Undo);
    let contains =
        step.name == StepName::Fence && recorded.steps.iter().any(|step| step.name == StepName::Migrate && step.state == StepState::Failed);
    rule(!destroys(step.name) || goes_back || contains, || format!("{} runs in a {:?}", step.name.as_str(), recorded.kind))?;
    let (Action::RevertSchema { tolerated, .. } | Action::Restore { tolerated, .. }) = &step.action else {
        return Ok(());
    };
    let agreed = recorded.approval.as_ref().map(|approval| approval.state);
    let open = matches!(agreed, Some(ApprovalState::Approved | ApprovalState::NotNeeded));
    rule(*tolerated == Tolerated::Any || open, || format!("{} runs behind a gate that is {agreed:?}", step.name.as_str()))
}

/// Live tables change only in the steps that change the database, and are replaced only by a swap that keeps them.
pub fn of_replacement(before: &Tables, model: &Model, step: &Step) -> Result<(), String> {
    let live = &model.server.live;
    rule(before.applied == live.applied || step.name.changes_database(), || format!("{} changed the schema", step.name.as_str()))?;
    if before.marker == live.marker {
        return Ok(());
    }
    rule(step.name == StepName::Restore, || format!("{} replaced the live tables", step.name.as_str()))?;
    rule(model.server.asides.values().any(|aside| aside.marker == before.marker && aside.applied == before.applied), || {
        "what was replaced is not kept".to_owned()
    })
}

/// An approval is for one plan and no other; nobody is asked only where the policy lets go what was measured.
pub fn of_grant(read: &Snapshot, approval: &Approval) -> Result<(), String> {
    let Some(operation) = read.running() else {
        return Err("a gate opens without an operation".to_owned());
    };
    match approval.state {
        ApprovalState::Approved => {
            let named = read.approve.as_ref().map(|approval| approval.digest.as_str());
            rule(named == Some(operation.plan.digest.as_str()), || format!("{named:?} opened the gate of {}", operation.plan.digest))
        }
        ApprovalState::NotNeeded => {
            let nothing = operation.loss.as_ref().is_some_and(backout::api::operation::Loss::is_none);
            let any = operation.steps.iter().any(|step| matches!(step.action, Action::Approve { policy: ApprovalPolicy::Never, .. }));
            rule(nothing || any, || format!("nobody was asked about {:?}", operation.loss))
        }
        ApprovalState::Waiting | ApprovalState::Outdated => Err(format!("a gate opens as {:?}", approval.state)),
    }
}

/// A deleted Release leaves nothing half done: what runs has the schema that it needs. A fence is left up only where that is not
/// so, or where nobody can tell.
pub fn of_farewell(model: &Model) -> Result<(), String> {
    let asked = &model.workload.asked;
    let fits = model.server.live.applied.iter().all(|row| row.state != RowState::Failed) && database_fits(model, current(model));
    rule(asked.replicas == REPLICAS || !model.database_seen || !fits, || format!("it is let go with {} replicas", asked.replicas))?;
    if asked.replicas == 0 {
        return Ok(());
    }
    let half_way = model.server.live.applied.iter().any(|row| row.state == RowState::Failed);
    rule(!half_way || !model.database_seen || !model.workloads_seen, || "it is let go with pods on a half-migrated schema".to_owned())?;
    let running = model.kept.values().find(|kept| kept.content.images.get("app") == Some(&asked.image));
    let needed = running.map(|kept| kept.content.migrations.iter().map(|migration| migration.version)).into_iter().flatten();
    let missing: Vec<u64> = needed.filter(|version| model.server.live.applied.iter().all(|row| row.version != *version)).collect();
    rule(missing.is_empty() || half_way, || format!("it is let go with {}, which lacks migrations {missing:?}", asked.image))?;
    rule(model.life == backout::plan::input::Life::Leaving, || "it is let go without having been deleted".to_owned())
}

/// What is deleted for its age is neither the last good point nor one that any known good release could be gone back to with.
pub fn of_expiry(before: &Model, after: &Model) -> Result<(), String> {
    let good = |model: &Model| model.server.points.values().any(|point| point.complete);
    rule(good(after) || !good(before), || "the last good backup point was deleted for its age".to_owned())?;
    for entry in before.status.history.iter().filter(|entry| entry.state == ReleaseState::KnownGood) {
        let (was, is) = (way_back(before, entry.release), way_back(after, entry.release));
        rule(was == is, || format!("the way back to release {} was by {was:?}, and now is by {is:?}", entry.release))?;
    }
    Ok(())
}

/// The point that a restore to the release would use.
fn way_back(model: &Model, release: u64) -> Option<String> {
    let mut world = model.world(&model.snapshot());
    world.spec.rollback_to = Some(RollbackTo { release: Some(release), version: None, backup_point: None });
    world.spec.rollback.database = vec![Method::Restore];
    world.spec.suspend = false;
    world.status.operation = None;
    world.database = Some(Seen::Known(model.server.seen()));
    let Decision::Begin(operation) = backout::plan::decide(&world) else { return None };
    operation.steps.into_iter().find_map(|step| if let Action::Stage { point, .. } = step.action { Some(point) } else { None })
}

/// Numbers go up by one and are given once.
pub fn of_write(before: &ReleaseStatus, after: &ReleaseStatus) -> Result<(), String> {
    for (what, before, after) in [("operation", before.operations, after.operations), ("release", before.releases, after.releases)] {
        rule(after == before || after == before + 1, || format!("the {what} number went from {before} to {after}"))?;
    }
    let id = |status: &ReleaseStatus| status.operation.as_ref().map(|operation| operation.id);
    rule(id(before) == id(after) || id(after) == Some(before.operations + 1), || "an operation's number was used again".to_owned())?;
    let numbers: BTreeSet<u64> = after.history.iter().map(|entry| entry.release).collect();
    rule(numbers.len() == after.history.len(), || "a release number stands twice in the history".to_owned())?;
    let ready = after.conditions.iter().filter(|condition| condition.type_ == "Ready").count();
    rule(ready == 1, || format!("there are {ready} Ready conditions"))
}

/// Deciding again changes nothing; nothing is left fenced in silence; ready is said only of what is true.
pub fn at_rest(model: &Model, mut world: World, read: &Snapshot, verdict: &Verdict) -> Result<(), String> {
    world.status = summary::apply(read.status(), verdict, read.generation, world.now);
    match backout::plan::decide(&world) {
        Decision::Rest { verdict: second, .. } => {
            let twice = summary::apply(world.status.clone(), &second, read.generation, world.now);
            rule(twice == world.status, || "deciding again would write again".to_owned())?;
        }
        decision => {
            return Err(format!("deciding again without a change came to {decision:?}"));
        }
    }
    if world.running().is_some() {
        return Ok(());
    }
    let half_way = model.server.live.applied.iter().any(|row| row.state == RowState::Failed);
    let exposed = half_way && model.workload.asked.replicas > 0 && !world.spec.suspend;
    rule(!exposed, || format!("pods run on a half-migrated schema at {}", verdict.reason))?;
    let silent = verdict.settled() && !verdict.is_stalled() && !world.spec.suspend;
    rule(!silent || model.workload.asked.replicas > 0, || format!("the workload is left fenced at {}", verdict.reason))?;
    rule(!verdict.is_ready() || database_fits(model, world.current()), || "it says ready, but the database is not the release's".to_owned())
}

/// Where a history ends: at what is asked for, or at a stop that has a name.
pub fn at_the_end(model: &Model, rest: &Rest) -> Result<(), String> {
    let Rest::At(verdict) = rest else {
        return Ok(());
    };
    let current = current(model);
    if verdict.is_ready() {
        let asked = match &model.spec.rollback_to {
            Some(pin) => model.status.history.iter().find(|entry| Some(entry.release) == pin.release).map(|entry| entry.digest.clone()),
            None => Some(model.wanted().digest.clone()),
        };
        rule(current.map(|entry| entry.digest.clone()) == asked, || "it is ready with something else than is asked for".to_owned())?;
    } else {
        rule(NAMED_STOPS.contains(&verdict.reason), || format!("it ends with {}: {}", verdict.reason, verdict.message))?;
    }
    if verdict.is_ready() || verdict.reason == "RolledBack" {
        rule(database_fits(model, current), || "the database does not fit the release that runs".to_owned())?;
        let image = current.and_then(|entry| model.kept.get(&entry.release)).and_then(|kept| kept.content.images.get("app"));
        rule(image == Some(&model.workload.there.image), || "another image runs than the release's".to_owned())?;
    }
    let Workload { there, served, .. } = &model.workload;
    rule(verdict.is_stalled() || there.replicas == REPLICAS, || format!("{} replicas run at {}", there.replicas, verdict.reason))?;
    let whole = served.iter().all(|row| row.state == RowState::Applied);
    let as_it_was = whole && *served == model.server.live.applied;
    rule(there.replicas > 0 || !as_it_was, || format!("the application is down at {} on the schema that it ran on", verdict.reason))
}

fn current(model: &Model) -> Option<&HistoryEntry> {
    model.status.history.iter().find(|entry| Some(entry.release) == model.status.release)
}

fn database_fits(model: &Model, current: Option<&HistoryEntry>) -> bool {
    let Some(kept) = current.and_then(|entry| model.kept.get(&entry.release)) else {
        return true;
    };
    let applied: Vec<u64> = model.server.live.applied.iter().map(|row| row.version).collect();
    let needed: Vec<u64> = kept.content.migrations.iter().map(|migration| migration.version).collect();
    applied == needed && model.server.live.applied.iter().all(|row| row.state == RowState::Applied)
}
