//! The point from before a release is loaded beside the live tables while the release bakes.

use std::time::Duration;

use backout::api::{
    Release, names,
    operation::{Kind, OperationState, StepName},
};
use kube::ResourceExt as _;
use serde_json::json;

use crate::support::{
    bed::{column, eventually},
    place::{NAME, Place, ready},
};

const PATIENCE: Duration = Duration::from_secs(120);

#[tokio::test]
async fn a_release_that_bakes_is_gone_back_from_without_a_load() {
    let place = Place::new("staging").await;
    place.write_release("1.0.0");
    place.repository.push("liqui 1.0.0");
    let mut spec = place.spec();
    spec["rollback"] = json!({"database": ["Restore"], "approval": "Never"});
    place.create(spec).await.expect("the Release is accepted");
    place.until("1.0.0 runs", PATIENCE, ready("1.0.0")).await;

    place.edit(json!({"database": {"backup": {"stage": "WhileBaking"}}, "verify": {"bake": {"for": "10m"}}})).await;
    place.write_release("1.1.0");
    place.repository.push("liqui 1.1.0");
    let uid = place.api::<Release>().get(NAME).await.expect("it is there").uid().expect("it has one");
    let point = names::point(NAME, 2);
    let shadow = names::shadow(&place.database, &uid, &point);
    let is_there =
        format!("SELECT TABLE_SCHEMA FROM information_schema.TABLES WHERE TABLE_SCHEMA = '{shadow}' AND TABLE_NAME = '_backout_beside'");
    let sign = format!("SELECT CONCAT(state, ' ', point) FROM `{shadow}`._backout_beside");
    eventually("the point is loaded beside", PATIENCE, async || {
        let there = !column(is_there.clone()).await.is_empty();
        (there && column(sign.clone()).await == [format!("complete {point}")]).then_some(())
    })
    .await;

    place.edit(json!({"rollbackTo": {"release": 1}})).await;
    let status = place.until("1.0.0 is back", PATIENCE, ready("1.0.0")).await;
    assert_eq!(status.shadows, Vec::<String>::new(), "it was swapped in");
    let operation = status.operation.expect("it is recorded");
    assert_eq!((operation.kind, operation.state), (Kind::Rollback, OperationState::Succeeded));
    assert!(operation.steps.iter().any(|step| step.name == StepName::Restore), "{:?}", operation.steps);
}
