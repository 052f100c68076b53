//! Where a release runs. Knows nothing of Releases, plans or databases: it is told what a container should have.

pub mod image;
pub mod kubernetes;
pub mod rollout;

use crate::{cluster, error::Class};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Cluster(#[from] cluster::Error),
    #[error("the selector of Deployment {name} can't be used: {detail}; make a Deployment whose spec.selector names its own pods alone")]
    Selector { name: String, detail: String },
}

impl Error {
    pub fn class(&self) -> Class {
        match self {
            Self::Cluster(error) => error.class(),
            Self::Selector { .. } => Class::Permanent,
        }
    }
}
