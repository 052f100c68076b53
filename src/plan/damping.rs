//! Bounds on what Backout does by itself: a source that flaps is slowed down, and answers to failures are counted, so that no
//! loop goes on without a person.

use std::time::Duration;

use jiff::SignedDuration;

use super::{Decision, Verdict, input::World, journal::age, target::rest};
use crate::api::{operation::Kind, status::HistoryEntry};

/// So often the same release may be asked for within the window before the source counts as flapping: a push, its revert and
/// the revert of that are an ordinary day.
const SWITCHES_AT_ONCE: usize = 3;
/// The pause before the first damped switch; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_secs(60);
/// What comes back sooner than this after a repair is put there by somebody.
const PAUSE_AFTER_REPAIR: Duration = Duration::from_secs(60);

/// A pause, if the source asks for `digest` again and again.
pub fn flapping(world: &World, digest: &str) -> Option<Decision> {
    let window = world.spec.rollback.limit.within.0;
    let recent = || world.status.switches.iter().filter(|switch| age(world.now, switch.at) < window);
    let times = recent().filter(|switch| switch.digest == digest).count();
    let last = recent().map(|switch| switch.at).max()?;
    let doublings = u32::try_from(times.checked_sub(SWITCHES_AT_ONCE)?).unwrap_or(u32::MAX).min(10);
    let pause = FIRST_PAUSE.saturating_mul(1 << doublings).min(window);
    let until = last.checked_add(SignedDuration::try_from(pause).ok()?).ok()?;
    (world.now < until).then(|| rest(world, Verdict::flapping(times, window, until)))
}

/// The answer to a failure is not begun where too many were within the window before it.
pub fn too_many_rollbacks(world: &World, failed: u64, target: &HistoryEntry, failure: &str) -> Option<Decision> {
    let limit = &world.spec.rollback.limit;
    // Seen from the failure and not from now: the stop does not dissolve by itself.
    let at = world.status.quarantine.iter().find(|entry| entry.release == failed).map_or(world.now, |entry| entry.at);
    let others = world
        .status
        .automatic_rollbacks
        .iter()
        .filter(|rollback| rollback.release != failed && rollback.at <= at && age(at, rollback.at) < limit.within.0)
        .count();
    (others >= limit.count as usize).then(|| rest(world, Verdict::too_many_rollbacks(failed, others, limit.within, target, failure)))
}

/// Something puts the workloads back each time they were put right: repairing without a pause would be a fight.
pub fn repaired_lately(world: &World, differences: &[String]) -> Option<Decision> {
    let last = world.status.upkeep.iter().find(|upkeep| upkeep.kind == Kind::Repair)?;
    (age(world.now, last.finished_at) < PAUSE_AFTER_REPAIR).then(|| rest(world, Verdict::drifts_again(differences, last.finished_at)))
}
