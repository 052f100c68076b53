//! Judgement on a real cluster: what a person approves, what a person undoes, which data comes back, what only differs, and
//! how a Release leaves.

use std::time::Duration;

use backout::api::{
    Release,
    operation::{ApprovalState, Kind, OperationState, StepName},
    status::{ReleaseState, ReleaseStatus},
};
use kube::{
    ResourceExt,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::support::{
    bed::{column, eventually, execute},
    operator::kubectl,
    place::{NAME, Place, condition, entry, not_ready, ready},
};

const PATIENCE: Duration = Duration::from_secs(120);

/// A place where 1.0.0 is deployed and has rows, and 1.2.0, which can't be taken back by scripts, has just failed.
async fn failed(name: &str, rollback: Value) -> Place {
    let place = deployed(name, rollback).await;
    place.write_release("1.2.0");
    place.repository.push("liqui 1.2.0");
    place
}

async fn deployed(name: &str, rollback: Value) -> Place {
    let place = Place::new(name).await;
    place.write_release("1.0.0");
    place.repository.push("liqui 1.0.0");
    let mut spec = place.spec();
    spec["rollback"] = rollback;
    place.create(spec).await.expect("the API server takes the Release");
    place.until("1.0.0 is ready", PATIENCE, ready("1.0.0")).await;
    write(&place, 3).await;
    place
}

async fn write(place: &Place, rows: u32) {
    for _ in 0..rows {
        execute(format!("INSERT INTO {}.binance_liqs (symbol, usd_size) VALUES ('BTCUSDT', 1000000)", place.database)).await;
    }
}

async fn rows(place: &Place) -> usize {
    column(format!("SELECT id FROM {}.binance_liqs", place.database)).await.len()
}

async fn schemas_beside(place: &Place) -> Vec<String> {
    let pattern = place.database.replace('_', "\\_");
    column(format!("SELECT schema_name FROM information_schema.schemata WHERE schema_name LIKE '{pattern}\\_backout\\_%'")).await
}

async fn annotate(place: &Place, key: &str, value: &str) {
    let patch = Patch::Merge(json!({"metadata": {"annotations": {key: value}}}));
    place.api::<Release>().patch(NAME, &PatchParams::default(), &patch).await.expect("the Release can be annotated");
}

async fn gone(place: &Place) {
    eventually("the Release is gone", PATIENCE, async || {
        place.api::<Release>().get_opt(NAME).await.expect("Releases can be read").is_none().then_some(())
    })
    .await;
}

async fn replicas(place: &Place) -> i32 {
    place.deployment().await.spec.and_then(|spec| spec.replicas).unwrap_or(1)
}

fn ran(status: &ReleaseStatus) -> Vec<StepName> {
    status.operation.iter().flat_map(|operation| operation.steps.iter().map(|step| step.name)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_loses_rows_waits_for_the_approval_of_its_own_plan_and_can_be_undone() {
    let place = failed("consenting", json!({})).await;
    place.until("the loss is measured", PATIENCE, not_ready("AwaitingApproval")).await;
    write(&place, 2).await;

    annotate(&place, "backout.dev/approve", "0ther").await;
    let status = place
        .until("an approval for another plan is answered", PATIENCE, |status| {
            condition(status, "Ready").is_some_and(|(_, reason, message)| {
                reason == "AwaitingApproval" && message.contains("the approval that is there is for plan 0ther")
            })
        })
        .await;
    assert_eq!(condition(&status, "Reconciling").map(|(state, ..)| state), Some("True"), "it waits and has not stopped");
    assert!(condition(&status, "Stalled").is_none());
    assert!(replicas(&place).await > 0, "the application serves while a person is asked");
    let operation = status.operation.as_ref().expect("a rollback waits");
    assert!(operation.plan.why.contains("before the first release that is undone"), "{:?}", operation.plan);
    assert!(operation.plan.not_chosen.iter().any(|reason| reason.starts_with("RevertSchema")), "{:?}", operation.plan);
    assert_eq!(operation.plan.steps.len(), operation.steps.len());

    let asked = place.approve(PATIENCE).await;
    let digest = asked.operation.map(|operation| operation.plan.digest).expect("it has a plan");
    let status = place.until("it is rolled back", PATIENCE, not_ready("RolledBack")).await;
    let operation = status.operation.as_ref().expect("the rollback ran");
    assert_eq!(operation.approval.as_ref().map(|approval| approval.state), Some(ApprovalState::Approved));
    assert_eq!(operation.plan.digest, digest);
    assert_eq!(rows(&place).await, 3, "what came after the point is aside");

    let undone = status.asides.first().expect("what was replaced is kept").operation;
    annotate(&place, "backout.dev/undo", &(undone + 100).to_string()).await;
    eventually("a wrong number is refused", PATIENCE, async || {
        kubectl(&["-n", &place.namespace, "get", "events"]).contains("UndoRefused").then_some(())
    })
    .await;
    annotate(&place, "backout.dev/undo", &undone.to_string()).await;
    place.approve(PATIENCE).await;
    let status = place.until("the rollback is undone", PATIENCE, not_ready("RollbackUndone")).await;
    assert_eq!(status.version.as_deref(), Some("1.2.0"));
    assert_eq!(status.operation.as_ref().map(|operation| operation.kind), Some(Kind::Undo));
    assert_eq!(rows(&place).await, 5, "the rows are back");
    assert_eq!(schemas_beside(&place).await.len(), 1, "one aside: what the undo replaced");

    place.write_release("1.0.0");
    place.repository.push("back to 1.0.0");
    place.approve(PATIENCE).await;
    let status = place.until("the source rules again", PATIENCE, ready("1.0.0")).await;
    assert!(status.hold.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_data_of_a_backup_point_come_back_under_the_release_that_runs() {
    let place = deployed("data-alone", json!({"approval": "Never"})).await;
    place.write_release("1.1.0");
    place.repository.push("liqui 1.1.0");
    let status = place.until("1.1.0 is ready", PATIENCE, ready("1.1.0")).await;
    let point = status.last_backup_point.clone().expect("1.1.0 has migrations");

    place.edit(json!({"rollbackTo": {"backupPoint": point}})).await;
    let status = place.until("another schema is refused", PATIENCE, not_ready("NoWayBack")).await;
    let (_, _, message) = condition(&status, "Ready").expect("Ready is set");
    assert!(message.contains("it lacks migrations 0002"), "{message}");

    place.edit(json!({"rollbackTo": {"backupPoint": null, "version": "1.0.0"}})).await;
    place.until("version 1.0.0 is pinned", PATIENCE, ready("1.0.0")).await;
    write(&place, 4).await;
    place.edit(json!({"rollbackTo": {"version": null, "backupPoint": point}})).await;
    let restored = |status: &ReleaseStatus| status.restored_point.as_deref() == Some(point.as_str()) && ready("1.0.0")(status);
    let status = place.until("the data are back", PATIENCE, restored).await;
    assert_eq!(rows(&place).await, 3);
    assert_eq!(
        status.operation.as_ref().map(|operation| (operation.kind, operation.state)),
        Some((Kind::Restore, OperationState::Succeeded))
    );
    assert!(!ran(&status).contains(&StepName::Deploy), "the release stays");

    place.edit(json!({"rollbackTo": null})).await;
    let status = place.until("the source rules again", PATIENCE, ready("1.1.0")).await;
    assert_eq!(status.restored_point, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_differs_is_done() {
    let place = deployed("differing", json!({})).await;
    // Goes up with each change of what is asked for: as long as it stays, so do the pods.
    let before = place.deployment().await.metadata.generation;

    // The schema alone: the pods stay.
    let table = "CREATE TABLE extra (id INT PRIMARY KEY)";
    place.repository.write("liqui-api/migrations/0008_extra.up.sql", table);
    place.repository.write("liqui-api/migrations/0008_extra.down.sql", "DROP TABLE extra");
    place.repository.push("only a migration");
    let deployed = |number: u64| move |status: &ReleaseStatus| status.release == Some(number) && ready("1.0.0")(status);
    let status = place.until("release 2 is ready", PATIENCE, deployed(2)).await;
    let only_schema = [StepName::Keep, StepName::Preflight, StepName::BackUp, StepName::Migrate, StepName::Verify, StepName::Bake];
    assert_eq!(ran(&status), only_schema);
    assert_eq!(place.deployment().await.metadata.generation, before);

    // An empty table is no loss: nobody is asked. One row is.
    execute(format!("INSERT INTO {}.extra VALUES (1)", place.database)).await;
    place.repository.revert();
    let status = place.approve(PATIENCE).await;
    let loss = status.operation.and_then(|operation| operation.loss).expect("the loss was measured");
    assert_eq!((loss.by_scripts, loss.inserted), (1, 0), "{loss:?}");
    let status = place.until("release 1 is ready again", PATIENCE, deployed(1)).await;
    // Its fence scales, and nothing else changes.
    assert!(!ran(&status).contains(&StepName::Deploy), "{:?}", ran(&status));
    assert_eq!(entry(&status, "1.0.0").state, ReleaseState::Undone, "the newest entry of this version is release 2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_is_deleted_while_a_person_is_asked_leaves_nothing_but_the_data() {
    let place = failed("leaving", json!({"approval": "Always"})).await;
    place.until("approval is asked for", PATIENCE, not_ready("AwaitingApproval")).await;
    assert_eq!(schemas_beside(&place).await.len(), 1, "the shadow");
    place.api::<Release>().delete(NAME, &DeleteParams::default()).await.expect("the Release can be deleted");
    gone(&place).await;
    assert!(schemas_beside(&place).await.is_empty());
    assert_eq!(rows(&place).await, 3);
    assert!(replicas(&place).await > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_secret_does_not_keep_a_deleted_release() {
    let place = deployed("unlocked", json!({})).await;
    let release = place.api::<Release>().get(NAME).await.expect("the Release is there");
    assert_eq!(release.finalizers().len(), 1);
    kubectl(&["-n", &place.namespace, "delete", "secret", "liqui-db", "git-auth", "redis"]);
    place.api::<Release>().delete(NAME, &DeleteParams::default()).await.expect("the Release can be deleted");
    gone(&place).await;
    let config = kubectl(&["-n", &place.namespace, "get", "configmaps", "-o", "name"]);
    assert!(config.contains(&format!("configmap/{NAME}-")), "what the pods read stays: {config}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_release_may_not_migrate_a_schema_or_deploy_to_a_container_of_the_first() {
    let place = deployed("sharing", json!({})).await;
    let mut spec = place.spec();
    spec["release"] = json!({"version": "9.0.0", "migrations": [{"name": "0900_other", "up": "CREATE TABLE other (id INT PRIMARY KEY)"}]});
    spec["source"] = Value::Null;
    place.create_as("other", spec.clone()).await.expect("the API server takes the Release");
    let of = |reason: &'static str| {
        move |status: &ReleaseStatus| condition(status, "Stalled").is_some_and(|(state, why, _)| state == "True" && why == reason)
    };
    place.until_of("other", "the container is the first one's", PATIENCE, of("TargetShared")).await;

    let deployment = place.deployment().await;
    let mut copy = serde_json::to_value(&deployment).expect("a Deployment is an object");
    copy["metadata"] = json!({"name": "other"});
    copy["spec"]["selector"]["matchLabels"] = json!({"app": "other"});
    copy["spec"]["template"]["metadata"]["labels"] = json!({"app": "other"});
    copy["status"] = Value::Null;
    copy["apiVersion"] = json!("apps/v1");
    copy["kind"] = json!("Deployment");
    place.apply::<k8s_openapi::api::apps::v1::Deployment>("other", copy).await;
    let patch = json!({"spec": {"target": {"kubernetes": {"workloads": [{"name": "other", "container": "api"}]}}}});
    place.api::<Release>().patch("other", &PatchParams::default(), &Patch::Merge(&patch)).await.expect("the Release can be edited");
    let status = place.until_of("other", "the schema is the first one's", PATIENCE, of("DatabaseShared")).await;
    let (_, _, message) = condition(&status, "Ready").expect("Ready is set");
    assert!(message.contains(&format!("{}/{NAME}", place.namespace)), "{message}");
    let tables = column(format!("SELECT table_name FROM information_schema.tables WHERE table_schema = '{}'", place.database)).await;
    assert!(!tables.iter().any(|table| table == "other"));
}
