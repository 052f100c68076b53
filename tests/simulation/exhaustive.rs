//! Small worlds, explored to their last state: every commit, crash, lost answer and stale read at every place at which it can
//! happen, and from every state the way to an end.
//!
//! A world with more left to happen can do whatever the same world with less left can. So a state is passed over where it was
//! visited with at least as much left, and states with most left are visited first.

use std::{
    collections::{HashMap, HashSet},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Instant,
};

use backout::{
    api::release::{ApprovalPolicy, Method},
    plan::heeds_source,
};

use super::{
    SHARES,
    driver::{Rest, Simulation},
    event::{Cache, Change, Event, Plan, Script},
    interruption::Cut,
    key, report, rules, say,
};

/// Far more than any of the worlds takes.
const ROUNDS: u64 = 60_000;

/// What may still happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Left {
    commits: u8,
    crashes: u8,
    lost: u8,
    stale: u8,
}

impl Left {
    fn covers(self, other: Self) -> bool {
        self.commits >= other.commits && self.crashes >= other.crashes && self.lost >= other.lost && self.stale >= other.stale
    }

    fn sum(self) -> usize {
        usize::from(self.commits + self.crashes + self.lost + self.stale)
    }
}

/// A state that was come to by an event from another.
struct Path {
    from: Option<usize>,
    events: Vec<Event>,
}

struct Node {
    key: u64,
    simulation: Simulation,
    left: Left,
    path: usize,
}

/// Where a round could have been disturbed.
struct Round {
    cuts: Vec<Cut>,
    /// Answers before that of its effect.
    effect: Option<u32>,
}

/// Where a state goes by itself.
enum Next {
    State(u64),
    End,
}

struct Exploration<'a> {
    alphabet: &'a [Event],
    /// What was left at visits of a state; none covers another.
    visited: HashMap<u64, Vec<Left>>,
    undisturbed: HashMap<u64, (Next, usize)>,
    paths: Vec<Path>,
    /// By the sum of what is left.
    waiting: Vec<Vec<Node>>,
    rounds: u64,
}

impl<'a> Exploration<'a> {
    fn new(alphabet: &'a [Event], root: Simulation, past: Vec<Event>, left: Left) -> Self {
        let mut exploration = Self {
            alphabet,
            visited: HashMap::new(),
            undisturbed: HashMap::new(),
            paths: vec![Path { from: None, events: past }],
            waiting: (0..=left.sum()).map(|_| Vec::new()).collect(),
            rounds: 0,
        };
        exploration.arrive(root, left, 0);
        exploration
    }

    fn explore(&mut self) -> Result<(), (usize, String)> {
        while let Some(node) = self.waiting.iter_mut().rev().find_map(Vec::pop) {
            self.visit(&node)?;
            if self.rounds > ROUNDS {
                return Err((node.path, "the world is not small: its states do not come to an end".to_owned()));
            }
        }
        self.every_state_comes_to_an_end()
    }

    fn visit(&mut self, node: &Node) -> Result<(), (usize, String)> {
        let Node { key, simulation, left, path } = node;
        if self.visited.get(key).is_some_and(|visits| !visits.contains(left)) {
            return Ok(());
        }
        let Round { cuts, effect } = self.undisturbed(node)?;
        for Cut { by, simulation } in cuts {
            let less = match by {
                Event::Crash(_) if left.crashes > 0 => Left { crashes: left.crashes - 1, ..*left },
                Event::Lost(..) if left.lost > 0 => Left { lost: left.lost - 1, ..*left },
                _ => continue,
            };
            let path = self.path(*path, vec![by, Event::Rounds(1)]);
            self.arrive(simulation, less, path);
        }
        if let (Some(answer), 1..) = (effect, left.lost) {
            let less = Left { lost: left.lost - 1, ..*left };
            self.disturbed(node, less, Event::Lost(answer, Cache::Fresh))?;
        }
        if left.stale > 0 && simulation.older.as_ref().is_some_and(|older| older.running().is_none()) {
            let less = Left { stale: left.stale - 1, ..*left };
            self.disturbed(node, less, Event::StaleRead)?;
        }
        if left.commits > 0 {
            let less = Left { commits: left.commits - 1, ..*left };
            let heeded = heeds_source(&simulation.model.status, simulation.model.life);
            for event in self.alphabet {
                // What is committed while the source is not looked at comes to the same as if it were committed afterwards.
                if !heeded && matches!(event, Event::Commit(_) | Event::Revert(_)) {
                    continue;
                }
                let mut next = simulation.clone();
                next.happen(event);
                let path = self.path(*path, vec![event.clone()]);
                self.arrive(next, less, path);
            }
        }
        Ok(())
    }

