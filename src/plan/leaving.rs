//! A Release that is deleted: what it began is brought to a safe end, what it holds is freed, and the user's data stay.
//!
//! Nothing waits for ever: a step that can't go on, because a Secret is gone with its namespace or a database is away, is given
//! up after a few tries.

use super::{
    Decision, course,
    input::World,
    journal,
    report::{self, Aim, Draft},
};
use crate::api::{
    operation::{Action, Kind, Operation, OperationState, Ownership, Step, StepName, StepState},
    status::ReleaseStatus,
};

/// Tries of a step before a deleted Release goes on without it: half a minute of pauses.
const TRIES: u32 = 5;

/// The next thing to do on the way out.
pub fn next(world: &World) -> Decision {
    match &world.status.operation {
        Some(operation) if operation.state == OperationState::Running => finish(world, operation),
        Some(operation) if operation.kind == Kind::Leave => Decision::Farewell,
        Some(_) | None => begin(world),
    }
}

/// Brings the operation that runs to an end: at once where it only prepares, else when the database is in one piece.
fn finish(world: &World, operation: &Operation) -> Decision {
    let Some((index, step)) = operation.steps.iter().enumerate().find(|(_, step)| step.state != StepState::Done) else {
        return Decision::Close(OperationState::Succeeded);
    };
    if step.state == StepState::Failed {
        return Decision::Close(OperationState::Failed);
    }
    let goes_on = match operation.kind {
        Kind::Leave => true,
        Kind::Deploy => step.state == StepState::Started && step.name.changes_database(),
        Kind::Rollback | Kind::Restore | Kind::Undo => {
            journal::has_changed_things(operation) && !matches!(step.name, StepName::Approve | StepName::FlushCache | StepName::Verify)
        }
        Kind::Repair | Kind::Cleanup => false,
    };
    if !goes_on || is_stuck(step) {
        // What a half-done operation leaves is put right by the one that begins next.
        return Decision::Close(if operation.kind == Kind::Leave { OperationState::Failed } else { OperationState::Superseded });
    }
    match step.retry_at {
        Some(at) if at > world.now => course::pause(world, operation, at),
        Some(_) | None => Decision::Run { step: index },
    }
}

fn is_stuck(step: &Step) -> bool {
    step.retry_at.is_some() && step.attempt >= TRIES
}

/// Takes down a fence, drops shadows, and lets another Release have the database.
fn begin(world: &World) -> Decision {
    let mut actions = Vec::new();
    if let Some(workloads) = journal::open_fence(&world.status) {
        // The database is already that of the release it led to: only that may run on it.
        actions.extend(swapped_to(&world.status).map(|release| Action::Deploy { release }));
        actions.push(Action::Unfence { workloads });
    }
    if world.spec.database.is_some() && world.status.operations > 0 {
        actions.push(Action::Discard { schemas: world.status.shadows.clone(), ownership: Ownership::Released });
    }
    if actions.is_empty() {
        return Decision::Farewell;
    }
    let Some(current) = world.current().or_else(|| world.status.history.first()) else {
        return Decision::Farewell;
    };
    report::begin(
        world,
        Draft {
            kind: Kind::Leave,
            aim: Aim::from(current),
            cause: "the Release was deleted".to_owned(),
            remediates: None,
            undoes: None,
            why: "what it holds is freed; live tables, backup points and replaced tables stay".to_owned(),
            not_chosen: Vec::new(),
            actions,
        },
    )
}

/// The release that the live tables belong to since the last operation, where it changed them and did not come to deploying.
fn swapped_to(status: &ReleaseStatus) -> Option<u64> {
    let operation = status.operation.as_ref()?;
    let changed = operation.steps.iter().any(|step| step.name.changes_database() && step.state == StepState::Done);
    let deploys = operation.steps.iter().any(|step| step.name == StepName::Deploy);
    (changed && deploys && operation.kind != Kind::Deploy).then_some(operation.to)
}
