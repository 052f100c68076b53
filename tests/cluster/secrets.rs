//! No secret reaches anything that somebody else may read: each Secret that a Release names holds a word that occurs nowhere
//! else, and after a deploy, a failure with its rollback and wrong credentials of every kind, that word is looked for in all
//! that the operator left behind.

use std::{fs, path::Path, time::Duration};

use backout::api::{BackupPoint, Release, status::ReleaseStatus};
use base64::{Engine, engine::general_purpose::STANDARD};
use k8s_openapi::api::{
    apps::v1::{ControllerRevision, Deployment},
    core::v1::{ConfigMap, Pod},
    events::v1::Event,
};
use kube::{Api, Resource, api::ListParams};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;

use crate::support::{
    bed::{column, eventually, execute, variable},
    operator,
    place::{NAME, Place, condition, not_ready, ready},
    process::Process,
};

const PATIENCE: Duration = Duration::from_secs(60);

/// What must be found nowhere.
struct Marker {
    what: &'static str,
    word: &'static str,
}

const DATABASE: Marker = Marker { what: "the database password", word: "marker/db+61c0" };
const APPLICATION: Marker = Marker { what: "an application's secret value", word: "marker/app+8f2e" };
const WEBHOOK: Marker = Marker { what: "the webhook token", word: "marker/hook+2d77" };
const WRONG_GIT: Marker = Marker { what: "a wrong git password", word: "marker/git+90ab" };
const WRONG_DATABASE: Marker = Marker { what: "a wrong database password", word: "marker/db+wrong+4c" };
const WRONG_REDIS: Marker = Marker { what: "a wrong Redis password", word: "marker/redis+77e1" };
const URL: Marker = Marker { what: "a password in the git URL", word: "marker-url-55d0" };
const KEY: Marker = Marker { what: "a TLS key", word: "MARKERKEYb1946ac92492d2347c6235b4d2611184" };
const IDENTITY: Marker = Marker { what: "an SSH identity", word: "marker-identity-b3e1" };
const PASSPHRASE: Marker = Marker { what: "its passphrase", word: "marker/phrase+1c9a" };
const SIGNERS: Marker = Marker { what: "a comment among the allowed signers", word: "marker-signers-e60d" };
const CHECK: Marker = Marker { what: "a token in a check's URL", word: "marker-check-3f9d" };

impl Marker {
    /// The word as it is, URL-encoded, and in base64 at each of the three places where it may begin.
    fn spellings(&self) -> Vec<String> {
        let encoded: String = url::form_urlencoded::byte_serialize(self.word.as_bytes()).collect();
        let mut spellings = vec![self.word.to_owned(), encoded, hex::encode(self.word)];
        for shift in 0..3 {
            let text = STANDARD.encode([&vec![b' '; shift][..], self.word.as_bytes()].concat());
            // The first and last characters depend on the neighbours.
            spellings.push(text[4..text.len() - 4].to_owned());
        }
        spellings
    }
}

/// All that was found, by where it was.
#[derive(Default)]
struct Heap(Vec<(String, Vec<u8>)>);

impl Heap {
    fn add(&mut self, place: impl Into<String>, text: impl Into<Vec<u8>>) {
        self.0.push((place.into(), text.into()));
    }

    async fn objects<K>(&mut self, place: &Place)
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope> + Clone + std::fmt::Debug + DeserializeOwned + Serialize,
    {
        let api: Api<K> = place.api();
        let found = api.list(&ListParams::default()).await.expect("objects can be listed");
        assert!(!found.items.is_empty(), "there is a {}", K::kind(&()));
        for object in found.items {
            let name = object.meta().name.clone().unwrap_or_default();
            self.add(format!("{} {name}", K::kind(&())), serde_json::to_vec(&object).expect("an object is JSON"));
        }
    }

    /// Every file of a backup store, unpacked where it is packed.
    fn files(&mut self, folder: &Path) {
        for entry in fs::read_dir(folder).expect("the store can be read") {
            let path = entry.expect("the store can be read").path();
            if path.is_dir() {
                self.files(&path);
            } else {
                let bytes = fs::read(&path).expect("the store can be read");
                let unpacked = zstd::stream::decode_all(&bytes[..]).unwrap_or_default();
                self.add(path.display().to_string(), [bytes, unpacked].concat());
            }
        }
    }

