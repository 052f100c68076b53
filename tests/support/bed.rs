//! The test bed as the environment describes it. A test that needs it and has none fails and says how to get one.

use std::{env, time::Duration};

use kube::Client;
use sqlx::{AssertSqlSafe, Connection, MySqlConnection, Row, mysql::MySqlConnectOptions};
use tokio::time::{MissedTickBehavior, interval, timeout};

/// A variable that `tests/testbed/bed run` sets.
pub fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| {
        panic!("{name} is not set: this test needs the test bed. Run `make test`, or `tests/testbed/bed up` and then `tests/testbed/bed run cargo test`")
    })
}

/// A client with the rights of the cluster's administrator.
pub async fn client() -> Client {
    // Another test of this process may have installed it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let _ = variable("BED_DIR");
    Client::try_default().await.expect("the bed's API server takes connections")
}

/// A connection as the database's root.
pub async fn root() -> MySqlConnection {
    let options = MySqlConnectOptions::new()
        .host(&variable("BED_MYSQL_HOST"))
        .port(variable("BED_MYSQL_PORT").parse().expect("BED_MYSQL_PORT is a number"))
        .username(&variable("BED_MYSQL_USER"))
        .password(&variable("BED_MYSQL_PASSWORD"))
        .ssl_mode(sqlx::mysql::MySqlSslMode::Disabled);
    MySqlConnection::connect_with(&options).await.expect("the bed's MariaDB takes connections")
}

/// Runs statements as root.
pub async fn execute(sql: impl Into<String>) {
    let sql = sql.into();
    let mut connection = root().await;
    sqlx::raw_sql(AssertSqlSafe(sql.clone())).execute(&mut connection).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
}

/// The first column of all rows, as text.
pub async fn column(sql: impl Into<String>) -> Vec<String> {
    let sql = sql.into();
    let mut connection = root().await;
    let rows = sqlx::raw_sql(AssertSqlSafe(sql.clone())).fetch_all(&mut connection).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    rows.iter().map(|row| String::from_utf8_lossy(row.get_unchecked::<&[u8], _>(0)).into_owned()).collect()
}

/// Sends one command to the bed's Redis.
pub async fn redis(command: &[&str]) -> redis::Value {
    let url = format!("redis://:{}@{}:{}/0", variable("BED_REDIS_PASSWORD"), variable("BED_REDIS_HOST"), variable("BED_REDIS_PORT"));
    let client = redis::Client::open(url).expect("the bed's Redis has a valid address");
    let mut connection = client.get_multiplexed_async_connection().await.expect("the bed's Redis takes connections");
    let (name, arguments) = command.split_first().expect("a command has a name");
    redis::cmd(name).arg(arguments).query_async(&mut connection).await.expect("the bed's Redis answers")
}

/// Looks again and again until `look` finds something, or fails with what it was waiting for.
pub async fn eventually<T>(what: &str, deadline: Duration, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let mut ticks = interval(Duration::from_millis(100));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    timeout(deadline, async {
        loop {
            ticks.tick().await;
            if let Some(found) = look().await {
                return found;
            }
        }
    })
    .await
    .unwrap_or_else(|_| panic!("waited {} s in vain until {what}", deadline.as_secs()))
}
