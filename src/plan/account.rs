//! The account of what Backout made and keeps: backup points, shadows, replaced tables, and which releases shape what is live.
//! It follows from the steps that are done.

use jiff::Timestamp;

use super::journal::{after, began_down, mark};
use crate::api::{
    operation::Action,
    status::{Aside, HistoryEntry, ReleaseState, ReleaseStatus},
};

/// What a step that is done adds to the things of which Backout keeps account, or takes from them.
pub fn done(status: &mut ReleaseStatus, action: &Action, to: u64, now: Timestamp) {
    match action {
        Action::BackUp { point, .. } => {
            status.last_backup_point = Some(point.clone());
            mark(status, to, |entry| entry.backup_point = Some(point.clone()));
        }
        Action::Restore { shadow, aside, keep, .. } => {
            live_again(status, shadow);
            let operation = status.operation.as_ref();
            let entry = Aside {
                schema: aside.clone(),
                operation: operation.map_or(0, |operation| operation.id),
                from: operation.filter(|operation| !began_down(operation)).and_then(|operation| operation.from),
                to,
                at: now,
                until: after(now, keep.0).unwrap_or(now),
            };
            status.shadows.retain(|schema| schema != shadow);
            status.asides.retain(|aside| aside.schema != *shadow && aside.schema != entry.schema);
            status.asides.insert(0, entry);
        }
        Action::Discard { schemas, .. } => {
            status.shadows.retain(|schema| !schemas.contains(schema));
            status.asides.retain(|aside| !schemas.contains(&aside.schema));
        }
        Action::Keep { .. }
        | Action::Preflight { .. }
        | Action::Migrate { .. }
        | Action::Deploy { .. }
        | Action::FlushCache { .. }
        | Action::Verify { .. }
        | Action::Bake { .. }
        | Action::Stage { .. }
        | Action::Fence { .. }
        | Action::Approve { .. }
        | Action::RevertSchema { .. }
        | Action::Unfence { .. } => {}
    }
}

/// Replaced tables were swapped back: the releases that had shaped them, and that were taken back with them, are not undone any
/// more.
fn live_again(status: &mut ReleaseStatus, schema: &str) {
    let Some(replaced) = status.asides.iter().find(|aside| aside.schema == schema).cloned() else { return };
    let shaped = |entry: &&mut HistoryEntry| entry.release > replaced.to && entry.started_at < replaced.at;
    for entry in status.history.iter_mut().filter(shaped).filter(|entry| entry.undone_at >= Some(replaced.at)) {
        entry.undone_at = None;
        if entry.state == ReleaseState::Undone {
            entry.state = if entry.verified_at.is_some() { ReleaseState::KnownGood } else { ReleaseState::Superseded };
        }
    }
}
