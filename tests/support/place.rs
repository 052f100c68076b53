//! A place of its own for one test: a namespace with Secrets and the sample application, a database, a git repository.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use backout::api::{
    Release,
    status::{HistoryEntry, ReleaseStatus},
};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Namespace, Secret, Service},
};
use kube::{
    Api, Client, Resource,
    api::{DynamicObject, Patch, PatchParams, PostParams},
    core::ApiResource,
    runtime::wait::await_condition,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::{sync::RwLockReadGuard, time::timeout};

use super::{
    bed::{client, column, execute, variable},
    operator::{self, attempt, kubectl},
    repository::Repository,
};

/// The Release of every place.
pub const NAME: &str = "liqui-api";
const PASSWORD: &str = "only-for-this-bed";

/// Names of the places of this process.
static TAKEN: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Cleared away when it is dropped: what polls its git server every second would slow the tests that come after it.
pub struct Place {
    /// Held while the place is in use: the installed operator works for it. `None`: the test runs an operator of its own.
    installed: Option<RwLockReadGuard<'static, ()>>,
    stays: bool,
    pub client: Client,
    pub namespace: String,
    pub database: String,
    pub repository: Repository,
}

impl Place {
    /// Makes the place; `name` is short, lower-case and the test's own. What an earlier run left under it is removed first.
    pub async fn new(name: &str) -> Self {
        let installed = operator::GATE.read().await;
        operator::install().await;
        Self::make(name, Some(installed)).await
    }

    /// The same without the installed operator, which the caller keeps away.
    pub async fn alone(name: &str) -> Self {
        Self::make(name, None).await
    }

    async fn make(name: &str, installed: Option<RwLockReadGuard<'static, ()>>) -> Self {
        let is_new = TAKEN.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned());
        assert!(is_new, "two tests have a place of the name {name}: each would remove the other's");
        let client = client().await;
        let (namespace, database) = (name.to_owned(), name.replace('-', "_"));
        // The operator that would let an earlier run's Release go may be kept away.
        let stale: Api<Release> = Api::namespaced(client.clone(), &namespace);
        for release in stale.list(&kube::api::ListParams::default()).await.map(|list| list.items).unwrap_or_default() {
            let patch = Patch::Merge(json!({"metadata": {"finalizers": null}}));
            let _ = stale.patch(release.metadata.name.as_deref().unwrap_or_default(), &PatchParams::default(), &patch).await;
        }
        kubectl(&["delete", "namespace", &namespace, "--ignore-not-found", "--wait"]);
        for beside in column(format!(
            "SELECT schema_name FROM information_schema.schemata WHERE schema_name LIKE '{}\\_backout\\_%'",
            database.replace('_', "\\_")
        ))
        .await
        {
            execute(format!("DROP DATABASE {beside}")).await;
        }
        execute(format!(
            "DROP DATABASE IF EXISTS {database}; CREATE DATABASE {database} CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci; \
             CREATE OR REPLACE USER '{database}'@'%' IDENTIFIED BY '{PASSWORD}'; \
             GRANT ALL ON `{database}`.* TO '{database}'@'%'; GRANT ALL ON `{0}\\_backout\\_%`.* TO '{database}'@'%'",
            database.replace('_', "\\_")
        ))
        .await;
        let place = Self { installed, stays: false, client, namespace, database, repository: Repository::new(name) };
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": place.namespace}});
        let namespaces: Api<Namespace> = Api::all(place.client.clone());
        namespaces.patch(&place.namespace, &PatchParams::apply("test"), &Patch::Apply(&object)).await.expect("a namespace can be made");
        let ca = std::fs::read_to_string(variable("BED_CA")).expect("the bed has a CA");
        place
            .secret("git-auth", json!({"username": variable("BED_GIT_USER"), "password": variable("BED_GIT_PASSWORD"), "ca.crt": ca}))
            .await;
        place.secret("liqui-db", json!({"username": place.database, "password": PASSWORD, "ca.crt": ca})).await;
        place.secret("redis", json!({"password": variable("BED_REDIS_PASSWORD"), "ca.crt": ca})).await;
        // What the application itself needs, as environment variables.
        place
            .secret(
                "liqui-app",
                json!({"DB_USER": place.database, "DB_PASSWORD": PASSWORD, "REDIS_PASSWORD": variable("BED_REDIS_PASSWORD")}),
            )
            .await;
        let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/liqui/deploy");
        kubectl(&["-n", &place.namespace, "apply", "-f", &deploy.display().to_string()]);
        place
    }

    /// It is still there when the test is over, for people to look at.
    pub fn stay(&mut self) {
        self.stays = true;
    }

    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub async fn secret(&self, name: &str, data: Value) {
        self.apply::<Secret>(name, json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data})).await;
    }

    pub async fn apply<K>(&self, name: &str, object: Value)
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope> + Clone + std::fmt::Debug + DeserializeOwned + Serialize,
    {
        let params = PatchParams::apply("test").force();
        self.api::<K>().patch(name, &params, &Patch::Apply(&object)).await.unwrap_or_else(|error| panic!("{name}: {error}"));
    }

    /// The spec that the story runs with; tests change parts of it.
    pub fn spec(&self) -> Value {
        json!({
            "interval": "1s",
            "retryInterval": "1s",
            "source": {"git": {
                "url": self.repository.tls_url(),
                "ref": {"branch": "main"},
                "path": "liqui-api",
                "secretRef": {"name": "git-auth"},
            }},
            "target": {"kubernetes": {"workloads": [{"kind": "Deployment", "name": NAME, "container": "api"}]}},
            "database": {"mysql": {"host": "mariadb.bed", "name": self.database, "credentials": {"secretRef": {"name": "liqui-db"}}}},
            "cache": {
                "redis": {"host": "redis.bed", "port": 6380, "credentials": {"secretRef": {"name": "redis"}}},
                "flush": {"prefix": "liqui:"},
            },
            "verify": {
                "timeout": "5s",
                "checks": [
                    {"name": "health", "http": {
                        "url": format!("http://{NAME}.{}/health", self.namespace),
                        "maxLatency": "2s",
                        "expect": "body.status == 'ok'",
                    }},
                    {"name": "rows", "sql": {"query": "SELECT COUNT(*) AS n FROM binance_liqs", "expect": "row.n >= 0"}},
                    {"name": "cache", "redis": {"ping": true}},
                ],
                "bake": {"for": "2s", "every": "500ms", "failureThreshold": 2},
            },
        })
    }

    /// Creates the Release; the API server's own refusals come back as they are.
    pub async fn create(&self, spec: Value) -> Result<(), kube::Error> {
        self.create_as(NAME, spec).await
    }

    /// The same under another name.
    pub async fn create_as(&self, name: &str, spec: Value) -> Result<(), kube::Error> {
        let object = json!({
            "apiVersion": "backout.dev/v1alpha1",
            "kind": "Release",
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": spec,
        });
        let object: DynamicObject = serde_json::from_value(object).expect("a Release is an object");
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &self.namespace, &ApiResource::erase::<Release>(&()));
        api.create(&PostParams::default(), &object).await.map(drop)
    }

    /// Changes parts of the spec; null removes.
    pub async fn edit(&self, spec: Value) {
        let patch = Patch::Merge(json!({"spec": spec}));
        self.api::<Release>().patch(NAME, &PatchParams::default(), &patch).await.expect("the Release can be edited");
    }

    /// Waits until the status is as wanted; fails with what it is, and the operator's events.
    pub async fn until(&self, what: &str, deadline: Duration, wanted: impl Fn(&ReleaseStatus) -> bool) -> ReleaseStatus {
        self.until_of(NAME, what, deadline, wanted).await
    }

    /// The same for a Release of another name.
    pub async fn until_of(&self, name: &str, what: &str, deadline: Duration, wanted: impl Fn(&ReleaseStatus) -> bool) -> ReleaseStatus {
        let condition = |release: Option<&Release>| release.and_then(|release| release.status.as_ref()).is_some_and(&wanted);
        let found = match timeout(deadline, await_condition(self.api::<Release>(), name, condition)).await {
            Ok(found) => found.expect("Releases can be watched"),
            Err(_) => None,
        };
        found.and_then(|release| release.status).unwrap_or_else(|| {
            panic!(
                "waited {} s in vain until {what}\n{}\n{}",
                deadline.as_secs(),
                kubectl(&["-n", &self.namespace, "describe", "release", name]),
                kubectl(&["-n", &self.namespace, "get", "pods", "-o", "wide"])
            )
        })
    }

    /// Waits until an operation asks for approval, and gives it with kubectl, as its message says. Returns that status.
    pub async fn approve(&self, deadline: Duration) -> ReleaseStatus {
        let status = self.until("approval is asked for", deadline, not_ready("AwaitingApproval")).await;
        let (_, _, message) = condition(&status, "Ready").expect("Ready is set");
        let (_, command) = message.rsplit_once("approve with: kubectl ").expect("the message says how to approve");
        kubectl(&command.split(' ').collect::<Vec<_>>());
        status
    }

    /// Address of the application's Service, from inside the bed.
    pub async fn service(&self) -> String {
        let service = self.api::<Service>().get(NAME).await.expect("the Service is there");
        format!("http://{}", service.spec.and_then(|spec| spec.cluster_ip).expect("a Service has an address"))
    }

    /// Image of the application's container, and where `variable` comes from.
    pub async fn deployment(&self) -> Deployment {
        self.api::<Deployment>().get(NAME).await.expect("the Deployment is there")
    }

    /// Writes only `release.yaml`: the image and the configuration of a version, with this CACHE_TTL_SECONDS.
    pub fn write_manifest(&self, version: &str, ttl: u32) {
        self.repository.write(
            "liqui-api/release.yaml",
            &format!(
                "version: {version}\nimages:\n  api: docker.io/liqui/liqui:{version}\nconfig:\n  DB_HOST: mariadb.bed\n  DB_PORT: \"3306\"\n  \
                 DB_DATABASE: {}\n  REDIS_HOST: redis.bed\n  REDIS_PORT: \"6379\"\n  CACHE_TTL_SECONDS: \"{ttl}\"\n  CACHE_TTL_SYMBOLS: \"60\"\n  \
                 QUERY_TIMEOUT_SECONDS: \"5\"\n  LONG_QUERY_TIMEOUT_SECONDS: \"20\"\nsecrets: [liqui-app]\nmigrations: migrations\n",
                self.database
            ),
        );
    }

    /// Adds a migration whose second statement fails to what the caller pushes.
    pub fn write_half_migration(&self) {
        let up = "CREATE TABLE half_way (id INT PRIMARY KEY);\nALTER TABLE absent ADD COLUMN x INT;\n";
        self.repository.write("liqui-api/migrations/0009_half.up.sql", up);
    }

    /// Writes version `version` of the sample application into the repository; the caller pushes.
    pub fn write_release(&self, version: &str) {
        let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/liqui");
        let (newest, ttl) = match version {
            "1.0.0" => (1, 300),
            "1.1.0" => (6, 600),
            "1.2.0" | "1.2.1" => (7, 600),
            other => panic!("there is no version {other} of the sample application"),
        };
        self.write_manifest(version, ttl);
        self.repository.remove("liqui-api/migrations");
        let fixed = version == "1.2.1";
        for folder in ["migrations", "migrations-1.2.1"] {
            for entry in std::fs::read_dir(files.join(folder)).expect("the sample application has migrations") {
                let path = entry.expect("folders can be listed").path();
                let file = path.file_name().and_then(|name| name.to_str()).expect("migrations have plain names").to_owned();
                let number: u32 = file.get(..4).and_then(|number| number.parse().ok()).expect("migrations begin with a number");
                // The fixed version replaces the last migration by its own.
                let replaced = number == 7 && fixed != (folder == "migrations-1.2.1");
                if number <= newest && !replaced {
                    self.repository.copy(&path, &format!("liqui-api/migrations/{file}"));
                }
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.stays {
            return;
        }
        let here = |arguments: &[&str]| attempt(&[&["-n", &self.namespace], arguments].concat());
        let cleared = if std::thread::panicking() {
            // What went wrong can be looked at, but works on nothing any more.
            let suspend = |release: &str| here(&["patch", release, "--type", "merge", "-p", r#"{"spec":{"suspend":true}}"#]);
            here(&["get", "releases", "-o", "name"]).and_then(|names| names.lines().map(suspend).collect())
        } else {
            // The installed operator frees what the Release holds; of a test with one of its own it does so when it is back.
            let freed = if self.installed.is_some() { here(&["delete", "releases", "--all", "--timeout=30s"]) } else { Ok(String::new()) };
            freed.and_then(|_| attempt(&["delete", "namespace", &self.namespace, "--wait=false"]))
        };
        if let Err(error) = cleared {
            eprintln!("{} is not cleared away: {error}", self.namespace);
        }
    }
}

/// Status, reason and message of a condition.
pub fn condition<'a>(status: &'a ReleaseStatus, type_: &str) -> Option<(&'a str, &'a str, &'a str)> {
    let found = status.conditions.iter().find(|condition| condition.type_ == type_)?;
    Some((&found.status, &found.reason, &found.message))
}

/// Ready is True, for this version.
pub fn ready(version: &str) -> impl Fn(&ReleaseStatus) -> bool {
    move |status| status.version.as_deref() == Some(version) && condition(status, "Ready").is_some_and(|(ready, _, _)| ready == "True")
}

/// Ready is False, for this reason.
pub fn not_ready(reason: &str) -> impl Fn(&ReleaseStatus) -> bool {
    move |status| condition(status, "Ready").is_some_and(|(ready, why, _)| ready == "False" && why == reason)
}

/// The newest history entry of a version.
pub fn entry<'a>(status: &'a ReleaseStatus, version: &str) -> &'a HistoryEntry {
    status.history.iter().find(|entry| entry.version == version).unwrap_or_else(|| panic!("history has no {version}"))
}
