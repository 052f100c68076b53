//! After the point of no return: exactly what stands, and the commands to choose from.

use super::{
    input::{Seen, World},
    journal,
};
use crate::api::{
    names,
    operation::{Action, Operation, Revert, StepName, StepState},
    status::ReleaseState,
};

/// Whether the record alone does not say what the database is: a step that changes it was begun and did not end well.
pub fn depends_on_database(operation: &Operation) -> bool {
    operation.steps.iter().any(|step| step.name.changes_database() && matches!(step.state, StepState::Started | StepState::Failed))
}

/// What runs, and whose data are live.
pub fn state(world: &World, operation: &Operation) -> String {
    format!("{}; {}", fence(world), data(world, operation))
}

/// Whether pods run.
pub fn fence(world: &World) -> String {
    let mut last = world.status.operation.iter().flat_map(|operation| &operation.steps);
    let in_doubt = last.any(|step| step.name == StepName::Fence && step.state == StepState::Failed);
    match journal::open_fence(&world.status) {
        Some(workloads) => {
            let scales: Vec<String> = workloads.iter().map(|scale| format!("{} (had {})", scale.name, scale.replicas)).collect();
            let scales = scales.join(", ");
            if in_doubt {
                format!("the fence could not be put up: pods may still run of {scales}")
            } else {
                format!("the fence is up: no pod runs of {scales}")
            }
        }
        None => "the fence is down: the workloads are scaled as they were".to_owned(),
    }
}

fn data(world: &World, operation: &Operation) -> String {
    let begun = operation.steps.iter().rev().find(|step| step.name.changes_database() && step.state != StepState::Pending);
    match begun.map(|step| (&step.action, step.state)) {
        Some((Action::Restore { point, aside, .. }, state)) => match swapped(world, operation, state) {
            Swapped::Yes => format!("the live tables are those of {point}, and those that they replaced are kept in schema {aside}"),
            Swapped::No => "the live tables are those from before: they were not replaced".to_owned(),
            Swapped::Unseen => format!("whether {point} replaced the live tables can't be seen while the database is away"),
        },
        Some((Action::RevertSchema { migrations, .. }, StepState::Done)) => format!("the down scripts of {} were run", labels(migrations)),
        Some((Action::RevertSchema { migrations, .. }, _)) => match &world.database {
            Some(Seen::Known(database)) => {
                let troubles = database.troubles();
                let left: Vec<String> = database.applied.iter().map(|applied| format!("{:04}", applied.version)).collect();
                let left = if left.is_empty() { "none".to_owned() } else { left.join(", ") };
                let half_way = if troubles.is_empty() { String::new() } else { format!(", and {}", troubles.join("; ")) };
                format!("of the down scripts of {} not all were run: migrations applied now are {left}{half_way}", labels(migrations))
            }
            Some(Seen::Unknown(_)) | None => {
                format!("how many of the down scripts of {} were run can't be seen while the database is away", labels(migrations))
            }
        },
        Some(_) | None => "the database was not changed".to_owned(),
    }
}

fn labels(migrations: &[Revert]) -> String {
    migrations.iter().map(|revert| format!("{:04}", revert.migration)).collect::<Vec<_>>().join(", ")
}

enum Swapped {
    Yes,
    No,
    Unseen,
}

/// The live tables name the operation that put them there.
fn swapped(world: &World, operation: &Operation, state: StepState) -> Swapped {
    match (state, &world.database) {
        (StepState::Done, _) => Swapped::Yes,
        (_, Some(Seen::Known(database))) => {
            let ours = names::operation(&world.uid, operation.id);
            if database.swapped_by.as_deref() == Some(ours.as_str()) { Swapped::Yes } else { Swapped::No }
        }
        (_, Some(Seen::Unknown(_)) | None) => Swapped::Unseen,
    }
}

/// What a person can do, each as a command.
pub fn choices(world: &World, operation: &Operation) -> String {
    let World { namespace, name, .. } = world;
    let annotate = |what: &str| format!("kubectl -n {namespace} annotate --overwrite release/{name} {what}");
    let mut choices = vec![format!("mend what it names and try again: {}", annotate(&format!("{}=\"$(date +%s)\"", names::RESET_AT)))];
    let others = world.status.history.iter().filter(|entry| entry.state == ReleaseState::KnownGood && entry.release != operation.to);
    if let Some(other) = others.max_by_key(|entry| entry.release) {
        choices.push(format!(
            "run another known good release: kubectl -n {namespace} patch release {name} --type merge -p '{{\"spec\":{{\"rollbackTo\":{{\"release\":{}}}}}}}'",
            other.release
        ));
    }
    let restored = operation.steps.iter().find(|step| matches!(step.action, Action::Restore { .. }));
    if restored.is_some_and(|step| matches!(swapped(world, operation, step.state), Swapped::Yes)) {
        choices.push(format!("bring back the tables that were replaced: {}", annotate(&format!("{}={}", names::UNDO, operation.id))));
    }
    choices.push("or push a fix".to_owned());
    choices.join("; ")
}
