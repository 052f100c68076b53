//! The gate before data is taken away: whether a person has to agree, and whether one has.

use std::time::Duration;

use jiff::Timestamp;

use super::input::World;
use crate::api::{
    operation::{Loss, Operation},
    release::ApprovalPolicy,
};

/// Data go on changing while a person thinks: after this time what stands in the status is measured again.
pub const MEASURED_AGAIN: Duration = Duration::from_secs(60);
/// Measuring a large database takes minutes, and must not be all that the database does: it rests so many times as long.
const RESTS: u32 = 10;

/// So often it is tried to measure what nobody would be asked about: a database that can't be counted must not bar the way back.
pub const TRIES: u32 = 3;

/// What stands between an operation and its next step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gate {
    /// Nothing would be lost, so nobody is asked.
    NotNeeded,
    Approved {
        by: Option<String>,
    },
    Closed {
        /// An approval that is there, but for another plan.
        other: Option<String>,
    },
}

/// Judges the gate by what was measured. An approval counts for one plan and no other.
pub fn gate(world: &World, operation: &Operation, policy: ApprovalPolicy, loss: &Loss) -> Gate {
    let needed = match policy {
        ApprovalPolicy::Never => false,
        ApprovalPolicy::DataLoss => !loss.is_none(),
        ApprovalPolicy::Always => true,
    };
    if !needed {
        return Gate::NotNeeded;
    }
    match &world.approve {
        Some(approval) if approval.digest == operation.plan.digest => Gate::Approved { by: approval.by.clone() },
        other => Gate::Closed { other: other.as_ref().map(|approval| approval.digest.clone()) },
    }
}

/// Whether what was measured still says something.
pub fn is_fresh(loss: &Loss, now: Timestamp) -> bool {
    let lasts = MEASURED_AGAIN.max(loss.took.0.saturating_mul(RESTS));
    Duration::try_from(now.duration_since(loss.measured_at)).is_ok_and(|age| age < lasts)
}
