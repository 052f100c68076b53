//! When something recurs: a cron expression in a time zone, spread by a jitter.

use std::borrow::Cow;

use cronexpr::{Crontab, MakeTimestamp};
use jiff::{
    Timestamp,
    civil::{self, DateTime},
    tz::TimeZone,
};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use super::Span;

/// Clocks are put back by two hours at most, and a schedule's times are a minute apart at least.
const IN_AN_HOUR_TWICE: u32 = 121;

/// A schedule that is known to be one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct Schedule(Written);

/// Times that recur. What was missed is made up for once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Written {
    /// Five fields, as in a crontab: minute, hour, day of the month, month, day of the week.
    #[schemars(length(max = 128))]
    cron: String,
    /// IANA name of the time zone in which the fields are meant. What falls into an hour that is skipped happens as much later, and what falls
    /// into one that comes twice happens in the first of the two.
    #[serde(default = "utc")]
    #[schemars(length(max = 64))]
    time_zone: String,
    /// Each Release is late by its own constant share of this, so that all of a cluster do not begin in the same minute.
    #[serde(default = "no_jitter")]
    jitter: Span,
}

fn utc() -> String {
    "UTC".to_owned()
}

fn no_jitter() -> Span {
    Span::seconds(0)
}

impl TryFrom<Written> for Schedule {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let schedule = Self(written);
        let never = || format!("a schedule's cron {:?} never comes: no such day is in any month that it names", schedule.cron());
        // Seen from a leap year's beginning.
        let next = schedule.0.next_after(civil::date(2024, 1, 1).at(0, 0, 0, 0))?;
        next.map(|_| ()).ok_or_else(never)?;
        Ok(schedule)
    }
}

impl Written {
    /// Without its time zone, as if clocks were never put forward or back.
    fn crontab(&self) -> Result<Crontab, String> {
        let cron = &self.cron;
        // Both are checked by themselves: the parser would take a zone as a sixth field of the expression, and the other way round.
        if cron.split_whitespace().count() != 5 {
            return Err(format!("a schedule's cron {cron:?} does not have five fields, such as \"0 3 * * *\" for three o'clock every day"));
        }
        cronexpr::parse_crontab(&format!("{cron} UTC"))
            .map_err(|error| format!("a schedule's cron {cron:?} can't be read: {}", error.to_string().replace('\n', " ")))
    }

    fn zone(&self) -> Result<TimeZone, String> {
        let name = &self.time_zone;
        TimeZone::get(name).map_err(|_| format!("a schedule's timeZone {name:?} is not the name of a time zone, such as Europe/Berlin"))
    }

    /// What the clock on the wall shows next of the times that are asked for. `None`: none of them ever comes.
    fn next_after(&self, clock: DateTime) -> Result<Option<DateTime>, String> {
        self.zone()?;
        let moment = TimeZone::UTC.to_timestamp(clock).map_err(|error| error.to_string())?;
        Ok(self.crontab()?.find_next(MakeTimestamp(moment)).ok().map(|next| next.datetime()))
    }
}

impl From<Schedule> for Written {
    fn from(schedule: Schedule) -> Self {
        schedule.0
    }
}

impl JsonSchema for Schedule {
    fn schema_name() -> Cow<'static, str> {
        "Schedule".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Written::json_schema(generator)
    }
}

impl Schedule {
    /// The first time after `moment`, late by `share` of the jitter, which is from 0 to 1. `None`: there is none.
    pub fn next_after(&self, moment: Timestamp, share: f64) -> Option<Timestamp> {
        let zone = self.0.zone().ok()?;
        let mut clock = zone.to_datetime(moment);
        // In an hour that comes for the second time, what the clock shows next has been.
        for _ in 0..IN_AN_HOUR_TWICE {
            clock = self.0.next_after(clock).ok()??;
            let next = zone.to_timestamp(clock).ok()?;
            if next > moment {
                return next.checked_add(self.0.jitter.0.mul_f64(share.clamp(0.0, 1.0))).ok();
            }
        }
        None
    }

    pub fn cron(&self) -> &str {
        &self.0.cron
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(text: Value) -> Result<Schedule, String> {
        serde_json::from_value(text).map_err(|error| error.to_string())
    }

    #[test]
    fn times_are_those_of_the_zone() {
        let at = |text: &str| text.parse::<Timestamp>().expect("a time");
        for (schedule, moment, expected) in [
            (json!({"cron": "0 3 * * *"}), "2026-03-28T03:00:00Z", "2026-03-29T03:00:00Z"),
            (json!({"cron": "0 3 * * *", "timeZone": "Europe/Berlin"}), "2026-03-27T12:00:00Z", "2026-03-28T02:00:00Z"),
            (json!({"cron": "0 3 * * *", "timeZone": "Europe/Berlin"}), "2026-03-28T02:00:00Z", "2026-03-29T01:00:00Z"),
            (json!({"cron": "*/15 * * * *", "jitter": "10m"}), "2026-03-28T03:00:00Z", "2026-03-28T03:20:00Z"),
            // Berlin has no half past two on the one day and two of them on the other.
            (json!({"cron": "30 2 * * *", "timeZone": "Europe/Berlin"}), "2026-03-28T12:00:00Z", "2026-03-29T01:30:00Z"),
            (json!({"cron": "30 2 * * *", "timeZone": "Europe/Berlin"}), "2026-03-29T01:30:00Z", "2026-03-30T00:30:00Z"),
            (json!({"cron": "30 2 * * *", "timeZone": "Europe/Berlin"}), "2026-10-24T12:00:00Z", "2026-10-25T00:30:00Z"),
            (json!({"cron": "30 2 * * *", "timeZone": "Europe/Berlin"}), "2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"),
            (json!({"cron": "*/15 * * * *", "timeZone": "Europe/Berlin"}), "2026-10-25T01:10:00Z", "2026-10-25T02:00:00Z"),
            (json!({"cron": "0 0 * * *", "timeZone": "America/Sao_Paulo"}), "2018-11-03T12:00:00Z", "2018-11-04T03:00:00Z"),
            (json!({"cron": "0 12 29 2 *"}), "2026-11-27T00:00:00Z", "2028-02-29T12:00:00Z"),
            (json!({"cron": "0 12 * * SUN"}), "2026-11-27T00:00:00Z", "2026-11-29T12:00:00Z"),
        ] {
            let next = read(schedule.clone()).expect("it is a schedule").next_after(at(moment), 0.5);
            assert_eq!(next, Some(at(expected)), "{schedule}");
        }
    }

    #[test]
    fn what_is_no_schedule_is_refused_by_name() {
        for (text, said) in [
            (json!({"cron": "0 3 * *"}), "five fields"),
            (json!({"cron": "0 3 * * * UTC"}), "five fields"),
            (json!({"cron": "0 0 30 2 *"}), "a schedule's cron \"0 0 30 2 *\" never comes"),
            (json!({"cron": "0 25 * * *"}), "a schedule's cron \"0 25 * * *\" can't be read"),
            (json!({"cron": "0 3 * * *", "timeZone": "Berlin"}), "a schedule's timeZone \"Berlin\" is not the name"),
        ] {
            let error = read(text.clone()).expect_err("it is refused");
            assert!(error.contains(said), "{text}: {error}");
        }
    }

    #[test]
    fn it_is_written_as_it_was_read() {
        let written = json!({"cron": "0 3 * * *", "timeZone": "Europe/Berlin", "jitter": "10m"});
        assert_eq!(serde_json::to_value(read(written.clone()).expect("it is a schedule")).expect("it can be written"), written);
    }
}
