//! What must hold once a fault is over: the cluster and the database are exactly what the release that runs needs, no row
//! that a client was told about is gone, nothing is left over, and nothing was done twice.

use std::{collections::BTreeSet, time::Duration};

use backout::api::{Release, status::ReleaseStatus};
use k8s_openapi::api::core::v1::Pod;
use kube::{ResourceExt, api::ListParams};

use super::scene::{Content, Play, migrations, numbers};
use crate::support::{
    bed::{column, eventually, execute, redis},
    clients::Clients,
    place::{NAME, Place},
};

/// Replicas of the sample application.
const REPLICAS: i32 = 2;
/// Pods that were replaced drain for a while, and a server that was killed lets go of a lock with its session.
const AFTERMATH: Duration = Duration::from_secs(40);

/// What has been done to the scene so far, to compare with what it shows.
pub struct Account {
    pub uid: String,
    /// Id of the last operation before the play, and number of the last release.
    pub operations: u64,
    pub releases: u64,
    /// Times that [`Content::Next`] was applied and taken back.
    applied: u64,
    reverted: u64,
    restores: usize,
    /// Rows before the play, and their sum.
    before: (u64, Vec<String>),
}

impl Account {
    pub async fn new(place: &Place) -> Self {
        let uid = place.api::<Release>().get(NAME).await.expect("the Release is there").uid().unwrap_or_default();
        Self { uid, operations: 0, releases: 0, applied: 0, reverted: 0, restores: 0, before: (0, Vec::new()) }
    }

    /// Before a play.
    pub async fn open(&mut self, place: &Place) {
        let status = place.api::<Release>().get(NAME).await.expect("the Release is there").status.unwrap_or_default();
        (self.operations, self.releases) = (status.operations, status.releases);
        let newest = numbers(format!("SELECT MAX(id) FROM {}.binance_liqs", place.database)).await.first().copied().unwrap_or_default();
        self.before = (newest, sum(place, newest).await);
        redis(&["SET", "liqui:left:0", "stale"]).await;
    }

    /// After a play has come to its end. Returns how many acknowledged rows are neither live nor kept aside.
    pub async fn close(&mut self, place: &Place, clients: &Clients, play: Play, status: &ReleaseStatus) -> usize {
        match play {
            Play::Deploy => self.applied += 1,
            Play::Revert => self.reverted += 1,
            Play::Restore => {
                self.restores += 1;
                let operation = status.operation.as_ref().map(|operation| operation.id).unwrap_or_default();
                let marker = column(format!("SELECT operation FROM {}._backout", place.database)).await;
                assert_eq!(marker, [format!("{}/{operation}", self.uid)], "the swap that was wanted is the last one");
            }
        }
        if play != Play::Deploy {
            let left = redis(&["EVAL", "return #redis.call('KEYS', 'liqui:left:*')", "0"]).await;
            assert_eq!(left, redis::Value::Int(0), "the cache is flushed");
        }
        let content = if play == Play::Deploy { Content::Next } else { Content::Base };
        self.whole(place, clients, content).await
    }

    /// What must hold at rest while this content runs. Returns how many acknowledged rows are neither live nor kept aside.
    pub async fn whole(&self, place: &Place, clients: &Clients, content: Content) -> usize {
        self.cluster(place, content).await;
        self.database(place, content).await;
        self.rows(place, clients).await
    }

