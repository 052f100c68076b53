//! Who may approve: the roles and the admission policies of `manifests/`, asked through impersonation.

use serde_json::json;

use crate::support::{
    operator::{attempt, kubectl},
    place::{NAME, Place},
};

/// As this user, in the place's namespace.
struct Person<'a> {
    place: &'a Place,
    name: &'static str,
}

impl<'a> Person<'a> {
    /// Somebody with this ClusterRole in the place's namespace.
    fn new(place: &'a Place, name: &'static str, role: &str) -> Self {
        kubectl(&["-n", &place.namespace, "create", "rolebinding", name, "--clusterrole", role, "--user", name]);
        Self { place, name }
    }

    fn does(&self, arguments: &[&str]) -> Result<String, String> {
        let mut all = vec!["-n", &self.place.namespace, "--as", self.name];
        all.extend(arguments);
        attempt(&all)
    }

    fn patches(&self, patch: &str) -> Result<String, String> {
        self.does(&["patch", "release", NAME, "--type", "merge", "-p", patch])
    }

    fn annotates(&self, annotations: &[&str]) -> Result<String, String> {
        let mut all = vec!["annotate", "--overwrite", "release", NAME];
        all.extend(annotations);
        self.does(&all)
    }

    /// It is refused, with all these parts in the message.
    fn is_refused(&self, annotations: &[&str], parts: &[&str]) {
        let message = self.annotates(annotations).expect_err("it is refused");
        for part in parts {
            assert!(message.contains(part), "{}, {annotations:?}: {part:?} is not in {message}", self.name);
        }
    }
}

fn annotation(place: &Place, name: &str) -> String {
    let path = format!("jsonpath={{.metadata.annotations.backout\\.dev/{name}}}");
    kubectl(&["-n", &place.namespace, "get", "release", NAME, "-o", &path])
}

#[tokio::test]
async fn only_an_approver_approves_and_is_named() {
    let place = Place::new("approving").await;
    let mut spec = place.spec();
    spec["suspend"] = json!(true);
    place.create(spec).await.expect("the Release is accepted");
    let viewer = Person::new(&place, "vera", "view");
    let editor = Person::new(&place, "ed", "edit");
    let approver = Person::new(&place, "ana", "backout-approver");
    let second = Person::new(&place, "bo", "backout-approver");

    assert!(viewer.does(&["get", "releases,backuppoints"]).is_ok());
    viewer.is_refused(&["backout.dev/requestedAt=1"], &["forbidden"]);
    editor.annotates(&["backout.dev/requestedAt=1"]).expect("an editor annotates");
    editor.patches(r#"{"spec":{"interval":"2s"}}"#).expect("an editor edits");

    let missing = ["ed may not set annotation backout.dev/approve", "verb approve", "backout-approver"];
    editor.is_refused(&["backout.dev/approve=sha256:1"], &missing);
    editor.is_refused(&["backout.dev/approve=sha256:1", "backout.dev/approved-by=ana"], &missing);
    editor.is_refused(&["backout.dev/approved-by=ana"], &["names who set backout.dev/approve"]);

    approver.annotates(&["backout.dev/approve=sha256:1"]).expect("an approver approves");
    assert_eq!((annotation(&place, "approve"), annotation(&place, "approved-by")), ("sha256:1".to_owned(), "ana".to_owned()));
    // Somebody else's name is not taken over, and what was approved is not changed under it.
    second.annotates(&["backout.dev/approve=sha256:2", "backout.dev/approved-by=ana"]).expect("another approver approves");
    assert_eq!(annotation(&place, "approved-by"), "bo");
    editor.is_refused(&["backout.dev/approve=sha256:3"], &missing);
    editor.is_refused(&["backout.dev/approved-by=ed"], &["it can't be changed otherwise"]);
    approver.is_refused(&["backout.dev/approved-by=ana"], &["it can't be changed otherwise"]);
    editor.annotates(&["backout.dev/requestedAt=2"]).expect("other annotations are free");

    // To be asked less often is an approval too.
    let asks = |policy: &str| editor.patches(&format!(r#"{{"spec":{{"rollback":{{"approval":"{policy}"}}}}}}"#));
    asks("Always").expect("to be asked more often is free");
    for weaker in ["DataLoss", "Never"] {
        let message = asks(weaker).expect_err("it is refused");
        assert!(message.contains("ed may not weaken spec.rollback.approval"), "{message}");
    }

    let message = approver.patches(r#"{"spec":{"interval":"3s"}}"#).expect_err("refused");
    assert!(message.contains("not change its spec") && message.contains("backout-editor"), "{message}");

    editor.annotates(&["backout.dev/approve-"]).expect("an editor takes an approval back");
    assert_eq!((annotation(&place, "approve"), annotation(&place, "approved-by")), (String::new(), String::new()));

    // Without the policy that fills the name in, the one that checks it stands alone.
    kubectl(&["delete", "mutatingadmissionpolicybinding", "approved-by.backout.dev"]);
    let refusal = || approver.annotates(&["backout.dev/approve=sha256:4", "backout.dev/approved-by=bo"]).err().unwrap_or_default();
    crate::support::bed::eventually("the name has to be given", std::time::Duration::from_secs(30), async || {
        refusal().contains("set it together with that, to ana").then_some(())
    })
    .await;
    approver.annotates(&["backout.dev/approve=sha256:5", "backout.dev/approved-by=ana"]).expect("the right name is taken");
    kubectl(&["apply", "--server-side", "-f", concat!(env!("CARGO_MANIFEST_DIR"), "/manifests/approved-by.yaml")]);
}

#[tokio::test]
async fn a_release_can_not_be_created_with_an_approval_by_who_may_not_approve() {
    let place = Place::new("approving-anew").await;
    let editor = Person::new(&place, "ed", "edit");
    let mut release = json!({
        "apiVersion": "backout.dev/v1alpha1",
        "kind": "Release",
        "metadata": {"name": NAME, "namespace": place.namespace, "annotations": {"backout.dev/approve": "sha256:1"}},
        "spec": place.spec(),
    });
    release["spec"]["suspend"] = json!(true);
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let file = folder.path().join("release.json");
    std::fs::write(&file, release.to_string()).expect("files can be written");
    let message = editor.does(&["create", "-f", &file.display().to_string()]).expect_err("it is refused");
    assert!(message.contains("ed may not set annotation backout.dev/approve"), "{message}");
    release["metadata"]["annotations"] = json!({});
    std::fs::write(&file, release.to_string()).expect("files can be written");
    editor.does(&["create", "-f", &file.display().to_string()]).expect("without, it is taken");
}
