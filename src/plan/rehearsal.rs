//! Which backup point is rehearsed at rest: the newest, once it was taken, and again by schedule.

use jiff::Timestamp;

use super::{housekeeping::Due, input::World};
use crate::api::{
    database::RehearsePolicy,
    names,
    operation::{Action, Kind, OperationState},
    status::Upkeep,
};

/// The rehearsal that is due, if any. Points before the newest are what people chose not to try, or lost their turn.
pub fn due(world: &World) -> Option<Due> {
    let database = world.spec.database.as_ref()?;
    // One that was taken into another store is not to be found in this one, which says nothing about it.
    let points: Vec<_> = world.own_points().into_iter().filter(|(name, point)| world.is_stored_here(name, point)).collect();
    let (newest, point) = points.last()?;
    let (name, cause, why) = if database.backup.rehearse == RehearsePolicy::AfterCapture && point.rehearsed.is_none() {
        (*newest, format!("{newest} was taken and not tried yet"), "spec.database.backup.rehearse is AfterCapture")
    } else {
        let due = next(world).filter(|due| *due <= world.now)?;
        // What was found wanting stays so: that it can be read today does not make it what was captured.
        let (name, _) = points.iter().rev().find(|(_, point)| point.is_sound())?;
        (*name, format!("a rehearsal was due at {due}"), "by spec.database.backup.rehearseSchedule")
    };
    let scratch = names::shadow(&database.mysql.name, &world.uid, &format!("rehearsal of {name}"));
    Some((Kind::Rehearse, cause, why, Action::Rehearse { point: name.clone(), scratch }))
}

/// When the schedule asks for one next.
pub fn next(world: &World) -> Option<Timestamp> {
    let schedule = world.spec.database.as_ref()?.backup.rehearse_schedule.as_ref()?;
    world.next_by(schedule, last(world)?)
}

/// When one came to its end; as long as none did, since when there is something to try. Points that were tried may be gone.
fn last(world: &World) -> Option<Timestamp> {
    let points = world.own_points();
    let tried = points.iter().filter_map(|(_, point)| point.rehearsed.as_ref()).map(|rehearsed| rehearsed.at);
    let is_rehearsal = |upkeep: &&Upkeep| upkeep.kind == Kind::Rehearse && upkeep.state == OperationState::Succeeded;
    let done = world.status.upkeep.iter().filter(is_rehearsal).map(|upkeep| upkeep.finished_at);
    let oldest = || points.iter().filter(|(_, point)| point.is_sound()).find_map(|(_, point)| point.taken_at);
    tried.chain(done).max().or_else(oldest)
}
