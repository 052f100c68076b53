//! How far a step that moves rows has come.

use std::fmt;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Span;

/// How far a step has come with what it is at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    pub part: Part,
    pub done: u64,
    /// What there is to do of this part. While rows are captured, the server's estimate.
    pub total: u64,
    pub unit: Unit,
    /// Of the unit, on average since the part began.
    pub per_second: u64,
    /// How long the rest of this part takes at that rate; absent while nothing is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<Span>,
    /// When this was so.
    pub at: Timestamp,
}

/// One after the other: a backup captures; what loads a point verifies, loads and compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Part {
    /// Rows are read into files.
    Capture,
    /// Files are read and their digests compared.
    Verify,
    /// Rows are written into a shadow.
    Load,
    /// Rows of the shadow are compared with the manifest.
    Compare,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Unit {
    #[serde(rename = "rows")]
    Rows,
    #[serde(rename = "bytes")]
    Bytes,
}

/// `Load 12 %: 24000 of 200107 rows, 8000 rows/s, 22s left`
impl fmt::Display for Progress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { part, done, total, unit, per_second, left, at: _ } = self;
        let unit = match unit {
            Unit::Rows => "rows",
            Unit::Bytes => "bytes",
        };
        let percent = u128::from(*done) * 100 / u128::from((*total).max(1));
        write!(formatter, "{part:?} {percent} %: {done} of {total} {unit}, {per_second} {unit}/s")?;
        left.map_or(Ok(()), |left| write!(formatter, ", {left} left"))
    }
}
