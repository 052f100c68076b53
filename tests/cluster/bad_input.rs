//! Bad input: a clear message on the object, nothing changed, no crash, and other Releases go on.

use std::{future::Future, time::Duration};

use backout::api::{Release, status::ReleaseStatus};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::support::{
    bed::{column, eventually, execute},
    place::{NAME, Place, condition, not_ready, ready},
};

const PATIENCE: Duration = Duration::from_secs(60);

/// Image and environment of the application's container: what must stay as it was.
async fn template(place: &Place) -> Value {
    let deployment = place.deployment().await;
    let container = deployment.spec.and_then(|spec| spec.template.spec).and_then(|pod| pod.containers.into_iter().next());
    serde_json::to_value(container).expect("a container is an object")
}

/// The application's tables: Backout's own beside them may come.
async fn tables(place: &Place) -> Vec<String> {
    let sql = "SELECT table_name FROM information_schema.tables WHERE table_name NOT LIKE '\\_backout%' AND table_schema";
    column(format!("{sql} = '{}' ORDER BY 1", place.database)).await
}

/// Replicas that the Deployment asks for, and those that are there.
async fn replicas(place: &Place) -> (Option<i32>, i32) {
    let deployment = place.deployment().await;
    let there = deployment.status.and_then(|status| status.replicas).unwrap_or_default();
    (deployment.spec.and_then(|spec| spec.replicas), there)
}

/// Waits for Ready=False with this reason and every part in its message; nothing may have changed.
async fn refused(place: &Place, reason: &str, parts: &[&str], act: impl Future<Output = ()>) -> ReleaseStatus {
    let before = (template(place).await, tables(place).await);
    act.await;
    let status = place
        .until(&format!("it is refused as {reason} with {parts:?}"), PATIENCE, |status| {
            condition(status, "Ready")
                .is_some_and(|(ready, why, message)| ready == "False" && why == reason && parts.iter().all(|part| message.contains(part)))
        })
        .await;
    assert_eq!((template(place).await, tables(place).await), before, "a refusal changes nothing");
    status
}

/// A place with version 1.0.0 in git, and the spec that it is created with.
async fn written(name: &str) -> (Place, Value) {
    let place = Place::new(name).await;
    place.write_release("1.0.0");
    place.repository.push("liqui 1.0.0");
    let spec = place.spec();
    (place, spec)
}

async fn create(place: &Place, spec: Value) {
    place.create(spec).await.expect("the API server takes the Release");
}

/// The API server refuses the spec with a message that has this part.
async fn rejected(place: &Place, spec: Value, part: &str) {
    let error = place.create(spec).await.expect_err("the API server refuses the Release").to_string();
    assert!(error.contains(part), "{part:?} is not in {error:?}");
}

fn stalled(status: &ReleaseStatus) -> bool {
    condition(status, "Stalled").is_some_and(|(stalled, _, _)| stalled == "True")
}

#[tokio::test]
async fn a_repository_that_is_not_there_is_named() {
    let (place, mut spec) = written("bad-repository").await;
    spec["source"]["git"]["url"] = json!(format!("{}-other", place.repository.tls_url()));
    let status = refused(&place, "SourceNotFound", &["-other", "spec.source.git.url"], create(&place, spec)).await;
    assert!(stalled(&status));
}

#[tokio::test]
async fn a_git_server_that_is_away_is_named_and_tried_again() {
    let (place, mut spec) = written("bad-server").await;
    spec["source"]["git"]["url"] = json!("https://git.bed:9/liqui.git");
    let status = refused(&place, "SourceUnavailable", &["https://git.bed:9/liqui.git"], create(&place, spec)).await;
    assert!(!stalled(&status), "it may come back");
}

#[tokio::test]
async fn a_branch_that_is_not_there_is_named_and_found_once_it_is_pushed() {
    let (place, mut spec) = written("bad-branch").await;
    spec["source"]["git"]["ref"] = json!({"branch": "release"});
    refused(&place, "SourceNotFound", &["branch release", "spec.source.git.ref"], create(&place, spec)).await;
    place.edit(json!({"source": {"git": {"ref": {"branch": "main"}}}})).await;
    place.until("the corrected Release is ready", PATIENCE, ready("1.0.0")).await;
}

