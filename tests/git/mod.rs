//! Git as a source, over real connections on the loopback: an HTTP and an SSH server in this process, which run the local
//! `git upload-pack` on a bare repository of the test's own. Needs `git`; the tests that check what real tools sign need
//! `ssh-keygen` too, and fail where it is missing.

mod content;
mod hanging;
mod http;
mod limits;
mod mirror;
mod over_http;
mod over_ssh;
mod repository;
mod signatures;
mod signing;
mod ssh;

use std::{path::Path, time::Duration};

use backout::{
    access::GitAccess,
    api::release::{GitRef, GitSource},
    observe::git::{Error, Freshness, Limits, Mirrors, Resolved},
};
use jiff::Timestamp;

/// Every wait of a test ends by then.
const PATIENCE: Duration = Duration::from_secs(30);

/// Limits with which a server that hangs is given up soon.
fn limits() -> Limits {
    Limits { silence: Duration::from_secs(5), ..Limits::default() }
}

fn mirrors(dir: &Path, limits: Limits) -> Mirrors {
    // Another test of this process may have installed it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Mirrors::new(dir.to_owned(), limits).expect("a temporary folder can be written")
}

fn source(url: &str) -> GitSource {
    GitSource {
        url: url.to_owned(),
        reference: GitRef { branch: Some("main".to_owned()), tag: None, commit: None },
        path: ".".to_owned(),
        secret_ref: None,
        verify: None,
        webhook: None,
    }
}

/// Looks at the server now; a fetch that takes longer than one look waits is looked at again.
async fn look(mirrors: &Mirrors, source: &GitSource, access: &GitAccess) -> Result<Resolved, Error> {
    tokio::time::timeout(PATIENCE, async {
        loop {
            match mirrors.resolve(source, access.clone(), Freshness::Now, Timestamp::now()).await {
                Err(Error::UnderWay { .. }) => {}
                seen => return seen,
            }
        }
    })
    .await
    .expect("a look ends in time")
}

/// The refusal's reason and message.
async fn refusal(mirrors: &Mirrors, source: &GitSource, access: &GitAccess) -> (&'static str, String) {
    match look(mirrors, source, access).await {
        Ok(resolved) => panic!("{} was not refused", resolved.revision),
        Err(error) => (error.reason(), error.to_string()),
    }
}
