//! The story: one application's releases, their reverts and a ruined database, with clients at work all the time.
//!
//! `make demo` plays it on a bed that it leaves running; `make test` plays it as a test. It fails when one claim fails.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use backout::api::{
    BackupPoint,
    operation::{OperationState, Step, StepName},
    status::{ReleaseState, ReleaseStatus},
};
use serde_json::json;

use crate::support::{
    bed::{column, eventually, execute, redis, variable},
    clients::{Act, Clients},
    place::{NAME, Place, condition, entry, not_ready, ready},
};

const ROWS: u64 = 200_000;
/// No act of the story takes longer, builds and pulls excluded.
const PATIENCE: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread")]
async fn the_story_of_a_release_that_is_taken_back() {
    let mut place = Place::new("liqui").await;
    place.stay();
    let mut story = Story { place, lines: Vec::new() };

    let clients = story.first_release().await;
    story.known_good(&clients).await;
    story.revert(&clients).await;
    story.ruin(&clients).await;
    story.fix(&clients).await;
    story.pin(&clients).await;

    let acknowledged = clients.acknowledged().len();
    clients.stop().await;
    story.print(acknowledged);
}

struct Story {
    place: Place,
    lines: Vec<Line>,
}

/// One line of the table at the end.
struct Line {
    act: &'static str,
    took: Duration,
    requests: usize,
    failed: usize,
    gap: Duration,
    lost: String,
}

impl Story {
    async fn first_release(&mut self) -> Clients {
        say("1. 1.0.0 is deployed from git into an empty database; 200,000 rows are loaded");
        self.place.write_release("1.0.0");
        let begun = Instant::now();
        self.place.repository.push("liqui 1.0.0");
        self.place.create(self.place.spec()).await.expect("the Release is accepted");
        let status = self.place.until("1.0.0 is ready", PATIENCE, ready("1.0.0")).await;
        let took = begun.elapsed();
        assert_eq!(status.release, Some(1));
        assert_eq!(entry(&status, "1.0.0").state, ReleaseState::KnownGood);
        execute(format!(
            "INSERT INTO {0}.binance_liqs (symbol, side, order_type, time_in_force, original_quantity, price, average_price, order_status, \
             order_last_filled_quantity, order_filled_accumulated_quantity, usd_size, order_trade_time) \
             SELECT ELT(1 + seq % 5, 'BTCUSDT', 'ETHUSDT', 'SOLUSDT', 'XRPUSDT', 'DOGEUSDT'), IF(seq % 2, 'BUY', 'SELL'), 'LIMIT', 'IOC', \
             seq / 7, 100 + seq / 11, 100 + seq / 13, 'FILLED', seq / 7, seq / 7, seq * 3.14159, 1700000000000 + seq * 1000 FROM {0}.seq_1_to_{ROWS}",
            self.place.database
        ))
        .await;
        self.lines.push(Line { act: "1.0.0 deployed", took, requests: 0, failed: 0, gap: Duration::ZERO, lost: "0".to_owned() });
        let clients = Clients::start(&self.place.service().await).expect("clients can be made");
        eventually("rows are acknowledged", PATIENCE, async || (clients.acknowledged().len() > 20).then_some(())).await;
        clients
    }

    async fn known_good(&mut self, clients: &Clients) {
        say("2. 1.1.0 brings five indexes, another CACHE_TTL_SECONDS and another image, and becomes known good");
        let act = clients.act();
        self.place.write_release("1.1.0");
        self.place.repository.push("liqui 1.1.0");
        let begun = Instant::now();
        let status = self.place.until("1.1.0 is ready", PATIENCE, ready("1.1.0")).await;
        let took = begun.elapsed();
        let release = entry(&status, "1.1.0");
        assert_eq!(release.state, ReleaseState::KnownGood);
        let point = release.backup_point.clone().expect("a backup point was taken before");
        let point = self.place.api::<BackupPoint>().get(&point).await.expect("the BackupPoint is there").status.expect("it has a status");
        assert!(point.verified);
        assert!(point.rows.is_some_and(|rows| rows >= ROWS));
        assert_eq!((point.schema_version, point.migrations.as_deref()), (Some(1), Some([1].as_slice())));
        assert_eq!(self.indexes().await, 5);
        assert_eq!(self.health().await, ("1.1.0".to_owned(), 600));
        self.finish("1.1.0 deployed", &status, took, act, 0);
        self.nothing_lost(clients).await;
    }