#[tokio::test]
async fn a_path_that_is_not_there_is_named() {
    let (place, mut spec) = written("bad-path").await;
    spec["source"]["git"]["path"] = json!("elsewhere");
    refused(&place, "SourceNotFound", &["elsewhere", "spec.source.git.path"], create(&place, spec)).await;
}

#[tokio::test]
async fn wrong_git_credentials_are_named_without_being_shown() {
    let (place, spec) = written("bad-credentials").await;
    place.secret("git-auth", json!({"username": "backout", "password": "marker-0815"})).await;
    let status = refused(&place, "SourceAccessDenied", &["refused the credentials", "secretRef"], create(&place, spec)).await;
    assert!(!serde_json::to_string(&status).expect("a status is an object").contains("marker-0815"));
}

#[tokio::test]
async fn a_git_server_with_an_unknown_ca_is_refused() {
    let (place, mut spec) = written("bad-ca").await;
    let (user, password) = (crate::support::bed::variable("BED_GIT_USER"), crate::support::bed::variable("BED_GIT_PASSWORD"));
    place.secret("no-ca", json!({"username": user, "password": password})).await;
    spec["source"]["git"]["secretRef"]["name"] = json!("no-ca");
    refused(&place, "SourceAccessDenied", &["certificate", "ca.crt"], create(&place, spec)).await;
}

#[tokio::test]
async fn a_missing_git_secret_is_named_and_found_once_it_is_made() {
    let (place, mut spec) = written("bad-git-secret").await;
    spec["source"]["git"]["secretRef"]["name"] = json!("absent");
    refused(&place, "SecretNotFound", &["Secret absent"], create(&place, spec)).await;
}

#[tokio::test]
async fn a_bad_release_yaml_is_refused_by_what_is_wrong_with_it() {
    let (place, spec) = written("bad-manifest").await;
    place.repository.remove("liqui-api/release.yaml");
    place.repository.push("no release.yaml");
    refused(&place, "InvalidRelease", &["no release.yaml"], create(&place, spec)).await;
    for (yaml, part) in [
        ("version: [", "release.yaml can't be read"),
        ("version: 1.0.0\nimagse: {}\n", "imagse"),
        ("version: 1.0.0\nimages: {worker: docker.io/liqui/liqui:1.0.0}\n", "\"worker\""),
        ("version: 1.0.0\nmigrations: nowhere\n", "nowhere"),
        ("version: 1.0.0\nconfig: {1-BAD: x}\n", "1-BAD"),
    ] {
        let reason = if part == "\"worker\"" { "PreflightFailed" } else { "InvalidRelease" };
        refused(&place, reason, &[part], async {
            place.repository.write("liqui-api/release.yaml", yaml);
            place.repository.push(part);
        })
        .await;
    }
    refused(&place, "InvalidRelease", &["first.sql", "NNNN_name.up.sql"], async {
        place.write_release("1.0.0");
        place.repository.write("liqui-api/migrations/first.sql", "SELECT 1");
        place.repository.push("bad migration name");
    })
    .await;
    place.write_release("1.0.0");
    place.repository.push("mended");
    place.until("the mended release is ready", PATIENCE, ready("1.0.0")).await;
}

#[tokio::test]
async fn a_missing_down_script_is_refused_where_it_is_the_only_way_back() {
    let (place, mut spec) = written("bad-down").await;
    place.repository.remove("liqui-api/migrations/0001_binance_liqs.down.sql");
    place.repository.push("no down script");
    spec["rollback"] = json!({"database": ["RevertSchema"]});
    refused(&place, "PreflightFailed", &["0001_binance_liqs.down.sql"], create(&place, spec)).await;
}

