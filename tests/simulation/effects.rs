//! The hands of the simulation: one effect a step, each idempotent by looking at the model as it is, as `execute` looks at
//! the real world. Between its parts a step can be killed.

use std::time::Duration;

use backout::{
    api::{
        Kept, Span,
        operation::{Action, Loss, Revert, Risk, Scale, Step},
    },
    plan::{
        input::{AppliedSeen, Desired},
        journal::Outcome,
    },
};

use super::{
    driver::{Simulation, Stop},
    model::{Database, Model, Point, Shadow, UID, environment},
};

const LOOK_AGAIN: Duration = Duration::from_millis(250);

fn done() -> Outcome {
    Outcome::Done { message: "done".to_owned() }
}

fn waiting() -> Outcome {
    Outcome::Waiting { message: "on its way".to_owned(), again: LOOK_AGAIN, failures: None }
}

fn failed(message: impl Into<String>) -> Outcome {
    Outcome::Failed { message: message.into() }
}

fn retry(message: impl Into<String>) -> Outcome {
    Outcome::Retry { message: message.into() }
}

impl Simulation {
    /// Runs one step; `operation` is its id.
    pub fn effect(&mut self, operation: u64, step: &Step, desired: Option<&Desired>) -> Result<Outcome, Stop> {
        if self.model.away > 0 {
            self.model.away -= 1;
            return Ok(retry("the server is away"));
        }
        let marker = format!("{UID}/{operation}");
        match &step.action {
            Action::Keep { release, digest, revision } => Ok(self.model.keep(*release, digest, revision, desired)),
            Action::Preflight { release, .. } => {
                Ok(if self.model.kept.contains_key(release) { done() } else { retry("the release is not kept") })
            }
            Action::BackUp { release, point } => {
                if !self.model.database_seen {
                    return Ok(retry("the database is away"));
                }
                let content = self.model.live.clone();
                self.model.points.entry(point.clone()).or_insert(Point { before: *release, content });
                Ok(done())
            }
            Action::Migrate { release, migrations } => self.migrate(*release, migrations),
            Action::Deploy { release } => Ok(self.model.deploy(*release)),
            Action::FlushCache { .. } => {
                self.model.cached = 0;
                Ok(done())
            }
            Action::Verify { within } => Ok(self.model.verify(step, within.0)),
            Action::Bake { hold, every, failure_threshold } => Ok(self.model.bake(step, hold.0, every.0, *failure_threshold)),
            Action::Stage { point, shadow } => Ok(self.model.stage(point, shadow)),
            Action::Fence { workloads } => {
                self.model.workload.asked.replicas = 0;
                debug_assert!(!workloads.is_empty());
                Ok(if self.model.workload.there.replicas == 0 { done() } else { waiting() })
            }
            Action::RevertSchema { migrations, .. } => self.revert(migrations),
            Action::Restore { point, shadow, aside, .. } => self.restore(point, shadow, aside, &marker),
            Action::Unfence { workloads } => Ok(self.model.unfence(workloads)),
            Action::Approve { risk, .. } => Ok(self.model.measure(risk)),
            Action::Discard { schemas, .. } => {
                self.model.shadows.retain(|name, _| !schemas.contains(name));
                self.model.asides.retain(|name, _| !schemas.contains(name));
                Ok(done())
            }
        }
    }

    fn migrate(&mut self, release: u64, versions: &[u64]) -> Result<Outcome, Stop> {
        let Some(kept) = self.model.kept.get(&release).cloned() else { return Ok(retry("the release is not kept")) };
        for version in versions {
            self.point("between migrations")?;
            if !self.model.database_seen {
                return Ok(retry("the database is away"));
            }
            let Some(migration) = kept.content.migrations.iter().find(|migration| migration.version == *version) else {
                return Ok(failed("the kept release lacks a planned migration"));
            };
            let applied = &mut self.model.live.applied;
            match applied.iter().find(|applied| applied.version == *version) {
                Some(there) if there.trouble.is_none() => continue,
                Some(_) => return Ok(failed("it stands half way")),
                None => {}
            }
            let trouble = match migration.up.split(' ').next() {
                Some("Works") => None,
                Some("FailsHalfWay") => Some(format!("migration {version} stands half way")),
                _ => return Ok(failed("a statement failed")),
            };
            let half_way = trouble.is_some();
            applied.push(AppliedSeen { version: *version, name: migration.name.clone(), checksum: migration.checksum(), release, trouble });
            applied.sort_by_key(|applied| applied.version);
            self.point("inside a migration")?;
            if half_way {
                return Ok(failed("a statement failed half way"));
            }
        }
        Ok(done())
    }

