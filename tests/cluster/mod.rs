//! On the real cluster, with the real database, cache and git server.

mod bad_input;
mod crash_points;
mod judgement;
mod story;
