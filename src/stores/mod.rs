//! Backup stores: from a URL and keys to an object store. Opens, and asks the store nothing.
//!
//! Whoever may write a Release chooses the URL and the keys, so that neither may make of the operator's volume or identity what is
//! not theirs: a folder lies below the operator's own, a cloud's store is opened with the Release's keys alone, and the operator's
//! identity is lent to stores only that its arguments name.

mod cloud;
mod folder;
mod keys;

use std::{path::PathBuf, sync::Arc};

use object_store::{ObjectStore, path::Path};
use url::Url;

use cloud::Reach;
pub use cloud::{Place, Provider};
pub use keys::Keys;

/// Why a store can't be opened. It stays so until somebody changes the URL, the keys or the operator's arguments.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("backup store {url}: {detail}")]
pub struct Refused {
    /// Without what stands before an `@`.
    url: String,
    detail: String,
}

impl Refused {
    fn new(url: &str, detail: impl Into<String>) -> Self {
        let url = match url.split_once("://") {
            Some((scheme, rest)) if scheme != "file" => format!("{scheme}://{}", rest.rsplit('@').next().unwrap_or_default()),
            Some(_) | None => url.to_owned(),
        };
        Self { url, detail: detail.into() }
    }
}

/// Opens the stores of Releases.
#[derive(Clone, Debug)]
pub struct Stores {
    /// The folder below which folders of backup points lie.
    root: PathBuf,
    /// Places that are opened with the operator's own identity.
    own: Vec<Place>,
}

impl Stores {
    /// `root` is made by the first store in it, if it is not there.
    pub fn new(root: PathBuf, own: Vec<Place>) -> Self {
        Self { root, own }
    }

    /// Opens the store that `url` names: a folder (`file:///…`), which is made if it is not there, or a place in a cloud, with the keys
    /// of a Secret or, below the places that the operator's arguments name, as the operator itself.
    ///
    /// # Errors
    /// [`Refused`], naming the URL and what to change.
    pub fn open(&self, url: &str, keys: Option<&Keys>) -> Result<Arc<dyn ObjectStore>, Refused> {
        if scheme(url)? == "file" {
            return match keys {
                None => folder::open(&self.root, url),
                Some(_) => Err(Refused::new(url, "a folder has no keys: remove secretRef")),
            };
        }
        let place = Place::parse(url)?;
        match keys {
            Some(keys) => cloud::open(&place, keys, Reach::NotOurs),
            None if self.own.iter().any(|own| own.contains(&place)) => cloud::open_as_ourselves(&place, None),
            None => Err(Refused::new(
                url,
                "name a Secret with its keys in secretRef; as itself the operator opens only stores that its argument --own-store names",
            )),
        }
    }
}

/// Opens a place in a cloud for whoever calls this program: with the keys of the environment, or as the machine that it runs on. `ca`
/// (PEM) stands in for the public CAs.
///
/// # Errors
/// As [`Stores::open`].
pub fn by_hand(url: &str, ca: Option<Vec<u8>>) -> Result<Arc<dyn ObjectStore>, Refused> {
    cloud::open_as_ourselves(&Place::parse(url)?, ca.as_deref())
}

/// The same with keys that are given: for an address on this machine too.
///
/// # Errors
/// As [`Stores::open`].
pub fn with_keys(url: &str, keys: &Keys) -> Result<Arc<dyn ObjectStore>, Refused> {
    cloud::open(&Place::parse(url)?, keys, Reach::Anywhere)
}

fn scheme(url: &str) -> Result<String, Refused> {
    Url::parse(url).map(|parsed| parsed.scheme().to_owned()).map_err(|error| Refused::new(url, error.to_string()))
}

/// Where in a bucket or container.
fn below(url: &str, parsed: &Url) -> Result<Path, Refused> {
    Path::from_url_path(parsed.path()).map_err(|_| Refused::new(url, "its path can't be one of a store"))
}
