//! `spec.database`: where the database is, when backup points of it are taken, and what becomes of them.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Schedule, Span,
    release::{Credentials, LocalRef, Tls},
};

#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.rehearseMigrations) || !has(self.backup) || !has(self.backup.encryption) || has(self.backup.encryption.identitySecretRef)").message("spec.database.rehearseMigrations reads what is encrypted: set backup.encryption.identitySecretRef, or leave it out"))]
pub struct DatabaseSpec {
    pub mysql: MysqlSpec,
    #[serde(default)]
    pub backup: BackupSpec,
    /// Run a release's migrations, and their down scripts, on a copy of the data before they are run on the data; absent: they are not. The
    /// copy is the backup point from before the release, so this needs Restore in spec.rollback.database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rehearse_migrations: Option<RehearseMigrations>,
}

/// How long the two parts of it may take.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RehearseMigrations {
    /// Loading the copy. Where that takes longer, the release goes on without, and its step says so.
    #[serde(default = "defaults::within")]
    pub within: Span,
    /// All up scripts of a release together. Where they take longer on the copy, the release fails before the data is touched; absent:
    /// however long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_most: Option<Span>,
}

#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MysqlSpec {
    pub host: String,
    #[serde(default = "defaults::mysql_port")]
    pub port: u16,
    /// Name of the database. Shadow and aside schemas are named `<name>_backout_…`, and 64 characters are all a schema may have.
    #[schemars(regex(pattern = "^[0-9A-Za-z_]{1,32}$"))]
    pub name: String,
    pub credentials: Credentials,
    #[serde(default)]
    pub tls: Tls,
}

impl MysqlSpec {
    /// `host:port/name`.
    pub fn place(&self) -> String {
        format!("{}:{}/{}", self.host, self.port, self.name)
    }
}

#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(self.rehearse == 'Never' && !has(self.rehearseSchedule)) || !has(self.encryption) || has(self.encryption.identitySecretRef)").message("spec.database.backup.rehearse reads what is encrypted: set encryption.identitySecretRef, or rehearse to Never without rehearseSchedule"))]
#[x_kube(validation = Rule::new("self.stage == 'Never' || !has(self.encryption) || has(self.encryption.identitySecretRef)").message("spec.database.backup.stage reads what is encrypted: set encryption.identitySecretRef, or stage to Never"))]
pub struct BackupSpec {
    #[serde(default)]
    pub store: Store,
    /// Besides before migrations, take points by this schedule; absent: only before migrations and when asked to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
    /// Which backup points are deleted; absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<Retention>,
    /// When it is proven that a point can be restored.
    #[serde(default)]
    pub rehearse: RehearsePolicy,
    /// Besides, the newest point that can be restored is rehearsed by this schedule, for what lies in a store can go bad; absent: each
    /// point once at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rehearse_schedule: Option<Schedule>,
    /// Whether a point is loaded beside the live tables before anybody needs it.
    #[serde(default)]
    pub stage: StagePolicy,
    /// Encrypt the files before they leave the operator. Points that are there stay as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<Encryption>,
}

/// A backup point is deleted once it is older than `keepFor` and not among the newest `keepLast` verified ones of its database.
/// One that a rollback could still need is kept in any case.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Retention {
    #[serde(default = "defaults::keep_for")]
    pub keep_for: Span,
    #[serde(default = "defaults::keep_last")]
    #[schemars(range(min = 1))]
    pub keep_last: u32,
}

/// When a backup point is loaded into a schema of its own, compared and dropped again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RehearsePolicy {
    #[default]
    Never,
    /// Once nothing else is to be done; anything that is asked for goes first and ends a rehearsal that runs.
    AfterCapture,
}

/// When the point from before a release is loaded into a schema beside the live one, compared, and kept until the release is known good:
/// going back to it then takes one rename, however many rows there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum StagePolicy {
    /// Once a rollback asks for it.
    #[default]
    Never,
    /// As long as the release bakes (spec.verify.bake), with one connection, which rests for as long as commits take more than twice as
    /// long as without it.
    WhileBaking,
}

/// Encryption of backup points with age.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Encryption {
    /// Public keys, as `age-keygen` prints them (`age1…`): the secret key of any one of them opens the points.
    #[x_kube(validation = Rule::new("self.all(key, key.matches('^age1[02-9ac-hj-np-z]{58}$'))").message("spec.database.backup.encryption.recipients are public keys of age, as age-keygen prints them: age1…"))]
    #[schemars(length(min = 1, max = 16), inner(length(max = 62)))]
    pub recipients: Vec<String>,
    /// Secret with `identity`, the file that `age-keygen` wrote. Only what reads a point needs it: without it a point can be taken and its
    /// files compared, and is brought back by hand alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity_secret_ref: Option<LocalRef>,
}

#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.secretRef) || !self.url.startsWith('file://')").message("spec.database.backup.store: a file:/// store has no keys, remove secretRef"))]
pub struct Store {
    /// `s3://bucket/prefix`, `gs://bucket/prefix`, `az://container/prefix`, or a folder on the operator's volume, as `file:///…`.
    #[serde(default = "defaults::store_url")]
    #[x_kube(validation = Rule::new("self.startsWith('file:///') || self.startsWith('s3://') || self.startsWith('gs://') || self.startsWith('az://')").message("spec.database.backup.store.url must begin with file:///, s3://, gs:// or az://"))]
    #[schemars(length(max = 1024))]
    pub url: String,
    /// Secret with the store's keys, under the names that its own tools have for them in the environment, and `ca.crt` where its CA is
    /// not a public one. S3: `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`, `AWS_REGION`, `AWS_ENDPOINT_URL`,
    /// `AWS_VIRTUAL_HOSTED_STYLE_REQUEST`, `AWS_ALLOW_HTTP`. Google Cloud Storage: `GOOGLE_SERVICE_ACCOUNT_KEY` (JSON). Azure:
    /// `AZURE_STORAGE_ACCOUNT_NAME` with `AZURE_STORAGE_ACCOUNT_KEY`, `AZURE_STORAGE_SAS_TOKEN`, or `AZURE_CLIENT_ID`,
    /// `AZURE_CLIENT_SECRET` and `AZURE_TENANT_ID`; `AZURE_STORAGE_ENDPOINT`, `AZURE_ALLOW_HTTP`. Without it the operator's own identity
    /// is used, where its arguments say so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<LocalRef>,
}

impl Default for Store {
    fn default() -> Self {
        Self { url: defaults::store_url(), secret_ref: None }
    }
}

/// Named so that serde and the CRD's schema share one source for each default.
mod defaults {
    use super::Span;

    pub fn mysql_port() -> u16 {
        3306
    }
    pub fn store_url() -> String {
        "file:///var/lib/backout/backups".to_owned()
    }
    pub fn within() -> Span {
        Span::seconds(10 * 60)
    }
    pub fn keep_for() -> Span {
        Span::seconds(30 * 24 * 60 * 60)
    }
    pub fn keep_last() -> u32 {
        3
    }
}
