//! The data engine: consistent backups of a MariaDB schema, shadows built from them, and the cut-over that makes one live.
//!
//! It knows no Kubernetes and keeps nothing in memory between calls: what was done is read from the database, the schemas beside it and
//! the object store. Every call can be repeated after a crash at any instant; those that write hold the database's lock. A server that
//! goes away or falls silent makes an error that passes: the same call again finds out what was done.
//!
//! ```text
//! capture   live schema ──one instant──▶ files + manifest         touches nothing
//! import    the same of another schema, as the live one's           touches nothing
//! load      files ──digests checked──▶ shadow schema, compared    touches nothing live
//! rehearse  load, and drop it again: how long a restore takes     touches nothing live
//! try_migrations   load, and run scripts there, forth and back    touches nothing live
//! forget    the manifest, then the files                          touches nothing live
//! loss      live ⟷ shadow: what a cut-over would take away        touches nothing
//! swap      live ─▶ aside, shadow ─▶ live, one RENAME TABLE       atomic; undone by a swap with that aside as its source
//! carry     aside ──rows inserted since──▶ live schema             adds rows, changes none
//! migrate   the live schema forwards and back, statement by statement
//! script_loss   what down scripts would take away                touches nothing
//! ```
//!
//! Where the [`Store`] has a [`Sealing`], files are encrypted before they leave this process; what can be told of a backup without the key
//! is its [`Summary`].
//!
//! Migrating, reverting and cutting over is for one Release only, the schema's [`Owner`].
//!
//! `docs/backup-format.md` describes the files of a backup and how to restore one without this engine.
//!
//! # Limits
//! Tables of other engines, histories by transaction and foreign keys across schemas are refused by name
//! ([`Inventory::unsupported`]).

mod beside;
mod bookkeeping;
mod capture;
mod carry;
mod checksum;
mod chunk;
mod clauses;
mod counters;
mod crew;
mod definition;
mod destruction;
mod endpoint;
mod error;
mod files;
mod granted;
mod grants;
mod ident;
mod inspect;
mod load;
mod lock;
mod loss;
mod manifest;
mod migrate;
mod owner;
mod pace;
mod passing;
mod progress;
mod query;
mod recreate;
mod rehearse;
mod rows;
mod rows_taken;
mod script;
mod script_loss;
mod sealing;
mod sequence;
mod store;
mod stored;
mod summary;
mod swap;
mod trial;
mod unblocked;
mod views;
mod widening;
mod within;

pub use beside::{Beside, Standing, discard};
pub use bookkeeping::{Applied, MARKER, MIGRATIONS, Marker, State};
pub use capture::{Capture, capture, import};
pub use carry::{Carried, carry_forward};
pub use checksum::{TableSum, checksum};
pub use chunk::Range;
pub use destruction::{Destruction, TableName, Takes, Verb, destruction};
pub use endpoint::{Database, Endpoint, Tls};
pub use error::{Error, Result, SchemaState};
pub use files::{export, points, verify};
pub use granted::Granted;
pub use inspect::{Column, Content, Fallback, Inventory, Kind, Table, Unsupported, inspect};
pub use load::{Loaded, load};
pub use loss::{Basis, TableLoss, loss};
pub use manifest::{Chunk, File, Head, Manifest, Position, Table as TableEntry, read_manifest};
pub use migrate::{Migration, Outcome, apply, check_script, revert};
pub use owner::{OWNER, Owner, release_ownership, take_ownership};
pub use progress::{Part, Progress};
pub use query::{Answer, query};
pub use rehearse::{Rehearsal, rehearse};
pub use script_loss::{ScriptLoss, script_loss};
pub use sealing::{KeyError, Sealing};
pub use sequence::{Reached, Sequence};
pub use store::{Store, ask_store, forget};
pub use stored::{On, StoredKind, StoredObject};
pub use summary::{Encryption, Summary, read_summary};
pub use swap::{Swap, Swapped, swap};
pub use trial::{Script, Trial, Tried, try_migrations};
pub use unblocked::Blocker;
pub use views::Agreement;
