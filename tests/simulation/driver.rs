//! The operator of the simulation: observe → decide → record → effect → record, with the very functions that the real one
//! calls, and a place to die or be overtaken before and after every write and every effect.

use std::{mem, time::Duration};

use backout::{
    api::{
        operation::{Kind, Operation, OperationState, Step, StepName, StepState},
        status::ReleaseStatus,
    },
    plan::{
        self, Decision, Verdict,
        input::{Desired, Seen},
        journal::{self, Outcome},
        summary,
    },
};

use super::{
    event::Event,
    model::{Model, Snapshot},
    rules,
};

/// Pauses of the real controller.
const SOON: Duration = Duration::from_millis(100);
/// How long it takes until a dead operator's successor is at work.
const RESTART: Duration = Duration::from_secs(1);
/// Rounds within which everything must have come to rest once nothing disturbs it any more.
const PATIENCE: u32 = 500;

/// Why a round ended before its end.
pub enum Stop {
    Crashed,
    Conflict,
    /// A rule was broken.
    Broken(String),
}

/// How often what happened, over many histories: a simulation in which nothing happens proves nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tally {
    pub crashes: u32,
    pub conflicts: u32,
    pub superseded: u32,
    pub rollbacks: u32,
    pub reverts: u32,
    pub restores: u32,
}

pub struct Simulation {
    pub model: Model,
    /// What happened, line by line; `None`: nobody reads it.
    pub trace: Option<Vec<String>>,
    pub tally: Tally,
    /// Points at which the operator could have died so far.
    pub points: u32,
    crash: Option<u32>,
    meanwhile: Vec<(u32, Event)>,
    /// The object before its last change.
    older: Option<Snapshot>,
    stale: bool,
}

/// What the last round came to, where it came to rest with nothing running.
pub struct AtRest {
    pub verdict: Verdict,
}

