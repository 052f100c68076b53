//! Backout takes complete releases back: application, configuration, schema, data and cache, together, verified, and
//! crash-safe.
//!
//! A `Release` and git history say what should run. Backout compares that with what does run and what the database holds,
//! and closes the difference by small recorded steps:
//!
//! ```text
//!            ┌────────── controller: watches and timers ──────────┐
//!            ▼                                                    │
//!  observe ─▶ World ─▶ plan ─▶ Decision ─▶ record.begin ─▶ execute ─▶ record.finish
//!  (reads)             (pure)              (status)        (one step)   (status, event)
//! ```
//!
//! # Code map
//! | room | what it is | may import |
//! |---|---|---|
//! | [`api`] | words: what users write and read | nobody |
//! | [`plan`] | judgement: pure, no IO, no clock | api |
//! | [`observe`] | eyes: git, workloads, database, points. Reads only | plan's input and needs, access, cluster, mysql, secret |
//! | [`execute`] | hands: one file a step | plan's inputs and outcomes, access, mysql, cache, target, expression, lease, record (for backup points) |
//! | [`record`] | pen: the only writer of status | plan's journal, summary and needs |
//! | [`mysql`], [`cache`], [`target`] | engines: know neither each other nor the rooms above | error, secret, cluster |
//! | [`db`] | the data engine by hand | api's names, cli, mysql, secret, stores, trust |
//! | [`access`] | from a Release's references to connections | api, engines, secret, stores, trust |
//! | [`stores`] | from a URL and keys to a backup store | secret, reach |
//! | [`trust`] | the CAs of this machine | nobody |
//! | [`reach`] | addresses that no Release may reach | nobody |
//! | [`expression`] | a check's CEL, judged by a process of its own | nobody |
//! | [`lease`] | which of several replicas works | cluster, error |
//! | [`webhook`] | a git server's hint that there is something to look at | access, api, cluster, secret, telemetry |
//! | [`controller`], [`telemetry`], [`cli`], [`crd`] | wiring | all |
//!
//! # Invariants
//! 1. `plan` does no IO and reads no clock.
//! 2. No effect without a Started entry that the API server has accepted.
//! 3. A step carries everything it needs; `execute` chooses nothing.
//! 4. Only `record` writes status, always with the resourceVersion of the decision.
//! 5. Unknown is never treated as absent, and never as safe.
//! 6. At most one step for each reconcile.
//! 7. Live tables are never written before a verified replacement stands beside them, and what is replaced is kept.
//! 8. No secret reaches a condition, event, log, metric or backup manifest.
//! 9. An effect begins only while this process holds the Lease: [`lease::Leadership::holds`] is asked right before it. What still
//!    slips through is refused where it would land: objects by their version, the database by the operation's number.

pub mod access;
pub mod api;
pub mod cache;
pub mod cli;
pub mod cluster;
pub mod controller;
pub mod crd;
pub mod db;
pub mod error;
pub mod execute;
pub mod expression;
pub mod lease;
pub mod mysql;
pub mod observe;
pub mod plan;
pub mod reach;
pub mod record;
pub mod secret;
pub mod stores;
pub mod target;
pub mod telemetry;
pub mod trust;
pub mod webhook;
