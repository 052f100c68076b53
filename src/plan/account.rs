//! The account of what Backout made and keeps: backup points, shadows, replaced tables, and which releases shape what is live.
//! It follows from the steps that were begun and that are done.

use jiff::Timestamp;

use super::journal::{after, began_down, mark};
use crate::api::{
    Span,
    backup_point::PointReason,
    operation::{Action, Staged},
    status::{Aside, AsideState, HistoryEntry, ReleaseState, ReleaseStatus},
};

/// A schema that a step is about to make is accounted for before it is there: a step that fails after that must not leave it
/// where nobody looks.
pub fn begun(status: &mut ReleaseStatus, action: &Action, now: Timestamp) {
    match action {
        Action::Stage { shadow, .. }
        | Action::Rehearse { scratch: shadow, .. }
        | Action::RehearseMigrations { scratch: shadow, .. }
        | Action::Bake { stage: Some(Staged { shadow, .. }), .. }
            if !status.shadows.contains(shadow) =>
        {
            status.shadows.push(shadow.clone());
        }
        Action::Restore { aside, keep, .. } if status.asides.iter().all(|known| known.schema != *aside) => {
            let entry = replaced(status, aside, *keep, AsideState::Expected, now);
            status.asides.insert(0, entry);
        }
        Action::Stage { .. }
        | Action::Restore { .. }
        | Action::Keep { .. }
        | Action::Preflight { .. }
        | Action::BackUp { .. }
        | Action::Migrate { .. }
        | Action::Deploy { .. }
        | Action::FlushCache { .. }
        | Action::Verify { .. }
        | Action::Bake { .. }
        | Action::Fence { .. }
        | Action::Approve { .. }
        | Action::RevertSchema { .. }
        | Action::Discard { .. }
        | Action::Rehearse { .. }
        | Action::RehearseMigrations { .. }
        | Action::Expire { .. }
        | Action::Unfence { .. } => {}
    }
}

/// What a step that is done adds to the things of which Backout keeps account, or takes from them.
pub fn done(status: &mut ReleaseStatus, action: &Action, to: u64, now: Timestamp) {
    match action {
        Action::BackUp { release: _, point, reason, token } => {
            status.last_backup_point = Some(point.clone());
            if *reason == PointReason::PreDeploy {
                mark(status, to, |entry| entry.backup_point = Some(point.clone()));
            }
            if token.is_some() {
                status.last_handled_backup_at.clone_from(token);
            }
        }
        Action::Restore { shadow, aside, keep, .. } => {
            live_again(status, shadow);
            let entry = replaced(status, aside, *keep, AsideState::Kept, now);
            status.shadows.retain(|schema| schema != shadow);
            status.asides.retain(|aside| aside.schema != *shadow && aside.schema != entry.schema);
            status.asides.insert(0, entry);
        }
        Action::Discard { schemas, .. } => {
            status.shadows.retain(|schema| !schemas.contains(schema));
            status.asides.retain(|aside| !schemas.contains(&aside.schema));
        }
        // It dropped what it had loaded.
        Action::Rehearse { scratch, .. } | Action::RehearseMigrations { scratch, .. } => status.shadows.retain(|schema| schema != scratch),
        Action::Expire { points } => {
            let gone = |name: &String| points.iter().any(|expired| expired.point == *name);
            status
                .history
                .iter_mut()
                .filter(|entry| entry.backup_point.as_ref().is_some_and(gone))
                .for_each(|entry| entry.backup_point = None);
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

/// What the operation that runs replaces. No release ran on it where the application was down before.
fn replaced(status: &ReleaseStatus, schema: &str, keep: Span, state: AsideState, now: Timestamp) -> Aside {
    let operation = status.operation.as_ref();
    Aside {
        schema: schema.to_owned(),
        operation: operation.map_or(0, |operation| operation.id),
        from: operation.filter(|operation| !began_down(operation)).and_then(|operation| operation.from),
        to: operation.map_or(0, |operation| operation.to),
        at: now,
        until: after(now, keep.0).unwrap_or(now),
        state,
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
