//! What comes between: the places at which the operator can die, freeze or be overtaken by events, and answers that don't
//! come.

use std::time::Duration;

use super::{
    driver::{AFTER_ERROR, RESTART, Simulation, Stop},
    event::{Cache, Event, Session},
};

/// What is to come, each after so many points or answers.
#[derive(Clone, Default)]
pub struct Due {
    pub crash: Option<u32>,
    pub freeze: Option<(u32, u32, Session)>,
    pub lost: Option<(u32, Cache)>,
    pub meanwhile: Vec<(u32, Event)>,
}

/// How the world stands where the operator was cut off.
#[derive(Clone)]
pub struct Cut {
    /// What cuts it off there.
    pub by: Event,
    pub simulation: Simulation,
}

/// Where the operator is.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    BetweenThings,
    /// It holds the lock of the database.
    InSession,
}

impl Simulation {
    /// A place between two things.
    pub fn point(&mut self, place: &str) -> Result<(), Stop> {
        self.interrupt(place, Place::BetweenThings)
    }

    /// A place between two statements of one session with the database.
    pub fn in_session(&mut self, place: &str) -> Result<(), Stop> {
        self.interrupt(place, Place::InSession)
    }

    fn interrupt(&mut self, name: &str, place: Place) -> Result<(), Stop> {
        let point = self.points - self.begun.0;
        self.changed |= place == Place::InSession;
        self.cut(RESTART, Event::Crash(point));
        self.points += 1;
        for event in self.due.events() {
            self.tell(|| format!("  meanwhile, {name}: {event:?}"));
            self.happen(&event);
        }
        match self.due.freeze {
            Some((0, rounds, session)) => {
                self.due.freeze = None;
                self.freeze(name, rounds, session, place)?;
            }
            Some((left, rounds, session)) => self.due.freeze = Some((left - 1, rounds, session)),
            None => {}
        }
        match self.due.crash {
            Some(0) => {
                self.due.crash = None;
                self.tell(|| format!("  dies {name}"));
                Err(Stop::Crashed)
            }
            Some(left) => {
                self.due.crash = Some(left - 1);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Another operator works for so many rounds; then this one wakes where it was.
    fn freeze(&mut self, name: &str, rounds: u32, session: Session, place: Place) -> Result<(), Stop> {
        self.count("frozen leader");
        self.tell(|| format!("  freezes {name}; another operator leads"));
        self.term += 1;
        self.model.server.locked = place == Place::InSession && session == Session::Kept;
        for _ in 0..rounds {
            self.turn().map_err(Stop::Broken)?;
        }
        let kept = std::mem::take(&mut self.model.server.locked);
        self.tell(|| "  the frozen operator wakes".to_owned());
        if place == Place::InSession && !kept { Err(Stop::Cut) } else { Ok(()) }
    }

    /// Keeps what a cut here would leave, where something changed since the last one.
    fn cut(&mut self, pause: Duration, by: Event) {
        let Some(mut cuts) = self.cuts.take() else {
            return;
        };
        if std::mem::take(&mut self.changed) {
            let mut simulation = self.clone();
            simulation.model.pass(pause);
            cuts.push(Cut { by, simulation });
        }
        self.cuts = Some(cuts);
    }

    /// A write was accepted, and its answer comes, or does not.
    pub fn write_is_unanswered(&mut self) -> bool {
        self.changed = true;
        self.cut(AFTER_ERROR, Event::Lost(self.answers - self.begun.1, Cache::Fresh));
        self.answer_is_lost()
    }

    /// Whether the answer that comes now is one that does not come.
    pub fn answer_is_lost(&mut self) -> bool {
        self.answers += 1;
        match self.due.lost {
            Some((0, cache)) => {
                self.due.lost = None;
                self.stale = cache == Cache::Behind;
                self.count("lost answer");
                self.tell(|| "  its answer is lost".to_owned());
                true
            }
            Some((left, cache)) => {
                self.due.lost = Some((left - 1, cache));
                false
            }
            None => false,
        }
    }
}

impl Due {
    /// Events whose time has come.
    fn events(&mut self) -> Vec<Event> {
        let mut due = Vec::new();
        self.meanwhile.retain_mut(|(left, event)| match left.checked_sub(1) {
            Some(less) => {
                *left = less;
                true
            }
            None => {
                due.push(event.clone());
                false
            }
        });
        due
    }
}
