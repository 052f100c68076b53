//! The definitions in `crds/` are those of the code, and what users rely on in them is there.

use std::{fs, path::Path};

use kube::CustomResourceExt;
use serde_json::{Value, json};

use backout::{
    api::{BackupPoint, Release},
    crd,
};

fn at<'a>(value: &'a Value, path: &str) -> &'a Value {
    assert!(value.pointer(path).is_some(), "the definition has no {path}");
    value.pointer(path).unwrap_or(value)
}

fn definition<K: CustomResourceExt>() -> Value {
    serde_json::to_value(K::crd()).expect("a definition is JSON")
}

fn rules(schema: &Value) -> Vec<&str> {
    let mut found: Vec<&str> = schema
        .get("x-kubernetes-validations")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .map(|rule| at(rule, "/rule").as_str().expect("a rule is text"))
        .collect();
    match schema {
        Value::Object(fields) => {
            found.extend(fields.iter().filter(|(name, _)| *name != "x-kubernetes-validations").flat_map(|(_, value)| rules(value)))
        }
        Value::Array(items) => found.extend(items.iter().flat_map(rules)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
    found.sort_unstable();
    found
}

fn columns(definition: &Value) -> Vec<String> {
    at(definition, "/spec/versions/0/additionalPrinterColumns")
        .as_array()
        .expect("columns are a list")
        .iter()
        .map(|column| {
            let wide = if column.get("priority").is_some_and(|priority| *priority != json!(0)) { " (wide)" } else { "" };
            format!("{}{wide}", at(column, "/name").as_str().unwrap_or_default())
        })
        .collect()
}

#[test]
fn the_files_in_crds_are_those_of_the_code() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("crds");
    for (name, yaml) in crd::files().expect("the definitions are YAML") {
        let file = fs::read_to_string(folder.join(name)).unwrap_or_default();
        assert!(file == yaml, "crds/{name} is not what the code says: run `make crds`");
    }
    let mut there: Vec<String> = fs::read_dir(&folder)
        .expect("crds can be read")
        .map(|entry| entry.expect("crds can be read").file_name().to_string_lossy().into_owned())
        .filter(|name| name != "kustomization.yaml")
        .collect();
    there.sort();
    assert_eq!(there, ["backout.dev_backuppoints.yaml", "backout.dev_releases.yaml"], "crds/ holds a file that no code makes");
}

#[test]
fn kubectl_shows_the_columns_that_the_readme_promises() {
    let release = ["Version", "Revision", "Phase", "Ready", "Status", "Age", "Release (wide)", "Backup (wide)", "Last rollback (wide)"];
    assert_eq!(columns(&definition::<Release>()), release);
    let point =
        ["Release", "Before", "Reason", "Verified", "Schema", "Rows", "Bytes", "Rehearsed", "Restores in", "Taken", "Location (wide)"];
    assert_eq!(columns(&definition::<BackupPoint>()), point);
}

#[test]
fn the_kinds_are_namespaced_with_a_status_and_no_short_name_of_others() {
    for definition in [definition::<Release>(), definition::<BackupPoint>()] {
        assert_eq!(at(&definition, "/spec/scope"), "Namespaced");
        assert_eq!(at(&definition, "/spec/names/categories"), &json!(["backout"]));
        assert_eq!(definition.pointer("/spec/names/shortNames").cloned().unwrap_or_else(|| json!([])), json!([]));
        assert_eq!(at(&definition, "/spec/versions/0/subresources/status"), &json!({}));
    }
}

#[test]
fn the_api_server_refuses_what_can_not_be_meant() {
    let release = definition::<Release>();
    let there = rules(at(&release, "/spec/versions/0/schema/openAPIV3Schema"));
    for rule in [
        "has(self.source) != has(self.release)",
        "[has(self.branch), has(self.tag), has(self.commit)].filter(x, x).size() == 1",
        "[has(self.http), has(self.sql), has(self.redis)].filter(x, x).size() == 1",
        "self.startsWith('https://') || self.startsWith('http://')",
        "self.startsWith('https://') || self.startsWith('http://') || self.startsWith('ssh://')",
        "!self.url.startsWith('ssh://') || has(self.secretRef)",
        "!has(self.verify) || self.verify.mode == 'HEAD' || has(self.ref.tag)",
        "!self.startsWith('/') && !self.split('/').exists(p, p == '..')",
        "self.startsWith('file:///') || self.startsWith('s3://') || self.startsWith('gs://') || self.startsWith('az://')",
        "!has(self.secretRef) || !self.url.startsWith('file://')",
        "self.all(key, key.matches('^age1[02-9ac-hj-np-z]{58}$'))",
    ] {
        assert!(there.contains(&rule), "{rule} is gone; there are {there:#?}");
    }
    let point = definition::<BackupPoint>();
    assert_eq!(rules(at(&point, "/spec/versions/0/schema/openAPIV3Schema")), ["self == oldSelf"]);
}

#[test]
fn what_is_left_out_has_the_defaults_of_the_documentation() {
    let release = definition::<Release>();
    let spec = at(&release, "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties");
    for (path, expected) in [
        ("/interval", json!("1m")),
        ("/retryInterval", json!("30s")),
        ("/timeout", json!("30m")),
        ("/suspend", json!(false)),
        ("/source/properties/git/properties/path", json!(".")),
        ("/database/properties/mysql/properties/port", json!(3306)),
        ("/database/properties/mysql/properties/tls/properties/mode", json!("VerifyIdentity")),
        ("/cache/properties/redis/properties/port", json!(6379)),
        ("/verify/properties/timeout", json!("1m")),
        ("/verify/properties/bake/properties/every", json!("10s")),
        ("/verify/properties/bake/properties/failureThreshold", json!(3)),
        ("/rollback/properties/automatic", json!(true)),
        ("/rollback/properties/database", json!(["RevertSchema", "Restore"])),
    ] {
        assert_eq!(at(spec, &format!("{path}/default")), &expected, "{path}");
    }
    let observed = at(&release, "/spec/versions/0/schema/openAPIV3Schema/properties/status/properties/observedGeneration/default");
    assert_eq!(observed, &json!(-1), "an object that nobody has looked at must not pass for current");
}
