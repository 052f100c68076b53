//! One request to the API server: with a deadline, and its errors in our words.

use std::time::Duration;

use crate::error::Class;

/// No single request takes longer; kube itself has no read timeout.
const API_TIMEOUT: Duration = Duration::from_secs(15);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{doing}: the API server did not answer in time")]
    TimedOut { doing: String },
    #[error("{doing}: {source}")]
    Refused { doing: String, source: Box<kube::Error> },
}

impl Error {
    pub fn class(&self) -> Class {
        match self {
            Self::TimedOut { .. } => Class::Transient,
            Self::Refused { source, .. } => match source.as_ref() {
                kube::Error::Api(status) if status.code == 409 => Class::Conflict,
                kube::Error::Api(status) if (400..500).contains(&status.code) && status.code != 429 => Class::Permanent,
                _ => Class::Transient,
            },
        }
    }

    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { source, .. } if matches!(source.as_ref(), kube::Error::Api(status) if status.is_not_found()))
    }
}

/// Waits for a request, but not for ever. `doing` names the object.
pub async fn within<T>(doing: impl Into<String>, request: impl Future<Output = Result<T, kube::Error>>) -> Result<T, Error> {
    match tokio::time::timeout(API_TIMEOUT, request).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(source)) => Err(Error::Refused { doing: doing.into(), source: Box::new(source) }),
        Err(_) => Err(Error::TimedOut { doing: doing.into() }),
    }
}
