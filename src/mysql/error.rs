//! Everything that can go wrong in the data engine, in words that name the object and the remedy.
//!
//! No message holds a password: the server's own messages name user and host at most.

use std::fmt;
use std::time::Duration;

use crate::error::Class;

use super::inspect::Unsupported;
use super::owner::Owner;
use super::unblocked::Blocker;

pub type Result<T> = std::result::Result<T, Error>;

/// One error of the data engine.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("database server {host}:{port} can't be reached: {reason}; check host, port and network policy")]
    Unreachable { host: String, port: u16, reason: String },
    #[error("no trusted TLS connection to {host}:{port}: {reason}; check the tls mode, the CA and the server's certificate")]
    Untrusted { host: String, port: u16, reason: String },
    #[error("{host}:{port} refused the credentials of user {user}: check user name and password")]
    AccessDenied { host: String, port: u16, user: String },
    #[error("database {database} does not exist on {host}: create it or correct the name")]
    UnknownDatabase { database: String, host: String },
    #[error("user {user} lacks privileges; run: {}", grants.join(" "))]
    MissingGrants { user: String, grants: Vec<String> },
    #[error("database {database} has objects that a backup can't carry yet: {}", list(objects))]
    Unsupported { database: String, objects: Vec<Unsupported> },
    #[error(
        "database {database} belongs to Release {}/{} (uid {}), and two Releases can't migrate one schema: give this one a database of its own, or end the other one first",
        owner.namespace, owner.name, owner.uid
    )]
    Owned { database: String, owner: Box<Owner> },
    #[error(
        "operation {operation} may not change database {database} any more: operation {newest} of the same Release has written to it since. If \
         the Release's status was lost, set operation to 0 in the table _backout_owner"
    )]
    Outdated { database: String, operation: u64, newest: u64 },
    #[error("another operation holds the lock of database {database}; it is tried again")]
    Busy { database: String },
    #[error("{doing}: the server refused with error {code}: {message}")]
    Refused { doing: String, code: u16, message: String },
    #[error("{doing}: the connection was lost: {reason}")]
    Lost { doing: String, reason: String },
    #[error("{doing}: no answer within {limit:?}")]
    TimedOut { doing: String, limit: Duration },
    #[error("{doing}: the server's answer can't be read: {reason}")]
    Unreadable { doing: String, reason: String },
    #[error("backup store, {path}: {reason}")]
    Store { path: String, reason: String, class: Class },
    #[error("what was asked for can't be written: {reason}")]
    Output { reason: String },
    #[error("no complete backup at {prefix}: its manifest is missing")]
    NoBackup { prefix: String },
    #[error("the backup is corrupt at {path}: {reason}; restore from another backup point")]
    Corrupt { path: String, reason: String },
    #[error("the backup at {path} is encrypted, and {reason}; nothing was touched")]
    Locked { path: String, reason: &'static str },
    #[error("{what} changed its definition or vanished while it was read; it is read again")]
    Moved { what: String },
    #[error("table {table}: {bytes} bytes exceed max_allowed_packet ({limit}) of the server; raise it to at least {bytes}")]
    TooLarge { table: String, bytes: u64, limit: u64 },
    #[error("table {table} in {schema} is not what the backup holds: {reason}; nothing live was touched")]
    Mismatch { schema: String, table: String, reason: String },
    #[error("{object} has the definer {definer}, an account that does not exist: create it; every use of the object would fail")]
    Definer { object: String, definer: String },
    #[error("schema {schema} can't be used here: {reason}")]
    Schema { schema: String, reason: String },
    #[error("the cut-over of {database} is blocked since {waited:?} ({attempts} attempts), nothing was changed; {}", blamed(blockers))]
    SwapBlocked { database: String, attempts: u32, waited: Duration, blockers: Vec<Blocker> },
    #[error("migration {version} {name} can't be run: {reason}")]
    MigrationRefused { version: u64, name: String, reason: String },
    #[error(
        "migration {version} {name} is recorded with another content (checksum {recorded}, now {given}): restore the file, or give the change a new version"
    )]
    MigrationChanged { version: u64, name: String, recorded: String, given: String },
    #[error("migration {version} {name}, statement {statement} of {of}: {message}; {state}")]
    Migration {
        version: u64,
        name: String,
        statement: usize,
        of: usize,
        /// The server's error number, where it refused the statement now.
        code: Option<u16>,
        message: String,
        state: SchemaState,
        class: Class,
    },
}

