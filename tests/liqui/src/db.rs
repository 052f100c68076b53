//! The queries on `binance_liqs`. They name only columns of the first migration.
//!
//! Connections are made when they are first needed and tested before each use, so the application survives
//! an absent and a restarted database. A connection whose query did not end is thrown away: the answer of
//! that query would otherwise be read by the next one.

use std::{fmt, time::Duration};

use sqlx::{
    ConnectOptions, Connection, Error, MySql, MySqlConnection, MySqlPool,
    mysql::{MySqlConnectOptions, MySqlPoolOptions, MySqlSslMode},
    pool::PoolConnection,
};
use tokio::time::timeout;

use crate::{config::DatabaseConfig, row::NewLiquidation};

/// Connections of one pod. More pods than `max_connections` of the server divided by this run into refusals.
const CONNECTIONS: u32 = 10;

/// How long a request waits for a connection. It bridges a short restart of the database and stays below
/// the patience of a client.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(3);

/// How long `/health` waits for each of its two attempts.
const HEALTH_TIMEOUT: Duration = Duration::from_millis(1500);

const SYMBOLS: &str = "SELECT DISTINCT symbol FROM binance_liqs WHERE symbol IS NOT NULL ORDER BY symbol";

const AGGREGATE: &str = "SELECT CAST(order_trade_time - MOD(order_trade_time, ?) AS SIGNED) AS bucket, side, \
     COUNT(*), CAST(SUM(usd_size) AS CHAR) \
     FROM binance_liqs WHERE symbol = ? AND order_trade_time BETWEEN ? AND ? \
     GROUP BY bucket, side ORDER BY bucket, side";

const INSERT: &str = "INSERT INTO binance_liqs (symbol, side, order_type, time_in_force, original_quantity, price, \
     average_price, order_status, order_last_filled_quantity, order_filled_accumulated_quantity, \
     order_trade_time, usd_size) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";

pub struct Database {
    pool: MySqlPool,
    options: MySqlConnectOptions,
    query_timeout: Duration,
    long_query_timeout: Duration,
}

/// The part of the table that is aggregated.
#[derive(Debug)]
pub struct Range<'a> {
    pub symbol: &'a str,
    /// Width of a bucket in milliseconds.
    pub bucket: i64,
    /// First and last instant, both included, in milliseconds since 1970.
    pub start: i64,
    pub end: i64,
}

/// Start of the bucket, side, number of liquidations, and their size in dollars where it is known.
pub type Bucket = (i64, Option<String>, i64, Option<String>);

#[derive(Debug)]
pub enum DatabaseError {
    NotConfigured,
    /// No connection, or it broke.
    Away(String),
    /// The statement ran longer than allowed; whether a row was inserted is unknown.
    TimedOut(Duration),
    /// The server refused the statement.
    Failed(String),
}

impl Database {
    /// Connects when the first query comes.
    pub fn lazy(config: &DatabaseConfig) -> Self {
        let options = MySqlConnectOptions::new()
            .host(&config.host)
            .port(config.port)
            .username(&config.user)
            .password(&config.password)
            .database(&config.name)
            .ssl_mode(MySqlSslMode::Disabled)
            // The text of a statement belongs to its error, not to a log line for each request.
            .disable_statement_logging();
        Self {
            pool: MySqlPoolOptions::new()
                .max_connections(CONNECTIONS)
                .acquire_timeout(ACQUIRE_TIMEOUT)
                .test_before_acquire(true)
                .connect_lazy_with(options.clone()),
            options,
            query_timeout: config.query_timeout,
            long_query_timeout: config.long_query_timeout,
        }
    }

    /// Asks the server for something, over the same pool as every request.
    pub async fn check(&self) -> Result<(), DatabaseError> {
        let ask = self.within(HEALTH_TIMEOUT, async |connection| sqlx::query("SELECT 1").execute(connection).await);
        match timeout(HEALTH_TIMEOUT, ask).await {
            Ok(outcome) => outcome.map(drop),
            // The pool waits and does not say why; a connection of its own does.
            Err(_) => Err(self.why_away().await),
        }
    }

