//! The Redis cache: whether it answers, and removing what a release left in it. Knows no Kubernetes.

use std::{error::Error as StdError, fmt, io, sync::Arc, time::Duration};

use redis::{AsyncCommands, Client, ConnectionAddr, IntoConnectionInfo as _, TlsCertificates, aio::MultiplexedConnection};
use tokio::time::timeout;

use crate::{error::Class, secret::Sensitive};

/// A Redis that does not accept a connection and its credentials in this time is away. One try of a step on a cache that is away takes no
/// longer: raised, the application waits behind the fence for a cache that nobody can reach.
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
    pub tls: Tls,
}

/// How the connection is secured.
#[derive(Clone, PartialEq, Eq)]
pub enum Tls {
    /// Plain text.
    Disabled,
    /// The certificate must come from one of these CAs (PEM), and no other.
    VerifyCa { ca_pem: Vec<u8> },
    /// The certificate must come from one of these CAs (PEM), and no other, and name the host.
    VerifyIdentity { ca_pem: Vec<u8> },
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Disabled => "Disabled",
            Self::VerifyCa { .. } => "VerifyCa",
            Self::VerifyIdentity { .. } => "VerifyIdentity",
        })
    }
}

/// None of the messages quotes the server: one that does not know AUTH repeats its arguments.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("redis at {at} did not answer in time; check that it runs and can be reached from here")]
    TimedOut { at: String },
    #[error("redis at {at} refused the credentials ({code}); check the Secret that spec.cache.redis.credentials names")]
    AccessDenied { at: String, code: String },
    #[error("no trusted TLS connection to redis at {at}: {detail}; check spec.cache.redis.tls, the CA and the server's certificate")]
    Untrusted { at: String, detail: String },
    #[error("redis at {at} could not be reached: {detail}; check spec.cache.redis and that it runs")]
    Unreachable { at: String, detail: String },
    #[error("redis at {at} answered {code}; check its log, and what the user of spec.cache.redis.credentials may do")]
    Refused { at: String, code: String },
}

impl Error {
    pub fn class(&self) -> Class {
        match self {
            Self::TimedOut { .. } | Self::Unreachable { .. } | Self::Refused { .. } => Class::Transient,
            Self::AccessDenied { .. } | Self::Untrusted { .. } => Class::Permanent,
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
        let client = self.client(redis).map_err(|_| self.no_authority())?;
        let config =
            redis::AsyncConnectionConfig::new().set_connection_timeout(Some(CONNECT_TIMEOUT)).set_response_timeout(Some(RESPONSE_TIMEOUT));
        // The deadline also covers the name look-up, which the crate's own does not.
        timeout(CONNECT_TIMEOUT, client.get_multiplexed_async_connection_with_config(&config))
            .await
            .map_err(|_| Error::TimedOut { at: self.at() })?
            .map_err(|error| self.error(&error))
    }

    fn client(&self, redis: redis::RedisConnectionInfo) -> redis::RedisResult<Client> {
        let (host, port) = (self.host.clone(), self.port);
        let secured = || ConnectionAddr::TcpTls { host: host.clone(), port, insecure: false, tls_params: None };
        let with = |address: ConnectionAddr| Ok::<_, redis::RedisError>(address.into_connection_info()?.set_redis_settings(redis));
        match &self.tls {
            Tls::Disabled => Client::open(with(ConnectionAddr::Tcp(host.clone(), port))?),
            Tls::VerifyIdentity { ca_pem } => Client::build_with_tls(with(secured())?, only(ca_pem)),
            Tls::VerifyCa { ca_pem } => {
                let client = Client::build_with_tls(with(secured())?, only(ca_pem))?;
                let mut address = client.get_connection_info().addr().clone();
                address.set_danger_accept_invalid_hostnames(true);
                Client::open(client.get_connection_info().clone().set_addr(address))
            }
        }
    }

    fn error(&self, error: &redis::RedisError) -> Error {
        let at = self.at();
        let code = error.code().unwrap_or_default().to_owned();
        if error.kind() == redis::ErrorKind::AuthenticationFailed || matches!(code.as_str(), "NOAUTH" | "WRONGPASS" | "NOPERM") {
            Error::AccessDenied { at, code: if code.is_empty() { "no reason given".to_owned() } else { code } }
        } else if error.is_timeout() {
            Error::TimedOut { at }
        } else if matches!(error.kind(), redis::ErrorKind::Client | redis::ErrorKind::InvalidClientConfig) {
            self.no_authority()
        } else if let Some(reason) = io_error(error) {
            // rustls reports what it refuses as an IO error of kind InvalidData.
            if reason.kind() == io::ErrorKind::InvalidData {
                Error::Untrusted { at, detail: reason.to_string() }
            } else {
                Error::Unreachable { at, detail: reason.to_string() }
            }
        } else if code.is_empty() {
            Error::Unreachable { at, detail: format!("{:?}", error.kind()) }
        } else {
            Error::Refused { at, code }
        }
    }

    fn no_authority(&self) -> Error {
        Error::Untrusted { at: self.at(), detail: "no CA certificate can be read".to_owned() }
    }

    fn at(&self) -> String {
        format!("{}:{}/{}", self.host, self.port, self.db)
    }
}

/// Nobody else is trusted: the CAs of the machine are not read then.
fn only(ca_pem: &[u8]) -> TlsCertificates {
    TlsCertificates { client_tls: None, root_cert: Some(ca_pem.to_vec()) }
}

/// The crate hands it out in the Arc that it keeps it in.
fn io_error(error: &redis::RedisError) -> Option<&io::Error> {
    error.source()?.downcast_ref::<Arc<dyn StdError + Send + Sync>>()?.downcast_ref()
}

/// The prefix with the characters that SCAN's patterns give a meaning taken literally.
fn literal(prefix: &str) -> String {
    prefix.chars().flat_map(|c| if "*?[]\\^".contains(c) { vec!['\\', c] } else { vec![c] }).collect()
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
        time::Instant,
    };