#[tokio::test]
async fn a_spec_with_both_or_neither_source_is_refused_by_the_api_server() {
    let place = Place::new("bad-spec").await;
    let mut both = place.spec();
    both["release"] = json!({"version": "1.0.0"});
    let mut neither = place.spec();
    neither["source"] = Value::Null;
    let mut refs = place.spec();
    refs["source"]["git"]["ref"] = json!({"branch": "main", "tag": "v1"});
    let mut outside = place.spec();
    outside["source"]["git"]["path"] = json!("../elsewhere");
    let mut check = place.spec();
    check["verify"]["checks"] = json!([{"name": "nothing"}]);
    for (spec, part) in [
        (both, "exactly one of spec.source and spec.release"),
        (neither, "exactly one of spec.source and spec.release"),
        (refs, "exactly one of branch, tag and commit"),
        (outside, "must stay inside the repository"),
        (check, "exactly one of http, sql and redis"),
    ] {
        rejected(&place, spec, part).await;
    }
}

#[tokio::test]
async fn a_missing_deployment_or_container_is_named() {
    let (place, mut spec) = written("bad-target").await;
    spec["target"]["kubernetes"]["workloads"][0]["name"] = json!("absent");
    refused(&place, "TargetNotFound", &["Deployment absent"], create(&place, spec)).await;
    refused(&place, "TargetNotFound", &["no container worker", "it has api"], async {
        let workload = json!({"kind": "Deployment", "name": NAME, "container": "worker"});
        place.edit(json!({"target": {"kubernetes": {"workloads": [workload]}}})).await;
    })
    .await;
}

#[tokio::test]
async fn a_missing_application_secret_is_refused_and_found_once_it_is_made() {
    let (place, spec) = written("bad-app-secret").await;
    let yaml = "version: 1.0.0\nimages: {api: 'docker.io/liqui/liqui:1.0.0'}\nsecrets: [absent]\n";
    place.repository.write("liqui-api/release.yaml", yaml);
    place.repository.push("absent Secret");
    refused(&place, "PreflightFailed", &["Secret absent"], create(&place, spec)).await;
    place.secret("absent", json!({"SOME_KEY": "some value"})).await;
    place.until("the Secret is found", PATIENCE, |status| status.release == Some(1)).await;
}

#[tokio::test]
async fn a_variable_that_the_deployment_sets_itself_is_refused() {
    let (place, spec) = written("bad-variable").await;
    let containers = json!([{"name": "api", "env": [{"name": "DB_HOST", "value": "mine"}]}]);
    let patch = json!({"spec": {"template": {"spec": {"containers": containers}}}});
    place.api::<Deployment>().patch(NAME, &PatchParams::default(), &Patch::Strategic(&patch)).await.expect("the Deployment can be edited");
    refused(&place, "PreflightFailed", &["sets DB_HOST of container api itself"], create(&place, spec)).await;
}

#[tokio::test]
async fn a_database_that_can_not_be_used_is_refused_with_the_remedy() {
    let (place, mut spec) = written("bad-database").await;
    let user = place.database.clone();
    spec["database"]["mysql"]["port"] = json!(3399);
    refused(&place, "DatabaseUnavailable", &["mariadb.bed:3399", "can't be reached"], create(&place, spec)).await;
    let ca = std::fs::read_to_string(crate::support::bed::variable("BED_CA")).expect("the bed has a CA");
    refused(&place, "DatabaseUnavailable", &["refused the credentials", &user], async {
        place.secret("liqui-db", json!({"username": user, "password": "marker-4711", "ca.crt": ca})).await;
        place.edit(json!({"database": {"mysql": {"port": 3306}}})).await;
    })
    .await;
    refused(&place, "PreflightFailed", &["GRANT"], async {
        let escaped = user.replace('_', "\\_");
        execute(format!("REVOKE ALL ON `{escaped}\\_backout\\_%`.* FROM '{user}'@'%'")).await;
        execute(format!("ALTER USER '{user}'@'%' IDENTIFIED BY 'marker-4711'")).await;
    })
    .await;
}

