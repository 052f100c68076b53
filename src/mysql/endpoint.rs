//! Where the database is, and sessions in a known state.
//!
//! Sessions are short-lived: one for each call of the engine, closed with it. A session that ran into a timeout or lost its socket is
//! never used again; the server may still be running its last statement, which is why all writing goes under [`Database::locked`].
//!
//! Every await has a limit: connecting and closing [`CONNECT_TIMEOUT`], a short statement and each row of a stream [`SHORT_TIMEOUT`], a
//! long statement what the caller allows ([`Database::with_statement_timeout`]), which also lowers the other limits if it is shorter.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use futures::TryStreamExt;
use futures::stream::BoxStream;
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection, MySqlRow, MySqlSslMode};
use sqlx::{ConnectOptions, Connection, Row as _, ValueRef as _};

use crate::secret::Sensitive;

use super::error::{Error, Result};
use super::ident::{literal, quote, vouched};
use super::progress::{Listening, Progress};
use super::{grants, lock};

/// A connection attempt that takes longer counts as unreachable.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a short statement (catalogue, bookkeeping, session) may take. The catalogue of a server with many thousand tables is slow.
pub(super) const SHORT_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a long statement may take unless the caller says otherwise: a migration's `ALTER TABLE`, the checksum of a large table.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(6 * 3600);
/// More help where the server has cores to spare, and take them from the application where it has not.
const CONNECTIONS: usize = 2;
/// Small enough for one transaction, large enough that what is done once for each chunk (a file, a few statements) does not count.
const CHUNK_BYTES: u64 = 16 * 1024 * 1024;
/// Seconds a statement may wait for a metadata or row lock. While DDL waits, new queries on that table queue behind it, so this
/// is also how long the application can stall.
const LOCK_WAIT_SECONDS: u32 = 5;
/// Seconds the server keeps a session whose client reads or writes slowly, for example because the backup store does.
const SLOW_CLIENT_SECONDS: u32 = 600;
/// Seconds the server keeps a session that asks nothing. An operator whose network fails without a word leaves its session, and with
/// it the database's lock, until then. Between two statements the engine waits for at most three answers of the backup store, each 120 s.
const IDLE_SECONDS: u32 = 600;

/// The session state that the engine, its files and its checksums rely on.
///
/// The modes are those under which every stored value can be written again: id 0, dates such as 2024-02-31 and 0000-00-00, the error value
/// of an ENUM. Without strict mode a value that does not fit is cut with a warning; the checksum after loading finds that.
/// `group_concat_max_len` and the optimizer's choices do not matter here; what is not named keeps the server's default.
pub(super) const SESSION: &str = "SET NAMES utf8mb4, time_zone='+00:00', \
    sql_mode='NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES,NO_ENGINE_SUBSTITUTION', \
    foreign_key_checks=0, check_constraint_checks=0, unique_checks=1, sql_quote_show_create=1, innodb_strict_mode=0";

/// Where a database is and how to get in.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Name or address; with [`Tls::VerifyIdentity`] the certificate must name it.
    pub host: String,
    pub port: u16,
    /// The live schema.
    pub database: String,
    pub user: String,
    pub password: Sensitive,
    pub tls: Tls,
}

/// How the connection is secured. There is no "if the server offers it": that is plain text for whoever stands between.
#[derive(Clone, PartialEq, Eq)]
pub enum Tls {
    /// Plain text.
    Disabled,
    /// Encrypted, but to whom is not checked.
    Required,
    /// The certificate must come from one of these CAs (PEM), and no other.
    VerifyCa { ca_pem: Vec<u8> },
    /// The certificate must come from one of these CAs (PEM), and no other, and name the host.
    VerifyIdentity { ca_pem: Vec<u8> },
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Disabled => "Disabled",
            Self::Required => "Required",
            Self::VerifyCa { .. } => "VerifyCa",
            Self::VerifyIdentity { .. } => "VerifyIdentity",
        })
    }
}

/// One live schema of one server: the first argument of everything the engine does.
#[derive(Clone, Debug)]
pub struct Database {
    endpoint: Endpoint,
    statement_timeout: Duration,
    connections: usize,
    chunk: u64,
    yields: bool,
    listening: Listening,
}

