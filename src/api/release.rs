//! `Release`: what a user writes.

use std::collections::{BTreeMap, BTreeSet};

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Span, database::DatabaseSpec, status::ReleaseStatus};

/// What should run, where it runs, how it is checked and how it is taken back.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "backout.dev",
    version = "v1alpha1",
    kind = "Release",
    plural = "releases",
    namespaced,
    status = "ReleaseStatus",
    category = "backout",
    doc = "A complete release: application, configuration, schema, data and cache, that can be taken back",
    printcolumn(name = "Version", type_ = "string", json_path = ".status.version"),
    printcolumn(name = "Revision", type_ = "string", json_path = ".status.lastAppliedRevision"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Status", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].message"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Release", type_ = "integer", json_path = ".status.release", priority = 1),
    printcolumn(name = "Backup", type_ = "string", json_path = ".status.lastBackupPoint", priority = 1),
    printcolumn(name = "Last rollback", type_ = "date", json_path = ".status.lastRollbackAt", priority = 1)
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.source) != has(self.release)").message("exactly one of spec.source and spec.release must be set"),
    validation = Rule::new("!has(self.cache) || has(self.cache.redis)").message("spec.cache needs redis"),
)]
pub struct ReleaseSpec {
    /// How often the source is looked at.
    #[serde(default = "defaults::interval")]
    pub interval: Span,
    /// How long to wait after a refusal before trying again.
    #[serde(default = "defaults::retry_interval")]
    pub retry_interval: Span,
    /// How long one step of an operation may take. What only prepares waits until it can be done.
    #[serde(default = "defaults::timeout")]
    pub timeout: Span,
    /// Begin no new operation; the one that runs is finished.
    #[serde(default)]
    pub suspend: bool,
    /// Where the release is described.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// The release itself, instead of a source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<InlineRelease>,
    pub target: Target,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<DatabaseSpec>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<CacheSpec>,
    #[serde(default)]
    pub verify: Verify,
    #[serde(default)]
    pub rollback: Rollback,
    /// Pin to an earlier release; overrides the source while it is present.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback_to: Option<RollbackTo>,
}

#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Source {
    pub git: GitSource,
}

#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!self.url.startsWith('ssh://') || has(self.secretRef)").message("an ssh:// URL needs spec.source.git.secretRef: a Secret with identity and known_hosts"),
    validation = Rule::new("!has(self.verify) || self.verify.mode == 'HEAD' || has(self.ref.tag)").message("spec.source.git.verify.mode Tag and TagAndHEAD need spec.source.git.ref.tag"),
)]
pub struct GitSource {
    /// `https://`, `http://`, or `ssh://[user@]host[:port]/path`; the user is `git` if none is given.
    #[x_kube(validation = Rule::new("self.startsWith('https://') || self.startsWith('http://') || self.startsWith('ssh://')").message("spec.source.git.url must begin with https://, http:// or ssh://; git@host:path is written ssh://git@host/path"))]
    #[schemars(length(max = 2048))]
    pub url: String,
    #[serde(rename = "ref")]
    pub reference: GitRef,
    /// Folder that holds `release.yaml`, from the root of the repository.
    #[serde(default = "defaults::path")]
    #[x_kube(validation = Rule::new("!self.startsWith('/') && !self.split('/').exists(p, p == '..')").message("spec.source.git.path must stay inside the repository"))]
    #[schemars(length(max = 1024))]
    pub path: String,
    /// Over HTTP a Secret with `username` and `password`, and `ca.crt` where the server's CA is not a public one. Over SSH one
    /// with `identity` (a private key), `password` (its passphrase, if it has one) and `known_hosts` (always).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<LocalRef>,
    /// Take only revisions that are signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<GitVerify>,
    /// Lets the git server tell of pushes: `POST /webhook/<namespace>/<name>` on the operator's Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<Webhook>,
}

/// Whose signatures are asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GitVerify {
    pub mode: VerifyMode,
    /// Secret with `allowed_signers` (SSH keys, in git's format) and OpenPGP public keys in keys that end in `.asc`.
    pub secret_ref: LocalRef,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum VerifyMode {
    /// The commit.
    #[serde(rename = "HEAD")]
    Head,
    /// The annotated tag.
    Tag,
    /// Both.
    #[serde(rename = "TagAndHEAD")]
    TagAndHead,
}

/// Secret with `token`: the secret that the git server signs its messages with, or shows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Webhook {
    pub secret_ref: LocalRef,
}

#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.branch), has(self.tag), has(self.commit)].filter(x, x).size() == 1").message("exactly one of branch, tag and commit must be set"))]
pub struct GitRef {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// Full object name, 40 hex digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^[0-9a-f]{40}$"))]
    pub commit: Option<String>,
}

