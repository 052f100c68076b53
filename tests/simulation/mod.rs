//! The crash simulation: the operator's own judgement and journal against a world in memory that can die between any two
//! things it does. A failing seed prints its history; [`replay`] plays one by hand.

mod database;
mod driver;
mod effects;
mod event;
mod exhaustive;
mod interruption;
mod key;
mod model;
mod rules;
mod trace;
mod writing;

use std::{
    collections::BTreeMap,
    env,
    io::{self, Write as _},
    thread,
};

use driver::{Simulation, Tally};
use event::{Change, Event, Script, Session, history};

/// Names a history to play, as JSON.
const REPLAY: &str = "SIMULATION_REPLAY";
/// Says how many histories to play, where it is not [`SEEDS`].
const MORE: &str = "SIMULATION_SEEDS";
/// Each takes a few milliseconds.
const SEEDS: u64 = 2_000;
/// Histories know nothing of each other, so they are played on two cores.
const SHARES: u64 = 2;

/// Plays a history to its end and says how it ended.
fn replay(events: &[Event], trace: Option<Vec<String>>) -> (Simulation, Result<&'static str, String>) {
    let mut simulation = Simulation::new(trace);
    let end = simulation.play(events).and_then(|()| simulation.settle()).map(|rest| rest.reason());
    (simulation, end)
}

/// Shown also where the test passes: how much was looked at is part of the result.
fn say(line: &str) {
    // What can't be printed is no reason to fail.
    let _ = writeln!(io::stdout().lock(), "{line}");
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
    let json = serde_json::to_string(&events).expect("events are plain data");
    format!("{title}: {rule}\n{}\nagain with {REPLAY}='{json}'", told(&simulation))
}

fn told(simulation: &Simulation) -> String {
    simulation.trace.as_ref().map(|lines| lines.join("\n")).unwrap_or_default()
}

fn counted(simulation: &Simulation, what: &str) -> u32 {
    counted_in(&simulation.tally, what)
}

fn counted_in(tally: &Tally, what: &str) -> u32 {
    tally.get(what).copied().unwrap_or_default()
}

#[test]
fn every_history_ends_at_what_is_asked_for_or_at_a_stop_that_has_a_name() {
    let seeds = env::var(MORE).map_or(SEEDS, |count| count.parse().expect("it is a number"));
    let play = |share: u64| -> Vec<_> {
        let seeds = (0..seeds).filter(move |seed| seed % SHARES == share);
        seeds.map(|seed| (seed, replay(&history(seed), None))).map(|(seed, (simulation, end))| (seed, simulation.tally, end)).collect()
    };
    let played: Vec<_> = thread::scope(|scope| {
        let shares: Vec<_> = (0..SHARES).map(|share| scope.spawn(move || play(share))).collect();
        shares.into_iter().flat_map(|share| share.join().expect("a broken rule is returned, not thrown")).collect()
    });
    let (mut ends, mut total) = (BTreeMap::<&str, u32>::new(), Tally::new());
    let mut broken = Vec::new();
    for (seed, tally, end) in played {
        match end {
            Ok(reason) => *ends.entry(reason).or_default() += 1,
            Err(rule) => broken.push((seed, rule)),
        }
        for (what, count) in tally {
            *total.entry(what).or_default() += count;
        }
    }
    if let Some((seed, _)) = broken.first() {
        broken.iter().for_each(|(seed, rule)| println!("seed {seed}: {rule}"));
        panic!("{}\n{} of {seeds} histories break a rule", report(&format!("seed {seed}"), history(*seed)), broken.len());
    }
    say(&format!("{seeds} histories ended at {ends:?} and led through {total:?}"));
    // What the histories must have led through, or they would prove nothing.
    for reason in ["ReconciliationSucceeded", "PinnedByRollbackTo", "RolledBack", "NoWayBack", "RollbackDisabled", "RollbackUndone", "Gone"]
    {
        assert!(ends.contains_key(reason), "no history ended at {reason}: {ends:?}");
    }
    for (what, at_least) in [
        ("crash", 500),
        ("conflict", 500),
        ("lost answer", 500),
        ("lost write", 200),
        ("frozen leader", 200),
        ("replaced leader", 50),
        ("superseded operation", 200),
        ("granted approval", 50),
        ("Rollback", 500),
        ("RevertSchema", 100),
        ("Restore", 200),
        ("Expire", 50),
        ("undone rollback", 5),
        ("farewell", 100),
    ] {
        let count = counted_in(&total, what);
        assert!(count >= at_least, "too few of {what}: {total:?}");
    }
}

/// A person's way to look at one history: prints what happens in it.
#[test]
fn a_history_given_by_hand_is_played_aloud() {
    let Ok(json) = env::var(REPLAY) else { return };
    let events: Vec<Event> = serde_json::from_str(&json).expect("it is a JSON list of events");
    let (simulation, end) = replay(&events, Some(Vec::new()));
    println!("{}", told(&simulation));
    assert!(end.is_ok(), "{}", end.unwrap_err());
}

