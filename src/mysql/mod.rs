//! The data engine: consistent backups of a MariaDB schema, shadows built from them, and the cut-over that makes one live.
//!
//! It knows no Kubernetes and keeps nothing in memory between calls: what was done is read from the database, the schemas beside it and
//! the object store. Every call can be repeated after a crash at any instant; those that write hold the database's lock. A server that
//! goes away or falls silent makes an error that passes: the same call again finds out what was done.
//!
//! ```text
//! capture   live schema ──one snapshot──▶ files + manifest        touches nothing
//! load      files ──digests checked──▶ shadow schema, compared    touches nothing live
//! loss      live ⟷ shadow: what a cut-over would take away        touches nothing
//! swap      live ─▶ aside, shadow ─▶ live, one RENAME TABLE       atomic; undone by a swap with that aside as its source
//! migrate   the live schema forwards and back, statement by statement
//! script_loss   what down scripts would take away                touches nothing
//! ```
//!
//! Migrating, reverting and cutting over is for one Release only, the schema's [`Owner`].
//!
//! # Files of a backup, format 1
//! `0000-schema.sql.zst` holds every definition, `0001.sql.zst` … the rows of one table each, in the order of their names; `manifest.json`
//! says which, with the sha256 of each file, rows and checksum of each table, and its own digest. By hand: create the schema, then
//! `zstd -dc *.sql.zst | mariadb --default-character-set=utf8mb4 NAME`. In a table's file each line is one statement: first the
//! session's settings, then `INSERT INTO … VALUES (…),(…);` of about half a megabyte.
//!
//! | type | literal |
//! |---|---|
//! | integers, DECIMAL | as printed |
//! | DOUBLE; FLOAT as DOUBLE | shortest exact text, with an exponent |
//! | BIT, ENUM, SET | their number: 0 is an ENUM's error value |
//! | dates, times (at UTC), YEAR, UUID, INET4, INET6 | as printed, quoted |
//! | CHAR to LONGTEXT, JSON | quoted if printable ASCII without quote and backslash, else `x'…'` of the stored bytes |
//! | BINARY to LONGBLOB, geometry | `x'…'` of the stored bytes |
//!
//! Generated columns are left out. A row beyond 256 KiB comes in pieces: `SET @backout_3_0=x'…';` `SET @backout_3_1=x'…';`
//! … and an `INSERT` with their `CONCAT`, so that no statement comes near `max_allowed_packet`.
//!
//! # Limits
//! Triggers, views, routines, events, sequences, system-versioned tables, tables of other engines and foreign keys across schemas are
//! refused by name ([`Inventory::unsupported`]).

mod beside;
mod bookkeeping;
mod capture;
mod checksum;
mod clauses;
mod definition;
mod destruction;
mod endpoint;
mod error;
mod grants;
mod ident;
mod inspect;
mod load;
mod lock;
mod loss;
mod manifest;
mod migrate;
mod owner;
mod query;
mod rows;
mod rows_taken;
mod script;
mod script_loss;
mod store;
mod swap;
mod widening;

pub use beside::{Beside, Standing, discard};
pub use bookkeeping::{Applied, MARKER, MIGRATIONS, Marker, State};
pub use capture::{Capture, capture};
pub use checksum::{TableSum, checksum};
pub use destruction::{Destruction, TableName, Takes, Verb, destruction};
pub use endpoint::{Database, Endpoint, Tls};
pub use error::{Error, Result, SchemaState};
pub use inspect::{Column, Content, Fallback, Inventory, Kind, Table, Unsupported, inspect};
pub use load::{Loaded, load};
pub use loss::{Basis, TableLoss, loss};
pub use manifest::{File, Manifest, Position, Table as TableEntry, read_manifest};
pub use migrate::{Migration, Outcome, apply, check_script, revert};
pub use owner::{OWNER, Owner, release_ownership, take_ownership};
pub use query::query;
pub use script_loss::{ScriptLoss, script_loss};
pub use swap::{Blocker, Swap, Swapped, swap};
