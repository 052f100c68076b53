//! A release whose pods crash over and over again: those pods must not stand in the way of the release that replaces them.

use std::time::Duration;

use backout::api::operation::StepName;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use serde_json::json;

use crate::support::{
    bed::eventually,
    place::{NAME, Place, entry, not_ready, ready},
};

/// Kubernetes waits 10, 20 and 40 s between the restarts that tell.
const PATIENCE: Duration = Duration::from_secs(180);

/// 1.0.0 is good; then a change of its configuration alone makes every new pod crash.
async fn crashing(name: &str, spec: serde_json::Value) -> Place {
    let place = Place::new(name).await;
    place.write_release("1.0.0");
    place.repository.push("liqui 1.0.0");
    let mut wanted = place.spec();
    for (key, value) in spec.as_object().into_iter().flatten() {
        wanted[key] = value.clone();
    }
    place.create(wanted).await.expect("the API server takes the Release");
    place.until("1.0.0 is ready", PATIENCE, ready("1.0.0")).await;
    change(&place, "1.0.1", "config:\n  LISTEN: 203.0.113.1:8080\n", "an address that no pod has");
    place
}

/// Writes 1.0.0 with another version, and `config` in place of where its configuration begins.
fn change(place: &Place, version: &str, config: &str, subject: &str) {
    place.write_release("1.0.0");
    let yaml = place.repository.read("liqui-api/release.yaml");
    let yaml = yaml.replace("version: 1.0.0", &format!("version: {version}")).replace("config:\n", config);
    place.repository.write("liqui-api/release.yaml", &yaml);
    place.repository.push(subject);
}

/// Restarts of the pod that has the most.
async fn restarts(place: &Place) -> i32 {
    let pods = place.api::<Pod>().list(&ListParams::default().labels(&format!("app={NAME}"))).await.expect("pods can be listed");
    let containers = pods.items.into_iter().filter_map(|pod| pod.status).flat_map(|status| status.container_statuses.unwrap_or_default());
    containers.map(|container| container.restart_count).max().unwrap_or_default()
}

#[tokio::test]
async fn a_configuration_that_crashes_is_rolled_back_by_itself() {
    let place = crashing("crashing-config", json!({})).await;
    let status = place.until("it is rolled back", PATIENCE, not_ready("RolledBack")).await;
    assert_eq!(status.version.as_deref(), Some("1.0.0"));
    assert_eq!(status.release, Some(1));
    assert!(entry(&status, "1.0.1").undone_at.is_some());
    let operation = status.operation.expect("the rollback is recorded");
    assert!(operation.steps.iter().all(|step| step.name != StepName::Fence), "nothing of the database changed");
}

#[tokio::test]
async fn a_fix_on_top_of_a_release_that_crashes_becomes_ready() {
    let place = crashing("crashing-fix", json!({"rollback": {"automatic": false}})).await;
    eventually("it has crashed often", PATIENCE, async || (restarts(&place).await >= 3).then_some(())).await;
    change(&place, "1.0.2", "config:\n", "the fix");
    place.until("the fix is ready", PATIENCE, ready("1.0.2")).await;
}