    /// The round as it is without a disturbance, and where it could be disturbed.
    fn undisturbed(&mut self, node: &Node) -> Result<Round, (usize, String)> {
        let mut next = Simulation { cuts: Some(Vec::new()), ..node.simulation.clone() };
        let path = self.path(node.path, vec![Event::Rounds(1)]);
        self.rounds += 1;
        let rest = next.turn().map_err(|rule| (path, rule))?;
        let round = Round { cuts: next.cuts.take().unwrap_or_default(), effect: next.effect };
        let after = key::of(&next);
        match rest {
            // A person has to say how it goes on; meanwhile what would be lost is measured again and again.
            _ if node.simulation.model.waits_for_approval() => {
                self.undisturbed.insert(node.key, (Next::End, path));
                self.arrive(next, node.left, path);
            }
            Some(rest) if after == node.key || rest == Rest::Gone => {
                rules::at_the_end(&next.model, &rest).map_err(|rule| (path, rule))?;
                self.undisturbed.insert(node.key, (Next::End, path));
            }
            Some(_) | None => {
                self.undisturbed.insert(node.key, (Next::State(after), path));
                self.arrive(next, node.left, path);
            }
        }
        Ok(round)
    }

    fn disturbed(&mut self, node: &Node, left: Left, event: Event) -> Result<(), (usize, String)> {
        let mut next = node.simulation.clone();
        next.happen(&event);
        let path = self.path(node.path, vec![event, Event::Rounds(1)]);
        self.rounds += 1;
        next.turn().map_err(|rule| (path, rule))?;
        self.arrive(next, left, path);
        Ok(())
    }

    fn arrive(&mut self, simulation: Simulation, left: Left, path: usize) {
        let key = key::of(&simulation);
        let visits = self.visited.entry(key).or_default();
        if visits.iter().any(|visit| visit.covers(left)) {
            return;
        }
        visits.retain(|visit| !left.covers(*visit));
        visits.push(left);
        if let Some(waiting) = self.waiting.get_mut(left.sum()) {
            waiting.push(Node { key, simulation, left, path });
        }
    }

    fn path(&mut self, from: usize, events: Vec<Event>) -> usize {
        self.paths.push(Path { from: Some(from), events });
        self.paths.len() - 1
    }

    /// Left alone, no state goes round and round.
    fn every_state_comes_to_an_end(&self) -> Result<(), (usize, String)> {
        let mut ends: HashSet<u64> = HashSet::new();
        for start in self.undisturbed.keys() {
            let (mut way, mut at) = (HashSet::new(), *start);
            while !ends.contains(&at) {
                match self.undisturbed.get(&at) {
                    Some((Next::State(next), path)) => {
                        if !way.insert(at) {
                            return Err((*path, "left alone it goes round and round".to_owned()));
                        }
                        at = *next;
                    }
                    Some((Next::End, _)) => {
                        way.insert(at);
                        break;
                    }
                    None => return Err((0, "a state was come to and not visited".to_owned())),
                }
            }
            ends.extend(way);
        }
        Ok(())
    }