/// An object in the Release's own namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct LocalRef {
    pub name: String,
}

/// `release.yaml` written into the Release, with its migrations.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InlineRelease {
    pub version: String,
    /// Image by container name.
    #[serde(default)]
    pub images: BTreeMap<String, String>,
    /// Environment variables by name.
    #[serde(default)]
    pub config: BTreeMap<String, String>,
    /// Secrets whose keys become environment variables.
    #[serde(default)]
    pub secrets: BTreeSet<String>,
    #[serde(default)]
    pub migrations: Vec<InlineMigration>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct InlineMigration {
    /// `NNNN_name`.
    pub name: String,
    pub up: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub down: Option<String>,
}

#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    pub kubernetes: KubernetesTarget,
}

#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KubernetesTarget {
    #[schemars(length(min = 1, max = 32))]
    pub workloads: Vec<Workload>,
}

/// A container of a workload in the Release's own namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Workload {
    #[serde(default)]
    pub kind: WorkloadKind,
    pub name: String,
    pub container: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum WorkloadKind {
    #[default]
    Deployment,
}

/// Secret with `username` and `password`, and `ca.crt` where the server's CA is not a public one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Credentials {
    pub secret_ref: LocalRef,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tls {
    #[serde(default)]
    pub mode: TlsMode,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TlsMode {
    /// Plain text: only where the network is trusted.
    Disabled,
    /// Encrypted, the server's certificate chain and name are checked.
    #[default]
    VerifyIdentity,
    /// Encrypted, the chain is checked, the name is not.
    VerifyCa,
}

#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CacheSpec {
    pub redis: RedisSpec,
    pub flush: Flush,
}

#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.tls) || !has(self.tls.mode) || self.tls.mode != 'VerifyCa' || has(self.credentials)").message("spec.cache.redis.tls.mode VerifyCa needs spec.cache.redis.credentials: a Secret with ca.crt"))]
pub struct RedisSpec {
    pub host: String,
    #[serde(default = "defaults::redis_port")]
    pub port: u16,
    #[serde(default)]
    pub db: u16,
    /// Secret with `password`, `username` where the server has users, and `ca.crt` where its CA is not a public one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<Credentials>,
    #[serde(default)]
    pub tls: Tls,
}

/// What of the cache a rollback removes.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Flush {
    /// Keys that begin with this are removed; others, such as sessions, stay.
    #[schemars(length(min = 1, max = 512))]
    pub prefix: String,
}

#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Verify {
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub checks: Vec<Check>,
    /// All checks must pass in one round within this time.
    #[serde(default = "defaults::verify_timeout")]
    pub timeout: Span,
    /// How long, and how often, the checks go on after that before a release is known good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bake: Option<Bake>,
}

impl Default for Verify {
    fn default() -> Self {
        Self { checks: Vec::new(), timeout: defaults::verify_timeout(), bake: None }
    }
}

#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.http), has(self.sql), has(self.redis)].filter(x, x).size() == 1").message("a check is exactly one of http, sql and redis"))]
pub struct Check {
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpCheck>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sql: Option<SqlCheck>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redis: Option<RedisCheck>,
}

/// GET the URL.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpCheck {
    #[x_kube(validation = Rule::new("self.startsWith('https://') || self.startsWith('http://')").message("a check's url must begin with https:// or http://"))]
    #[schemars(length(max = 2048))]
    pub url: String,
    #[serde(default = "defaults::http_status")]
    #[schemars(range(min = 100, max = 599))]
    pub status: u16,
    /// The whole answer must be there within this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_latency: Option<Span>,
    /// CEL over `body` (the answer as JSON) and `status`; must come to true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub expect: Option<String>,
}

/// Run a query on the Release's database in a read-only transaction.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SqlCheck {
    /// One SELECT of at most 8 s and 1 MiB.
    #[schemars(length(min = 1, max = 16384))]
    pub query: String,
    /// CEL over `row` (the first row by column name) and `rows` (their number, at most 1,000); must come to true.
    #[schemars(length(max = 1024))]
    pub expect: String,
}

/// Ask the Release's Redis.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RedisCheck {
    #[x_kube(validation = Rule::new("self").message("ping: true is the only redis check"))]
    pub ping: bool,
}

#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Bake {
    #[serde(rename = "for")]
    pub hold: Span,
    #[serde(default = "defaults::bake_every")]
    pub every: Span,
    /// So many rounds in a row must fail before the release counts as failed.
    #[serde(default = "defaults::failure_threshold")]
    #[schemars(range(min = 1))]
    pub failure_threshold: u32,
}

