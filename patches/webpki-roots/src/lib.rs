//! No certificate authority, in place of Mozilla's list.
//!
//! sqlx adds that list to every CA that it is given and has no setting against it: whoever gets a certificate for any name from any of
//! some 150 authorities could stand in for a database whose own CA is known. With this crate it trusts what it is given and nobody else.

use pki_types::TrustAnchor;

/// Empty.
pub const TLS_SERVER_ROOTS: &[TrustAnchor<'static>] = &[];
