//! The inventory of backup points, as the installed operator keeps it with the rights that its role gives it.

use std::time::Duration;

use backout::api::{
    BackupPoint,
    backup_point::PointReason,
    operation::{Kind, OperationState},
    status::{ReleaseState, ReleaseStatus},
};
use kube::{api::ListParams, runtime::wait::await_condition};
use serde_json::json;
use tokio::time::timeout;

use crate::support::{
    operator::kubectl,
    place::{NAME, Place, entry, ready},
};

const PATIENCE: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_point_whose_time_has_passed_is_deleted_and_an_event_says_why() {
    let place = Place::new("inventory").await;
    place.write_release("1.0.0");
    place.repository.push("liqui 1.0.0");
    place.create(place.spec()).await.expect("the Release is accepted");
    let status = place.until("1.0.0 is ready", PATIENCE, ready("1.0.0")).await;
    let first = entry(&status, "1.0.0").backup_point.clone().expect("a point was taken before its migration");
    place.write_release("1.1.0");
    place.repository.push("liqui 1.1.0");
    let status = place.until("1.1.0 is ready", PATIENCE, ready("1.1.0")).await;
    let second = entry(&status, "1.1.0").backup_point.clone().expect("a point was taken before its migrations");
    assert_eq!(points(&place).await, [first.clone(), second.clone()]);

    place.edit(json!({"database": {"backup": {"retention": {"keepFor": "1s", "keepLast": 1}}}})).await;
    let gone = |point: Option<&BackupPoint>| point.is_none();
    timeout(PATIENCE, await_condition(place.api::<BackupPoint>(), &first, gone)).await.expect("in time").expect("points can be watched");
    // It is ready all along.
    let has_ended = |status: &ReleaseStatus| {
        status.operation.as_ref().is_some_and(|operation| operation.kind == Kind::Cleanup && operation.state == OperationState::Succeeded)
    };
    let status = place.until("the clean-up has ended", PATIENCE, has_ended).await;
    assert_eq!(points(&place).await, [second], "the last good one, which 1.0.0 could be gone back to with, stays");
    assert_eq!(entry(&status, "1.0.0").state, ReleaseState::KnownGood);
    assert_eq!(entry(&status, "1.0.0").backup_point, None);
    let note = format!("deleted BackupPoint {first}: taken at ");
    let events = || kubectl(&["-n", &place.namespace, "events", "--for", &format!("release/{NAME}")]);
    crate::support::bed::eventually("an event says it", PATIENCE, async || {
        events()
            .lines()
            .any(|line| line.contains("ExpireDone") && line.contains(&note) && line.contains("retention keeps 1s"))
            .then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn points_are_taken_by_schedule_and_on_request_and_their_data_can_be_brought_back() {
    let place = Place::new("schedule").await;
    place.write_release("1.0.0");
    place.repository.push("liqui 1.0.0");
    place.create(place.spec()).await.expect("the Release is accepted");
    let before = place.until("1.0.0 is ready", PATIENCE, ready("1.0.0")).await;

    place.edit(json!({"database": {"backup": {"schedule": {"cron": "* * * * *"}}}})).await;
    let scheduled = taken(&place, PointReason::Scheduled).await;
    assert_eq!(scheduled.spec.before, None);
    place.edit(json!({"database": {"backup": {"schedule": null}}})).await;
    kubectl(&["-n", &place.namespace, "annotate", "release", NAME, "backout.dev/backupAt=noon"]);
    let manual = taken(&place, PointReason::Manual).await;
    let is_answered = |status: &ReleaseStatus| status.last_handled_backup_at.as_deref() == Some("noon");
    let status = place.until("the request is answered", PATIENCE, is_answered).await;
    assert_eq!(status.last_backup_point, manual.metadata.name);
    assert_eq!(entry(&status, "1.0.0").backup_point, entry(&before, "1.0.0").backup_point, "the way back of 1.0.0 is the point before it");

    place.edit(json!({"rollbackTo": {"backupPoint": manual.metadata.name}})).await;
    place.until("its data is live", PATIENCE, |status| status.restored_point == manual.metadata.name && ready("1.0.0")(status)).await;
}

/// The first one that is complete.
async fn taken(place: &Place, reason: PointReason) -> BackupPoint {
    crate::support::bed::eventually("a point is taken", PATIENCE, async || {
        let points = place.api::<BackupPoint>().list(&ListParams::default()).await.expect("points can be listed").items;
        points.into_iter().find(|point| point.spec.reason == reason && point.status.as_ref().is_some_and(|status| status.verified))
    })
    .await
}

async fn points(place: &Place) -> Vec<String> {
    let list = place.api::<BackupPoint>().list(&ListParams::default()).await.expect("points can be listed");
    list.items.into_iter().filter_map(|point| point.metadata.name).collect()
}
