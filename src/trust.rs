//! Whom this machine trusts.

use std::sync::OnceLock;

use base64::{Engine as _, prelude::BASE64_STANDARD};

/// The CAs that this machine trusts, as PEM: read once, as the HTTP clients do. They vouch for servers for which no CA is named.
pub fn public_cas() -> Vec<u8> {
    static PEM: OnceLock<Vec<u8>> = OnceLock::new();
    let read = || {
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            tracing::warn!(%error, "not all public CAs can be read");
        }
        found
            .certs
            .iter()
            .map(|der| format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", BASE64_STANDARD.encode(der)))
            .collect::<String>()
            .into_bytes()
    };
    PEM.get_or_init(read).clone()
}
