//! The crash simulation: the operator's own judgement and journal against a world in memory that can die between any two
//! things it does. A failing seed prints its history; [`replay`] plays one by hand.

mod driver;
mod effects;
mod event;
mod model;
mod rules;

use std::{collections::BTreeMap, thread};

use driver::{Simulation, Tally};
use event::{Change, Event, Script, history};

/// Each takes a few milliseconds.
const SEEDS: u64 = 2_000;
/// Histories know nothing of each other, so they are played on two cores.
const SHARES: u64 = 2;

/// Plays a history to its end and says how it ended.
fn replay(events: &[Event], trace: Option<Vec<String>>) -> (Simulation, Result<&'static str, String>) {
    let mut simulation = Simulation::new(trace);
    let end = simulation.play(events).and_then(|()| simulation.settle()).map(|verdict| verdict.reason);
    (simulation, end)
}

/// A failing history without the events that it does not need.
fn shortest(mut events: Vec<Event>) -> Vec<Event> {
    let mut index = 0;
    while index < events.len() {
        let mut shorter = events.clone();
        shorter.remove(index);
        if replay(&shorter, None).1.is_err() {
            events = shorter;
        } else {
            index += 1;
        }
    }
    events
}

fn report(title: &str, events: Vec<Event>) -> String {
    let events = shortest(events);
    let (simulation, end) = replay(&events, Some(Vec::new()));
    let rule = end.err().unwrap_or_default();
    format!("{title}: {rule}\nevents: {events:?}\n{}", told(&simulation))
}

fn told(simulation: &Simulation) -> String {
    simulation.trace.as_ref().map(|lines| lines.join("\n")).unwrap_or_default()
}

#[test]
fn every_history_ends_at_what_is_asked_for_or_at_a_stop_that_has_a_name() {
    let mut ends: BTreeMap<&str, u32> = BTreeMap::new();
    let mut total = Tally::default();
    let play = |share: u64| -> Vec<_> {
        let seeds = (0..SEEDS).filter(move |seed| seed % SHARES == share);
        seeds.map(|seed| (seed, replay(&history(seed), None))).map(|(seed, (simulation, end))| (seed, simulation.tally, end)).collect()
    };
    let played: Vec<_> = thread::scope(|scope| {
        let shares: Vec<_> = (0..SHARES).map(|share| scope.spawn(move || play(share))).collect();
        shares.into_iter().flat_map(|share| share.join().expect("a broken rule is returned, not thrown")).collect()
    });
    for (seed, tally, end) in played {
        match end {
            Ok(reason) => *ends.entry(reason).or_default() += 1,
            Err(_) => panic!("{}", report(&format!("seed {seed}"), history(seed))),
        }
        let Tally { crashes, conflicts, superseded, rollbacks, reverts, restores } = tally;
        total.crashes += crashes;
        total.conflicts += conflicts;
        total.superseded += superseded;
        total.rollbacks += rollbacks;
        total.reverts += reverts;
        total.restores += restores;
    }
    // What the histories must have led through, or they would prove nothing.
    for reason in ["ReconciliationSucceeded", "PinnedByRollbackTo", "RolledBack", "NoWayBack", "RollbackDisabled"] {
        assert!(ends.contains_key(reason), "no history ended at {reason}: {ends:?}");
    }
    let Tally { crashes, conflicts, superseded, rollbacks, reverts, restores } = total;
    for (what, count) in [
        ("crash", crashes),
        ("conflict", conflicts),
        ("superseded operation", superseded),
        ("rollback", rollbacks),
        ("RevertSchema", reverts),
        ("Restore", restores),
    ] {
        assert!(u64::from(count) > SEEDS / 20, "too few of {what}: {count}");
    }
}

#[test]
fn the_same_seed_gives_the_same_history() {
    for seed in [1, 7, 42] {
        let (one, other) = (replay(&history(seed), Some(Vec::new())), replay(&history(seed), Some(Vec::new())));
        assert_eq!(one.0.trace, other.0.trace, "seed {seed}");
        assert_eq!(one.0.tally, other.0.tally, "seed {seed}");
    }
}

#[test]
fn crash_after_every_write_of_a_rollback_converges() {
    let revert = [Event::Rounds(30), Event::Commit(Change::Schema(Some(Script::Works))), Event::Rounds(40), Event::Rows, Event::Revert(1)];
    let failed = [Event::Rounds(30), Event::Commit(Change::UnhealthySchema(None)), Event::Rows];
    for (story, events, expected) in
        [("revert with schema", &revert[..], "ReconciliationSucceeded"), ("failed release with restore", &failed[..], "RolledBack")]
    {
        let (whole, end) = replay(events, Some(Vec::new()));
        assert_eq!(end.as_deref(), Ok(expected), "{story}:\n{}", told(&whole));
        assert_eq!((whole.tally.reverts, whole.tally.restores), if story == "revert with schema" { (1, 0) } else { (0, 1) }, "{story}");

        let mut before = Simulation::new(None);
        before.play(events).expect("the story was played to its end already");
        let points = whole.points - before.points;
        assert!(points > 30, "{story} has only {points} points");
        for point in 0..points {
            let mut simulation = Simulation::new(Some(Vec::new()));
            simulation.play(events).expect("the story was played to its end already");
            simulation.crash_at(point);
            let end = simulation.settle().map(|verdict| verdict.reason);
            assert_eq!(end.as_deref(), Ok(expected), "{story}, crash at point {point}:\n{}", told(&simulation));
            assert_eq!(simulation.tally.crashes, 1, "{story}, point {point}");
            assert_eq!(simulation.model.live.applied, whole.model.live.applied, "{story}, point {point}");
            assert_eq!(simulation.model.asides.len(), whole.model.asides.len(), "{story}, point {point}: swapped once");
            assert_eq!(simulation.model.status.operations, whole.model.status.operations, "{story}, point {point}: no more operations");
        }
    }
}
