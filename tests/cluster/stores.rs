//! A store that speaks S3, with the keys of a Secret, and points that are encrypted.

use std::time::Duration;

use age::{secrecy::ExposeSecret, x25519::Identity};
use backout::api::{
    operation::{Kind, OperationState, StepName},
    progress::{Part, Unit},
    status::ReleaseStatus,
};
use serde_json::json;

use crate::support::{
    bed::variable,
    place::{Place, condition, ready},
    s3::Server,
};

const PATIENCE: Duration = Duration::from_secs(120);

#[tokio::test]
async fn a_release_keeps_encrypted_points_in_s3_and_is_brought_back_from_there() {
    let place = Place::new("stores").await;
    let server = Server::at(&variable("BED_NODE_IP")).await;
    let identity = Identity::generate();
    let mut keys = server.texts();
    keys.insert("AWS_SECRET_ACCESS_KEY".to_owned(), "wrong-secret".to_owned());
    place.secret("s3", json!(keys)).await;
    place.secret("backup-key", json!({"identity": identity.to_string().expose_secret()})).await;
    let mut spec = place.spec();
    spec["database"]["backup"] = json!({
        "store": {"url": server.url(), "secretRef": {"name": "s3"}},
        "encryption": {"recipients": [identity.to_public().to_string()], "identitySecretRef": {"name": "backup-key"}},
    });
    spec["rollback"] = json!({"database": ["Restore"], "approval": "Never"});
    place.write_release("1.0.0");
    place.repository.push("liqui 1.0.0");
    place.create(spec).await.expect("the API server takes the Release");

    // Nothing is touched before the store lets in who asks, and the message says what to mend.
    let refused = place
        .until("the wrong key is refused", PATIENCE, |status| {
            condition(status, "Ready")
                .is_some_and(|(_, reason, message)| reason == "PreflightFailed" && message.contains("SignatureDoesNotMatch"))
        })
        .await;
    assert!(!format!("{refused:?}").contains("wrong-secret"));
    place.secret("s3", json!(server.texts())).await;
    place.until("1.0.0 is ready", PATIENCE, ready("1.0.0")).await;
    server.operations.hold(Some("PutObject"));
    place.write_release("1.1.0");
    place.repository.push("liqui 1.1.0");
    let told = |status: &ReleaseStatus| {
        let steps = status.operation.iter().flat_map(|operation| &operation.steps);
        let progress = steps.filter(|step| step.name == StepName::BackUp).find_map(|step| step.progress.as_ref());
        progress.is_some_and(|progress| progress.part == Part::Capture && progress.unit == Unit::Rows)
            && condition(status, "Ready").is_some_and(|(_, _, message)| message.contains("BackUp: Capture "))
    };
    place.until("it is told how far the backup is", PATIENCE, told).await;
    server.operations.hold(None);
    let status = place.until("1.1.0 is ready", PATIENCE, ready("1.1.0")).await;
    let written = status.operation.iter().flat_map(|operation| &operation.steps).find(|step| step.name == StepName::BackUp);
    assert_eq!(written.map(|step| (step.attempt, step.progress.clone())), Some((1, None)), "its end was written over what was told");
    let point = status.last_backup_point.expect("it was backed up before its migrations");
    let files = server.list();
    assert!(files.iter().any(|file| file.ends_with(&format!("{point}/manifest.json"))), "{files:?}");
    assert!(files.iter().all(|file| file.ends_with("/manifest.json") || file.ends_with(".age")), "{files:?}");

    place.edit(json!({"rollbackTo": {"release": 1}})).await;
    let status = place.until("1.0.0 is back", PATIENCE, ready("1.0.0")).await;
    let operation = status.operation.expect("it is recorded");
    assert_eq!((operation.kind, operation.state), (Kind::Rollback, OperationState::Succeeded));
    assert!(operation.steps.iter().any(|step| step.name == StepName::Restore), "{:?}", operation.steps);
}
