//! The operator of the simulation: observe → decide → record → effect → record, with the very functions that the real one
//! calls. What it writes is in `writing`, what comes between in `interruption`.

use std::{collections::BTreeMap, mem, time::Duration};

use backout::{
    api::operation::{Kind, OperationState},
    plan::{
        self, Decision, Verdict,
        input::{Desired, Seen},
        journal, summary,
    },
};

use super::{
    event::{Event, Plan},
    interruption::{Cut, Due},
    model::{Model, Snapshot},
    rules, trace,
};

/// Pauses of the real controller.
pub const SOON: Duration = Duration::from_millis(100);
pub const AFTER_ERROR: Duration = Duration::from_secs(5);
/// How long it takes until a dead operator's successor is at work.
pub const RESTART: Duration = Duration::from_secs(1);
/// Rounds within which everything must have come to rest once nothing disturbs it any more.
pub const PATIENCE: u32 = 500;

/// Why a round ended before its end.
pub enum Stop {
    Crashed,
    Conflict,
    /// The answer to a write did not come.
    Unanswered,
    /// Another operator leads.
    Replaced,
    /// The session with the database ended under a statement.
    Cut,
    /// A rule was broken.
    Broken(String),
}

/// How often what happened, over many histories: a simulation in which nothing happens proves nothing.
pub type Tally = BTreeMap<&'static str, u32>;

#[derive(Clone)]
pub struct Simulation {
    pub model: Model,
    /// What happened, line by line; `None`: nobody reads it.
    pub trace: Option<Vec<String>>,
    pub tally: Tally,
    /// Points at which the operator could have died so far.
    pub points: u32,
    /// Answers that could have been lost so far.
    pub answers: u32,
    pub due: Due,
    /// The object before its last change.
    pub older: Option<Snapshot>,
    pub stale: bool,
    /// Counts the operators that led.
    pub term: u64,
    /// Points and answers before the round.
    pub begun: (u32, u32),
    /// Answers before that of the round's effect, where it had one.
    pub effect: Option<u32>,
    /// Something changed since the last place at which the round could be cut off.
    pub changed: bool,
    /// The worlds that the round leaves where it is cut off; `None`: nobody asks.
    pub cuts: Option<Vec<Cut>>,
}

/// Where nothing runs any more.
#[derive(Clone, Debug, PartialEq)]
pub enum Rest {
    At(Verdict),
    /// The object was let go.
    Gone,
}

impl Rest {
    pub fn reason(&self) -> &'static str {
        match self {
            Self::At(verdict) => verdict.reason,
            Self::Gone => "Gone",
        }
    }

    fn settled(&self) -> bool {
        match self {
            Self::At(verdict) => verdict.settled(),
            Self::Gone => true,
        }
    }
}

impl Simulation {
    /// `trace` is what to write the history to.
    pub fn new(trace: Option<Vec<String>>) -> Self {
        Self {
            model: Model::new(),
            trace,
            tally: Tally::new(),
            points: 0,
            answers: 0,
            due: Due::default(),
            older: None,
            stale: false,
            term: 0,
            begun: (0, 0),
            effect: None,
            changed: true,
            cuts: None,
        }
    }

    /// Lets a history happen.
    pub fn play(&mut self, events: &[Event]) -> Result<(), String> {
        for event in events {
            self.tell(|| format!("· {event:?}"));
            match event {
                Event::Rounds(count) => {
                    for _ in 0..*count {
                        // At rest the rounds that are left would all be the same.
                        if self.turn()?.is_some_and(|rest| rest.settled()) {
                            break;
                        }
                    }
                }
                other => self.happen(other),
            }
        }
        Ok(())
    }

    /// Ends all disturbances and goes on until nothing changes any more. A person approves what waits for it.
    pub fn settle(&mut self) -> Result<Rest, String> {
        self.tell(|| "· nothing disturbs it any more".to_owned());
        self.due.meanwhile.clear();
        self.model.away = 0;
        for event in [Event::SourceSeen(true), Event::DatabaseSeen(true), Event::WorkloadsSeen(true)] {
            self.happen(&event);
        }
        if self.model.spec.suspend {
            self.happen(&Event::Suspend(false));
        }
        let mut before: Option<Rest> = None;
        for _ in 0..PATIENCE {
            let now = self.turn()?;
            if let (Some(before), Some(now)) = (&before, &now)
                && before == now
            {
                return rules::at_the_end(&self.model, now).map(|()| now.clone());
            }
            if self.model.waits_for_approval() {
                self.happen(&Event::Approve(Plan::This));
            }
            before = now;
        }
        Err(format!("it does not come to rest within {PATIENCE} rounds"))
    }