#[tokio::test]
async fn objects_that_a_backup_point_can_not_carry_are_named() {
    let (place, spec) = written("bad-objects").await;
    let by_transaction = "id INT, s BIGINT UNSIGNED GENERATED ALWAYS AS ROW START, e BIGINT UNSIGNED GENERATED ALWAYS AS ROW END, \
        PERIOD FOR SYSTEM_TIME (s, e)";
    execute(format!(
        "CREATE TABLE {0}.past ({by_transaction}) WITH SYSTEM VERSIONING; CREATE TABLE {0}.old (id INT) ENGINE=MyISAM",
        place.database
    ))
    .await;
    refused(&place, "PreflightFailed", &["past", "old", "spec.rollback.database"], create(&place, spec)).await;
}

#[tokio::test]
async fn the_grants_that_views_of_another_account_take_are_named() {
    let (place, spec) = written("bad-views").await;
    execute(format!("CREATE VIEW {0}.recent AS SELECT 1 AS one", place.database)).await;
    let grant = format!("GRANT SET USER ON *.* TO '{}'@'%';", place.database);
    refused(&place, "PreflightFailed", &[&grant], create(&place, spec)).await;
    execute(grant).await;
    place.until("it is tried again by itself", PATIENCE, ready("1.0.0")).await;
}

#[tokio::test]
async fn a_redis_that_is_away_keeps_no_application_down_behind_a_fence() {
    let (place, spec) = written("bad-redis").await;
    create(&place, spec).await;
    place.until("1.0.0 is ready", PATIENCE, ready("1.0.0")).await;
    place.write_release("1.1.0");
    place.repository.push("liqui 1.1.0");
    place.until("1.1.0 is ready", PATIENCE, ready("1.1.0")).await;
    place.edit(json!({"cache": {"redis": {"port": 6399}}})).await;
    place.repository.revert();
    let status = place.until("the cache is given up", PATIENCE * 3, not_ready("RollbackFailed")).await;
    let (_, _, message) = condition(&status, "Ready").expect("Ready is set");
    assert!(message.contains("FlushCache") && message.contains("redis.bed:6399"), "{message}");
    assert!(place.deployment().await.spec.and_then(|spec| spec.replicas).unwrap_or(1) > 0, "the application serves");
    place.edit(json!({"cache": {"redis": {"port": 6380}}})).await;
    place.until("the rollback is finished", PATIENCE, ready("1.0.0")).await;
}

#[tokio::test]
async fn nothing_runs_on_a_migration_that_failed_half_way_until_a_restore_answers_it() {
    let (place, mut spec) = written("bad-migration").await;
    spec["rollback"]["automatic"] = json!(false);
    create(&place, spec).await;
    place.until("1.0.0 is ready", PATIENCE, ready("1.0.0")).await;
    let (before, replicas) = (tables(&place).await, replicas(&place).await);
    place.write_release("1.1.0");
    place.write_half_migration();
    place.repository.push("a migration that fails half way");
    let status = place.until("it is stopped", PATIENCE, not_ready("RollbackDisabled")).await;
    let (_, _, message) = condition(&status, "Ready").expect("Ready is set");
    assert!(message.contains("migration 0009_half stands half way") && message.contains("the fence is up"), "{message}");
    assert_eq!(self::replicas(&place).await, (Some(0), 0));

    place.edit(json!({"rollback": {"automatic": true}})).await;
    let status = place.until("it is rolled back", PATIENCE, not_ready("RolledBack")).await;
    let (_, _, message) = condition(&status, "Ready").expect("Ready is set");
    assert!(message.contains("half") && message.contains("statement 2"), "{message}");
    assert_eq!(tables(&place).await, before);
    assert_eq!(self::replicas(&place).await, replicas);
    assert_eq!(status.version.as_deref(), Some("1.0.0"));
}