    async fn revert(&mut self, clients: &Clients) {
        say("3. git revert: image, configuration and schema go back, the cache prefix is flushed, nothing is lost");
        redis(&["SET", "liqui:left-by-1.1.0", "stale"]).await;
        redis(&["SET", "session:somebody", "keep"]).await;
        let act = clients.act();
        self.place.repository.revert();
        let begun = Instant::now();
        let status = self.place.until("1.0.0 is ready again", PATIENCE, ready("1.0.0")).await;
        let took = begun.elapsed();
        assert_eq!(status.release, Some(1));
        assert_eq!(entry(&status, "1.1.0").state, ReleaseState::Undone);
        assert_eq!(
            steps(&status),
            [
                StepName::Preflight,
                StepName::Approve,
                StepName::Fence,
                StepName::RevertSchema,
                StepName::Deploy,
                StepName::FlushCache,
                StepName::Unfence,
                StepName::Verify
            ]
        );
        assert_eq!(self.indexes().await, 0);
        assert_eq!(self.health().await, ("1.0.0".to_owned(), 300));
        assert_eq!(redis(&["EXISTS", "liqui:left-by-1.1.0"]).await, redis::Value::Int(0));
        assert_eq!(redis(&["EXISTS", "session:somebody"]).await, redis::Value::Int(1));
        self.finish("git revert to 1.0.0", &status, took, act, 0);
        self.nothing_lost(clients).await;
    }

    async fn ruin(&mut self, clients: &Clients) {
        say(
            "4. 1.2.0 ruins data without a way back and fails its health check: Backout measures what going back costs, asks, and goes back",
        );
        let newest: u64 = self.number("SELECT MAX(id) FROM binance_liqs").await;
        let before = self.checksum(newest).await;
        let known: BTreeSet<u64> = clients.acknowledged().into_iter().collect();
        let act = clients.act();
        self.place.write_release("1.2.0");
        let commit = self.place.repository.push("liqui 1.2.0");
        let begun = Instant::now();
        let asked = self.place.approve(PATIENCE).await;
        say(&format!("   {}", condition(&asked, "Ready").map(|(_, _, message)| message).unwrap_or_default()));
        let loss = asked.operation.and_then(|operation| operation.loss).expect("the loss was measured before anything was touched");
        assert!(loss.inserted > 0 && loss.since.is_some(), "{loss:?}");
        let status = self.place.until("1.2.0 is rolled back", PATIENCE, not_ready("RolledBack")).await;
        let took = begun.elapsed();
        assert_eq!(status.version.as_deref(), Some("1.0.0"));
        assert_eq!(entry(&status, "1.2.0").state, ReleaseState::Failed);
        let quarantined = status.quarantine.first().expect("the commit is quarantined");
        assert!(quarantined.revision.contains(&commit), "{}", quarantined.revision);
        let (_, _, message) = condition(&status, "Ready").expect("Ready is set");
        for part in ["1.2.0", "check health failed: status 500", "push a fix"] {
            assert!(message.contains(part), "{part:?} is not in {message:?}");
        }
        assert!(steps(&status).contains(&StepName::Restore));
        assert_eq!(self.checksum(newest).await, before, "the table is what it was");
        assert_eq!(self.health().await, ("1.0.0".to_owned(), 300));

        // Rows written after the point are aside, and the step says how many.
        let restore = status
            .operation
            .as_ref()
            .and_then(|operation| operation.steps.iter().find(|step| step.name == StepName::Restore))
            .expect("Restore ran");
        let told = restore.message.clone().unwrap_or_default();
        let aside = told.rsplit(' ').next().expect("the message ends with the schema").to_owned();
        // The account first: what is acknowledged after it may be missing from the look at the table.
        let acknowledged = clients.acknowledged();
        let live = self.ids(&self.place.database).await;
        let kept = self.ids(&aside).await;
        let mut gone = 0;
        for id in acknowledged {
            if !live.contains(&id) {
                assert!(kept.contains(&id), "acknowledged row {id} is neither live nor aside");
                assert!(!known.contains(&id), "row {id} was acknowledged before the point");
                gone += 1;
            }
        }
        assert!(told.contains(&format!("{} rows had been inserted", kept.difference(&live).count())), "{told}");
        say(&format!("   {told}"));
        self.finish("1.2.0 failed, restored", &status, took, act, gone);
    }

    async fn fix(&mut self, clients: &Clients) {
        say("5. 1.2.1 fixes it");
        let act = clients.act();
        self.place.write_release("1.2.1");
        self.place.repository.push("liqui 1.2.1");
        let begun = Instant::now();
        let status = self.place.until("1.2.1 is ready", PATIENCE, ready("1.2.1")).await;
        let took = begun.elapsed();
        assert_eq!(entry(&status, "1.2.1").state, ReleaseState::KnownGood);
        assert_eq!(self.indexes().await, 5);
        self.finish("1.2.1 deployed", &status, took, act, 0);
    }

    async fn pin(&mut self, clients: &Clients) {
        say("6. spec.rollbackTo takes it back; removing it lets git rule again");
        let act = clients.act();
        self.place.edit(json!({"rollbackTo": {"release": 1}})).await;
        let begun = Instant::now();
        let status = self.place.until("release 1 is pinned", PATIENCE, ready("1.0.0")).await;
        let took = begun.elapsed();
        assert_eq!(condition(&status, "Ready").map(|(_, reason, _)| reason), Some("PinnedByRollbackTo"));
        assert_eq!(self.indexes().await, 0);
        self.finish("rollbackTo release 1", &status, took, act, 0);

        let act = clients.act();
        self.place.edit(json!({"rollbackTo": null})).await;
        let begun = Instant::now();
        let status = self.place.until("1.2.1 is ready again", PATIENCE, ready("1.2.1")).await;
        let took = begun.elapsed();
        assert_eq!(status.operation.as_ref().map(|operation| operation.state), Some(OperationState::Succeeded));
        self.finish("rollbackTo removed", &status, took, act, 0);
    }