impl Database {
    /// Opens nothing; every call of the engine connects for itself.
    pub fn new(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            statement_timeout: STATEMENT_TIMEOUT,
            connections: CONNECTIONS,
            chunk: CHUNK_BYTES,
            yields: false,
            listening: Listening::default(),
        }
    }

    /// Bounds each long statement (a migration's `ALTER TABLE`, a checksum, a shadow's index build); 6 hours unless set. No other wait
    /// for the server is longer than this either.
    #[must_use]
    pub fn with_statement_timeout(mut self, limit: Duration) -> Self {
        self.statement_timeout = limit;
        self
    }

    /// How many sessions take a backup or load one at the same time, besides the one that holds the lock; 2 unless set, 16 at most.
    #[must_use]
    pub fn with_connections(mut self, connections: usize) -> Self {
        self.connections = connections.clamp(1, lock::MOST_HELPERS);
        self
    }

    /// Bytes of stored rows in each file of a backup, by the server's average for the table; 16 MiB unless set.
    #[must_use]
    pub fn with_chunk(mut self, bytes: u64) -> Self {
        self.chunk = bytes.max(1);
        self
    }

    /// Tells `listener`, from any thread and often, how far a capture or load has come.
    #[must_use]
    pub fn with_progress(mut self, listener: impl Fn(Progress) + Send + Sync + 'static) -> Self {
        self.listening = Listening::new(listener);
        self
    }

    /// The same with another schema of the server in its place.
    pub(super) fn in_schema(&self, schema: &str) -> Self {
        let mut copy = self.clone();
        copy.endpoint.database = schema.to_owned();
        copy
    }

    pub(super) fn listening(&self) -> &Listening {
        &self.listening
    }

    /// Loads rest between statements for as long as commits of others would take more than twice as long as without: beside an application
    /// that is not to notice.
    #[must_use]
    pub fn yielding(mut self) -> Self {
        self.yields = true;
        self
    }

    pub(super) fn yields(&self) -> bool {
        self.yields
    }

    pub(super) fn connections(&self) -> usize {
        self.connections
    }

    pub(super) fn chunk(&self) -> u64 {
        self.chunk
    }

    /// The live schema's name.
    pub fn name(&self) -> &str {
        &self.endpoint.database
    }

    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// A session in the live schema.
    pub(super) async fn session(&self) -> Result<Session> {
        let mut session = self.connect().await?;
        match session.run("select the live schema", &format!("USE {}", quote(self.name()))).await {
            Ok(_) => Ok(session),
            Err(error) => match error.code() {
                Some(1049) => Err(self.unknown()),
                // Without any privilege on it the server does not even say whether the schema exists.
                Some(1044) => Err(self.missing(grants::missing(&mut session, self.name(), &[]).await?)),
                _ => Err(error),
            },
        }
    }

    /// A session in the live schema that holds the database's lock until it ends. See [`lock`].
    pub(super) async fn locked(&self) -> Result<Session> {
        let mut session = self.session().await?;
        lock::take(&mut session, self.name()).await?;
        Ok(session)
    }

    pub(super) fn unknown(&self) -> Error {
        Error::UnknownDatabase { database: self.name().to_owned(), host: self.endpoint.host.clone() }
    }

    pub(super) fn missing(&self, grants: Vec<String>) -> Error {
        Error::MissingGrants { user: self.endpoint.user.clone(), grants }
    }

    async fn connect(&self) -> Result<Session> {
        let connection = match tokio::time::timeout(self.limit(CONNECT_TIMEOUT), self.options().connect()).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => return Err(self.explain(error)),
            Err(_) => {
                return Err(Error::Unreachable {
                    host: self.endpoint.host.clone(),
                    port: self.endpoint.port,
                    reason: format!("no answer within {:?}", self.limit(CONNECT_TIMEOUT)),
                });
            }
        };
        let mut session = Session {
            connection,
            short: self.limit(SHORT_TIMEOUT),
            long: self.statement_timeout,
            closing: self.limit(CONNECT_TIMEOUT),
            state: State::Ready,
        };
        let waits = format!(
            ", lock_wait_timeout={LOCK_WAIT_SECONDS}, innodb_lock_wait_timeout={LOCK_WAIT_SECONDS}, \
             net_write_timeout={SLOW_CLIENT_SECONDS}, net_read_timeout={SLOW_CLIENT_SECONDS}, \
             wait_timeout={IDLE_SECONDS}, max_statement_time=0"
        );
        session.run("prepare the session", &format!("{SESSION}{waits}")).await?;
        Ok(session)
    }

    fn limit(&self, limit: Duration) -> Duration {
        limit.min(self.statement_timeout)
    }

    fn options(&self) -> MySqlConnectOptions {
        let Endpoint { host, port, database: _, user, password, tls } = &self.endpoint;
        let options = MySqlConnectOptions::new()
            .host(host)
            .port(*port)
            .username(user)
            .statement_cache_capacity(0)
            // The session's state is set in one statement of our own, not changed behind our back.
            .pipes_as_concat(false)
            .no_engine_substitution(false)
            .timezone(None::<String>)
            .set_names(false)
            // Statements hold the users' data.
            .disable_statement_logging();
        // An empty one is none: answering the server's challenge with it would be refused.
        let options = if password.reveal().is_empty() { options } else { options.password(password.reveal()) };
        match tls {
            Tls::Disabled => options.ssl_mode(MySqlSslMode::Disabled),
            Tls::Required => options.ssl_mode(MySqlSslMode::Required),
            Tls::VerifyCa { ca_pem } => options.ssl_mode(MySqlSslMode::VerifyCa).ssl_ca_from_pem(ca_pem.clone()),
            Tls::VerifyIdentity { ca_pem } => options.ssl_mode(MySqlSslMode::VerifyIdentity).ssl_ca_from_pem(ca_pem.clone()),
        }
    }

    fn explain(&self, error: sqlx::Error) -> Error {
        let Endpoint { host, port, user, .. } = self.endpoint.clone();
        match error {
            sqlx::Error::Tls(reason) => Error::Untrusted { host, port, reason: reason.to_string() },
            // rustls reports a certificate that it refuses as an IO error of kind InvalidData.
            sqlx::Error::Io(reason) if reason.kind() == std::io::ErrorKind::InvalidData => {
                Error::Untrusted { host, port, reason: reason.to_string() }
            }
            sqlx::Error::Database(refused) => match code_of(refused.as_ref()) {
                1045 | 1698 | 1862 | 4151 => Error::AccessDenied { host, port, user },
                code => Error::Refused { doing: format!("connect to {host}:{port}"), code, message: refused.message().to_owned() },
            },
            other => Error::Unreachable { host, port, reason: other.to_string() },
        }
    }
}