#[tokio::test]
async fn a_check_that_never_passes_without_a_known_good_release_is_stalled() {
    let (place, mut spec) = written("bad-check").await;
    spec["verify"]["timeout"] = json!("2s");
    spec["verify"]["checks"] = json!([{"name": "never", "sql": {"query": "SELECT 1 AS one", "expect": "row.one == 2"}}]);
    create(&place, spec).await;
    let status = place.until("it is stalled", PATIENCE, stalled).await;
    let (_, reason, message) = condition(&status, "Ready").expect("Ready is set");
    assert_eq!(reason, "MissingRollbackTarget");
    assert!(message.contains("check never failed: row.one == 2 is false"), "{message}");
}

#[tokio::test]
async fn an_image_that_does_not_exist_is_refused_before_anything_is_touched() {
    let (place, spec) = written("bad-image").await;
    let yaml = "version: 9.9.9\nimages: {api: 'docker.io/liqui/liqui:9.9.9'}\nmigrations: migrations\n";
    place.repository.write("liqui-api/release.yaml", yaml);
    place.repository.push("no such image");
    refused(&place, "PreflightFailed", &["docker.io/liqui/liqui:9.9.9", "ErrImageNeverPull"], create(&place, spec)).await;
    eventually("the pods that asked for the image are gone", PATIENCE, async || {
        let pods = place.api::<Pod>().list(&ListParams::default().labels("backout.dev/release")).await.ok()?;
        pods.items.iter().all(|pod| pod.metadata.deletion_timestamp.is_some()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_release_that_can_not_be_read_is_marked_and_others_go_on() {
    let (unreadable, mut spec) = written("bad-unreadable").await;
    // The API server takes it, the program can't: what an older or newer API version may leave behind.
    spec["verify"]["bake"] = json!({"for": "2s", "failureThreshold": 99_999_999_999_u64});
    create(&unreadable, spec).await;
    let api: Api<kube::api::DynamicObject> =
        Api::namespaced_with(unreadable.client.clone(), &unreadable.namespace, &kube::core::ApiResource::erase::<Release>(&()));
    eventually("it is marked", PATIENCE, async || {
        let object = api.get(NAME).await.ok()?;
        let conditions = object.data.get("status")?.get("conditions")?.as_array()?.clone();
        conditions.iter().find(|condition| condition["type"] == "Stalled" && condition["reason"] == "InvalidSpec").cloned()
    })
    .await;

    let (other, spec) = written("good-beside-bad").await;
    create(&other, spec).await;
    other.until("another Release is ready", PATIENCE, ready("1.0.0")).await;
    assert_eq!(api.get(NAME).await.expect("it is still there").name_any(), NAME);
    // Neither has to be removed by hand to end the watch's trouble.
    api.delete(NAME, &DeleteParams::default()).await.expect("it can be deleted");
}

#[tokio::test]
async fn drift_of_image_and_configuration_is_put_right() {
    let (place, spec) = written("drift").await;
    create(&place, spec).await;
    place.until("1.0.0 is ready", PATIENCE, ready("1.0.0")).await;
    let before = template(&place).await;
    let containers = json!([{"name": "api", "image": "docker.io/liqui/liqui:1.1.0", "env": [{"name": "DB_HOST", "$patch": "delete"}]}]);
    let patch = json!({"spec": {"template": {"spec": {"containers": containers}}}});
    place.api::<Deployment>().patch(NAME, &PatchParams::default(), &Patch::Strategic(&patch)).await.expect("the Deployment can be edited");
    eventually("the Deployment is as the release has it", PATIENCE, async || {
        (sorted(template(&place).await) == sorted(before.clone())).then_some(())
    })
    .await;
    let status = place.until("it is ready again", PATIENCE, ready("1.0.0")).await;
    assert_eq!(status.release, Some(1), "drift is no new release");
}

/// A container with its variables in the order of their names.
fn sorted(mut container: Value) -> Value {
    if let Some(env) = container.get_mut("env").and_then(Value::as_array_mut) {
        env.sort_by_key(|variable| variable["name"].to_string());
    }
    container
}
