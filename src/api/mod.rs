//! The words: what users write and read. Data and serde only; this room imports no other.

pub mod backup_point;
pub mod content;
pub mod database;
pub mod migration;
pub mod names;
pub mod operation;
pub mod progress;
pub mod release;
pub mod schedule;
pub mod span;
pub mod status;

pub use backup_point::{BackupPoint, BackupPointSpec, BackupPointStatus};
pub use content::{Content, Kept};
pub use migration::Migration;
pub use release::{Release, ReleaseSpec};
pub use schedule::Schedule;
pub use span::Span;
