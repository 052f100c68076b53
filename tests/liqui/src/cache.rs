//! Answers kept in Redis under `liqui:`. Redis is never needed for an answer: a cache that is away is a miss.
//!
//! One connection is shared by all requests and made again after it broke. While Redis is away only one
//! request a second waits for it; the others miss at once, so the API stays as fast as its database.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, FromRedisValue, IntoConnectionInfo, RedisConnectionInfo, RedisError,
    aio::MultiplexedConnection,
};
use tokio::{sync::Mutex, time::timeout};

use crate::config::RedisConfig;

const PREFIX: &str = "liqui:";

/// Longest wait for a connection and for one command. A read waits at most twice this long before it goes
/// to the database.
const TIMEOUT: Duration = Duration::from_millis(500);

/// After a failure Redis is left alone for this long.
const PAUSE: Duration = Duration::from_secs(1);

/// Longest walk over all keys, for statistics and for clearing.
const WALK_TIMEOUT: Duration = Duration::from_secs(4);

/// Keys asked for in one step of a walk; Redis serves nobody else during a step.
const STEP: usize = 500;

/// Hits and misses are counted by this process since it started.
#[derive(Default)]
pub struct Cache {
    redis: Redis,
    hits: AtomicU64,
    misses: AtomicU64,
}

#[derive(Default)]
enum Redis {
    Disabled,
    #[default]
    Missing,
    At {
        client: Box<Client>,
        link: Box<Mutex<Link>>,
    },
}

#[derive(Default)]
struct Link {
    connection: Option<MultiplexedConnection>,
    failed: Option<(Instant, String)>,
}

#[derive(Clone, Debug)]
pub enum CacheError {
    Disabled,
    /// No address is configured.
    Missing,
    Away(String),
}

impl Cache {
    /// Connects when the first command comes.
    pub fn lazy(config: &RedisConfig) -> Self {
        let redis = match config {
            RedisConfig::Disabled => Redis::Disabled,
            RedisConfig::Missing => Redis::Missing,
            RedisConfig::At { host, port, password } => client(host, *port, password.as_deref())
                .map_or(Redis::Missing, |client| Redis::At { client: Box::new(client), link: Box::default() }),
        };
        Self { redis, ..Self::default() }
    }

    pub async fn check(&self) -> Result<(), CacheError> {
        self.run::<String>(&redis::cmd("PING")).await.map(drop)
    }

    /// The answer stored under `key`, or nothing when there is none or Redis is away.
    pub async fn get(&self, key: &str) -> Option<String> {
        let mut get = redis::cmd("GET");
        let found = self.run::<Option<Vec<u8>>>(get.arg(key_of(key))).await;
        let answer = found.ok().flatten();
        let answer = answer.and_then(|bytes| String::from_utf8(bytes).ok());
        let counter = if answer.is_some() { &self.hits } else { &self.misses };
        counter.fetch_add(1, Ordering::Relaxed);
        answer
    }

    /// Stores `answer`. A failure costs only the next reader's time and is told by `/health`.
    pub async fn put(&self, key: &str, answer: &str, ttl: Duration) {
        // Redis refuses an expiry of zero.
        if ttl.is_zero() {
            return;
        }
        let mut set = redis::cmd("SET");
        set.arg(key_of(key)).arg(answer).arg("EX").arg(ttl.as_secs());
        if let Err(error) = self.run::<()>(&set).await {
            tracing::debug!(%error, "not cached");
        }
    }

    /// Number of keys under the prefix.
    pub async fn keys(&self) -> Result<u64, CacheError> {
        self.walk(Visit::Count).await
    }

    /// Removes every key under the prefix and answers how many there were.
    pub async fn clear(&self) -> Result<u64, CacheError> {
        self.walk(Visit::Remove).await
    }

    /// Hits and misses of this process.
    pub fn counters(&self) -> (u64, u64) {
        (self.hits.load(Ordering::Relaxed), self.misses.load(Ordering::Relaxed))
    }