    use super::*;

    #[test]
    fn a_prefix_is_no_pattern() {
        assert_eq!(literal("liqui:"), "liqui:");
        assert_eq!(literal("a*b[c]?\\"), "a\\*b\\[c\\]\\?\\\\");
    }

    /// A cache whose server takes connections and then sends this; without an answer it stays silent.
    async fn cache(answer: Option<&'static str>, tls: Tls) -> Cache {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let port = listener.local_addr().expect("it is bound").port();
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut asked = [0; 1024];
                    while client.read(&mut asked).await.is_ok_and(|bytes| bytes > 0) {
                        if let Some(answer) = answer {
                            let _ = client.write_all(answer.as_bytes()).await;
                        }
                    }
                });
            }
        });
        Cache { host: "127.0.0.1".into(), port, db: 0, username: None, password: Some(Sensitive::new("hush")), tls }
    }

    #[tokio::test]
    async fn a_cache_that_is_silent_is_given_up_within_the_time_for_connecting() {
        for tls in [Tls::Disabled, Tls::VerifyIdentity { ca_pem: Vec::new() }] {
            let cache = cache(None, tls.clone()).await;
            let begun = Instant::now();
            let error = cache.flush("liqui:").await.expect_err("nobody answers");
            assert!(matches!(error, Error::TimedOut { .. }), "{tls:?}: {error}");
            assert!(begun.elapsed() < CONNECT_TIMEOUT * 2, "{tls:?}: {:?}", begun.elapsed());
        }
    }

    #[tokio::test]
    async fn what_a_server_repeats_of_the_credentials_is_not_passed_on() {
        for answer in
            ["-ERR unknown command 'AUTH', with args beginning with: 'hush'\r\n", "-WRONGPASS no user hush\r\n", "+hush\r\n", "hush\r\n"]
        {
            let cache = cache(Some(answer), Tls::Disabled).await;
            let Err(error) = cache.flush("liqui:").await else { panic!("{answer:?} was taken for an answer") };
            assert!(!format!("{error} {error:?} {cache:?}").contains("hush"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_server_that_speaks_no_tls_is_not_trusted() {
        let cache = cache(Some("-ERR Protocol error\r\n"), Tls::VerifyIdentity { ca_pem: Vec::new() }).await;
        let error = cache.ping().await.expect_err("it speaks plain text");
        assert!(matches!(error, Error::Untrusted { .. }), "{error}");
    }
}