    fn finish(&mut self, act: &'static str, status: &ReleaseStatus, took: Duration, marked: Act, lost: usize) {
        let report = marked.finish();
        assert!(report.requests > 0, "clients are at work");
        if let Some(reason) = report.reasons.first() {
            say(&format!("   {} requests failed, the first: {reason}", report.failed));
        }
        let lost = if lost == 0 { "0".to_owned() } else { format!("{lost}, all kept aside") };
        self.lines.push(Line { act, took, requests: report.requests, failed: report.failed, gap: report.longest_gap, lost });
        let behind = behind_the_fence(status);
        if !behind.is_empty() {
            say(&format!("   behind the fence: {}", behind.join(", ")));
        }
    }

    /// Every acknowledged row is live.
    async fn nothing_lost(&self, clients: &Clients) {
        let acknowledged = clients.acknowledged();
        let live = self.ids(&self.place.database).await;
        let lost: Vec<u64> = acknowledged.into_iter().filter(|id| !live.contains(id)).collect();
        assert!(lost.is_empty(), "acknowledged rows are lost: {lost:?}");
    }

    async fn ids(&self, schema: &str) -> BTreeSet<u64> {
        column(format!("SELECT id FROM {schema}.binance_liqs")).await.iter().filter_map(|id| id.parse().ok()).collect()
    }

    /// Rows up to `newest`, and a checksum of all their values.
    async fn checksum(&self, newest: u64) -> Vec<String> {
        column(format!(
            "SELECT CONCAT(COUNT(*), ' ', BIT_XOR(CRC32(CONCAT_WS('#', id, symbol, side, order_type, time_in_force, original_quantity, price, average_price, \
             order_status, order_last_filled_quantity, order_filled_accumulated_quantity, usd_size, order_trade_time, \
             ISNULL(symbol), ISNULL(usd_size))))) FROM {}.binance_liqs WHERE id <= {newest}",
            self.place.database
        ))
        .await
    }

    async fn indexes(&self) -> usize {
        column(format!(
            "SELECT DISTINCT index_name FROM information_schema.statistics WHERE table_schema = '{}' AND table_name = 'binance_liqs' AND index_name LIKE 'idx%'",
            self.place.database
        ))
        .await
        .len()
    }

    async fn number(&self, sql: &str) -> u64 {
        let answer = column(sql.replace("FROM ", &format!("FROM {}.", self.place.database))).await;
        answer.first().and_then(|number| number.parse().ok()).expect("the query counts")
    }

    /// Version and cache time that the application itself reports.
    async fn health(&self) -> (String, u64) {
        let url = format!("{}/health", self.place.service().await);
        let body = reqwest::get(url).await.expect("the application answers").text().await.expect("it answers with a body");
        let body: serde_json::Value = serde_json::from_str(&body).expect("it answers with JSON");
        (body["version"].as_str().unwrap_or_default().to_owned(), body["cache_ttl_seconds"].as_u64().unwrap_or_default())
    }

    fn print(&self, acknowledged: usize) {
        println!("\n{:<24} {:>10} {:>9} {:>8} {:>12}  acknowledged rows lost", "act", "seconds", "requests", "failed", "longest gap");
        for line in &self.lines {
            println!(
                "{:<24} {:>10.1} {:>9} {:>8} {:>9.2} s   {}",
                line.act,
                line.took.as_secs_f64(),
                line.requests,
                line.failed,
                line.gap.as_secs_f64(),
                line.lost
            );
        }
        println!("{acknowledged} rows were acknowledged in all; seconds run from the push (or the edit) to Ready\n");
        println!("export KUBECONFIG={}", variable("KUBECONFIG"));
        println!("kubectl -n {} get releases {NAME} -o wide", self.place.namespace);
    }
}

fn steps(status: &ReleaseStatus) -> Vec<StepName> {
    status.operation.iter().flat_map(|operation| operation.steps.iter().map(|step| step.name)).collect()
}

/// How long each step behind the fence took: what the longest gap consists of.
fn behind_the_fence(status: &ReleaseStatus) -> Vec<String> {
    let steps = status.operation.iter().flat_map(|operation| &operation.steps);
    let behind = steps.skip_while(|step| step.name != StepName::Fence).take_while(|step| step.name != StepName::Verify);
    let took = |step: &Step| Some(step.finished_at?.duration_since(step.started_at?).as_secs_f64());
    behind.filter_map(|step| Some(format!("{} {:.2} s", step.name.as_str(), took(step)?))).collect()
}

fn say(text: &str) {
    println!("{text}");
}
