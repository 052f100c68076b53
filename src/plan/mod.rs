//! The judgement: from what was seen to what to do next. Pure and synchronous: no IO, no clock (now is in the input), no
//! randomness, so that the same world always gives the same decision, after a crash as before it.
//!
//! ```text
//! World ─▶ decide ─┬─ an operation runs ──▶ journal::next      which step, or how it ends
//!                  └─ none runs ─────────▶ target::choose     in sync, or deploy:: / rollback:: / repair
//! ```

mod deploy;
mod drift;
pub mod input;
pub mod journal;
mod rollback;
mod safety;
pub mod summary;
mod target;

use std::time::Duration;

use crate::api::operation::{Operation, OperationState};
use input::World;
pub use summary::Verdict;

/// What to do next: at most one thing.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// The decision depends on the database: look at it and ask again.
    LookAtDatabase,
    /// Nothing to do until something changes, or until `again` has passed.
    Rest { verdict: Verdict, again: Duration },
    /// Forget failures and quarantine: a person asked for it with this token.
    Reset { token: String },
    /// Record this operation; its steps are all pending.
    Begin(Box<Operation>),
    /// Run this step of the operation that runs, or look at it again.
    Run { step: usize },
    /// The operation that runs has come to its end.
    Close(OperationState),
}

/// Decides what to do next. Total: every world has a decision.
pub fn decide(world: &World) -> Decision {
    if let Some(operation) = world.running() {
        return journal::next(world, operation);
    }
    target::choose(world)
}
