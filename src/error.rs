//! What every room's errors have in common: a class that says whether trying again can help, and a label for metrics.
//!
//! Each room has one error enum of its own and implements `class()` and `label()` on it; this file holds only the shared words.

/// Whether the same call can succeed later without anybody changing anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The other side was away, slow or busy: try again with backoff.
    Transient,
    /// Somebody else wrote first: look again and decide anew.
    Conflict,
    /// It stays like this until a person changes the spec, the repository, the database or a privilege.
    Permanent,
}