    /// No fence, no probe, no other pods; the image of the release.
    async fn cluster(&self, place: &Place, content: Content) {
        let deployment = place.deployment().await;
        let spec = deployment.spec.unwrap_or_default();
        assert_eq!(spec.replicas, Some(REPLICAS), "the fence is down");
        let image = spec.template.spec.and_then(|pod| pod.containers.into_iter().next()).and_then(|container| container.image);
        let expected = if content == Content::Next { "docker.io/liqui/liqui:1.1.0" } else { "docker.io/liqui/liqui:1.0.0" };
        assert_eq!(image.as_deref(), Some(expected));
        let pods = place.api::<Pod>().list(&ListParams::default()).await.expect("pods can be listed");
        let left: Vec<String> = pods
            .items
            .iter()
            .filter(|pod| pod.metadata.deletion_timestamp.is_none() && pod.labels().get("app").is_none_or(|app| app != NAME))
            .map(ResourceExt::name_any)
            .collect();
        assert!(left.is_empty(), "these pods are left over: {left:?}");
        eventually("only pods of the release run, and all are ready", AFTERMATH, async || {
            let pods = place.api::<Pod>().list(&ListParams::default()).await.ok()?;
            let ready = |pod: &Pod| {
                let status = pod.status.as_ref();
                status
                    .and_then(|status| status.conditions.as_ref())
                    .is_some_and(|conditions| conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True"))
            };
            let image = |pod: &Pod| pod.spec.as_ref().and_then(|pod| pod.containers.first()?.image.clone());
            let whole = pods.items.len() == 2 && pods.items.iter().all(|pod| ready(pod) && image(pod).as_deref() == Some(expected));
            whole.then_some(())
        })
        .await;
    }

    /// Bookkeeping, schema and counters as the release needs them; one aside for each restore and no shadow; nobody has the lock.
    async fn database(&self, place: &Place, content: Content) {
        let database = &place.database;
        let applied = column(format!("SELECT CONCAT(version, ' ', state) FROM {database}._backout_migrations ORDER BY version")).await;
        let expected: Vec<String> = migrations(content).iter().map(|migration| format!("{} applied", migration.version)).collect();
        assert_eq!(applied, expected, "the bookkeeping of migrations");
        assert_eq!(schema(database).await, by_hand(place, content).await, "the schema is what the release's scripts make");
        let ledger = column(format!("SELECT CONCAT(applied, ' ', reverted) FROM {database}.ledger")).await;
        assert_eq!(ledger, [format!("{} {}", self.applied, self.reverted)], "each migration ran once each time");
        let shadows = beside(place, "shadow").await;
        assert!(shadows.is_empty(), "these shadows are left over: {shadows:?}");
        let asides = beside(place, "aside").await;
        assert_eq!(asides.len(), self.restores, "one cut-over for each restore: {asides:?}");
        assert_eq!(sum(place, self.before.0).await, self.before.1, "the rows from before are what they were");
        eventually("nobody holds the database's lock", AFTERMATH, async || {
            (column(format!("SELECT COALESCE(IS_USED_LOCK('backout:{database}'), 'free')")).await == ["free"]).then_some(())
        })
        .await;
    }

    async fn rows(&self, place: &Place, clients: &Clients) -> usize {
        // The account first: what is acknowledged after it may be missing from the look at the tables.
        let acknowledged = clients.acknowledged();
        let mut kept: BTreeSet<u64> = ids(&place.database).await.into_iter().collect();
        for aside in beside(place, "aside").await {
            kept.extend(ids(&aside).await);
        }
        let lost: Vec<u64> = acknowledged.into_iter().filter(|id| !kept.contains(id)).collect();
        if !lost.is_empty() {
            println!("acknowledged rows are neither live nor kept aside: {lost:?}");
        }
        lost.len()
    }
}

async fn ids(schema: &str) -> Vec<u64> {
    numbers(format!("SELECT id FROM {schema}.binance_liqs")).await
}

/// Rows up to `newest`, and a sum of their values. Nobody changes or deletes rows but a release that ruins them.
async fn sum(place: &Place, newest: u64) -> Vec<String> {
    column(format!(
        "SELECT CONCAT(COUNT(*), ' ', BIT_XOR(CRC32(CONCAT_WS('#', id, symbol, side, price, original_quantity, usd_size, ISNULL(usd_size), order_trade_time)))) \
         FROM {}.binance_liqs WHERE id <= {newest}",
        place.database
    ))
    .await
}

/// Schemas beside the live one.
pub async fn beside(place: &Place, what: &str) -> Vec<String> {
    let pattern = format!("{}\\_backout\\_%\\_{what}", place.database.replace('_', "\\_"));
    column(format!("SELECT schema_name FROM information_schema.schemata WHERE schema_name LIKE '{pattern}' ORDER BY 1")).await
}

/// Columns and indexes of the application's tables.
async fn schema(database: &str) -> Vec<String> {
    let own = format!("table_schema = '{database}' AND table_name NOT LIKE '\\_backout%'");
    column(format!(
        "SELECT CONCAT_WS(' ', table_name, column_name, ordinal_position, column_type, is_nullable, column_default, extra, collation_name) \
         FROM information_schema.columns WHERE {own} \
         UNION ALL SELECT CONCAT_WS(' ', table_name, index_name, seq_in_index, column_name, non_unique, collation) \
         FROM information_schema.statistics WHERE {own} ORDER BY 1"
    ))
    .await
}

/// The same of a schema in which the release's up scripts were run by hand.
async fn by_hand(place: &Place, content: Content) -> Vec<String> {
    let scratch = format!("{}_by_hand", place.database);
    let scripts: Vec<String> = migrations(content).into_iter().map(|migration| migration.up).collect();
    execute(format!(
        "DROP DATABASE IF EXISTS {scratch}; CREATE DATABASE {scratch} CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci; USE {scratch}; {}",
        scripts.join("\n")
    ))
    .await;
    let found = schema(&scratch).await;
    execute(format!("DROP DATABASE {scratch}")).await;
    found
}