    async fn why_away(&self) -> DatabaseError {
        match timeout(HEALTH_TIMEOUT, self.options.connect()).await {
            Ok(Ok(connection)) => {
                // The server counts a connection that just ends as aborted; it is not worth a wait.
                let _ = timeout(HEALTH_TIMEOUT, connection.close()).await;
                DatabaseError::Away("all connections are busy".to_owned())
            }
            Ok(Err(error)) => error.into(),
            Err(_) => DatabaseError::Away("no answer".to_owned()),
        }
    }

    pub async fn symbols(&self) -> Result<Vec<String>, DatabaseError> {
        let symbols: Vec<(String,)> =
            self.within(self.query_timeout, async |connection| sqlx::query_as(SYMBOLS).fetch_all(connection).await).await?;
        Ok(symbols.into_iter().map(|(symbol,)| symbol).collect())
    }

    pub async fn aggregate(&self, range: &Range<'_>) -> Result<Vec<Bucket>, DatabaseError> {
        self.within(self.long_query_timeout, async |connection| {
            sqlx::query_as(AGGREGATE).bind(range.bucket).bind(range.symbol).bind(range.start).bind(range.end).fetch_all(connection).await
        })
        .await
    }

    /// Inserts one row and answers its id. Each statement is its own transaction, so the server has
    /// committed when it answers. It is not tried again: the first try may have been committed.
    pub async fn insert(&self, row: &NewLiquidation) -> Result<u64, DatabaseError> {
        let inserted = self
            .within(self.query_timeout, async |connection| {
                sqlx::query(INSERT)
                    .bind(&row.symbol.0)
                    .bind(&row.side.0)
                    .bind(row.order_type.as_ref().map(|text| &text.0))
                    .bind(row.time_in_force.as_ref().map(|text| &text.0))
                    .bind(&row.original_quantity.0)
                    .bind(&row.price.0)
                    .bind(row.average_price.as_ref().map(|decimal| &decimal.0))
                    .bind(row.order_status.as_ref().map(|text| &text.0))
                    .bind(row.order_last_filled_quantity.as_ref().map(|decimal| &decimal.0))
                    .bind(row.order_filled_accumulated_quantity.as_ref().map(|decimal| &decimal.0))
                    .bind(row.order_trade_time)
                    .bind(row.usd_size.as_ref().map(|decimal| &decimal.0))
                    .execute(connection)
                    .await
            })
            .await?;
        Ok(inserted.last_insert_id())
    }

    pub async fn close(&self) {
        self.pool.close().await;
    }

    async fn within<T>(
        &self,
        limit: Duration,
        statement: impl AsyncFnOnce(&mut MySqlConnection) -> Result<T, Error>,
    ) -> Result<T, DatabaseError> {
        let mut lease = self.lease().await?;
        match timeout(limit, statement(lease.connection()?)).await {
            Ok(Ok(answer)) => {
                lease.give_back();
                Ok(answer)
            }
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(DatabaseError::TimedOut(limit)),
        }
    }

    async fn lease(&self) -> Result<Lease, Error> {
        Ok(Lease(Some(self.pool.acquire().await?)))
    }
}

/// A connection that goes back to the pool only when its statement ended. Dropped earlier, at a timeout or
/// when the client went away, it is cut: the pool would wait for the statement with no limit.
struct Lease(Option<PoolConnection<MySql>>);

impl Lease {
    fn connection(&mut self) -> Result<&mut MySqlConnection, Error> {
        self.0.as_deref_mut().ok_or(Error::PoolClosed)
    }

    fn give_back(mut self) {
        drop(self.0.take());
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            drop(connection.detach());
        }
    }
}

impl From<Error> for DatabaseError {
    fn from(error: Error) -> Self {
        match error {
            Error::Io(error) => Self::Away(error.to_string()),
            Error::PoolTimedOut => Self::Away(format!("no connection within {} s", ACQUIRE_TIMEOUT.as_secs())),
            Error::PoolClosed => Self::Away("shutting down".to_owned()),
            Error::Database(error) => Self::Failed(error.to_string()),
            other => Self::Failed(other.to_string()),
        }
    }
}

impl fmt::Display for DatabaseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotConfigured => f.write_str("not configured"),
            Self::Away(reason) | Self::Failed(reason) => f.write_str(reason),
            Self::TimedOut(limit) => write!(f, "no answer within {} s", limit.as_secs()),
        }
    }
}
