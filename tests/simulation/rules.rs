//! What must hold at every instant of every history, and at its end.

use std::collections::BTreeSet;

use backout::{
    api::{
        operation::{Kind, OperationState, Step, StepName, StepState},
        status::{HistoryEntry, ReleaseStatus},
    },
    plan::{Decision, Verdict, input::World, summary},
};

use super::model::{Database, Model, REPLICAS, Snapshot};

/// Reasons with which a Release may stop short of what is asked for.
const NAMED_STOPS: [&str; 10] = [
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
];

const fn destroys(step: StepName) -> bool {
    matches!(step, StepName::Fence | StepName::RevertSchema | StepName::Restore)
}

fn rule(holds: bool, broken: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(broken()) }
}

/// The same world gives the same decision; a quarantined digest is not deployed; only a rollback destroys.
pub fn of_decision(world: &World, decision: &Decision) -> Result<(), String> {
    let Decision::Begin(operation) = decision else { return Ok(()) };
    rule(backout::plan::decide(world) == *decision, || "the same world gave two decisions".to_owned())?;
    let quarantined = world.status.quarantine.iter().any(|entry| entry.digest == operation.digest);
    rule(operation.kind != Kind::Deploy || !quarantined, || format!("{} is quarantined and deployed again", operation.version))?;
    let destructive = operation.steps.iter().any(|step| destroys(step.name));
    rule(operation.kind == Kind::Rollback || !destructive, || format!("a {:?} would destroy", operation.kind))?;
    rule(operation.steps.iter().all(|step| step.state == StepState::Pending), || "a step was begun before it was recorded".to_owned())
}

/// What is about to run stands in the record as started, in an operation that runs.
pub fn of_effect(status: &ReleaseStatus, operation: u64, step: &Step) -> Result<(), String> {
    let recorded = status
        .operation
        .as_ref()
        .filter(|recorded| recorded.id == operation && recorded.state == OperationState::Running)
        .ok_or_else(|| format!("{} runs, but its operation does not", step.name.as_str()))?;
    let started = recorded.steps.iter().any(|entry| entry.state == StepState::Started && entry.action == step.action);
    rule(started, || format!("{} runs without a Started entry", step.name.as_str()))?;
    rule(!destroys(step.name) || recorded.kind == Kind::Rollback, || format!("{} runs outside a rollback", step.name.as_str()))
}

/// Live tables are replaced only by a swap that keeps them.
pub fn of_replacement(before: &Database, model: &Model, step: &Step) -> Result<(), String> {
    if before.marker == model.live.marker {
        return Ok(());
    }
    rule(step.name == StepName::Restore, || format!("{} replaced the live tables", step.name.as_str()))?;
    rule(model.asides.values().any(|aside| aside == before), || "what was replaced is not kept".to_owned())
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
    world.status = summary::apply(read.status.clone(), verdict, read.generation, world.now);
    match backout::plan::decide(&world) {
        Decision::Rest { verdict: second, .. } => {
            let twice = summary::apply(world.status.clone(), &second, read.generation, world.now);
            rule(twice == world.status, || "deciding again would write again".to_owned())?;
        }
        decision => return Err(format!("deciding again without a change came to {decision:?}")),
    }
    if world.running().is_some() {
        return Ok(());
    }
    let silent = verdict.settled() && !verdict.is_stalled() && !world.spec.suspend;
    rule(!silent || model.workload.asked.replicas > 0, || format!("the workload is left fenced at {}", verdict.reason))?;
    rule(!verdict.is_ready() || database_fits(model, world.current()), || "it says ready, but the database is not the release's".to_owned())
}

/// Where a history ends: at what is asked for, or at a stop that has a name.
pub fn at_the_end(model: &Model, verdict: &Verdict) -> Result<(), String> {
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
    rule(verdict.is_stalled() || model.workload.there.replicas == REPLICAS, || {
        format!("{} replicas run at {}", model.workload.there.replicas, verdict.reason)
    })
}

fn current(model: &Model) -> Option<&HistoryEntry> {
    model.status.history.iter().find(|entry| Some(entry.release) == model.status.release)
}

fn database_fits(model: &Model, current: Option<&HistoryEntry>) -> bool {
    let Some(kept) = current.and_then(|entry| model.kept.get(&entry.release)) else { return true };
    let applied: Vec<u64> = model.live.applied.iter().map(|applied| applied.version).collect();
    let needed: Vec<u64> = kept.content.migrations.iter().map(|migration| migration.version).collect();
    applied == needed && model.live.applied.iter().all(|applied| applied.trouble.is_none())
}
