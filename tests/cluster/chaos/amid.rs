//! The middle of each step's effect, by a fact that can be observed: a request that was accepted, a table that appears, a
//! statement that waits for a lock which the test holds.

use std::time::Duration;

use axum::http::Method;
use backout::api::{names, operation::StepName};
use sqlx::{AssertSqlSafe, MySqlConnection, Row};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::scene::{PATIENCE, Scene};
use crate::support::{
    bed::{redis, root},
    trap::Write,
};

/// Between two looks. An effect that is over sooner would be missed, which the caller notices.
const LOOK_EVERY: Duration = Duration::from_millis(1);
/// Keys for a flush to be met in the middle.
const KEYS: u32 = 200_000;
/// Keys that Redis makes at once: more would take longer than its client waits for an answer.
const PORTION: u32 = 10_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amid {
    /// The first such request was accepted.
    Request(&'static str, &'static str),
    /// The first file of the dump is there, its manifest is not.
    Dump,
    /// A statement of the migration waits for a transaction to end.
    Migration,
    /// The shadow has its first table and is not complete.
    Load,
    /// Everything is ready for the cut-over, which a transaction holds up.
    Swap,
    /// Some keys are gone, others are not.
    Flush,
}

/// Where a step can be met in the middle. A step that only reads has no middle.
pub const fn of(step: StepName) -> &'static [Amid] {
    match step {
        StepName::Keep => &[Amid::Request("POST", "/controllerrevisions")],
        StepName::Preflight => &[Amid::Request("POST", "/pods")],
        StepName::BackUp => &[Amid::Dump, Amid::Request("PATCH", "/backuppoints/")],
        StepName::Migrate | StepName::RevertSchema => &[Amid::Migration],
        StepName::Deploy => &[Amid::Request("PATCH", "/deployments/")],
        StepName::FlushCache => &[Amid::Flush],
        StepName::RehearseMigrations
        | StepName::Verify
        | StepName::Bake
        | StepName::Approve
        | StepName::Discard
        | StepName::Expire
        | StepName::Rehearse => &[],
        StepName::Stage => &[Amid::Load],
        StepName::Fence | StepName::Unfence => &[Amid::Request("PATCH", "/scale")],
        StepName::Restore => &[Amid::Swap],
    }
}

/// What keeps an effect from coming to its end. Taken away by [`Hold::release`].
pub struct Hold(Option<MySqlConnection>);

impl Hold {
    pub async fn release(self) {
        if let Some(mut connection) = self.0 {
            // The server may have been killed meanwhile.
            let _ = sqlx::raw_sql("ROLLBACK").execute(&mut connection).await;
        }
    }
}

impl Amid {
    /// The request as a write that the proxy sees; `None` for everything that is seen elsewhere.
    pub fn write(self) -> Option<Write> {
        match self {
            Self::Request(method, part) => Some(Write::Effect(Method::from_bytes(method.as_bytes()).expect("a method"), part)),
            Self::Dump | Self::Migration | Self::Load | Self::Swap | Self::Flush => None,
        }
    }

    /// Whether the effect takes long enough to be met in the middle only where there is much to move.
    pub const fn takes_bulk(self) -> bool {
        matches!(self, Self::Dump | Self::Load)
    }

    /// Made ready while no operator runs.
    pub async fn prepare(self, scene: &Scene) -> Hold {
        match self {
            Self::Migration | Self::Swap => {
                let mut connection = root().await;
                let sql = format!("START TRANSACTION; SELECT id FROM {}.binance_liqs LIMIT 1", scene.place.database);
                sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.expect("a transaction can be begun");
                Hold(Some(connection))
            }
            Self::Flush => {
                for portion in 0..KEYS / PORTION {
                    let (first, last) = (portion * PORTION + 1, (portion + 1) * PORTION);
                    let script = format!("for i={first},{last} do redis.call('SET', 'liqui:left:'..i, 'stale') end");
                    redis(&["EVAL", &script, "0"]).await;
                }
                Hold(None)
            }
            Self::Request(..) | Self::Dump | Self::Load => Hold(None),
        }
    }

    /// Waits until it is so. For a request the proxy waits instead.
    pub async fn seen(self, scene: &Scene) {
        let mut looks = Looks { connection: root().await, scene };
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let watch = async {
            while !looks.at(self).await {
                ticks.tick().await;
            }
        };
        timeout(PATIENCE, watch).await.unwrap_or_else(|_| panic!("waited {} s in vain for {self:?}", PATIENCE.as_secs()));
    }

    /// Whether the effect had still not come to its end. Asked after the kill.
    pub async fn still(self, scene: &Scene) -> bool {
        let mut looks = Looks { connection: root().await, scene };
        match self {
            Self::Dump => !scene.dumps().iter().any(|file| file.ends_with("manifest.json")),
            Self::Load => looks.is("SELECT 1 FROM {shadow}._backout_beside WHERE state = 'loading'").await,
            Self::Swap => looks.is("SELECT 1 FROM {shadow}._backout_beside WHERE state = 'complete'").await,
            Self::Flush => left().await > i64::from(KEYS) / 100,
            Self::Request(..) | Self::Migration => true,
        }
    }
}

struct Looks<'a> {
    connection: MySqlConnection,
    scene: &'a Scene,
}

impl Looks<'_> {
    async fn at(&mut self, amid: Amid) -> bool {
        match amid {
            Amid::Request(..) => std::future::pending().await,
            Amid::Dump => !self.scene.dumps().is_empty(),
            Amid::Migration => {
                self.is("SELECT 1 FROM information_schema.processlist WHERE db = '{live}' AND state = 'Waiting for table metadata lock' \
                         AND (info LIKE 'CREATE INDEX%' OR info LIKE 'DROP INDEX%')")
                    .await
            }
            Amid::Load => {
                self.is("SELECT 1 FROM information_schema.tables WHERE table_schema = '{shadow}' AND table_name = 'binance_liqs'").await
            }
            Amid::Swap => self.is("SELECT 1 FROM {shadow}._backout WHERE operation = '{operation}'").await,
            Amid::Flush => left().await < i64::from(KEYS),
        }
    }

    /// Whether the query has a row. One whose table is not there has none.
    async fn is(&mut self, sql: &str) -> bool {
        let (live, uid) = (&self.scene.place.database, &self.scene.account.uid);
        // The failed deploy is one operation, the restore that answers it the next.
        let id = self.scene.account.operations + 2;
        let (shadow, operation) = (names::shadow(live, uid, &self.scene.point()), format!("{uid}/{id}"));
        let sql = sql.replace("{live}", live).replace("{shadow}", &shadow).replace("{operation}", &operation);
        match sqlx::raw_sql(AssertSqlSafe(sql)).fetch_optional(&mut self.connection).await {
            Ok(row) => row.is_some_and(|row| !row.is_empty()),
            Err(sqlx::Error::Database(_)) => false,
            Err(error) => panic!("the database does not answer: {error}"),
        }
    }
}

/// Keys of the sample application in Redis.
async fn left() -> i64 {
    match redis(&["DBSIZE"]).await {
        redis::Value::Int(keys) => keys,
        other => panic!("DBSIZE answered {other:?}"),
    }
}