/// One connection in the state of [`SESSION`].
pub(super) struct Session {
    connection: MySqlConnection,
    short: Duration,
    long: Duration,
    closing: Duration,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Ready,
    /// An answer is missing: the next one could be taken for it.
    GivenUp,
}

impl Session {
    /// Runs a short statement and returns the number of rows it affected.
    pub async fn run(&mut self, doing: &str, sql: &str) -> Result<u64> {
        self.execute(self.short, doing, sql.to_owned()).await
    }

    /// Runs a statement that may take as long as the caller of the engine allows.
    pub async fn run_long(&mut self, doing: &str, sql: String) -> Result<u64> {
        self.execute(self.long, doing, sql).await
    }

    /// All rows of a short query.
    pub async fn rows(&mut self, doing: &str, sql: &str) -> Result<Vec<Row>> {
        self.fetch(self.short, doing, sql.to_owned()).await
    }

    /// All rows of a query that may take as long as the caller of the engine allows.
    pub async fn rows_long(&mut self, doing: &str, sql: String) -> Result<Vec<Row>> {
        self.fetch(self.long, doing, sql).await
    }

    /// The first row of a short query, if there is one.
    pub async fn row(&mut self, doing: &str, sql: &str) -> Result<Option<Row>> {
        Ok(self.rows(doing, sql).await?.into_iter().next())
    }

    /// The rows of a table as they come, in the text protocol. A stream that is not read to its end leaves the session unusable.
    pub fn stream(&mut self, doing: String, sql: String) -> Stream<'_> {
        Stream { doing, limit: self.short, state: &mut self.state, rows: sqlx::raw_sql(vouched(sql)).fetch(&mut self.connection) }
    }

    /// Says goodbye, so that the server frees locks at once. Errors do not matter: the work is done.
    pub async fn close(self) {
        if self.state == State::Ready {
            let _ = tokio::time::timeout(self.closing, self.connection.close()).await;
        }
    }

    /// A session variable of the server.
    pub async fn variable(&mut self, name: &str) -> Result<Option<String>> {
        let sql = format!("SHOW VARIABLES WHERE Variable_name = {}", literal(name));
        match self.row("read a server variable", &sql).await? {
            Some(row) => row.text(1),
            None => Ok(None),
        }
    }

    async fn execute(&mut self, limit: Duration, doing: &str, sql: String) -> Result<u64> {
        let statement = sqlx::raw_sql(vouched(sql));
        Ok(within(&mut self.state, limit, doing, statement.execute(&mut self.connection)).await?.rows_affected())
    }

    async fn fetch(&mut self, limit: Duration, doing: &str, sql: String) -> Result<Vec<Row>> {
        let statement = sqlx::raw_sql(vouched(sql));
        let rows = within(&mut self.state, limit, doing, statement.fetch_all(&mut self.connection)).await?;
        Ok(rows.into_iter().map(Row).collect())
    }
}

