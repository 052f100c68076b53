//! Checks a git server's certificate against the CA that a Release brings. libgit2 can only take process-wide CAs, and one
//! Release's CA must not vouch for another's server.

use std::sync::Arc;

use rustls::{
    RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};

/// Verifies the certificate that `host` showed (DER) against the CA certificates in `ca` (PEM): chain, name and dates.
pub fn verify(shown: &[u8], host: &str, ca: &[u8]) -> Result<(), String> {
    let authorities: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(ca).collect::<Result<_, _>>().map_err(|error| format!("ca.crt is not PEM: {error}"))?;
    let mut roots = RootCertStore::empty();
    for authority in &authorities {
        roots.add(authority.clone()).map_err(|error| format!("ca.crt has a certificate that is no CA: {error}"))?;
    }
    let verifier = WebPkiServerVerifier::builder(Arc::new(roots)).build().map_err(|error| format!("ca.crt can't be used: {error}"))?;
    let name = ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())?;
    // libgit2 shows only the server's own certificate: intermediates have to stand in ca.crt.
    verifier
        .verify_server_cert(&CertificateDer::from(shown), &authorities, &name, &[], UnixTime::now())
        .map(|_| ())
        .map_err(|error| error.to_string())
}
