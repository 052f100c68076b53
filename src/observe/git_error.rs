//! What can go wrong with a git source, in words that name the object and the remedy.

use super::{
    git_transport::{Failure, Limits},
    git_tree::{PathError, ReleaseError},
    git_verify::Distrust,
};

#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    #[error("spec.source.git.url {url:?} can't be used: {detail}")]
    BadUrl { url: String, detail: String },
    #[error("spec.source.git.url has credentials in it; move them to the Secret that spec.source.git.secretRef names")]
    CredentialsInUrl,
    #[error("{url} could not be reached: {detail}; check spec.source.git.url and the network")]
    Unreachable { url: String, detail: String },
    #[error("{url} was silent for {} s, or not done within {} s", .limits.silence.as_secs(), .limits.fetch.as_secs())]
    TimedOut { url: String, limits: Limits },
    #[error("{url} is still being fetched")]
    UnderWay { url: String },
    #[error("{url} refused the credentials; check the Secret that spec.source.git.secretRef names")]
    AuthFailed { url: String },
    #[error(
        "{url} shows a certificate that can't be trusted: {detail}; put the CA into key ca.crt of the Secret that spec.source.git.secretRef names"
    )]
    Untrusted { url: String, detail: String },
    #[error("{url} can't be trusted: {detail}")]
    HostKey { url: String, detail: String },
    #[error("{url}: {detail}; the Secret is the one that spec.source.git.secretRef names")]
    Key { url: String, detail: String },
    #[error("there is no repository at {url}, or the credentials may not see it; check spec.source.git.url")]
    NoRepository { url: String },
    #[error(
        "{url} sends more than {limit} bytes; make the repository smaller, or raise the operator's --max-repository (BACKOUT_MAX_REPOSITORY)"
    )]
    TooLarge { url: String, limit: u64 },
    #[error("{url} has no {reference}; check spec.source.git.ref")]
    NoRef { url: String, reference: String },
    #[error("{revision} is not trusted: {distrust}; spec.source.git.verify asks for a signature")]
    NotVerified { revision: String, distrust: Distrust },
    #[error("{revision} has no folder {path:?}: {problem}; check spec.source.git.path")]
    NoPath { revision: String, path: String, problem: PathError },
    #[error("{revision}, folder {path:?}: {source}")]
    Release { revision: String, path: String, source: ReleaseError },
    #[error("the git mirror in {dir}: {detail}")]
    Mirror { dir: String, detail: String },
    #[error("the operator stops")]
    Stopped,
}

impl Error {
    /// What a server's failure comes to.
    pub fn of(url: &str, failure: Failure, limits: Limits) -> Self {
        let url = url.to_owned();
        match failure {
            Failure::Unreachable(detail) => Self::Unreachable { url, detail },
            Failure::TimedOut => Self::TimedOut { url, limits },
            Failure::Denied => Self::AuthFailed { url },
            Failure::Certificate(detail) => Self::Untrusted { url, detail },
            Failure::HostKey(detail) => Self::HostKey { url, detail },
            Failure::Key(detail) => Self::Key { url, detail },
            Failure::NoRepository => Self::NoRepository { url },
            Failure::TooLarge => Self::TooLarge { url, limit: limits.repository },
            Failure::Stopped => Self::Stopped,
        }
    }

    /// CamelCase, for a condition.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } | Self::TimedOut { .. } | Self::UnderWay { .. } | Self::Mirror { .. } | Self::Stopped => {
                "SourceUnavailable"
            }
            Self::AuthFailed { .. } | Self::Untrusted { .. } | Self::HostKey { .. } | Self::Key { .. } | Self::CredentialsInUrl => {
                "SourceAccessDenied"
            }
            Self::BadUrl { .. } | Self::NoRepository { .. } | Self::NoRef { .. } | Self::NoPath { .. } => "SourceNotFound",
            Self::TooLarge { .. } => "SourceTooLarge",
            Self::NotVerified { .. } => "SourceNotVerified",
            Self::Release { .. } => "InvalidRelease",
        }
    }

    /// Whether looking again can help without anybody changing anything.
    pub fn is_passing(&self) -> bool {
        self.reason() == "SourceUnavailable"
    }
}