/// The rows of a query that is under way.
pub(super) struct Stream<'a> {
    doing: String,
    limit: Duration,
    state: &'a mut State,
    rows: BoxStream<'a, sqlx::Result<MySqlRow>>,
}

impl Stream<'_> {
    /// The next row, or an error when the server stays silent for the limit of a short statement.
    pub async fn next(&mut self) -> Result<Option<Row>> {
        Ok(within(self.state, self.limit, &self.doing, self.rows.try_next()).await?.map(Row))
    }
}

/// One row of the text protocol.
pub(super) struct Row(MySqlRow);

impl Row {
    pub fn inner(&self) -> &MySqlRow {
        &self.0
    }

    /// The bytes as the server sent them; `None` is NULL.
    pub fn bytes(&self, index: usize) -> Result<Option<&[u8]>> {
        let unreadable = |error: sqlx::Error| Error::Unreadable { doing: format!("column {index}"), reason: error.to_string() };
        if self.0.try_get_raw(index).map_err(unreadable)?.is_null() {
            return Ok(None);
        }
        self.0.try_get_unchecked::<&[u8], _>(index).map(Some).map_err(unreadable)
    }

    pub fn text(&self, index: usize) -> Result<Option<String>> {
        let Some(bytes) = self.bytes(index)? else { return Ok(None) };
        String::from_utf8(bytes.to_owned())
            .map(Some)
            .map_err(|error| Error::Unreadable { doing: format!("column {index}"), reason: error.to_string() })
    }

    /// Text that can't be NULL.
    pub fn string(&self, index: usize) -> Result<String> {
        self.text(index)?.ok_or_else(|| Error::Unreadable { doing: format!("column {index}"), reason: "it is NULL".to_owned() })
    }

    pub fn number(&self, index: usize) -> Result<Option<u64>> {
        let Some(text) = self.text(index)? else { return Ok(None) };
        text.parse()
            .map(Some)
            .map_err(|_| Error::Unreadable { doing: format!("column {index}"), reason: format!("{text} is not a whole number") })
    }

    /// A number that can't be NULL.
    pub fn count(&self, index: usize) -> Result<u64> {
        self.number(index)?.ok_or_else(|| Error::Unreadable { doing: format!("column {index}"), reason: "it is NULL".to_owned() })
    }
}

async fn within<T>(state: &mut State, limit: Duration, doing: &str, work: impl Future<Output = sqlx::Result<T>>) -> Result<T> {
    if *state == State::GivenUp {
        return Err(Error::Lost { doing: doing.to_owned(), reason: "an earlier statement got no answer".to_owned() });
    }
    match tokio::time::timeout(limit, work).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => {
            let error = translate(doing, error);
            if matches!(error, Error::Lost { .. }) {
                *state = State::GivenUp;
            }
            Err(error)
        }
        Err(_) => {
            *state = State::GivenUp;
            Err(Error::TimedOut { doing: doing.to_owned(), limit })
        }
    }
}

fn translate(doing: &str, error: sqlx::Error) -> Error {
    let doing = doing.to_owned();
    match error {
        sqlx::Error::Database(refused) => Error::Refused { doing, code: code_of(refused.as_ref()), message: refused.message().to_owned() },
        sqlx::Error::Io(reason) => Error::Lost { doing, reason: reason.to_string() },
        // An answer that was cut off, or another one than was asked for.
        sqlx::Error::Protocol(reason) => Error::Lost { doing, reason },
        other => Error::Unreadable { doing, reason: other.to_string() },
    }
}

fn code_of(error: &dyn sqlx::error::DatabaseError) -> u16 {
    error.try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>().map_or(0, sqlx::mysql::MySqlDatabaseError::number)
}
