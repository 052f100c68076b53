//! How far a step has come, told often enough for people and seldom enough for the API server.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::api::{
    Span,
    progress::{Part, Progress, Unit},
};

/// Pause between two writes of one step, and before the first: what is done sooner needs none. Each is a write of the whole status,
/// and many Releases may be at it.
const PAUSE: Duration = Duration::from_secs(5);

/// What a step says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    pub part: Part,
    pub done: u64,
    pub total: u64,
    pub unit: Unit,
}

/// What was told of a step so far.
#[derive(Clone, Debug)]
pub struct Pace {
    /// What it is at, since when, and what of it was done then.
    part: Option<(Part, Timestamp, u64)>,
    told: Timestamp,
    last: Option<Seen>,
}

impl Pace {
    pub fn new(begun: Timestamp) -> Self {
        Self { part: None, told: begun, last: None }
    }

    /// What to tell now, if anything: not within [`PAUSE`] of the last time, and only what is new.
    pub fn tell(&mut self, seen: Seen, now: Timestamp) -> Option<Progress> {
        let (since, before) = match self.part {
            Some((part, since, before)) if part == seen.part && before <= seen.done => (since, before),
            Some(_) | None => {
                self.part = Some((seen.part, now, seen.done));
                (now, seen.done)
            }
        };
        let pause = SignedDuration::try_from(PAUSE).unwrap_or(SignedDuration::MAX);
        if now.duration_since(self.told) < pause || self.last == Some(seen) {
            return None;
        }
        self.told = now;
        self.last = Some(seen);
        let Seen { part, done, total, unit } = seen;
        let millis = u128::try_from(now.duration_since(since).as_millis()).unwrap_or_default();
        let moved = u128::from(done - before);
        let per_second = (moved * 1000).checked_div(millis).unwrap_or_default();
        let left = (moved > 0 && millis > 0).then(|| u128::from(total.saturating_sub(done)) * millis / moved / 1000);
        Some(Progress {
            part,
            done,
            total,
            unit,
            per_second: u64::try_from(per_second).unwrap_or(u64::MAX),
            left: left.map(|seconds| Span::seconds(u64::try_from(seconds).unwrap_or(u64::MAX).min(LONGEST))),
            at: now,
        })
    }
}

/// A guess beyond a month is none, and a status holds no span beyond a century.
const LONGEST: u64 = 30 * 24 * 60 * 60;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_told_at_most_every_few_seconds_with_the_rate_of_its_part() {
        let at = |millis: i64| Timestamp::from_millisecond(1_000_000 + millis).expect("a time");
        let mut pace = Pace::new(at(0));
        let mut tell =
            |part, done, total, unit, millis| pace.tell(Seen { part, done, total, unit }, at(millis)).map(|told| told.to_string());
        let rows = |done| (Part::Load, done, 100_000, Unit::Rows);
        let verify = |done| (Part::Verify, done, 10_000_000, Unit::Bytes);
        for (what, (part, done, total, unit), millis, expected) in [
            ("it has just begun", verify(0), 0, None),
            ("what is over sooner is not told", verify(9_000_000), 4_900, None),
            ("another part, whose rate is not known yet", rows(0), 5_000, Some("Load 0 %: 0 of 100000 rows, 0 rows/s")),
            ("too soon", rows(10_000), 7_000, None),
            ("the rate is that of this part", rows(20_000), 10_000, Some("Load 20 %: 20000 of 100000 rows, 4000 rows/s, 20s left")),
            ("nothing moved", rows(20_000), 15_000, None),
            ("it goes on more slowly", rows(25_000), 30_000, Some("Load 25 %: 25000 of 100000 rows, 1000 rows/s, 1m15s left")),
            ("the clock went back", rows(30_000), 20_000, None),
            (
                "an estimate that was too low",
                (Part::Load, 100_000, 100_000, Unit::Rows),
                45_000,
                Some("Load 100 %: 100000 of 100000 rows, 2500 rows/s, 0s left"),
            ),
        ] {
            assert_eq!(tell(part, done, total, unit, millis).as_deref(), expected, "{what}");
        }
    }
}