/// What a failed migration left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SchemaState {
    /// Nothing of it took effect: the migration can be corrected and run again.
    Untouched,
    /// It is recorded and continues with this statement when called again.
    Resumable,
    /// Earlier statements took effect and can't be taken back by the engine.
    HalfMigrated,
}

impl fmt::Display for SchemaState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Untouched => "the schema is untouched",
            Self::Resumable => "it continues here when tried again",
            Self::HalfMigrated => {
                "the schema is half-migrated: restore the backup point, or repair it by hand and delete the row from _backout_migrations"
            }
        })
    }
}

impl Error {
    /// Whether trying again can help.
    pub fn class(&self) -> Class {
        match self {
            Self::Unreachable { .. } | Self::Busy { .. } | Self::Lost { .. } | Self::TimedOut { .. } | Self::SwapBlocked { .. } => {
                Class::Transient
            }
            Self::Moved { .. } => Class::Conflict,
            Self::Refused { code, .. } if is_passing(*code) => Class::Transient,
            Self::Store { class, .. } | Self::Migration { class, .. } => *class,
            Self::Untrusted { .. }
            | Self::AccessDenied { .. }
            | Self::UnknownDatabase { .. }
            | Self::MissingGrants { .. }
            | Self::Unsupported { .. }
            | Self::Owned { .. }
            | Self::Outdated { .. }
            | Self::Refused { .. }
            | Self::Unreadable { .. }
            | Self::Output { .. }
            | Self::NoBackup { .. }
            | Self::Corrupt { .. }
            | Self::Locked { .. }
            | Self::TooLarge { .. }
            | Self::Mismatch { .. }
            | Self::Definer { .. }
            | Self::Schema { .. }
            | Self::MigrationRefused { .. }
            | Self::MigrationChanged { .. } => Class::Permanent,
        }
    }

    /// A fixed word for metrics and event reasons.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "unreachable",
            Self::Untrusted { .. } => "untrusted",
            Self::AccessDenied { .. } => "access_denied",
            Self::UnknownDatabase { .. } => "unknown_database",
            Self::MissingGrants { .. } => "missing_grants",
            Self::Unsupported { .. } => "unsupported_objects",
            Self::Owned { .. } => "owned_by_another",
            Self::Outdated { .. } => "outdated",
            Self::Busy { .. } => "busy",
            Self::Refused { .. } => "statement_refused",
            Self::Lost { .. } => "connection_lost",
            Self::TimedOut { .. } => "timed_out",
            Self::Unreadable { .. } => "unreadable",
            Self::Store { .. } => "store",
            Self::Output { .. } => "output",
            Self::NoBackup { .. } => "no_backup",
            Self::Corrupt { .. } => "corrupt_backup",
            Self::Locked { .. } => "locked_backup",
            Self::Moved { .. } => "definition_changed",
            Self::TooLarge { .. } => "too_large",
            Self::Mismatch { .. } => "mismatch",
            Self::Definer { .. } => "definer_missing",
            Self::Schema { .. } => "schema_refused",
            Self::SwapBlocked { .. } => "swap_blocked",
            Self::MigrationRefused { .. } => "migration_refused",
            Self::MigrationChanged { .. } => "migration_changed",
            Self::Migration { .. } => "migration_failed",
        }
    }

    /// The server's error number, where the server refused a statement.
    pub(super) fn code(&self) -> Option<u16> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            Self::Migration { code, .. } => *code,
            _ => None,
        }
    }
}

/// Server errors that pass by themselves: too many connections, shutdown, packets that did not arrive in time, lock wait, deadlock, killed,
/// idle for too long.
fn is_passing(code: u16) -> bool {
    matches!(code, 1040 | 1053 | 1129 | 1152 | 1158..=1161 | 1203 | 1205 | 1213 | 1226 | 1317 | 1927 | 1969 | 3024 | 4031)
}

fn list(objects: &[Unsupported]) -> String {
    objects.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn blamed(blockers: &[Blocker]) -> String {
    if blockers.is_empty() {
        return "the user may not see who blocks it: grant it PROCESS, or look for long transactions and LOCK TABLES".to_owned();
    }
    let blockers = blockers.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    format!("end or wait for: {blockers}")
}
