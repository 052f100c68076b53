//! When something recurs: a cron expression in a time zone, spread by a jitter.

use std::borrow::Cow;

use cronexpr::{Crontab, MakeTimestamp};
use jiff::{Timestamp, tz::TimeZone};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use super::Span;

/// A schedule that is known to be one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct Schedule(Written);

/// When points are taken besides those before migrations: once the newest point is older than the last of these times.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Written {
    /// Five fields, as in a crontab: minute, hour, day of the month, month, day of the week.
    #[schemars(length(max = 128))]
    cron: String,
    /// IANA name of the time zone in which the fields are meant. An hour that is skipped or comes twice is the zone's own business:
    /// what falls into it happens once.
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
        written.crontab()?;
        Ok(Self(written))
    }
}

impl Written {
    fn crontab(&self) -> Result<Crontab, String> {
        let Self { cron, time_zone, jitter: _ } = self;
        // Both are checked by themselves: the parser would take a zone as a sixth field of the expression, and the other way round.
        if cron.split_whitespace().count() != 5 {
            return Err(format!("schedule.cron {cron:?} does not have five fields, such as \"0 3 * * *\" for three o'clock every day"));
        }
        TimeZone::get(time_zone)
            .map_err(|_| format!("schedule.timeZone {time_zone:?} is not the name of a time zone, such as Europe/Berlin"))?;
        cronexpr::parse_crontab(&format!("{cron} {time_zone}"))
            .map_err(|error| format!("schedule.cron {cron:?} can't be read: {}", error.to_string().replace('\n', " ")))
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
        let next = self.0.crontab().ok()?.find_next(MakeTimestamp(moment)).ok()?.timestamp();
        next.checked_add(self.0.jitter.0.mul_f64(share.clamp(0.0, 1.0))).ok()
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
            (json!({"cron": "0 25 * * *"}), "schedule.cron \"0 25 * * *\" can't be read"),
            (json!({"cron": "0 3 * * *", "timeZone": "Berlin"}), "schedule.timeZone \"Berlin\" is not the name"),
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
