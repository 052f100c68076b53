//! A release's migrations are run on a copy of the data before they are run on the data.

use std::time::Duration;

use backout::api::operation::{StepName, StepState};
use serde_json::json;

use crate::support::{
    bed::column,
    place::{Place, condition, entry, not_ready, ready},
};

const PATIENCE: Duration = Duration::from_secs(60);

async fn schema(place: &Place) -> Vec<String> {
    column(format!(
        "SELECT CONCAT_WS(' ', table_schema, table_name, column_name, column_type) FROM information_schema.columns \
         WHERE table_schema LIKE '{}%' AND table_name NOT LIKE '\\_backout%' ORDER BY 1",
        place.database
    ))
    .await
}

#[tokio::test]
async fn a_migration_that_fails_on_a_copy_never_touches_the_data() {
    let place = Place::new("trying").await;
    let mut spec = place.spec();
    spec["database"]["rehearseMigrations"] = json!({"within": "1m"});
    place.write_release("1.0.0");
    place.repository.push("liqui 1.0.0");
    place.create(spec).await.expect("the Release is accepted");
    let status = place.until("1.0.0 is ready", PATIENCE, ready("1.0.0")).await;
    let tried = status.operation.expect("it was deployed").steps.into_iter().find(|step| step.name == StepName::RehearseMigrations);
    let tried = tried.expect("its migrations were tried");
    assert_eq!(tried.state, StepState::Done);
    let message = tried.message.unwrap_or_default();
    assert!(message.starts_with("on a copy of the data the migrations took") && message.ends_with("lead back"), "{message}");

    let before = schema(&place).await;
    place.write_release("1.1.0");
    place.write_half_migration();
    place.repository.push("a migration that fails half way");
    let status = place.until("it is given up", PATIENCE, not_ready("RolledBack")).await;
    let (_, _, message) = condition(&status, "Ready").expect("Ready is set");
    assert!(message.contains("RehearseMigrations") && message.contains("half, statement 2 of 2"), "{message}");
    assert_eq!(schema(&place).await, before, "nothing live has changed, and no copy is left");
    assert_eq!(status.version.as_deref(), Some("1.0.0"));
    // It is accounted for until somebody has seen that it is gone.
    let status =
        place.until("no copy is accounted for", PATIENCE, |status| not_ready("RolledBack")(status) && status.shadows.is_empty()).await;
    assert_eq!(entry(&status, "1.1.0").backup_point.as_deref(), Some("liqui-api-2-predeploy"));
}