#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rollback {
    /// Go back by itself when a release fails.
    #[serde(default = "defaults::yes")]
    pub automatic: bool,
    /// Ways to take the database back, in order of preference; empty: never touch it.
    #[serde(default = "defaults::methods")]
    pub database: Vec<Method>,
    /// When going back waits for a person: it is approved by the annotation `backout.dev/approve: <status.operation.plan.digest>`.
    #[serde(default)]
    pub approval: ApprovalPolicy,
    /// How long tables that were replaced are kept beside the live ones: so long a restore can be undone.
    #[serde(default = "defaults::keep_aside")]
    pub keep_aside: Span,
    /// What a restore brings along of what was written since its backup point.
    #[serde(default)]
    pub carry_forward: CarryForward,
    /// Whether what down scripts drop is kept in a backup point of its own. A restore needs none: what it replaces stays aside.
    #[serde(default)]
    pub emergency_point: EmergencyPoint,
    /// How often Backout may go back by itself before it asks a person.
    #[serde(default)]
    pub limit: RollbackLimit,
}

impl Default for Rollback {
    fn default() -> Self {
        Self {
            automatic: true,
            database: defaults::methods(),
            approval: ApprovalPolicy::default(),
            keep_aside: defaults::keep_aside(),
            carry_forward: CarryForward::default(),
            emergency_point: EmergencyPoint::default(),
            limit: RollbackLimit::default(),
        }
    }
}

/// When a backup point is taken on the way back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum EmergencyPoint {
    #[default]
    Never,
    /// Before anybody is asked, and while the application serves: what is written after that is not in it. Going back takes that much longer,
    /// and waits for a store that is away. None is taken while the application is down, nor of what a point can't carry.
    BeforeDownScripts,
}

/// When an operation that takes data away waits for a person.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ApprovalPolicy {
    /// It never waits; what is replaced by a restore is kept aside.
    Never,
    /// It waits where rows or values would be lost.
    #[default]
    DataLoss,
    /// It waits before every change of the database that takes something back.
    Always,
}

/// Which rows that a restore replaces become live again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CarryForward {
    /// None: the database is what it was at the point, and the rest stands aside.
    #[default]
    None,
    /// Rows that were inserted since and still fit: what does not is counted and stays aside.
    Inserts,
}

/// At most `count` rollbacks that Backout begins by itself `within` this time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RollbackLimit {
    #[serde(default = "defaults::rollbacks")]
    #[schemars(range(min = 1, max = 20))]
    pub count: u32,
    #[serde(default = "defaults::rollbacks_within")]
    pub within: Span,
}

impl Default for RollbackLimit {
    fn default() -> Self {
        Self { count: defaults::rollbacks(), within: defaults::rollbacks_within() }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Method {
    /// Run the down scripts: keeps the data.
    RevertSchema,
    /// Swap in the backup point from before the first release that is undone.
    Restore,
}

#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.release), has(self.version), has(self.backupPoint)].filter(x, x).size() == 1").message("exactly one of release, version and backupPoint must be set"))]
pub struct RollbackTo {
    /// Release number, as `status.history` has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub release: Option<u64>,
    /// The newest known good release of this version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Name of a BackupPoint: its data alone is brought back, once; the release stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_point: Option<String>,
}

/// The default of `spec.rollback.keepAside`.
pub(crate) fn keep_aside() -> Span {
    defaults::keep_aside()
}

/// Named so that serde and the CRD's schema share one source for each default.
mod defaults {
    use super::{Method, Span};

    pub fn interval() -> Span {
        Span::seconds(60)
    }
    pub fn retry_interval() -> Span {
        Span::seconds(30)
    }
    pub fn timeout() -> Span {
        Span::seconds(30 * 60)
    }
    pub fn path() -> String {
        ".".to_owned()
    }
    pub fn redis_port() -> u16 {
        6379
    }
    pub fn keep_aside() -> Span {
        Span::seconds(24 * 60 * 60)
    }
    pub fn rollbacks() -> u32 {
        5
    }
    pub fn rollbacks_within() -> Span {
        Span::seconds(60 * 60)
    }
    pub fn verify_timeout() -> Span {
        Span::seconds(60)
    }
    pub fn http_status() -> u16 {
        200
    }
    pub fn bake_every() -> Span {
        Span::seconds(10)
    }
    pub fn failure_threshold() -> u32 {
        3
    }
    pub fn yes() -> bool {
        true
    }
    pub fn methods() -> Vec<Method> {
        vec![Method::RevertSchema, Method::Restore]
    }
}
