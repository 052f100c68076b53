//! Backup points are rehearsed in the cluster.

use std::time::Duration;

use backout::api::{
    BackupPoint,
    backup_point::RehearsalOutcome,
    names,
    operation::{Kind, OperationState},
};
use serde_json::json;

use crate::support::{
    bed::{column, eventually},
    place::{NAME, Place, ready},
};

const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_point_is_rehearsed_at_rest() {
    let place = Place::new("points").await;
    place.write_release("1.0.0");
    place.repository.push("liqui 1.0.0");
    let mut spec = place.spec();
    spec["database"]["backup"] = json!({"rehearse": "AfterCapture"});
    place.create(spec).await.expect("the Release is accepted");
    place.until("1.0.0 runs", PATIENCE, ready("1.0.0")).await;

    let taken = names::point(NAME, 1);
    let points = place.api::<BackupPoint>();
    let rehearsed = eventually("the point is rehearsed", PATIENCE, async || {
        points.get(&taken).await.expect("the point is there").status.and_then(|status| status.rehearsed)
    })
    .await;
    assert_eq!(rehearsed.outcome, RehearsalOutcome::Passed, "{rehearsed:?}");
    assert!(rehearsed.took.is_some(), "{rehearsed:?}");
    // It is from before the first migration.
    assert!(rehearsed.message.contains("check rows does not hold on it"), "{rehearsed:?}");
    let status = place
        .until("the rehearsal has ended", PATIENCE, |status| {
            status
                .operation
                .as_ref()
                .is_some_and(|operation| (operation.kind, operation.state) == (Kind::Rehearse, OperationState::Succeeded))
        })
        .await;
    assert_eq!(status.shadows, Vec::<String>::new());
    let beside = format!("SELECT schema_name FROM information_schema.schemata WHERE schema_name LIKE '{}\\_backout\\_%'", place.database);
    assert_eq!(column(beside).await, Vec::<String>::new(), "the scratch schema is gone");
}
