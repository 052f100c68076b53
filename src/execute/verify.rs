//! Verify and Bake: the Release's checks, until they pass and while they go on passing.
//!
//! Idempotent: checks read. Only time in which this process could look counts: from the step's start in its record, or from
//! when the process began to lead where that was later. So a window is always watched whole; while the operator was away nobody
//! knows how the release did, and a first round that fails after a long outage must not be the last one.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::{Error, LOOK_AGAIN, Outcome, Task, checks, done, stage};
use crate::api::operation::{Staged, Step};

/// All checks must pass in one round before `within` has been watched.
pub async fn verify(task: &Task<'_>, step: &Step, within: Duration, now: Timestamp) -> Result<Outcome, Error> {
    let failures = checks::round(task).await;
    if failures.is_empty() {
        return done(passed(task));
    }
    let message = failures.join("; ");
    if watched(step, task.awake(now), now) >= within {
        return Ok(Outcome::Failed { message });
    }
    Ok(Outcome::Waiting { message, again: LOOK_AGAIN, failures: None })
}

/// What a release must hold out for.
pub struct Terms<'a> {
    pub hold: Duration,
    pub every: Duration,
    pub failure_threshold: u32,
    /// What is loaded beside meanwhile.
    pub stage: Option<&'a Staged>,
}

/// A round of checks now and then; so many failures in a row end it.
pub async fn bake(task: &Task<'_>, step: &Step, terms: Terms<'_>, now: Timestamp) -> Result<Outcome, Error> {
    if let Some(staged) = terms.stage {
        stage::beside(task, staged, terms.hold).await;
    }
    let failures = checks::round(task).await;
    let count = if failures.is_empty() { 0 } else { step.failures.unwrap_or(0) + 1 };
    if count >= terms.failure_threshold {
        return Ok(Outcome::Failed { message: format!("{count} rounds of checks in a row failed: {}", failures.join("; ")) });
    }
    let left = terms.hold.saturating_sub(watched(step, task.awake(now), now));
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

/// How long this process has been able to look at the step.
fn watched(step: &Step, awake: Timestamp, now: Timestamp) -> Duration {
    let since = step.started_at.unwrap_or(now).max(awake);
    now.duration_since(since).max(SignedDuration::ZERO).try_into().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::operation::{Action, StepName, StepState};

    #[test]
    fn time_in_which_nobody_looked_does_not_count() {
        let at = |second: i64| Timestamp::from_second(1_000 + second).expect("a time");
        let began = |started_at| Step {
            name: StepName::Verify,
            state: StepState::Started,
            attempt: 1,
            started_at,
            finished_at: None,
            retry_at: None,
            failures: None,
            message: None,
            progress: None,
            action: Action::Verify { within: crate::api::Span::seconds(60) },
        };
        for (row, started, awake, now, expected) in [
            ("the process was there all the time", Some(at(10)), at(0), at(30), 20),
            ("it was started anew after an outage", Some(at(10)), at(600), at(605), 5),
            ("it has just begun", None, at(0), at(30), 0),
            ("the clock went back", Some(at(40)), at(0), at(30), 0),
        ] {
            assert_eq!(watched(&began(started), awake, now), Duration::from_secs(expected), "{row}");
        }
    }
}
