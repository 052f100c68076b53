//! Where a release runs. Knows nothing of Releases, plans or databases: it is told what a container should have.

pub mod image;
pub mod kubernetes;
pub mod rollout;
