//! On the real cluster, with the real database, cache and git server.

mod approval;
mod bad_input;
mod chaos;
mod crash_loops;
mod crash_points;
mod hanging;
mod inventory;
mod judgement;
mod leading;
mod rehearsal;
mod secrets;
mod staging;
mod stores;
mod story;
mod trust;
mod trying;
mod webhooks;
