//! The hands of the simulation: one effect a step, each idempotent by looking at the model as it is, as `execute` looks at
//! the real world. Those of the database are in `database`.

use std::time::Duration;

use backout::{
    api::{
        Kept,
        operation::{Action, Scale, Staged, Step},
    },
    plan::{input::Desired, journal::Outcome},
};

use super::{
    driver::{Simulation, Stop},
    model::{Model, environment},
};

const LOOK_AGAIN: Duration = Duration::from_millis(250);

pub fn done() -> Outcome {
    Outcome::Done { message: "done".to_owned() }
}

fn waiting() -> Outcome {
    Outcome::Waiting { message: "on its way".to_owned(), again: LOOK_AGAIN, failures: None }
}

pub fn failed(message: impl Into<String>) -> Outcome {
    Outcome::Failed { message: message.into() }
}

pub fn retry(message: impl Into<String>) -> Outcome {
    Outcome::Retry { message: message.into() }
}

impl Simulation {
    /// Runs one step; `operation` is its id.
    pub fn effect(&mut self, operation: u64, step: &Step, desired: Option<&Desired>) -> Result<Outcome, Stop> {
        if self.model.away > 0 {
            self.model.away -= 1;
            return Ok(retry("the server is away"));
        }
        match &step.action {
            Action::Keep { release, digest, revision } => Ok(self.model.keep(*release, digest, revision, desired)),
            Action::Preflight { release, .. } => {
                Ok(if self.model.kept.contains_key(release) { done() } else { retry("the release is not kept") })
            }
            Action::BackUp { .. }
            | Action::RehearseMigrations { .. }
            | Action::Migrate { .. }
            | Action::Stage { .. }
            | Action::RevertSchema { .. }
            | Action::Restore { .. } => self.database_effect(operation, &step.action),
            Action::Deploy { release } => Ok(self.model.deploy(*release)),
            Action::FlushCache { .. } => {
                self.model.cached = 0;
                Ok(done())
            }
            Action::Verify { within } => Ok(self.model.verify(step, within.0)),
            Action::Bake { hold, every, failure_threshold, stage } => {
                if let Some(Staged { point, shadow }) = stage {
                    // Whatever becomes of it.
                    self.database_effect(operation, &Action::Stage { point: point.clone(), shadow: shadow.clone() })?;
                }
                Ok(self.model.bake(step, hold.0, every.0, *failure_threshold))
            }
            Action::Fence { workloads } => {
                if self.model.workload.asked.replicas > 0 {
                    self.model.workload.served.clone_from(&self.model.server.live.applied);
                }
                self.model.workload.asked.replicas = 0;
                debug_assert!(!workloads.is_empty());
                Ok(if self.model.workload.there.replicas == 0 { done() } else { waiting() })
            }
            Action::Unfence { workloads } => Ok(self.model.unfence(workloads)),
            Action::Approve { .. } | Action::Discard { .. } if !self.model.database_seen => Ok(retry("the database is away")),
            Action::Rehearse { .. } => Ok(done()),
            Action::Approve { risk, .. } => Ok(self.model.measure(risk)),
            Action::Expire { points } => self.expire(points),
            Action::Discard { schemas, .. } => self.model.discard(schemas).map(|()| done()).map_err(Stop::Broken),
        }
    }
}

impl Model {
    fn keep(&mut self, release: u64, digest: &str, revision: &str, desired: Option<&Desired>) -> Outcome {
        if let Some(kept) = self.kept.get(&release) {
            return if kept.content.digest() == digest { done() } else { failed("another release has its number") };
        }
        match desired.filter(|desired| desired.digest == digest) {
            Some(desired) => {
                let secret_keys = std::collections::BTreeMap::new();
                std::sync::Arc::make_mut(&mut self.kept)
                    .insert(release, Kept { content: desired.content.clone(), revision: revision.to_owned(), secret_keys });
                done()
            }
            None => Outcome::Refused { message: "the source does not hold it any more".to_owned() },
        }
    }

    fn deploy(&mut self, release: u64) -> Outcome {
        let Some(kept) = self.kept.get(&release) else {
            return retry("the release is not kept");
        };
        let asked = &mut self.workload.asked;
        asked.env = environment(kept);
        asked.image = kept.content.images.values().next().cloned().unwrap_or_default();
        self.rollout()
    }

    fn unfence(&mut self, workloads: &[Scale]) -> Outcome {
        self.workload.asked.replicas = workloads.first().map_or(0, |scale| scale.replicas);
        self.rollout()
    }

    fn rollout(&mut self) -> Outcome {
        if self.workload.asked.replicas > 0 && self.workload.asked.image.ends_with("-crashing") {
            failed("CrashLoopBackOff")
        } else if self.workload.there == self.workload.asked {
            self.cached += 1;
            done()
        } else {
            waiting()
        }
    }

    fn healthy(&self) -> bool {
        self.workload.there.replicas > 0 && self.workload.there.image.split('-').count() == 1
    }

    fn verify(&self, step: &Step, within: Duration) -> Outcome {
        if self.healthy() {
            done()
        } else if self.age(step) >= within {
            failed("check health failed")
        } else {
            waiting()
        }
    }

    fn bake(&self, step: &Step, hold: Duration, every: Duration, failure_threshold: u32) -> Outcome {
        let failures = if self.healthy() { 0 } else { step.failures.unwrap_or(0) + 1 };
        if failures >= failure_threshold {
            return failed("check health failed");
        }
        if failures == 0 && self.age(step) >= hold {
            return done();
        }
        Outcome::Waiting { message: "baking".to_owned(), again: every, failures: Some(failures) }
    }

    fn age(&self, step: &Step) -> Duration {
        let started = step.started_at.unwrap_or(self.now);
        self.now.duration_since(started).try_into().unwrap_or_default()
    }
}