    async fn walk(&self, visit: Visit) -> Result<u64, CacheError> {
        timeout(WALK_TIMEOUT, self.steps(visit)).await.unwrap_or_else(|_| Err(CacheError::Away("too slow to visit all keys".to_owned())))
    }

    async fn steps(&self, visit: Visit) -> Result<u64, CacheError> {
        let (mut cursor, mut visited) = (0_u64, 0_u64);
        loop {
            let mut scan = redis::cmd("SCAN");
            scan.arg(cursor).arg("MATCH").arg(format!("{PREFIX}*")).arg("COUNT").arg(STEP);
            let (next, keys) = self.run::<(u64, Vec<Vec<u8>>)>(&scan).await?;
            visited += match visit {
                Visit::Count => u64::try_from(keys.len()).unwrap_or(u64::MAX),
                Visit::Remove if keys.is_empty() => 0,
                Visit::Remove => self.run(redis::cmd("UNLINK").arg(keys)).await?,
            };
            if next == 0 {
                return Ok(visited);
            }
            cursor = next;
        }
    }

    /// Runs one command; all of them may be repeated without harm.
    async fn run<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, CacheError> {
        let (client, link) = match &self.redis {
            Redis::Disabled => return Err(CacheError::Disabled),
            Redis::Missing => return Err(CacheError::Missing),
            Redis::At { client, link } => (client, link),
        };
        // A connection from before may have broken while it was idle: that says nothing about Redis now.
        let kept = link.lock().await.connection.clone();
        if let Some(mut connection) = kept {
            match limited(command.query_async(&mut connection)).await {
                Ok(answer) => return Ok(answer),
                Err(reason) => {
                    tracing::debug!(%reason, "connection to redis broke");
                    link.lock().await.connection = None;
                }
            }
        }
        let mut connection = connect(client, link).await?;
        match limited(command.query_async(&mut connection)).await {
            Ok(answer) => Ok(answer),
            Err(reason) => {
                let mut link = link.lock().await;
                link.connection = None;
                link.failed = Some((Instant::now(), reason.clone()));
                Err(CacheError::Away(reason))
            }
        }
    }
}

#[derive(Clone, Copy)]
enum Visit {
    Count,
    Remove,
}

fn client(host: &str, port: u16, password: Option<&str>) -> Option<Client> {
    let mut settings = RedisConnectionInfo::default();
    if let Some(password) = password {
        settings = settings.set_password(password);
    }
    let address = ConnectionAddr::Tcp(host.to_owned(), port);
    let info = address.into_connection_info().ok()?;
    Client::open(info.set_redis_settings(settings)).ok()
}

/// The lock is held while connecting, so that only one request tries; the others then find its outcome.
async fn connect(client: &Client, link: &Mutex<Link>) -> Result<MultiplexedConnection, CacheError> {
    let mut link = link.lock().await;
    if let Some(connection) = &link.connection {
        return Ok(connection.clone());
    }
    if let Some((at, reason)) = &link.failed
        && at.elapsed() < PAUSE
    {
        return Err(CacheError::Away(reason.clone()));
    }
    let config = AsyncConnectionConfig::new().set_connection_timeout(Some(TIMEOUT)).set_response_timeout(Some(TIMEOUT));
    match limited(client.get_multiplexed_async_connection_with_config(&config)).await {
        Ok(connection) => {
            link.connection = Some(connection.clone());
            link.failed = None;
            Ok(connection)
        }
        Err(reason) => {
            link.failed = Some((Instant::now(), reason.clone()));
            Err(CacheError::Away(reason))
        }
    }
}

async fn limited<T>(work: impl Future<Output = Result<T, RedisError>>) -> Result<T, String> {
    match timeout(TIMEOUT, work).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {} ms", TIMEOUT.as_millis())),
    }
}

fn key_of(key: &str) -> String {
    format!("{PREFIX}{key}")
}

impl fmt::Display for CacheError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disabled => f.write_str("disabled"),
            Self::Missing => f.write_str("not configured"),
            Self::Away(reason) => f.write_str(reason),
        }
    }
}
