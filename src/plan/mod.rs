//! The judgement: from what was seen to what to do next. Pure and synchronous: no IO, no clock (now is in the input), no
//! randomness, so that the same world always gives the same decision, after a crash as before it.
//!
//! ```text
//! World ─▶ decide ─┬─ an operation runs ──▶ course::next       which step, or how it ends
//!                  └─ none runs ─────────▶ target::choose     in sync, or deploy:: / rollback:: / undo:: / repair
//! a Release that is deleted ────────────▶ leaving::next      into a safe state, then gone
//! ```

mod account;
mod approval;
mod backup;
mod conditions;
mod containment;
mod course;
mod damping;
mod deploy;
mod drift;
mod exact;
mod housekeeping;
pub mod input;
pub mod journal;
mod leaving;
pub mod pace;
mod rehearsal;
mod report;
mod retention;
mod rollback;
mod safety;
pub mod summary;
mod target;
mod undo;

use std::time::Duration;

use crate::api::operation::{Approval, Operation, OperationState, Scale};
pub use course::heeds_source;
use input::{Life, World};
pub use summary::Verdict;

/// What to do next: at most one thing.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// The decision depends on the database: look at it and ask again.
    LookAtDatabase,
    /// Nothing to do until something changes, or until `again` has passed.
    Rest { verdict: Verdict, again: Duration },
    /// Tell people this before something begins that they need not wait for, and decide again.
    Tell { verdict: Verdict },
    /// Forget failures and quarantine: a person asked for it with this token.
    Reset { token: String },
    /// Record this operation; its steps are all pending.
    Begin(Box<Operation>),
    /// Run this step of the operation that runs, or look at it again.
    Run { step: usize },
    /// The gate before this step's successor opens: nobody had to be asked, or somebody approved.
    Grant { step: usize, approval: Approval },
    /// What the step that failed left must not be run on: add a Fence to the operation that runs.
    Contain { workloads: Vec<Scale> },
    /// The operation that runs has come to its end.
    Close(OperationState),
    /// A request by annotation can't be met; it is answered once and not kept waiting for.
    Refuse { request: journal::Request, message: String },
    /// Nothing is held any more: let the object go.
    Farewell,
}

/// Decides what to do next. Total: every world has a decision.
pub fn decide(world: &World) -> Decision {
    let operation = match (world.life, world.running()) {
        (Life::Leaving, _) => return leaving::next(world),
        (Life::Wanted, None) => return target::choose(world),
        (Life::Wanted, Some(operation)) => operation,
    };
    match (journal::legal(operation), target::reset(world)) {
        (Ok(()), _) => course::next(world, operation),
        (Err(_), Some(decision)) => decision,
        (Err(fault), None) => target::rest(world, Verdict::illegal_journal(operation, &fault)),
    }
}
