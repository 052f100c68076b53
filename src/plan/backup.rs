//! Backup points that no release asks for: by schedule, and on request.

use jiff::Timestamp;

use super::{Decision, housekeeping::Due, input::World, journal::Request, report};
use crate::api::{
    backup_point::PointReason,
    database::DatabaseSpec,
    names,
    operation::{Action, Kind, OperationState},
    status::{HistoryEntry, Upkeep},
};

/// Without a database there is nothing to take a point of: whoever asks for one is told.
pub fn refused(world: &World) -> Option<Decision> {
    let token = asked(world)?.clone();
    let message = format!("{} asks for a backup point, but spec.database names no database", names::BACKUP_AT);
    Some(Decision::Refuse { request: Request::BackUp(token), message })
}

/// What somebody asks for by annotation and was not answered.
fn asked(world: &World) -> Option<&String> {
    world.backup_at.as_ref().filter(|token| world.status.last_handled_backup_at.as_ref() != Some(token))
}

/// The point that is due, if any. Times that were missed are made up for by one.
pub fn due(world: &World, current: &HistoryEntry) -> Option<Due> {
    let database = world.spec.database.as_ref()?;
    let asked = asked(world);
    let place = report::place(&world.spec).unwrap_or_default();
    let (cause, why, point, reason) = if let Some(token) = asked {
        let cause = format!("{} asks for a backup point", names::BACKUP_AT);
        (cause, "somebody asked for it", names::manual_point(&world.name, token, &place), PointReason::Manual)
    } else {
        let (cause, due) = missed(world, database)?;
        (cause, "by spec.database.backup.schedule", names::scheduled_point(&world.name, due, &place), PointReason::Scheduled)
    };
    // A point that is there is never written over.
    let point = if world.points.contains_key(&point) { format!("{point}-{}", world.status.operations + 1) } else { point };
    let action = Action::BackUp { release: current.release, point, reason, token: asked.cloned() };
    Some((Kind::Backup, cause, why, action))
}

/// Why the schedule asks for a point now, and since when.
fn missed(world: &World, database: &DatabaseSpec) -> Option<(String, Option<Timestamp>)> {
    let schedule = database.backup.schedule.as_ref()?;
    // Whatever it was taken for: the schedule says how old the newest one may become.
    let Some(newest) = newest(world) else {
        return Some(("there is no backup point yet".to_owned(), None));
    };
    let due = world.next_by(schedule, newest).filter(|due| *due <= world.now)?;
    Some((format!("a backup point was due at {due}, and the newest is from {newest}"), Some(due)))
}

/// When the schedule asks for one next.
pub fn next(world: &World) -> Option<Timestamp> {
    world.next_by(world.spec.database.as_ref()?.backup.schedule.as_ref()?, newest(world)?)
}

/// From when the newest point is. The database server's clock says when it was taken: where that clock is behind, the same time would be due again.
fn newest(world: &World) -> Option<Timestamp> {
    let (name, taken) = world.own_points().pop().and_then(|(name, point)| Some((name, point.taken_at?)))?;
    let is_backup = |upkeep: &&Upkeep| {
        upkeep.kind == Kind::Backup && upkeep.state == OperationState::Succeeded && world.status.last_backup_point.as_ref() == Some(name)
    };
    let begun = world.status.upkeep.iter().find(is_backup).map(|upkeep| upkeep.started_at);
    Some(begun.map_or(taken, |begun| begun.max(taken)))
}
