//! What whoever may write a Release may not make of the operator: a way to its machine, its cloud or its other folders.

use std::time::Duration;

use serde_json::json;

use crate::support::place::{Place, condition, not_ready};

const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn checks_reach_no_address_of_the_machine_or_its_cloud() {
    let place = Place::new("trust-checks").await;
    place.write_release("1.0.0");
    place.repository.push("liqui 1.0.0");
    let mut spec = place.spec();
    spec["verify"] = json!({"timeout": "2s", "checks": [
        {"name": "metadata", "http": {"url": "http://169.254.169.254/latest/meta-data/"}},
        {"name": "mapped", "http": {"url": "http://[::ffff:a9fe:a9fe]/"}},
        {"name": "own", "http": {"url": "http://2130706433:8080/metrics"}},
        {"name": "named", "http": {"url": "http://localhost:8080/metrics"}},
    ]});
    place.create(spec).await.expect("the Release is accepted");
    let status = place.until("it has failed", PATIENCE, not_ready("MissingRollbackTarget")).await;
    let (_, _, message) = condition(&status, "Ready").expect("Ready is set");
    for part in [
        "check metadata failed: 169.254.169.254 is a link-local address",
        "check mapped failed: ::ffff:169.254.169.254 is a link-local address",
        "check own failed: 127.0.0.1 is an address of the operator's own pod",
        "check named failed: localhost is an address of the operator's own pod",
    ] {
        assert!(message.contains(part), "{part:?} is not in {message}");
    }
}

#[tokio::test]
async fn a_store_outside_the_folder_for_backups_is_refused_by_name() {
    let place = Place::new("trust-store").await;
    place.write_release("1.0.0");
    place.repository.push("liqui 1.0.0");
    let mut spec = place.spec();
    spec["database"]["backup"] = json!({"store": {"url": "file:///var/lib/backout/git"}});
    place.create(spec).await.expect("the Release is accepted");
    place
        .until("it is refused", PATIENCE, |status| {
            condition(status, "Ready").is_some_and(|(_, reason, message)| {
                reason == "PreflightFailed"
                    && message.contains(
                        "file:///var/lib/backout/git: it must lie inside the operator's folder for backups, /var/lib/backout/backups",
                    )
            })
        })
        .await;
}
