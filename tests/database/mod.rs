//! The data engine against a real MariaDB. Needs the test bed's server: `BED_MYSQL_HOST`, `BED_MYSQL_PORT`, `BED_MYSQL_USER`,
//! `BED_MYSQL_PASSWORD` and `BED_CA` (the path of its CA certificate).
//!
//! Each test has a schema of its own, dropped with its shadows, asides and users when the test ends, also when it fails.

#![allow(clippy::indexing_slicing, clippy::panic, reason = "a test that can't go on ends")]

pub mod access;
mod asking;
mod backup;
mod by_hand;
mod carrying;
mod cloud;
mod cut_off;
mod granted;
mod migrations;
mod ownership;
mod proxy;
mod roundtrip;
mod script_loss;
mod sealed;
mod sequences;
mod stored;
mod swapping;
mod trying;
mod undo;
mod versioned;

use std::collections::BTreeMap;
use std::env;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use backout::mysql::{Capture, Database, Endpoint, Manifest, Marker, Owner, Store, Swap, Tls, capture, read_manifest};
use backout::secret::Sensitive;
use object_store::ObjectStoreExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection, MySqlSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions, Executor, Row};

/// Every wait of a test ends by then.
pub const PATIENCE: Duration = Duration::from_secs(30);

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| {
        panic!("{name} is not set: this test needs the test bed. Run `make test`, or `tests/testbed/bed up` and `tests/testbed/bed run cargo test`")
    })
}

/// A schema of one test, and an empty object store.
pub struct Bed {
    pub name: String,
    pub store: Store,
}

impl Bed {
    /// Makes the schema and runs `sql` in it, under a `sql_mode` that accepts everything.
    pub async fn new(sql: &str) -> Self {
        let name = format!("t_{:012x}", RandomState::new().build_hasher().finish() & 0xffff_ffff_ffff);
        let bed = Self { name, store: Store::new(Arc::new(InMemory::new())) };
        let mut root = connect(None).await;
        run(&mut root, &format!("CREATE DATABASE `{}` CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci", bed.name)).await;
        let mut root = bed.root().await;
        run(&mut root, sql).await;
        bed
    }

    /// A connection of the server's administrator in the live schema.
    pub async fn root(&self) -> MySqlConnection {
        connect(Some(&self.name)).await
    }

    pub fn database(&self) -> Database {
        self.database_as(&variable("BED_MYSQL_USER"), &variable("BED_MYSQL_PASSWORD"))
    }

    pub fn database_as(&self, user: &str, password: &str) -> Database {
        Database::new(Endpoint { user: user.to_owned(), password: Sensitive::new(password), ..self.endpoint() })
    }

    pub fn endpoint(&self) -> Endpoint {
        Endpoint {
            host: variable("BED_MYSQL_HOST"),
            port: variable("BED_MYSQL_PORT").parse().expect("BED_MYSQL_PORT is a number"),
            database: self.name.clone(),
            user: variable("BED_MYSQL_USER"),
            password: Sensitive::new(variable("BED_MYSQL_PASSWORD")),
            tls: Tls::VerifyIdentity { ca_pem: ca() },
        }
    }

    /// `{name}_backout_{suffix}`.
    pub fn beside(&self, suffix: &str) -> String {
        format!("{}_backout_{suffix}", self.name)
    }

    pub async fn capture(&self, point: &str) -> Manifest {
        self.capture_with(&self.database(), point).await
    }

    /// The same by another account, or with other settings.
    pub async fn capture_with(&self, database: &Database, point: &str) -> Manifest {
        let prefix = Path::from(point);
        let taken = capture(database, &self.store, &prefix, &what(point)).await.expect("the backup succeeds");
        let manifest = read_manifest(&self.store, &prefix).await.expect("it can be read").expect("it is there");
        assert_eq!((&manifest.head, manifest.rows()), (&taken.head, taken.rows));
        manifest
    }

    /// All that a point would run, in its order.
    pub async fn text(&self, manifest: &Manifest) -> String {
        let mut files: Vec<&str> = manifest.files().map(|file| file.name.as_str()).collect();
        files.sort_unstable();
        let mut text = String::new();
        for file in files {
            let path = Path::from(format!("{}/{file}", manifest.head.point));
            let packed = self.store.get(&path).await.expect("it is there").bytes().await.expect("it can be read");
            text.push_str(&String::from_utf8(zstd::decode_all(&packed[..]).expect("it can be unpacked")).expect("it is text"));
        }
        text
    }