    fn revert(&mut self, reverts: &[Revert]) -> Result<Outcome, Stop> {
        self.must_be_fenced()?;
        for Revert { migration: version, release } in reverts {
            self.point("between down scripts")?;
            if !self.model.database_seen {
                return Ok(retry("the database is away"));
            }
            let kept = self.model.kept.get(release);
            let script = kept
                .and_then(|kept| kept.content.migrations.iter().find(|migration| migration.version == *version))
                .and_then(|migration| migration.down.clone());
            let Some(script) = script else {
                self.broken(format!("release {release} was planned to have a down script for {version}"))?;
                return Ok(failed("no down script"));
            };
            let applied = &mut self.model.live.applied;
            let Some(there) = applied.iter_mut().find(|applied| applied.version == *version) else { continue };
            match script.split(' ').next() {
                Some("Works") => applied.retain(|applied| applied.version != *version),
                Some("FailsHalfWay") => {
                    there.trouble = Some(format!("migration {version} stands half way back"));
                    return Ok(failed("a statement failed half way"));
                }
                _ => return Ok(failed("a statement failed")),
            }
            self.point("inside a down script")?;
        }
        Ok(done())
    }

    fn restore(&mut self, point: &str, shadow: &str, aside: &str, marker: &str) -> Result<Outcome, Stop> {
        self.must_be_fenced()?;
        if !self.model.database_seen {
            return Ok(retry("the database is away"));
        }
        if self.model.live.marker.as_deref() != Some(marker) {
            let staged = self.model.shadows.get(shadow).is_some_and(|shadow| shadow.point == point);
            if !staged {
                self.broken(format!("{shadow} is not staged from {point}"))?;
            }
            if self.model.asides.contains_key(aside) {
                self.broken(format!("{aside} holds what was replaced before"))?;
            }
            if let Some(shadow) = self.model.shadows.remove(shadow) {
                let replacement = Database { marker: Some(marker.to_owned()), ..shadow.content };
                let replaced = std::mem::replace(&mut self.model.live, replacement);
                self.model.asides.insert(aside.to_owned(), replaced);
            }
            self.point("right after the swap")?;
        }
        Ok(done())
    }

    /// No pod may run while the database changes under it.
    fn must_be_fenced(&mut self) -> Result<(), Stop> {
        if self.model.workload.there.replicas == 0 {
            return Ok(());
        }
        self.broken("the database is changed while pods run".to_owned())
    }
}

impl Model {
    fn measure(&self, risk: &Risk) -> Outcome {
        let lost = match risk {
            Risk::Replacement { schema, .. } => {
                let other =
                    self.shadows.get(schema).map(|shadow| shadow.content.rows).or_else(|| self.asides.get(schema).map(|aside| aside.rows));
                self.live.rows.abs_diff(other.unwrap_or_default())
            }
            Risk::Scripts { .. } => 0,
        };
        Outcome::Measured {
            loss: Loss {
                inserted: lost,
                changed: 0,
                deleted: 0,
                by_scripts: 0,
                since: None,
                measured_at: self.now,
                took: Span::seconds(0),
                details: Vec::new(),
                uncertain: false,
            },
        }
    }

    fn keep(&mut self, release: u64, digest: &str, revision: &str, desired: Option<&Desired>) -> Outcome {
        if let Some(kept) = self.kept.get(&release) {
            return if kept.content.digest() == digest { done() } else { failed("another release has its number") };
        }
        match desired.filter(|desired| desired.digest == digest) {
            Some(desired) => {
                let secret_keys = std::collections::BTreeMap::new();
                self.kept.insert(release, Kept { content: desired.content.clone(), revision: revision.to_owned(), secret_keys });
                done()
            }
            None => Outcome::Refused { message: "the source does not hold it any more".to_owned() },
        }
    }

    fn deploy(&mut self, release: u64) -> Outcome {
        let Some(kept) = self.kept.get(&release) else { return retry("the release is not kept") };
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

    fn stage(&mut self, point: &str, shadow: &str) -> Outcome {
        if !self.database_seen {
            return retry("the database is away");
        }
        if self.shadows.get(shadow).is_some_and(|shadow| shadow.point == point) {
            return done();
        }
        let Some(content) = self.points.get(point).map(|point| point.content.clone()) else { return failed("the backup point is gone") };
        self.shadows.insert(shadow.to_owned(), Shadow { point: point.to_owned(), content });
        done()
    }

    fn age(&self, step: &Step) -> Duration {
        let started = step.started_at.unwrap_or(self.now);
        self.now.duration_since(started).try_into().unwrap_or_default()
    }
}