impl Simulation {
    /// `trace` is what to write the history to.
    pub fn new(trace: Option<Vec<String>>) -> Self {
        Self {
            model: Model::new(),
            trace,
            tally: Tally::default(),
            points: 0,
            crash: None,
            meanwhile: Vec::new(),
            older: None,
            stale: false,
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
                        if self.turn()?.is_some_and(|rest| rest.verdict.settled()) {
                            break;
                        }
                    }
                }
                Event::Crash(points) => self.crash = Some(*points),
                Event::Meanwhile(points, event) => self.meanwhile.push((*points, Event::clone(event))),
                Event::StaleRead => self.stale = true,
                other => self.happen(other),
            }
        }
        Ok(())
    }

    /// The operator dies at the so manyth point from now.
    pub fn crash_at(&mut self, point: u32) {
        self.crash = Some(point);
    }

    /// Ends all disturbances and goes on until nothing changes any more.
    pub fn settle(&mut self) -> Result<Verdict, String> {
        self.tell(|| "· nothing disturbs it any more".to_owned());
        self.meanwhile.clear();
        self.model.away = 0;
        for event in [Event::SourceSeen(true), Event::DatabaseSeen(true), Event::WorkloadsSeen(true)] {
            self.happen(&event);
        }
        if self.model.spec.suspend {
            self.happen(&Event::Suspend(false));
        }
        let mut before: Option<Verdict> = None;
        for _ in 0..PATIENCE {
            let now = self.turn()?.map(|rest| rest.verdict);
            if let (Some(before), Some(now)) = (&before, &now)
                && before == now
            {
                return rules::at_the_end(&self.model, now).map(|()| now.clone());
            }
            before = now;
        }
        Err(format!("it does not come to rest within {PATIENCE} rounds"))
    }

    fn happen(&mut self, event: &Event) {
        self.older = Some(self.model.snapshot());
        self.model.disturb(event);
    }

    /// One round, and the pause after it.
    fn turn(&mut self) -> Result<Option<AtRest>, String> {
        let (pause, rest) = match self.round() {
            Ok((pause, rest)) => (pause, rest),
            Err(Stop::Crashed) => {
                self.tally.crashes += 1;
                self.tell(|| "  crash".to_owned());
                (RESTART, None)
            }
            Err(Stop::Conflict) => {
                self.tally.conflicts += 1;
                self.tell(|| "  conflict".to_owned());
                (SOON, None)
            }
            Err(Stop::Broken(rule)) => return Err(rule),
        };
        self.model.pass(pause);
        Ok(rest)
    }

    fn round(&mut self) -> Result<(Duration, Option<AtRest>), Stop> {
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
        self.tell(|| format!("  {}", told(&decision)));
        self.keep(rules::of_decision(&world, &decision))?;
        match decision {
            Decision::LookAtDatabase => {
                self.broken("it asks for the database although it was looked at".to_owned())?;
                Ok((SOON, None))
            }
            Decision::Rest { verdict, again } => {
                let status = summary::apply(read.status.clone(), &verdict, read.generation, self.model.now);
                if status != read.status {
                    self.put(&read, status)?;
                }
                let settled = rules::at_rest(&self.model, world, &read, &verdict);
                self.keep(settled)?;
                let idle = read.running().is_none();
                Ok((again, idle.then_some(AtRest { verdict })))
            }
            Decision::Reset { token } => {
                self.put(&read, journal::reset(read.status.clone(), token))?;
                Ok((SOON, None))
            }
            Decision::Grant { step, approval } => {
                let status = journal::granted(read.status.clone(), step, approval, self.model.now);
                self.write_some(&read, status)?;
                Ok((SOON, None))
            }
            Decision::Refuse { token, .. } => {
                self.put(&read, journal::refused(read.status.clone(), token))?;
                Ok((SOON, None))
            }
            Decision::Farewell => {
                self.broken("it was let go without having been deleted".to_owned())?;
                Ok((SOON, None))
            }
            Decision::Begin(operation) => {
                let kind = operation.kind;
                self.write(&read, journal::opened(read.status.clone(), *operation))?;
                self.tally.rollbacks += u32::from(kind == Kind::Rollback);
                Ok((SOON, None))
            }
            Decision::Close(end) => {
                let status = journal::closed(read.status.clone(), end, self.model.now);
                self.write_some(&read, status)?;
                self.tally.superseded += u32::from(end == OperationState::Superseded);
                Ok((SOON, None))
            }
            Decision::Run { step } => {
                let desired = match &world.desired {
                    Seen::Known(desired) => Some(desired.clone()),
                    Seen::Unknown(_) => None,
                };
                Ok((self.step(read, step, desired.as_ref())?, None))
            }
        }
    }

    fn step(&mut self, read: Snapshot, index: usize, desired: Option<&Desired>) -> Result<Duration, Stop> {
        let recorded =
            |read: &Snapshot| read.status.operation.clone().and_then(|operation| Some((operation.id, operation.steps.get(index)?.clone())));
        let begun = match recorded(&read) {
            Some((_, step)) if step.state == StepState::Started && step.retry_at.is_none() => read,
            Some(_) | None => {
                let status = journal::started(read.status.clone(), index, self.model.now);
                self.write_some(&read, status)?
            }
        };
        let Some((operation, step)) = recorded(&begun) else {
            self.broken("the step that was to run is not in the record".to_owned())?;
            return Ok(SOON);
        };
        self.point("before the effect")?;
        let outcome = self.guarded_effect(operation, &step, desired)?;
        self.tell(|| format!("  {} → {}", step.name.as_str(), outcome_told(&outcome)));
        self.point("after the effect")?;
        let spec = &begun.spec;
        let status = journal::settled(begun.status.clone(), index, &outcome, spec.retry_interval, spec.timeout, self.model.now);
        if status.as_ref() != Some(&begun.status) {
            self.write_some(&begun, status)?;
        }
        Ok(match outcome {
            Outcome::Waiting { again, .. } => again,
            Outcome::Done { .. }
            | Outcome::Retry { .. }
            | Outcome::Refused { .. }
            | Outcome::Failed { .. }
            | Outcome::Measured { .. }
            | Outcome::Unapproved { .. } => SOON,
        })
    }

    fn guarded_effect(&mut self, operation: u64, step: &Step, desired: Option<&Desired>) -> Result<Outcome, Stop> {
        self.keep(rules::of_effect(&self.model.status, operation, step))?;
        let before = self.model.live.clone();
        let outcome = self.effect(operation, step, desired);
        let replaced = rules::of_replacement(&before, &self.model, step);
        self.keep(replaced)?;
        if let Ok(Outcome::Done { .. }) = outcome {
            self.tally.reverts += u32::from(step.name == StepName::RevertSchema);
            self.tally.restores += u32::from(step.name == StepName::Restore);
        }
        outcome
    }

    fn write_some(&mut self, read: &Snapshot, status: Option<ReleaseStatus>) -> Result<Snapshot, Stop> {
        match status {
            Some(status) => self.write(read, status),
            None => Err(Stop::Broken("the journal has no such transition".to_owned())),
        }
    }

    fn write(&mut self, read: &Snapshot, status: ReleaseStatus) -> Result<Snapshot, Stop> {
        let verdict = status.operation.as_ref().map_or_else(Verdict::suspended, Verdict::progressing);
        let status = summary::apply(status, &verdict, read.generation, self.model.now);
        self.put(read, status)
    }

    /// The API server: a write on top of anything but the newest version is refused.
    fn put(&mut self, read: &Snapshot, status: ReleaseStatus) -> Result<Snapshot, Stop> {
        self.point("before a write")?;
        if read.version != self.model.version {
            return Err(Stop::Conflict);
        }
        self.keep(rules::of_write(&self.model.status, &status))?;
        self.older = Some(self.model.snapshot());
        self.model.version += 1;
        self.model.status = status;
        let written = Snapshot { version: self.model.version, status: self.model.status.clone(), ..read.clone() };
        self.point("after a write")?;
        Ok(written)
    }

    /// A place at which the operator can die, or be overtaken by events.
    pub fn point(&mut self, place: &str) -> Result<(), Stop> {
        self.points += 1;
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
        for event in due {
            self.tell(|| format!("  meanwhile, {place}: {event:?}"));
            self.happen(&event);
        }
        match self.crash {
            Some(0) => {
                self.crash = None;
                self.tell(|| format!("  dies {place}"));
                Err(Stop::Crashed)
            }
            Some(left) => {
                self.crash = Some(left - 1);
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn tell(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(line());
        }
    }

    pub fn broken(&self, rule: String) -> Result<(), Stop> {
        Err(Stop::Broken(rule))
    }

    fn keep(&self, rule: Result<(), String>) -> Result<(), Stop> {
        rule.map_err(Stop::Broken)
    }
}

fn told(decision: &Decision) -> String {
    match decision {
        Decision::LookAtDatabase => "look at the database".to_owned(),
        Decision::Rest { verdict, again } => format!("rest {again:?}: {} {}", verdict.reason, verdict.message),
        Decision::Reset { token } => format!("reset {token}"),
        Decision::Begin(operation) => format!("begin {}", operation_told(operation)),
        Decision::Run { step } => format!("run step {step}"),
        Decision::Close(end) => format!("close {end:?}"),
        Decision::Grant { approval, .. } => format!("grant {approval:?}"),
        Decision::Refuse { message, .. } => format!("refuse: {message}"),
        Decision::Farewell => "farewell".to_owned(),
    }
}

fn operation_told(operation: &Operation) -> String {
    let steps: Vec<&str> = operation.steps.iter().map(|step| step.name.as_str()).collect();
    format!("{:?} {} to {} ({}): {}", operation.kind, operation.id, operation.to, operation.cause, steps.join(" "))
}

fn outcome_told(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Done { .. } => "done".to_owned(),
        Outcome::Waiting { .. } => "waiting".to_owned(),
        Outcome::Retry { message } => format!("retry: {message}"),
        Outcome::Refused { message } => format!("refused: {message}"),
        Outcome::Failed { message } => format!("failed: {message}"),
        Outcome::Measured { loss } => format!("measured: {loss:?}"),
        Outcome::Unapproved { message } => format!("unapproved: {message}"),
    }
}