    fn history(&self, path: usize) -> Vec<Event> {
        let mut way: Vec<&Path> = Vec::new();
        let mut at = self.paths.get(path);
        while let Some(path) = at {
            way.push(path);
            at = path.from.and_then(|from| self.paths.get(from));
        }
        way.iter().rev().flat_map(|path| path.events.iter().cloned()).collect()
    }
}

/// A world that is small enough.
struct World {
    name: &'static str,
    past: Vec<Event>,
    alphabet: Vec<Event>,
    /// Fewer states, and something is not explored any more that was.
    at_least: usize,
}

/// Two events out of each alphabet come after the first release: three commits in all.
fn worlds() -> Vec<World> {
    let schema = |down| Event::Commit(Change::Schema(down));
    let unhealthy = |down| Event::Commit(Change::UnhealthySchema(down));
    let revert = || Event::Revert(1);
    let running = || vec![Event::Rounds(20)];
    vec![
        World {
            name: "a schema, a release that fails, a mere change of configuration, and reverts",
            past: running(),
            alphabet: vec![schema(Some(Script::Works)), unhealthy(None), Event::Commit(Change::Config), revert()],
            at_least: 12_900,
        },
        World {
            name: "down scripts that fail, and no other way back",
            past: vec![Event::Methods(vec![Method::RevertSchema]), Event::Rounds(20)],
            alphabet: vec![schema(Some(Script::FailsCleanly)), unhealthy(Some(Script::FailsHalfWay)), revert()],
            at_least: 4_300,
        },
        World {
            name: "down scripts that fail, and a restore after that",
            past: running(),
            alphabet: vec![schema(Some(Script::FailsCleanly)), unhealthy(Some(Script::FailsHalfWay)), revert()],
            at_least: 8_300,
        },
        World {
            name: "up scripts that fail, and pods that never come up",
            past: running(),
            alphabet: vec![
                Event::Commit(Change::BrokenSchema(Script::FailsCleanly)),
                Event::Commit(Change::BrokenSchema(Script::FailsHalfWay)),
                Event::Commit(Change::Crashing),
                revert(),
            ],
            at_least: 6_100,
        },
        World {
            name: "a deletion in the middle of things",
            past: running(),
            alphabet: vec![schema(Some(Script::Works)), unhealthy(None), Event::Delete],
            at_least: 7_900,
        },
        World {
            name: "a gate, its key and another",
            past: vec![Event::Approval(ApprovalPolicy::Always), Event::Rounds(20), unhealthy(Some(Script::Works))],
            alphabet: vec![Event::Approve(Plan::This), Event::Approve(Plan::Another), revert()],
            at_least: 6_900,
        },
        World {
            name: "an undo of what a rollback replaced",
            past: vec![Event::Rounds(20), unhealthy(None), Event::Rounds(60)],
            alphabet: vec![Event::Undo, Event::Commit(Change::Config), revert()],
            at_least: 1_600,
        },
    ]
}

fn explored(world: &World) -> (usize, u64) {
    let mut root = Simulation::new(None);
    root.play(&world.past).expect("the past breaks no rule");
    let left = Left { commits: 2, crashes: 2, lost: 1, stale: 1 };
    let mut exploration = Exploration::new(&world.alphabet, root, world.past.clone(), left);
    if let Err((path, rule)) = exploration.explore() {
        panic!("{}", report(&format!("{}: {rule}", world.name), exploration.history(path)));
    }
    (exploration.visited.len(), exploration.rounds)
}

#[test]
fn every_small_world_comes_to_an_end_whatever_is_lost_and_when() {
    let worlds = worlds();
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some(world) = worlds.get(next.fetch_add(1, Ordering::Relaxed)) {
            let begun = Instant::now();
            let (states, rounds) = explored(world);
            say(&format!("{states} states in {rounds} rounds and {:.1?}: {}", begun.elapsed(), world.name));
            assert!(states >= world.at_least, "only {states} states: {}", world.name);
        }
    };
    thread::scope(|scope| (0..SHARES).for_each(|_| drop(scope.spawn(work))));
}
