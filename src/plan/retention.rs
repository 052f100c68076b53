//! Retention: which backup points have outlived `spec.database.backup.retention`, and which of those a rollback could still need.
//!
//! What can't be told, such as the age of a point that does not say when it was taken, keeps a point.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::Timestamp;

use super::{
    Decision, housekeeping,
    input::{Life, PointSeen, Seen, World},
    journal::age,
};
use crate::api::{
    Span,
    database::{BackupSpec, Retention},
    operation::{Action, Expired, Kind},
    status::HistoryEntry,
};

/// Points that one operation deletes. With more, the event that says which and why would be cut off.
const AT_ONCE: usize = 4;

/// The deletion that is due, if any.
pub fn due(world: &World, current: &HistoryEntry) -> Option<Decision> {
    let BackupSpec { store: _, schedule: _, retention, rehearse: _, rehearse_schedule: _, stage: _, encryption: _ } =
        &world.spec.database.as_ref()?.backup;
    let retention = retention.as_ref()?;
    let kept = kept_by_plan(world);
    let is_candidate = |(name, point, _): &(&String, &PointSeen, Timestamp)| {
        world.is_stored_here(name, point) && point.life == Life::Wanted && !kept.contains(name.as_str())
    };
    let candidates: Vec<_> = outlived(world, retention).into_iter().filter(is_candidate).collect();
    if candidates.is_empty() {
        return None;
    }
    let database = match &world.database {
        None => return Some(Decision::LookAtDatabase),
        // It can wait until the database says what is applied.
        Some(Seen::Unknown(_)) => return None,
        Some(Seen::Known(database)) => database,
    };
    // Whatever the history says of a release, so long as its migration is applied the way back leads over the point before it.
    let applied: BTreeSet<u64> = database.applied.iter().map(|applied| applied.release).collect();
    let still_applied = |name: &str| {
        let mut of_point = world.status.history.iter().filter(|entry| entry.backup_point.as_deref() == Some(name));
        of_point.any(|entry| can_be_undone(world, entry) && applied.contains(&entry.release))
    };
    let points: Vec<Expired> = candidates
        .into_iter()
        .filter(|(name, ..)| !still_applied(name))
        .take(AT_ONCE)
        .map(|(name, _, taken)| Expired { point: name.clone(), why: why(world, retention, taken) })
        .collect();
    if points.is_empty() {
        return None;
    }
    let cause = format!("the time of {} has passed", if points.len() == 1 { "a backup point" } else { "backup points" });
    Some(housekeeping::begin(
        world,
        current,
        (Kind::Cleanup, cause),
        "older than spec.database.backup.retention keeps, not among the newest, and no release in status.history needs it",
        Action::Expire { points },
    ))
}

/// Whether these points, as far as they are still there, may be deleted as things are now.
pub fn still_holds(world: &World, points: &[Expired]) -> bool {
    let Some(retention) = world.spec.database.as_ref().and_then(|database| database.backup.retention.as_ref()) else { return false };
    let (outlived, kept) = (outlived(world, retention), kept_by_plan(world));
    let may_go = |point: &String| !kept.contains(point.as_str()) && outlived.iter().any(|(name, ..)| *name == point);
    points.iter().all(|expired| !world.points.contains_key(&expired.point) || may_go(&expired.point))
}

/// Older than `keepFor`, and not among the newest `keepLast` verified ones of their database; the oldest first.
fn outlived<'a>(world: &'a World, retention: &Retention) -> Vec<(&'a String, &'a PointSeen, Timestamp)> {
    let mut by_database: BTreeMap<&Option<String>, Vec<_>> = BTreeMap::new();
    let mut outlived = Vec::new();
    for (name, point) in &world.points {
        match (point.taken_at, point.is_sound()) {
            (Some(taken), true) => by_database.entry(&point.database).or_default().push((name, point, taken)),
            // It failed its rehearsal, or its deletion was begun and did not come to its end: it counts for nothing any more.
            (Some(taken), false) => outlived.push((name, point, taken)),
            (None, _) => {}
        }
    }
    for mut points in by_database.into_values() {
        points.sort_by_key(|(name, _, taken)| std::cmp::Reverse((*taken, *name)));
        // The newest is kept whatever a stored object says.
        let newest = usize::try_from(retention.keep_last.max(1)).unwrap_or(usize::MAX);
        outlived.extend(points.into_iter().skip(newest));
    }
    outlived.retain(|(_, _, taken)| age(world.now, *taken) > retention.keep_for.0);
    outlived.sort_by_key(|(name, _, taken)| (*taken, *name));
    outlived
}

/// Points that the record alone says are needed: those before a release that could still be undone, and those that the spec or
/// the last operation names.
fn kept_by_plan(world: &World) -> BTreeSet<&str> {
    let status = &world.status;
    // While replaced tables are kept, a release that was undone may be live again.
    let is_live = |entry: &HistoryEntry| entry.undone_at.is_none() || !status.asides.is_empty();
    let is_needed = |entry: &&HistoryEntry| can_be_undone(world, entry) && is_live(entry);
    let by_history = status.history.iter().filter(is_needed).filter_map(|entry| entry.backup_point.as_deref());
    let by_spec = world.spec.rollback_to.as_ref().and_then(|pin| pin.backup_point.as_deref());
    let by_operation = status.operation.iter().flat_map(|operation| &operation.steps).filter_map(|step| match &step.action {
        Action::BackUp { point, .. }
        | Action::Stage { point, .. }
        | Action::Restore { point, .. }
        | Action::Rehearse { point, .. }
        | Action::RehearseMigrations { point, .. } => Some(point.as_str()),
        _ => None,
    });
    by_history.chain(by_spec).chain(by_operation).chain(status.restored_point.as_deref()).collect()
}

/// There is a release to go back to from it.
fn can_be_undone(world: &World, entry: &HistoryEntry) -> bool {
    world.known_good_before(entry.release).is_some()
}

fn why(world: &World, Retention { keep_for, keep_last }: &Retention, taken: Timestamp) -> String {
    let age = Span(Duration::from_secs(age(world.now, taken).as_secs()));
    format!("taken at {taken}, {age} ago; retention keeps {keep_for} and the newest {keep_last}")
}
