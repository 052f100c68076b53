//! A schema that stands half way: the migration that left it failed, MySQL and MariaDB take no DDL back, and nothing may run on it.
//!
//! The operation puts up a fence before it ends, because whether a way back can be begun is not known yet, and may never be. The
//! way back takes that fence over; where there is none, it stays up until the database is what some release runs on.

use std::collections::BTreeSet;

use super::{
    Decision, Verdict, course, exact,
    input::{Seen, World},
    journal, rollback, target,
};
use crate::api::operation::{Operation, OperationState, StepName, StepState};

/// What an operation whose migration failed does before it ends. `None`: nothing, or nothing more.
pub fn before_the_end(world: &World, operation: &Operation) -> Option<Decision> {
    if !migration_failed(operation) {
        return None;
    }
    if let Some((index, fence)) = operation.steps.iter().enumerate().find(|(_, step)| step.name == StepName::Fence) {
        return match (fence.state, fence.retry_at) {
            (StepState::Done | StepState::Failed, _) => None,
            (StepState::Pending | StepState::Started, Some(at)) if at > world.now => Some(course::pause(world, operation, at)),
            (StepState::Pending | StepState::Started, _) => Some(Decision::Run { step: index }),
        };
    }
    // What is named now need not be what the migration was run on.
    if journal::open_fence(&world.status).is_some() || course::moved(world, operation).is_some() {
        return None;
    }
    let unseen = match &world.database {
        None => return Some(Decision::LookAtDatabase),
        Some(Seen::Known(database)) if database.is_whole() => return None,
        Some(Seen::Known(_)) => match rollback::scales(world) {
            Ok(workloads) => return Some(Decision::Contain { workloads }),
            Err(unseen) => unseen,
        },
        Some(Seen::Unknown(unseen)) => {
            target::rest(world, Verdict::stopped_and_unseen(operation, "whether the schema stands half way can't be told", unseen))
        }
    };
    // Whoever asks to decide anew is not kept waiting.
    target::reset(world).is_none().then_some(unseen)
}

/// A rest after a migration that failed: what was deployed comes back where the database fits it, else people are told what stands
/// half way, and whether pods run on it.
pub fn at_rest(world: &World, decision: Decision) -> Decision {
    let last = world.status.operation.as_ref();
    let failed = last.filter(|last| last.state != OperationState::Succeeded && migration_failed(last));
    let (verdict, again, failed) = match (decision, failed) {
        (Decision::Rest { verdict, again }, Some(failed)) => (verdict, again, failed),
        (decision, _) => return decision,
    };
    let fenced = journal::fence_of(failed).is_some();
    let hands_off = world.spec.suspend || !world.rivals.is_empty();
    let current = world.current().filter(|_| fenced && !hands_off);
    match current.and_then(|current| target::bring_up(world, current)) {
        Some(Decision::Rest { .. }) | None => {}
        Some(decision) => return decision,
    }
    let troubles = match &world.database {
        _ if world.spec.database.is_none() => Vec::new(),
        None => return Decision::LookAtDatabase,
        Some(Seen::Unknown(_)) => Vec::new(),
        Some(Seen::Known(database)) => database.troubles(),
    };
    let verdict = match (troubles.is_empty(), fenced) {
        (true, false) => verdict,
        (true, true) => verdict.fenced(world, &exact::fence(world)),
        (false, true) => verdict.fenced(world, &format!("{}; {}", troubles.join("; "), exact::fence(world))),
        (false, false) => verdict.and(&format!("{}, and {}", troubles.join("; "), exposed(world))),
    };
    Decision::Rest { verdict, again }
}

/// Whether its record leaves it open what the schema is.
fn migration_failed(operation: &Operation) -> bool {
    operation.steps.iter().any(|step| step.name == StepName::Migrate && step.state == StepState::Failed)
}

/// Pods run on it, and Backout does not stop them.
fn exposed(world: &World) -> String {
    let workloads = &world.spec.target.kubernetes.workloads;
    let names: BTreeSet<String> = workloads.iter().map(|workload| format!("deployment/{}", workload.name)).collect();
    format!(
        "the workloads run on it: until it can be put right, they can be stopped with kubectl -n {} scale --replicas=0 {}",
        world.namespace,
        Vec::from_iter(names).join(" ")
    )
}