    /// From shadow `shadow` to aside `aside`, for `point`.
    pub fn swap(&self, point: &str) -> Swap {
        Swap {
            shadow: self.beside("shadow"),
            aside: self.beside("aside"),
            marker: Marker { point: point.to_owned(), operation: format!("rollback-{point}"), release: 7 },
            owner: Some(owner()),
            deadline: PATIENCE,
        }
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        let name = self.name.clone();
        // A runtime of its own, since this also runs while the test's runtime unwinds.
        let cleanup = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be built");
            runtime.block_on(async {
                let mut root = connect(None).await;
                // Whatever the test left open would keep DROP waiting. Who searches the catalogue seems to be in each schema for a moment.
                for row in query(
                    &mut root,
                    &format!(
                        "SELECT ID FROM information_schema.PROCESSLIST WHERE DB LIKE '{name}%' AND ID <> CONNECTION_ID() \
                         AND COALESCE(INFO, '') NOT LIKE '%information\\_schema.%'"
                    ),
                )
                .await
                {
                    let _ = root.execute(AssertSqlSafe(format!("KILL {}", row["ID"].as_deref().unwrap_or("0")))).await;
                }
                run(&mut root, "SET foreign_key_checks=0").await;
                for row in
                    query(&mut root, &format!("SELECT SCHEMA_NAME FROM information_schema.SCHEMATA WHERE SCHEMA_NAME LIKE '{name}%'")).await
                {
                    run(&mut root, &format!("DROP DATABASE IF EXISTS `{}`", row["SCHEMA_NAME"].as_deref().unwrap_or_default())).await;
                }
                run(&mut root, &format!("DROP USER IF EXISTS '{name}'@'%'")).await;
            });
        });
        if cleanup.join().is_err() {
            eprintln!("the schemas of test {} could not be dropped", self.name);
        }
    }
}

/// The Release in whose name the tests write.
pub fn owner() -> Owner {
    Owner { uid: "uid-1".into(), cluster: "here".into(), namespace: "shop".into(), name: "till".into(), operation: 1 }
}

pub fn ca() -> Vec<u8> {
    let path = variable("BED_CA");
    std::fs::read(&path).unwrap_or_else(|error| panic!("BED_CA {path}: {error}"))
}

pub fn what(point: &str) -> Capture {
    Capture { point: point.to_owned(), operation: format!("deploy-{point}"), release: 6 }
}

/// Not through the engine: tests compare with what they see for themselves.
async fn connect(schema: Option<&str>) -> MySqlConnection {
    let options = MySqlConnectOptions::new()
        .host(&variable("BED_MYSQL_HOST"))
        .port(variable("BED_MYSQL_PORT").parse().expect("BED_MYSQL_PORT is a number"))
        .username(&variable("BED_MYSQL_USER"))
        .password(&variable("BED_MYSQL_PASSWORD"))
        .ssl_mode(MySqlSslMode::VerifyCa)
        .ssl_ca_from_pem(ca())
        .pipes_as_concat(false)
        .disable_statement_logging();
    let options = match schema {
        Some(schema) => options.database(schema),
        None => options,
    };
    let mut connection = options.connect().await.expect("the test bed's database answers");
    run(&mut connection, "SET sql_mode='NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES', lock_wait_timeout=30").await;
    connection
}

/// One or several statements.
pub async fn run(connection: &mut MySqlConnection, sql: &str) {
    try_run(connection, sql).await.unwrap_or_else(|error| panic!("{error}\n{}", sql.chars().take(500).collect::<String>()));
}

pub async fn try_run(connection: &mut MySqlConnection, sql: &str) -> sqlx::Result<()> {
    if sql.is_empty() { Ok(()) } else { sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(connection).await.map(drop) }
}

/// Rows by column name, every value as the server prints it.
pub async fn query(connection: &mut MySqlConnection, sql: &str) -> Vec<BTreeMap<String, Option<String>>> {
    use sqlx::Column;
    let rows = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).fetch_all(connection).await.unwrap_or_else(|error| panic!("{error}\n{sql}"));
    rows.iter()
        .map(|row| {
            let value = |index| row.try_get_unchecked::<Option<Vec<u8>>, _>(index).expect("every value has bytes");
            row.columns()
                .iter()
                .map(|column| (column.name().to_owned(), value(column.ordinal()).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())))
                .collect()
        })
        .collect()
}

/// The first value of the first row.
pub async fn ask(connection: &mut MySqlConnection, sql: &str) -> String {
    let rows = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).fetch_all(connection).await.unwrap_or_else(|error| panic!("{error}\n{sql}"));
    let bytes = rows.first().and_then(|row| row.try_get_unchecked::<Option<Vec<u8>>, _>(0).expect("the value has bytes"));
    bytes.map_or_else(|| "NULL".to_owned(), |bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// Waits until `sql` gives `expected`.
pub async fn until(connection: &mut MySqlConnection, sql: &str, expected: &str) {
    let begun = Instant::now();
    loop {
        let found = ask(connection, sql).await;
        if found == expected {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{sql} still gives {found}, not {expected}");
        tokio::task::yield_now().await;
    }
}
