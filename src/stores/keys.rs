//! The keys of a store in a cloud, by the names under which its users know them.
//!
//! Only these are taken. The clients know many more, among them paths of files on this machine and addresses that its own
//! credentials would be sent to.

use std::collections::BTreeMap;

use super::cloud::Provider;
use crate::secret::Sensitive;

/// The CA of a store whose certificate no public one vouches for.
const CA: &str = "ca.crt";

/// What an S3 store is opened with: the names of AWS's own tools.
const S3: &[&str] = &[
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_ALLOW_HTTP",
    "AWS_VIRTUAL_HOSTED_STYLE_REQUEST",
];
const GCS: &[&str] = &["GOOGLE_SERVICE_ACCOUNT_KEY"];
const AZURE: &[&str] = &[
    "AZURE_STORAGE_ACCOUNT_NAME",
    "AZURE_STORAGE_ACCOUNT_KEY",
    "AZURE_STORAGE_SAS_TOKEN",
    "AZURE_CLIENT_ID",
    "AZURE_CLIENT_SECRET",
    "AZURE_TENANT_ID",
    "AZURE_STORAGE_ENDPOINT",
    "AZURE_ALLOW_HTTP",
];

/// Sets of keys of which one must be there as a whole: without it a client would take this machine's identity instead.
const S3_NEEDS: &[&[&str]] = &[&["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]];
const GCS_NEEDS: &[&[&str]] = &[&["GOOGLE_SERVICE_ACCOUNT_KEY"]];
const AZURE_NEEDS: &[&[&str]] = &[
    &["AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT_KEY"],
    &["AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_SAS_TOKEN"],
    &["AZURE_STORAGE_ACCOUNT_NAME", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET", "AZURE_TENANT_ID"],
];

/// Keys with their origin, for messages. No message holds a value.
#[derive(Clone, Debug)]
pub struct Keys {
    /// `Secret s3`.
    origin: String,
    values: BTreeMap<String, Vec<u8>>,
}

/// Keys that one provider takes.
#[derive(Debug)]
pub(super) struct Checked {
    pub values: BTreeMap<String, Sensitive>,
    /// PEM.
    pub ca: Option<Vec<u8>>,
}

impl Keys {
    /// `origin` is what holds them, as in `Secret s3`.
    pub fn new(origin: impl Into<String>, values: BTreeMap<String, Vec<u8>>) -> Self {
        Self { origin: origin.into(), values }
    }

    pub(super) fn origin(&self) -> &str {
        &self.origin
    }

    /// Those that `provider` takes; a sentence about one that it doesn't, or that is missing.
    pub(super) fn check(&self, provider: Provider) -> Result<Checked, String> {
        let Self { origin, values } = self;
        let (known, needs) = match provider {
            Provider::S3 => (S3, S3_NEEDS),
            Provider::Gcs => (GCS, GCS_NEEDS),
            Provider::Azure => (AZURE, AZURE_NEEDS),
        };
        if let Some(unknown) = values.keys().find(|key| *key != CA && !known.contains(&key.as_str())) {
            return Err(format!("{origin} has the key {unknown}, which is none of {}, {CA}: remove it", known.join(", ")));
        }
        if !needs.iter().any(|set| set.iter().all(|key| values.contains_key(*key))) {
            let sets: Vec<String> = needs.iter().map(|set| set.join(" and ")).collect();
            return Err(format!("{origin} needs the keys {}: add what is missing", sets.join(", or ")));
        }
        let mut checked = Checked { values: BTreeMap::new(), ca: values.get(CA).cloned() };
        for (key, value) in values.iter().filter(|(key, _)| *key != CA) {
            let text = std::str::from_utf8(value).map_err(|_| format!("key {key} of {origin} is not text"))?;
            // Files that became a Secret end with a line break.
            checked.values.insert(key.clone(), Sensitive::new(text.trim_end_matches(['\r', '\n'])));
        }
        for key in ["AWS_ALLOW_HTTP", "AWS_VIRTUAL_HOSTED_STYLE_REQUEST", "AZURE_ALLOW_HTTP"] {
            if checked.text(key).is_some_and(|text| !matches!(text, "true" | "false")) {
                return Err(format!("key {key} of {origin} must be true or false"));
            }
        }
        Ok(checked)
    }
}

impl Checked {
    pub fn text(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(Sensitive::reveal)
    }

    /// Where the store is, if not at the provider's own address: the key's name and its value.
    pub fn endpoint(&self) -> Option<(&'static str, &str)> {
        let keys = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AZURE_STORAGE_ENDPOINT"];
        keys.into_iter().find_map(|key| Some((key, self.text(key)?)))
    }

    /// Whether plain text was asked for.
    pub fn allows_http(&self) -> bool {
        ["AWS_ALLOW_HTTP", "AZURE_ALLOW_HTTP"].into_iter().any(|key| self.text(key) == Some("true"))
    }
}