    fn places_of(&self, text: &str) -> Vec<&str> {
        let holds = |bytes: &[u8]| bytes.windows(text.len()).any(|part| part == text.as_bytes());
        self.0.iter().filter(|(_, bytes)| holds(bytes)).map(|(place, _)| place.as_str()).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_found_in_anything_that_the_operator_leaves_behind() {
    let _away = operator::keep_away().await;
    let place = Place::alone("secretive").await;
    let backups = tempfile::tempdir().expect("a temporary folder can be made");
    let folder = backups.path().display().to_string();
    let arguments = ["--leader-elect", "false", "--backups", &folder, "--log", "debug"];
    let operator = Process::start(&place, &arguments).await;

    let ca = fs::read_to_string(variable("BED_CA")).expect("the bed has a CA");
    let database = json!({"username": place.database, "password": DATABASE.word, "ca.crt": ca, "tls.key": KEY.word});
    execute(format!("ALTER USER '{}'@'%' IDENTIFIED BY '{}'", place.database, DATABASE.word)).await;
    place.secret("liqui-db", database.clone()).await;
    place.secret("hook", json!({"token": WEBHOOK.word})).await;
    // What the application itself holds, one key of it secret and used by nobody.
    place
        .secret(
            "liqui-app",
            json!({
                "DB_USER": place.database, "DB_PASSWORD": DATABASE.word, "REDIS_PASSWORD": variable("BED_REDIS_PASSWORD"),
                "API_KEY": APPLICATION.word,
            }),
        )
        .await;
    let mut spec = place.spec();
    spec["source"]["git"]["webhook"] = json!({"secretRef": {"name": "hook"}});
    // The operator runs on the node, where the cluster's names are not known.
    spec["database"]["mysql"]["host"] = json!(variable("BED_MYSQL_HOST"));
    spec["database"]["backup"] = json!({"store": {"url": format!("file://{folder}")}});
    spec["cache"]["redis"]["host"] = json!(variable("BED_REDIS_HOST"));
    spec["verify"]["checks"][0]["http"]["url"] = json!(format!("{}/health", place.service().await));
    spec["verify"]["bake"] = json!(null);
    let right = spec["source"]["git"]["url"].clone();

    // Two Releases that never come to anything: a login by SSH, and a signature.
    place
        .secret("ssh-auth", json!({"identity": IDENTITY.word, "password": PASSPHRASE.word, "known_hosts": "git.example ssh-rsa AAAA"}))
        .await;
    place.secret("signers", json!({"allowed_signers": format!("somebody@example.com ssh-ed25519 AAAA {}", SIGNERS.word)})).await;
    let mut by_ssh = spec.clone();
    by_ssh["target"]["kubernetes"]["workloads"][0]["name"] = json!("none");
    let mut signed = by_ssh.clone();
    by_ssh["source"]["git"]["url"] = json!(format!("ssh://git@{}:9/liqui.git", variable("BED_NODE_IP")));
    by_ssh["source"]["git"]["secretRef"] = json!({"name": "ssh-auth"});
    signed["target"]["kubernetes"]["workloads"][0]["name"] = json!("neither");
    signed["source"]["git"]["verify"] = json!({"mode": "HEAD", "secretRef": {"name": "signers"}});

    // A deploy, a failing one with its rollback.
    place.write_release("1.0.0");
    place.repository.push("liqui 1.0.0");
    place.create(spec).await.expect("the Release is accepted");
    place.until("1.0.0 is ready", PATIENCE, ready("1.0.0")).await;
    execute(format!(
        "INSERT INTO {0}.binance_liqs (symbol, side, price, original_quantity, usd_size, order_trade_time) VALUES ('BTCUSDT', 'BUY', 1, 1, 1, 1)",
        place.database
    ))
    .await;
    place.write_release("1.1.0");
    place.repository.push("liqui 1.1.0");
    place.until("1.1.0 is ready", PATIENCE, ready("1.1.0")).await;
    place.write_release("1.2.0");
    place.repository.push("liqui 1.2.0");
    place.approve(PATIENCE).await;
    place.until("1.2.0 is rolled back", PATIENCE, not_ready("RolledBack")).await;

    for (name, spec) in [("by-ssh", by_ssh), ("signed", signed)] {
        place.create_as(name, spec).await.expect("the Release is accepted");
        let says = |status: &ReleaseStatus| {
            condition(status, "Ready").is_some_and(|(ready, reason, _)| ready == "False" && is_of_the_source(reason))
        };
        place.until_of(name, "its source is refused", PATIENCE, says).await;
    }

    // Wrong credentials of every kind, each until the Release says so.
    let refused = async |what: &str, reasons: &[&str]| {
        place
            .until(what, PATIENCE, |status| {
                condition(status, "Ready").is_some_and(|(ready, reason, _)| ready == "False" && reasons.contains(&reason))
            })
            .await;
    };
    let git = json!({"username": variable("BED_GIT_USER"), "password": variable("BED_GIT_PASSWORD"), "ca.crt": ca});
    place.secret("git-auth", json!({"username": "backout", "password": WRONG_GIT.word, "ca.crt": ca})).await;
    refused("git refuses the password", &["SourceAccessDenied"]).await;
    place.secret("git-auth", git).await;
    refused("git answers again", &["RolledBack", "Quarantined"]).await;
    let with_password = right.as_str().unwrap_or_default().replace("https://", &format!("https://somebody:{}@", URL.word));
    place.edit(json!({"source": {"git": {"url": with_password}}})).await;
    refused("a password in the URL is refused", &["SourceAccessDenied", "InvalidSpec"]).await;
    place.edit(json!({"source": {"git": {"url": right}}})).await;
    place.write_release("1.2.1");
    place.secret("liqui-db", json!({"username": place.database, "password": WRONG_DATABASE.word, "ca.crt": ca})).await;
    place.repository.push("liqui 1.2.1");
    refused("the database refuses the password", &["DatabaseUnavailable", "PreflightFailed"]).await;
    place.secret("liqui-db", database).await;
    place.until("1.2.1 is ready", PATIENCE, ready("1.2.1")).await;
    place.secret("redis", json!({"password": WRONG_REDIS.word, "ca.crt": ca})).await;
    place
        .edit(json!({"verify": {"timeout": "2s", "checks": [
        {"name": "cache", "redis": {"ping": true}},
        {"name": "away", "http": {"url": format!("http://{}:9/?token={}", variable("BED_NODE_IP"), CHECK.word)}},
    ]}, "rollback": {"automatic": false}}))
        .await;
    place.repository.write("liqui-api/release.yaml", &release_with_another_value(&place));
    place.repository.push("another value");
    refused("the checks fail", &["RollbackDisabled", "RolledBack", "RollbackFailed"]).await;
    let hook = format!("http://{}/webhook/secretive/{NAME}", operator.listening("webhooks").await);
    for token in [WEBHOOK.word, "wrong"] {
        reqwest::Client::new().post(&hook).header("x-gitlab-token", token).send().await.expect("the operator answers");
    }
    eventually("the hint is taken", PATIENCE, async || operator.log().contains("a git server tells of a push").then_some(())).await;

    let metrics = format!("http://{}/metrics", operator.listening("probes and metrics").await);
    let mut heap = Heap::default();
    heap.add("/metrics", reqwest::get(metrics).await.expect("metrics are served").bytes().await.expect("metrics are served"));
    heap.add("the log", operator.log());
    heap.objects::<BackupPoint>(&place).await;
    heap.objects::<ConfigMap>(&place).await;
    heap.objects::<ControllerRevision>(&place).await;
    heap.objects::<Deployment>(&place).await;
    heap.objects::<Event>(&place).await;
    heap.objects::<Pod>(&place).await;
    for release in place.api::<Release>().list(&ListParams::default()).await.expect("Releases can be listed") {
        // Not the spec: what a user writes into it is the user's.
        heap.add("a Release's status", serde_json::to_vec(&release.status).expect("a status is JSON"));
    }
    heap.files(backups.path());
    let beside = format!(
        "SELECT CONCAT_WS(' ', table_schema, table_name, table_comment) FROM information_schema.tables WHERE table_schema LIKE '{}%'",
        place.database
    );
    heap.add("the names in the database", column(beside).await.join("\n"));

    // The search finds what is there.
    for (text, place) in [
        ("backout_webhooks_total", "/metrics"),
        ("backout_newest_backup_point_timestamp_seconds{", "/metrics"),
        ("tells of a push", "the log"),
        ("BTCUSDT", &folder),
        ("API_KEY", "ControllerRevision"),
    ] {
        assert!(heap.places_of(text).iter().any(|found| found.starts_with(place)), "{text} is in {place}");
    }
    for marker in [DATABASE, APPLICATION, WEBHOOK, WRONG_GIT, WRONG_DATABASE, WRONG_REDIS, URL, KEY, IDENTITY, PASSPHRASE, SIGNERS, CHECK] {
        for spelling in marker.spellings() {
            assert_eq!(heap.places_of(&spelling), Vec::<&str>::new(), "{} is found, as {spelling}", marker.what);
        }
    }
    for (what, word) in [("git", variable("BED_GIT_PASSWORD")), ("Redis", variable("BED_REDIS_PASSWORD"))] {
        assert_eq!(heap.places_of(&word), Vec::<&str>::new(), "the right {what} password is found");
    }
}

/// Reasons that begin otherwise say something else of it.
fn is_of_the_source(reason: &str) -> bool {
    reason.starts_with("Source") || reason == "SecretNotFound"
}

/// The release that is in git, with one value changed.
fn release_with_another_value(place: &Place) -> String {
    format!(
        "version: 1.2.2\nimages:\n  api: docker.io/liqui/liqui:1.2.1\nconfig:\n  DB_HOST: mariadb.bed\n  DB_PORT: \"3306\"\n  DB_DATABASE: {}\n  \
         REDIS_HOST: redis.bed\n  REDIS_PORT: \"6379\"\n  CACHE_TTL_SECONDS: \"601\"\n  CACHE_TTL_SYMBOLS: \"60\"\n  \
         QUERY_TIMEOUT_SECONDS: \"5\"\n  LONG_QUERY_TIMEOUT_SECONDS: \"20\"\nsecrets: [liqui-app]\nmigrations: migrations\n",
        place.database
    )
}
