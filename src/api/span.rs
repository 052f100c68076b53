//! Durations as Kubernetes users write them: `30s`, `1m30s`, `1.5h`; and `30d`, a day being 24 hours.

use std::{borrow::Cow, fmt, str::FromStr, time::Duration};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The pattern that Flux uses for durations, so that users meet nothing new, with days in front of it, and with so few digits that
/// no text of [`LONGEST`] characters comes to a century, which would be refused only once it is stored.
const PATTERN: &str = r"^([0-9]{1,4}d)?([0-9]{1,5}(\.[0-9]+)?h|[0-9]{1,7}(\.[0-9]+)?m|[0-9]{1,9}(\.[0-9]+)?(s|ms))*$";
const LONGEST: usize = 32;

/// A length of time, kept to the millisecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

impl Span {
    pub const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a duration such as 30s, 5m, 1h30m or 30d");
        let mut rest = text;
        let mut millis = 0_f64;
        if rest.is_empty() {
            return Err(wrong());
        }
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
            let (number, tail) = rest.split_at(digits);
            let number: f64 = number.parse().map_err(|_| wrong())?;
            let unit_end = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
            let (unit, tail) = tail.split_at(unit_end);
            millis += number
                * match unit {
                    "ms" => 1.0,
                    "s" => 1e3,
                    "m" => 60e3,
                    "h" => 3_600e3,
                    "d" => 24.0 * 3_600e3,
                    _ => return Err(wrong()),
                };
            rest = tail;
        }
        // A century is longer than any interval can mean, and far below what a timestamp can be moved by.
        if millis > 100.0 * 365.0 * 24.0 * 3_600e3 {
            return Err(format!("{text:?} is longer than a century"));
        }
        Ok(Self(Duration::from_millis(millis.round() as u64)))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut millis = self.0.as_millis();
        if millis == 0 {
            return f.write_str("0s");
        }
        for (unit, size) in [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)] {
            if millis >= size {
                write!(f, "{}{unit}", millis / size)?;
                millis %= size;
            }
        }
        Ok(())
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Span {
    fn schema_name() -> Cow<'static, str> {
        "Span".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": PATTERN, "minLength": 1, "maxLength": LONGEST})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_reads_what_it_writes() {
        for (text, millis) in
            [("0s", 0), ("30s", 30_000), ("1h30m", 5_400_000), ("1500ms", 1_500), ("1.5m", 90_000), ("1d12h", 129_600_000)]
        {
            let span: Span = text.parse().expect("the table holds valid spans");
            assert_eq!(span.0.as_millis(), millis, "{text}");
            assert_eq!(span.to_string().parse(), Ok(span), "{text}");
        }
    }

    #[test]
    fn the_longest_span_that_the_definition_lets_through_can_be_read() {
        for part in ["99999h", "9999999m", "999999999s", "999999999ms"] {
            let text = part.repeat(LONGEST / part.len());
            assert!(text.parse::<Span>().is_ok(), "{text}");
        }
        let days = "9999d99999h99999h99999h99999h99h";
        assert!(days.len() == LONGEST && days.parse::<Span>().is_ok(), "{days}");
        let mixed = "999999999s999999999s999999999s9h";
        assert!(mixed.len() == LONGEST && mixed.parse::<Span>().is_ok(), "{mixed}");
        assert!("99999999999h".parse::<Span>().is_err());
    }

    #[test]
    fn a_span_refuses_what_is_no_duration() {
        for text in ["", "5", "s", "5 m", "-5m", "1w", "d", "5mm", "1..5s", "99999999999999999999h"] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
    }
}
