//! The Redis cache: whether it answers, and removing what a release left in it. Knows no Kubernetes.

use std::time::Duration;

use redis::{AsyncCommands, Client, aio::MultiplexedConnection};
use tokio::time::timeout;

use crate::{error::Class, secret::Sensitive};

/// A Redis that does not accept a connection in this time is away.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// One SCAN or UNLINK of [`BATCH`] keys takes milliseconds; the crate's default of 500 ms is too short for a busy server.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);
/// Keys asked for by one SCAN. Larger batches block the server's only thread for longer.
const BATCH: usize = 1_000;

/// Where a cache is.
#[derive(Clone, Debug)]
pub struct Cache {
    pub host: String,
    pub port: u16,
    pub db: u16,
    pub username: Option<String>,
    pub password: Option<Sensitive>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("redis at {at} did not answer in time; check that it runs and can be reached from here")]
    TimedOut { at: String },
    #[error("redis at {at} refused the credentials ({detail}); check the Secret that spec.cache.redis.credentials names")]
    AccessDenied { at: String, detail: String },
    #[error("redis at {at} could not be reached: {detail}; check spec.cache.redis and that it runs")]
    Unreachable { at: String, detail: String },
}

impl Error {
    pub fn class(&self) -> Class {
        match self {
            Self::TimedOut { .. } | Self::Unreachable { .. } => Class::Transient,
            Self::AccessDenied { .. } => Class::Permanent,
        }
    }
}

impl Cache {
    /// PING, after authentication.
    pub async fn ping(&self) -> Result<(), Error> {
        let mut connection = self.connect().await?;
        redis::cmd("PING").query_async::<String>(&mut connection).await.map_err(|error| self.error(&error))?;
        Ok(())
    }

    /// Removes every key that begins with `prefix` and returns how many there were. Running it again removes what is left.
    pub async fn flush(&self, prefix: &str) -> Result<u64, Error> {
        let mut connection = self.connect().await?;
        let pattern = format!("{}*", literal(prefix));
        let mut removed = 0;
        let mut cursor = 0_u64;
        loop {
            let (next, keys): (u64, Vec<Vec<u8>>) = redis::cmd("SCAN")
                .arg(cursor)
                .arg("MATCH")
                .arg(&pattern)
                .arg("COUNT")
                .arg(BATCH)
                .query_async(&mut connection)
                .await
                .map_err(|error| self.error(&error))?;
            if !keys.is_empty() {
                // UNLINK frees memory in the background: large values do not hold up other clients.
                removed += connection.unlink::<_, u64>(keys).await.map_err(|error| self.error(&error))?;
            }
            if next == 0 {
                return Ok(removed);
            }
            cursor = next;
        }
    }

    async fn connect(&self) -> Result<MultiplexedConnection, Error> {
        let redis = redis::RedisConnectionInfo::default().set_db(i64::from(self.db));
        let redis = match &self.username {
            Some(username) => redis.set_username(username),
            None => redis,
        };
        let redis = match &self.password {
            Some(password) => redis.set_password(password.reveal()),
            None => redis,
        };
        let address = redis::ConnectionAddr::Tcp(self.host.clone(), self.port);
        let info = redis::IntoConnectionInfo::into_connection_info(address).map_err(|error| self.error(&error))?.set_redis_settings(redis);
        let client = Client::open(info).map_err(|error| self.error(&error))?;
        let config =
            redis::AsyncConnectionConfig::new().set_connection_timeout(Some(CONNECT_TIMEOUT)).set_response_timeout(Some(RESPONSE_TIMEOUT));
        // The deadline also covers the name look-up, which the crate's own does not.
        timeout(CONNECT_TIMEOUT, client.get_multiplexed_async_connection_with_config(&config))
            .await
            .map_err(|_| Error::TimedOut { at: self.at() })?
            .map_err(|error| self.error(&error))
    }

    fn error(&self, error: &redis::RedisError) -> Error {
        let (at, detail) = (self.at(), error.to_string());
        if error.kind() == redis::ErrorKind::AuthenticationFailed || matches!(error.code(), Some("NOAUTH" | "WRONGPASS" | "NOPERM")) {
            Error::AccessDenied { at, detail }
        } else if error.is_timeout() {
            Error::TimedOut { at }
        } else {
            Error::Unreachable { at, detail }
        }
    }

    fn at(&self) -> String {
        format!("{}:{}/{}", self.host, self.port, self.db)
    }
}

/// The prefix with the characters that SCAN's patterns give a meaning taken literally.
fn literal(prefix: &str) -> String {
    prefix.chars().flat_map(|c| if "*?[]\\^".contains(c) { vec!['\\', c] } else { vec![c] }).collect()
}

#[cfg(test)]
mod tests {
    use super::literal;

    #[test]
    fn a_prefix_is_no_pattern() {
        assert_eq!(literal("liqui:"), "liqui:");
        assert_eq!(literal("a*b[c]?\\"), "a\\*b\\[c\\]\\?\\\\");
    }
}