#[test]
fn a_history_is_the_same_after_it_was_written_down() {
    for seed in 0..100 {
        let events = history(seed);
        let json = serde_json::to_string(&events).expect("events are plain data");
        assert_eq!(serde_json::from_str::<Vec<Event>>(&json).expect("it was written by the same types"), events, "seed {seed}");
    }
}

#[test]
fn every_stop_that_counts_as_an_end_is_one_that_the_code_can_give() {
    let given = super::stops::given();
    for reason in rules::NAMED_STOPS {
        assert!(given.contains(reason), "the code never gives {reason}");
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
        assert_eq!(
            (counted(&whole, "RevertSchema"), counted(&whole, "Restore")),
            if story == "revert with schema" { (1, 0) } else { (0, 1) },
            "{story}"
        );

        let mut before = Simulation::new(None);
        before.play(events).expect("the story was played to its end already");
        let points = whole.points - before.points;
        assert!(points > 30, "{story} has only {points} points");
        for point in 0..points {
            let mut simulation = Simulation::new(Some(Vec::new()));
            simulation.play(events).expect("the story was played to its end already");
            simulation.happen(&Event::Crash(point));
            let end = simulation.settle().map(|rest| rest.reason());
            assert_eq!(end.as_deref(), Ok(expected), "{story}, crash at point {point}:\n{}", told(&simulation));
            assert_eq!(counted(&simulation, "crash"), 1, "{story}, point {point}");
            assert_eq!(simulation.model.server.live.applied, whole.model.server.live.applied, "{story}, point {point}");
            assert_eq!(simulation.model.server.asides.len(), whole.model.server.asides.len(), "{story}, point {point}: swapped once");
            assert_eq!(simulation.model.status.operations, whole.model.status.operations, "{story}, point {point}: no more operations");
        }
    }
}

#[test]
fn a_deletion_of_old_backup_points_that_is_cut_off_anywhere_comes_to_its_end() {
    let schema = || Event::Commit(Change::Schema(Some(Script::Works)));
    let events = [Event::KeepFor(10), Event::Rounds(30), schema(), Event::Rounds(40), Event::Revert(1), Event::Rounds(40), schema()];
    let mut before = Simulation::new(Some(Vec::new()));
    before.play(&events).expect("the story breaks no rule");
    let mut whole = before.clone();
    assert_eq!(whole.settle().map(|rest| rest.reason()).as_deref(), Ok("ReconciliationSucceeded"), "{}", told(&whole));
    assert_eq!(counted(&whole, "Expire"), 1, "{}", told(&whole));
    for point in 0..whole.points - before.points {
        for event in [Event::Crash(point), Event::Frozen { at: point, rounds: 4, session: Session::Lost }] {
            let mut simulation = before.clone();
            simulation.happen(&event);
            let end = simulation.settle().map(|rest| rest.reason());
            assert_eq!(end.as_deref(), Ok("ReconciliationSucceeded"), "{event:?}:\n{}", told(&simulation));
            assert_eq!(simulation.model.server.points, whole.model.server.points, "{event:?}:\n{}", told(&simulation));
        }
    }
}

#[test]
fn a_leader_frozen_at_any_point_of_a_rollback_changes_nothing_when_it_wakes() {
    let revert = [Event::Rounds(30), Event::Commit(Change::Schema(Some(Script::Works))), Event::Rounds(40), Event::Revert(1)];
    let failed = [Event::Rounds(30), Event::Commit(Change::UnhealthySchema(None)), Event::Rows];
    for (events, expected) in [(&revert[..], "ReconciliationSucceeded"), (&failed[..], "RolledBack")] {
        let mut before = Simulation::new(Some(Vec::new()));
        before.play(events).expect("the story breaks no rule");
        let mut whole = before.clone();
        assert_eq!(whole.settle().map(|rest| rest.reason()).as_deref(), Ok(expected), "{}", told(&whole));
        for at in 0..whole.points - before.points {
            for (rounds, session) in [(1, Session::Kept), (1, Session::Lost), (4, Session::Kept), (4, Session::Lost), (60, Session::Lost)] {
                let mut simulation = before.clone();
                simulation.happen(&Event::Frozen { at, rounds, session });
                let end = simulation.settle().map(|rest| rest.reason());
                assert_eq!(end.as_deref(), Ok(expected), "frozen at point {at} for {rounds} rounds:\n{}", told(&simulation));
                assert_eq!(counted(&simulation, "frozen leader"), 1, "point {at}");
                assert_eq!(simulation.model.server.live.applied, whole.model.server.live.applied, "point {at}");
                assert_eq!(simulation.model.server.asides.len(), whole.model.server.asides.len(), "point {at}: swapped once");
                assert_eq!(simulation.model.status.operations, whole.model.status.operations, "point {at}: no more operations");
            }
        }
    }
}
