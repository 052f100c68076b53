//! A Release that is deleted: what it began is brought to a safe end, what it holds is freed, and the user's data stay.
//!
//! Nothing waits for ever: a step that can't go on, because a Secret is gone with its namespace or a database is away, is given
//! up after a few tries.

use std::time::Duration;

use super::{
    Decision, Verdict, containment, course, drift,
    input::{Seen, World},
    journal,
    report::{self, Aim, Draft},
};
use crate::api::{
    operation::{Action, Kind, Operation, OperationState, Ownership, Step, StepName, StepState},
    status::{HistoryEntry, ReleaseStatus},
};

/// Tries of a step before a deleted Release goes on without it: half a minute of pauses.
const TRIES: u32 = 5;
/// So long a database is looked for before the fence in front of it is left up: longer, and whoever deletes waits for nothing.
const PATIENCE: Duration = Duration::from_secs(30);
/// A database that was there a moment ago may be back in the next.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// The next thing to do on the way out.
pub fn next(world: &World) -> Decision {
    match &world.status.operation {
        // A record that can't be gone on from counts as ended: what it held is freed all the same.
        Some(operation) if operation.state == OperationState::Running && journal::legal(operation).is_ok() => finish(world, operation),
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
        return after_failed_step(world, operation);
    }
    let goes_on = match operation.kind {
        Kind::Leave => true,
        Kind::Deploy => step.state == StepState::Started && step.name.changes_database(),
        Kind::Rollback | Kind::Restore | Kind::Undo => {
            journal::has_changed_things(operation) && !matches!(step.name, StepName::Approve | StepName::FlushCache | StepName::Verify)
        }
        Kind::Repair | Kind::Cleanup | Kind::Backup | Kind::Rehearse => false,
    };
    if operation.kind == Kind::Leave
        && let Some(decision) = kept_fenced(world, operation, step)
    {
        return decision;
    }
    if !goes_on || is_stuck(step) {
        // What a half-done operation leaves is put right by the one that begins next.
        return Decision::Close(if operation.kind == Kind::Leave { OperationState::Failed } else { OperationState::Superseded });
    }
    match step.retry_at {
        Some(at) if at > world.now => course::pause(world, operation, at),
        Some(_) | None => Decision::Run { step: index },
    }
}

/// A half-migrated schema is fenced off here as well, where it can be looked at: whoever deletes does not wait for what can't be seen.
fn after_failed_step(world: &World, operation: &Operation) -> Decision {
    let fence = operation.steps.iter().find(|step| step.name == StepName::Fence);
    match containment::before_the_end(world, operation).filter(|_| !fence.is_some_and(is_stuck)) {
        Some(Decision::Rest { .. }) if fence.is_none() => Decision::Close(OperationState::Failed),
        Some(decision) => decision,
        None => Decision::Close(OperationState::Failed),
    }
}

fn is_stuck(step: &Step) -> bool {
    step.retry_at.is_some() && step.attempt >= TRIES
}

/// Drops shadows, lets another Release have the database, and takes down a fence, where what runs then fits the database.
fn begin(world: &World) -> Decision {
    let mut actions = Vec::new();
    if world.spec.database.is_some() && world.status.operations > 0 {
        actions.push(Action::Discard { schemas: world.status.shadows.clone(), ownership: Ownership::Released });
    }
    if let Some(workloads) = journal::open_fence(&world.status) {
        let unfence = Action::Unfence { workloads };
        let deploy = |release: Option<u64>| release.map(|release| Action::Deploy { release });
        let opened = match fitting(world) {
            Fit::Unseen if world.database.is_none() => return Decision::LookAtDatabase,
            Fit::Runs(release) => Some(deploy(release).into_iter().chain([unfence.clone()])),
            Fit::Nothing | Fit::Unseen => None,
        };
        match opened {
            Some(opened) => drop(actions.splice(..0, opened)),
            // The database is asked again once the step before has reached it; until then the fence is not forgotten.
            None => actions.extend(deploy(swapped_to(&world.status)).into_iter().chain([unfence])),
        }
    }
    if actions.is_empty() {
        return Decision::Farewell;
    }
    let deployed = actions.iter().find_map(|action| if let Action::Deploy { release } = action { world.entry(*release) } else { None });
    let Some(aim) = deployed.or_else(|| world.current()).or_else(|| world.status.history.first()) else {
        return Decision::Farewell;
    };
    report::begin(
        world,
        Draft {
            kind: Kind::Leave,
            aim: Aim::from(aim),
            cause: "the Release was deleted".to_owned(),
            remediates: None,
            undoes: None,
            why: "what it holds is freed; live tables, backup points and replaced tables stay".to_owned(),
            not_chosen: Vec::new(),
            actions,
        },
    )
}

/// What can run on the database as it is.
enum Fit {
    /// The release that is deployed, or this one once it is deployed.
    Runs(Option<u64>),
    Nothing,
    Unseen,
}

/// The release that the last operation led to, where the record says that the database is its; else the one that is deployed,
/// and then the other of the two. Which of them fits the database says, not the record.
fn fitting(world: &World) -> Fit {
    let swapped = swapped_to(&world.status);
    let database = match (&world.spec.database, &world.database) {
        (None, _) => return Fit::Runs(swapped),
        (Some(_), None | Some(Seen::Unknown(_))) => return Fit::Unseen,
        (Some(_), Some(Seen::Known(database))) => database,
    };
    let fits = |entry: &&HistoryEntry| drift::database_fits(world, database, entry);
    if let Some(entry) = swapped.and_then(|release| world.entry(release)).filter(fits) {
        return Fit::Runs(Some(entry.release));
    }
    if world.current().filter(fits).is_some() {
        return Fit::Runs(None);
    }
    let aim = world.status.operation.as_ref().and_then(|operation| world.entry(operation.to));
    aim.filter(fits).map_or(Fit::Nothing, |entry| Fit::Runs(Some(entry.release)))
}

/// Before an application is let loose on the database: what has been done since it was planned may have changed what fits. Where
/// nothing fits, or the database can't be seen for a while, the fence stays up.
fn kept_fenced(world: &World, operation: &Operation, step: &Step) -> Option<Decision> {
    if step.state != StepState::Pending || !matches!(step.name, StepName::Deploy | StepName::Unfence) || world.spec.database.is_none() {
        return None;
    }
    let runs = world.entry(operation.to);
    match &world.database {
        None => Some(Decision::LookAtDatabase),
        Some(Seen::Unknown(unseen)) if world.now.duration_since(operation.started_at).unsigned_abs() < PATIENCE => {
            Some(Decision::Rest { verdict: Verdict::unseen(unseen), again: LOOK_AGAIN })
        }
        Some(Seen::Known(database)) if runs.is_some_and(|entry| drift::database_fits(world, database, entry)) => None,
        Some(Seen::Known(_) | Seen::Unknown(_)) => Some(Decision::Close(OperationState::Failed)),
    }
}

/// The release that the live tables belong to since the last operation, where it changed them and did not come to deploying.
fn swapped_to(status: &ReleaseStatus) -> Option<u64> {
    let operation = status.operation.as_ref()?;
    let changed = operation.steps.iter().any(|step| step.name.changes_database() && step.state == StepState::Done);
    let deploys = operation.steps.iter().any(|step| step.name == StepName::Deploy);
    (changed && deploys && operation.kind != Kind::Deploy).then_some(operation.to)
}
