//! Housekeeping at rest: replaced tables whose time has passed, and shadows that nothing will swap in any more, are dropped.

use std::time::Duration;

use super::{
    Decision,
    input::World,
    report::{self, Aim, Draft},
};
use crate::api::{
    operation::{Action, Kind, OperationState, Ownership},
    status::HistoryEntry,
};

/// After a failed clean-up the next is not tried at once: nothing waits for it.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(3600);

/// The clean-up that is due, if any.
pub fn due(world: &World, current: &HistoryEntry) -> Option<Decision> {
    world.spec.database.as_ref()?;
    let failed_lately = world.status.operation.as_ref().is_some_and(|operation| {
        operation.kind == Kind::Cleanup
            && operation.state == OperationState::Failed
            && operation
                .finished_at
                .is_some_and(|at| Duration::try_from(world.now.duration_since(at)).unwrap_or_default() < PAUSE_AFTER_FAILURE)
    });
    if failed_lately {
        return None;
    }
    let expired = world.status.asides.iter().filter(|aside| aside.until <= world.now).map(|aside| aside.schema.clone());
    let schemas: Vec<String> = world.status.shadows.iter().cloned().chain(expired).collect();
    if schemas.is_empty() {
        return None;
    }
    Some(report::begin(
        world,
        Draft {
            kind: Kind::Cleanup,
            aim: Aim::from(current),
            cause: format!("{} not needed any more", if schemas.len() == 1 { "a schema is" } else { "schemas are" }),
            // Who reads the status must still see what the last rollback answered.
            remediates: world.status.operation.as_ref().and_then(|operation| operation.remediates),
            undoes: None,
            why: "spec.rollback.keepAside has passed, or the rollback that loaded it was given up".to_owned(),
            not_chosen: Vec::new(),
            actions: vec![Action::Discard { schemas, ownership: Ownership::Kept }],
        },
    ))
}
