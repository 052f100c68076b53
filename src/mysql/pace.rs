//! Work beside an application that leaves it its time. A pulse commits one row every so often, as an application does; as long as that takes
//! longer than it did before the work began, the work rests longer and longer after each statement, and else shorter and shorter.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::sleep;

use super::beside::{self, Note};
use super::endpoint::{Database, Session};
use super::error::Result;

/// So many pulses are judged at once. Of a hundred, the slowest but one is the 99th percentile.
const PULSES: usize = 100;
/// Between two of them: they are a load themselves.
const EVERY: Duration = Duration::from_millis(50);
/// How many times as long as before the work began a pulse may take.
const ALLOWED: u32 = 2;
/// What takes no longer than this disturbs nobody, whatever it took before.
const UNNOTICED: Duration = Duration::from_millis(2);
/// In times of what the statement before took: at the beginning, and at most.
const FIRST_REST: u32 = 16;
const LONGEST_REST: u32 = 64;
/// However long the statement before took: a session that is silent for longer is ended by the server some day.
const MOST_AT_ONCE: Duration = Duration::from_secs(60);
/// So often it is looked whether the rest may end sooner.
const LOOK: Duration = Duration::from_millis(500);

/// How fast the work may be, for as long as this is held.
pub(super) struct Pace {
    rest: Arc<AtomicU32>,
    _pulse: JoinSet<()>,
}

impl Pace {
    /// Finds out how long a pulse takes without the work, and goes on measuring. The row is one of `shadow`'s notes.
    pub async fn begin(database: &Database, shadow: &str) -> Result<Self> {
        let mut session = database.session().await?;
        beside::keep(&mut session, shadow, Note::Pulse, &0).await?;
        let sql = beside::pulse(shadow);
        let mut before = Vec::new();
        for _ in 0..PULSES {
            before.push(beat(&mut session, &sql).await?);
        }
        let mut governor = Governor::new(before);
        let rest = Arc::new(AtomicU32::new(governor.rest));
        let told = Arc::clone(&rest);
        let mut pulse = JoinSet::new();
        pulse.spawn(async move {
            while let Ok(took) = beat(&mut session, &sql).await {
                governor.hear(took);
                told.store(governor.rest, Ordering::Relaxed);
            }
            // Nobody knows any more what the work does to others.
            told.fetch_max(FIRST_REST, Ordering::Relaxed);
        });
        Ok(Self { rest, _pulse: pulse })
    }

    /// After something that took `worked`.
    pub async fn rest(&self, worked: Duration) {
        let begun = Instant::now();
        loop {
            let rest = (worked * self.rest.load(Ordering::Relaxed)).min(MOST_AT_ONCE);
            match rest.saturating_sub(begun.elapsed()) {
                Duration::ZERO => return,
                left => sleep(left.min(LOOK)).await,
            }
        }
    }
}

async fn beat(session: &mut Session, sql: &str) -> Result<Duration> {
    sleep(EVERY).await;
    let begun = Instant::now();
    session.run_long("measure how long a commit takes", sql.to_owned()).await?;
    Ok(begun.elapsed())
}

/// Pure.
struct Governor {
    allowed: Duration,
    pulses: Vec<Duration>,
    rest: u32,
}

impl Governor {
    fn new(before: Vec<Duration>) -> Self {
        Self { allowed: (slowest_but_one(before) * ALLOWED).max(UNNOTICED), pulses: Vec::new(), rest: FIRST_REST }
    }

    fn hear(&mut self, took: Duration) {
        self.pulses.push(took);
        if self.pulses.len() == PULSES {
            let slow = slowest_but_one(std::mem::take(&mut self.pulses)) > self.allowed;
            self.rest = if slow { (self.rest * 2).clamp(1, LONGEST_REST) } else { self.rest * 3 / 4 };
        }
    }
}

fn slowest_but_one(mut pulses: Vec<Duration>) -> Duration {
    pulses.sort_unstable();
    pulses.iter().rev().nth(1).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A hundred pulses of which so many are slow.
    fn pulses(slow: usize, took: u64) -> impl Iterator<Item = Duration> {
        (0..PULSES).map(move |number| Duration::from_millis(if number < slow { took } else { 5 }))
    }

    #[test]
    fn the_work_rests_longer_while_commits_are_slow_and_shorter_while_they_are_not() {
        let mut governor = Governor::new(pulses(0, 0).collect());
        let mut rests = Vec::new();
        for (slow, took, rounds) in [(0, 0, 3), (1, 900, 1), (2, 10, 1), (2, 11, 1), (50, 900, 9), (0, 0, 20)] {
            (0..rounds).for_each(|_| pulses(slow, took).for_each(|took| governor.hear(took)));
            rests.push(governor.rest);
        }
        assert_eq!(rests, [6, 4, 3, 6, LONGEST_REST, 0], "one slow pulse in a hundred is none, and twice as long is allowed");
        pulses(9, 11).for_each(|took| governor.hear(took));
        assert_eq!(governor.rest, 1, "it rests again");
    }

    #[test]
    fn what_nobody_notices_is_allowed() {
        let mut governor = Governor::new(vec![Duration::from_micros(100); PULSES]);
        (0..PULSES).for_each(|_| governor.hear(Duration::from_micros(1900)));
        assert_eq!(governor.rest, FIRST_REST * 3 / 4);
    }
}
