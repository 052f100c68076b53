//! The pen and the hands of the simulated operator: intent before effect, each write on top of the version that the decision
//! was made on.

use std::{sync::Arc, time::Duration};

use backout::{
    api::{
        operation::{Step, StepName, StepState},
        status::ReleaseStatus,
    },
    plan::{
        Verdict,
        input::Desired,
        journal::{self, Outcome},
        summary,
    },
};

use super::{
    driver::{SOON, Simulation, Stop},
    effects::retry,
    model::Snapshot,
    rules, trace,
};

impl Simulation {
    /// Runs a step as the operator of `term`.
    pub fn step(&mut self, read: Snapshot, index: usize, desired: Option<&Desired>, term: u64) -> Result<Duration, Stop> {
        let recorded =
            |read: &Snapshot| read.status.operation.clone().and_then(|operation| Some((operation.id, operation.steps.get(index)?.clone())));
        let begun = match recorded(&read) {
            Some((_, step)) if step.state == StepState::Started && step.retry_at.is_none() => read,
            Some(_) | None => {
                let status = journal::started(read.status(), index, self.model.now);
                self.write_some(&read, status)?
            }
        };
        let Some((operation, step)) = recorded(&begun) else {
            self.broken("the step that was to run is not in the record".to_owned())?;
            return Ok(SOON);
        };
        self.point("before the effect")?;
        if self.term != term {
            return Err(Stop::Replaced);
        }
        let outcome = self.guarded_effect(operation, &step, desired, term)?;
        self.tell(|| format!("  {} → {}", step.name.as_str(), trace::outcome(&outcome)));
        self.point("after the effect")?;
        let spec = &begun.spec;
        let status = journal::settled(begun.status(), index, &outcome, spec.retry_interval, spec.timeout, self.model.now);
        if status.as_ref() != Some(&*begun.status) {
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

    fn guarded_effect(&mut self, operation: u64, step: &Step, desired: Option<&Desired>, term: u64) -> Result<Outcome, Stop> {
        self.keep(rules::of_effect(&self.model, operation, step))?;
        let before = self.model.server.live.clone();
        let outcome = match self.effect(operation, step, desired) {
            Err(Stop::Cut) => retry("the session with the database was lost"),
            other => other?,
        };
        self.changed = true;
        // What another did while this one was frozen is not this one's.
        if self.term == term {
            self.keep(rules::of_replacement(&before, &self.model, step))?;
        }
        if let Outcome::Done { .. } = outcome
            && matches!(step.name, StepName::RevertSchema | StepName::Restore | StepName::Expire)
        {
            self.count(step.name.as_str());
        }
        self.effect = Some(self.answers - self.begun.1);
        Ok(if self.answer_is_lost() { retry("the answer did not come") } else { outcome })
    }

    pub fn write_some(&mut self, read: &Snapshot, status: Option<ReleaseStatus>) -> Result<Snapshot, Stop> {
        match status {
            Some(status) => self.write(read, status),
            None => Err(Stop::Broken("the journal has no such transition".to_owned())),
        }
    }

    pub fn write(&mut self, read: &Snapshot, status: ReleaseStatus) -> Result<Snapshot, Stop> {
        let verdict = status.operation.as_ref().map_or_else(Verdict::suspended, Verdict::progressing);
        let status = summary::apply(status, &verdict, read.generation, self.model.now);
        self.put(read, status)
    }

    /// The API server: a write on top of anything but the newest version is refused.
    pub fn put(&mut self, read: &Snapshot, status: ReleaseStatus) -> Result<Snapshot, Stop> {
        self.is_newest(read)?;
        self.keep(rules::of_write(&self.model.status, &status))?;
        self.older = Some(self.model.snapshot());
        self.model.version += 1;
        self.model.status = Arc::new(status);
        let written = Snapshot { version: self.model.version, status: Arc::clone(&self.model.status), ..read.clone() };
        self.written()?;
        Ok(written)
    }

    /// Takes the finalizer off the deleted object.
    pub fn let_go(&mut self, read: &Snapshot) -> Result<(), Stop> {
        self.is_newest(read)?;
        self.keep(rules::of_farewell(&self.model))?;
        self.model.version += 1;
        self.model.gone = true;
        self.count("farewell");
        self.written()
    }

    fn is_newest(&mut self, read: &Snapshot) -> Result<(), Stop> {
        self.point("before a write")?;
        if self.model.gone || read.version != self.model.version { Err(Stop::Conflict) } else { Ok(()) }
    }

    fn written(&mut self) -> Result<(), Stop> {
        self.changed = true;
        self.point("after a write")?;
        if self.write_is_unanswered() { Err(Stop::Unanswered) } else { Ok(()) }
    }
}
