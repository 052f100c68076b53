//! The operator is killed after every status write of the story's revert and of its restore, and converges all the same.

use std::time::Duration;

use backout::api::{
    BackupPoint,
    backup_point::PointReason,
    operation::{OperationState, StepName, StepState},
    status::{ReleaseState, ReleaseStatus},
};
use kube::api::ListParams;
use serde_json::json;

use crate::support::{
    bed::{column, execute, variable},
    operator,
    place::{Place, condition, entry, not_ready, ready},
    process::{ALONE, Process},
};

const PATIENCE: Duration = Duration::from_secs(180);

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_killed_after_every_status_write_converges() {
    let _away = operator::keep_away().await;
    let place = Place::alone("crashing").await;
    let operator = Process::start(&place, &ALONE).await;
    let mut spec = place.spec();
    // The operator runs on the node, where the cluster's names are not known.
    spec["database"]["mysql"]["host"] = json!(variable("BED_MYSQL_HOST"));
    spec["database"]["backup"] = json!({"store": {"url": operator.store()}});
    spec["rollback"] = json!({"approval": "Never", "emergencyPoint": "BeforeDownScripts"});
    spec["cache"]["redis"]["host"] = json!(variable("BED_REDIS_HOST"));
    spec["verify"]["checks"][0]["http"]["url"] = json!(format!("{}/health", place.service().await));
    // Every round of checks costs a crash: the time for them is not what is tested.
    spec["verify"]["timeout"] = json!("30s");
    spec["verify"]["bake"] = json!(null);
    spec["interval"] = json!("500ms");

    place.write_release("1.0.0");
    place.repository.push("liqui 1.0.0");
    place.create(spec).await.expect("the Release is accepted");
    place.until("1.0.0 is ready", PATIENCE, ready("1.0.0")).await;
    execute(format!(
        "INSERT INTO {0}.binance_liqs (symbol, side, price, original_quantity, usd_size, order_trade_time) \
         SELECT 'BTCUSDT', 'BUY', seq, seq, seq, seq FROM {0}.seq_1_to_2000",
        place.database
    ))
    .await;
    let rows = rows(&place).await;
    place.write_release("1.1.0");
    place.repository.push("liqui 1.1.0");
    place.until("1.1.0 is ready", PATIENCE, ready("1.1.0")).await;

    operator.arm();
    place.repository.revert();
    let status = place.until("the revert has converged", PATIENCE, ready("1.0.0")).await;
    let crashes = operator.disarm();
    every_step_is_done(&status);
    assert!(ran(&status, StepName::RevertSchema));
    assert_eq!(entry(&status, "1.1.0").state, ReleaseState::Undone);
    // Each step is written down twice, the operation's begin and end once each.
    assert!(crashes >= 2 * steps(&status) + 2, "{crashes} crashes");
    assert_eq!(self::rows(&place).await, rows);
    let points = place.api::<BackupPoint>().list(&ListParams::default()).await.expect("points can be listed").items;
    let emergency = points.iter().filter(|point| point.spec.reason == PointReason::Emergency).collect::<Vec<_>>();
    let [BackupPoint { status: Some(kept), spec, .. }] = emergency[..] else { panic!("{emergency:?}") };
    assert_eq!((kept.verified, kept.schema_version, spec.before), (true, Some(6), None), "what the down scripts drop is in it");
    println!("git revert: {crashes} crashes");

    operator.arm();
    place.write_release("1.2.0");
    place.repository.push("liqui 1.2.0");
    let status = place.until("the failed release has been answered", PATIENCE, not_ready("RolledBack")).await;
    let crashes = operator.disarm();
    every_step_is_done(&status);
    assert!(ran(&status, StepName::Restore));
    assert_eq!(entry(&status, "1.2.0").state, ReleaseState::Failed);
    assert_eq!(condition(&status, "Remediated").map(|(done, _, _)| done), Some("True"));
    assert!(crashes >= 2 * steps(&status) + 2, "{crashes} crashes");
    assert_eq!(self::rows(&place).await, rows, "the point is live again");
    let beside =
        column(format!("SELECT schema_name FROM information_schema.schemata WHERE schema_name LIKE '{}\\_backout\\_%'", place.database))
            .await;
    assert_eq!(beside.len(), 1, "one swap, one aside, no shadow left: {beside:?}");
    println!("failed release with restore: {crashes} crashes");

    operator.kill().await;
}

async fn rows(place: &Place) -> Vec<String> {
    column(format!("SELECT CONCAT_WS('#', id, symbol, side, price, usd_size) FROM {}.binance_liqs ORDER BY id", place.database)).await
}

fn every_step_is_done(status: &ReleaseStatus) {
    let operation = status.operation.as_ref().expect("an operation ran");
    assert_eq!(operation.state, OperationState::Succeeded);
    assert!(operation.steps.iter().all(|step| step.state == StepState::Done));
}

fn ran(status: &ReleaseStatus, name: StepName) -> bool {
    status.operation.iter().flat_map(|operation| &operation.steps).any(|step| step.name == name)
}

fn steps(status: &ReleaseStatus) -> usize {
    status.operation.as_ref().map_or(0, |operation| operation.steps.len())
}
