//! One test binary: each file below is a module, so that they link once and share their support.
#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

mod caches;
mod cluster;
mod crd_drift;
mod database;
mod expressions;
mod faults;
mod forgotten;
mod git;
mod layering;
mod plan;
mod simulation;
mod stops;
mod support;