    pub fn happen(&mut self, event: &Event) {
        match event {
            Event::Crash(points) => self.due.crash = Some(*points),
            Event::Meanwhile(points, event) => self.due.meanwhile.push((*points, Event::clone(event))),
            Event::Frozen { at, rounds, session } => self.due.freeze = Some((*at, *rounds, *session)),
            Event::Lost(answers, cache) => self.due.lost = Some((*answers, *cache)),
            Event::StaleRead => self.stale = true,
            other => {
                let before = self.model.snapshot();
                self.model.disturb(other);
                if before.version != self.model.version {
                    self.older = Some(before);
                }
            }
        }
    }

    /// One round, and the pause after it.
    pub fn turn(&mut self) -> Result<Option<Rest>, String> {
        if self.model.gone {
            return Ok(Some(Rest::Gone));
        }
        self.begun = (self.points, self.answers);
        self.effect = None;
        self.changed = true;
        let (ended, pause) = match self.round() {
            Ok((pause, rest)) => {
                self.model.pass(pause);
                return Ok(rest);
            }
            Err(Stop::Broken(rule)) => return Err(rule),
            Err(Stop::Crashed) => ("crash", RESTART),
            Err(Stop::Conflict) => ("conflict", SOON),
            Err(Stop::Unanswered) => ("lost write", AFTER_ERROR),
            Err(Stop::Replaced) => ("replaced leader", AFTER_ERROR),
            Err(Stop::Cut) => ("session cut outside of an effect", SOON),
        };
        self.count(ended);
        self.tell(|| format!("  {ended}"));
        self.model.pass(pause);
        Ok(None)
    }

    fn round(&mut self) -> Result<(Duration, Option<Rest>), Stop> {
        let term = self.term;
        let newest = self.model.snapshot();
        let cached = if mem::take(&mut self.stale) { self.older.clone().unwrap_or(newest) } else { newest };
        // As the controller does: while an operation runs the object is read afresh.
        let read = if cached.running().is_some() { self.model.snapshot() } else { cached };
        let mut world = self.model.world(&read);
        let mut decision = plan::decide(&world);
        if decision == Decision::LookAtDatabase {
            world.database = Some(self.model.database());
            decision = plan::decide(&world);
        }
        self.tell(|| format!("  {}", trace::decision(&decision)));
        self.keep(rules::of_decision(&world, &decision))?;
        match decision {
            Decision::LookAtDatabase => {
                self.broken("it asks for the database although it was looked at".to_owned())?;
            }
            Decision::Rest { verdict, again } => {
                let status = summary::apply(read.status(), &verdict, read.generation, self.model.now);
                if status != *read.status {
                    self.put(&read, status)?;
                }
                self.keep(rules::at_rest(&self.model, world, &read, &verdict))?;
                let idle = read.running().is_none();
                return Ok((again, idle.then_some(Rest::At(verdict))));
            }
            Decision::Tell { verdict } => {
                let status = summary::apply(read.status(), &verdict, read.generation, self.model.now);
                if status == *read.status {
                    self.broken("it tells what is said already".to_owned())?;
                }
                self.put(&read, status)?;
            }
            Decision::Reset { token } => {
                self.put(&read, journal::reset(read.status(), token))?;
            }
            Decision::Grant { step, approval } => {
                self.keep(rules::of_grant(&read, &approval))?;
                let status = journal::granted(read.status(), step, approval, self.model.now);
                self.write_some(&read, status)?;
                self.count("granted approval");
            }
            Decision::Contain { workloads } => {
                self.write_some(&read, journal::contained(read.status(), workloads))?;
                self.count("fence around a half-migrated schema");
            }
            Decision::Refuse { request, .. } => {
                self.put(&read, journal::refused(read.status(), request))?;
            }
            Decision::Farewell => self.let_go(&read)?,
            Decision::Begin(operation) => {
                let kind = operation.kind;
                self.write(&read, journal::opened(read.status(), *operation))?;
                self.count(kind.as_str());
            }
            Decision::Close(end) => {
                let status = journal::closed(read.status(), end, self.model.now);
                self.write_some(&read, status)?;
                if end == OperationState::Superseded {
                    self.count("superseded operation");
                }
                let undo = read.running().is_some_and(|operation| operation.kind == Kind::Undo);
                if undo && end == OperationState::Succeeded {
                    self.count("undone rollback");
                }
            }
            Decision::Run { step } => {
                let desired: Option<Desired> = match &world.desired {
                    Seen::Known(desired) => Some(desired.clone()),
                    Seen::Unknown(_) => None,
                };
                return Ok((self.step(read, step, desired.as_ref(), term)?, None));
            }
        }
        Ok((SOON, None))
    }

    pub fn count(&mut self, what: &'static str) {
        *self.tally.entry(what).or_default() += 1;
    }

    pub fn tell(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(line());
        }
    }

    pub fn broken(&self, rule: String) -> Result<(), Stop> {
        Err(Stop::Broken(rule))
    }

    pub fn keep(&self, rule: Result<(), String>) -> Result<(), Stop> {
        rule.map_err(Stop::Broken)
    }
}
