//! The judgement, one table for each of its functions: named rows, and what is decided in each.

mod approving;
mod backup;
mod bounds;
mod containment;
mod data;
mod deploying;
mod exact;
mod going_back;
mod journal;
mod leaving;
mod resetting;
mod resting;
mod retention;
mod summary;
mod superseding;
mod world;

use world::Given;

/// Each row's name and, below it, what is decided.
fn table(rows: Vec<(&str, Given)>) -> String {
    rows.iter().map(|(name, given)| format!("{name}\n  {}", given.decides())).collect::<Vec<_>>().join("\n")
}
