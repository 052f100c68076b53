//! Verify and Bake: the Release's checks, until they pass and while they go on passing.
//!
//! Idempotent: checks read. How long a step has run stands in its record, so that a crash does not start the clock again.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::{Error, LOOK_AGAIN, Outcome, Task, checks, done};
use crate::api::operation::Step;

/// All checks must pass in one round before `within` has passed since the step began.
pub async fn verify(task: &Task<'_>, step: &Step, within: Duration, now: Timestamp) -> Result<Outcome, Error> {
    let failures = checks::round(task).await;
    if failures.is_empty() {
        return done(passed(task));
    }
    let message = failures.join("; ");
    if age(step, now) >= within {
        return Ok(Outcome::Failed { message });
    }
    Ok(Outcome::Waiting { message, again: LOOK_AGAIN, failures: None })
}

/// What a release must hold out for.
pub struct Terms {
    pub hold: Duration,
    pub every: Duration,
    pub failure_threshold: u32,
}

/// A round of checks now and then; so many failures in a row end it.
pub async fn bake(task: &Task<'_>, step: &Step, terms: Terms, now: Timestamp) -> Result<Outcome, Error> {
    let failures = checks::round(task).await;
    let count = if failures.is_empty() { 0 } else { step.failures.unwrap_or(0) + 1 };
    if count >= terms.failure_threshold {
        return Ok(Outcome::Failed { message: format!("{count} rounds of checks in a row failed: {}", failures.join("; ")) });
    }
    let left = terms.hold.saturating_sub(age(step, now));
    if left.is_zero() && count == 0 {
        return done(passed(task));
    }
    let message = if failures.is_empty() {
        passed(task)
    } else {
        format!("{count} of {} allowed rounds failed: {}", terms.failure_threshold, failures.join("; "))
    };
    // The last round comes exactly at the end, not up to one pause after it.
    let again = if left.is_zero() { terms.every } else { terms.every.min(left) };
    Ok(Outcome::Waiting { message, again: again.max(LOOK_AGAIN), failures: Some(count) })
}

fn passed(task: &Task<'_>) -> String {
    let names: Vec<&str> = task.release.spec.verify.checks.iter().map(|check| check.name.as_str()).collect();
    if names.is_empty() { "no checks are defined".to_owned() } else { format!("checks passed: {}", names.join(", ")) }
}

fn age(step: &Step, now: Timestamp) -> Duration {
    step.started_at.map_or(SignedDuration::ZERO, |started| now.duration_since(started)).try_into().unwrap_or_default()
}
