//! A push that the git server tells of is deployed at once, and nobody else can make the operator look.

use std::{collections::BTreeSet, time::Duration};

use backout::api::{Release, names};
use hmac::{Hmac, KeyInit, Mac};
use k8s_openapi::api::core::v1::Service;
use kube::{Api, ResourceExt};
use serde_json::json;
use sha2::Sha256;

use crate::support::place::{NAME, Place, ready};

const PATIENCE: Duration = Duration::from_secs(60);
const TOKEN: &str = "only-for-this-test";
const PUSH: &str = r#"{"ref":"refs/heads/main"}"#;

struct Server {
    base: String,
    http: reqwest::Client,
}

impl Server {
    async fn new(place: &Place) -> Self {
        let services: Api<Service> = Api::namespaced(place.client.clone(), "backout-system");
        let service = services.get("backout").await.expect("the operator has a Service");
        let address = service.spec.and_then(|spec| spec.cluster_ip).expect("a Service has an address");
        let http = reqwest::Client::builder().no_proxy().build().expect("an HTTP client can be made");
        Self { base: format!("http://{address}:9292/webhook"), http }
    }

    /// A message as GitHub sends it; returns status and body of the answer.
    async fn tells(&self, path: &str, event: &str, token: &str, body: &str) -> (u16, String) {
        let mut hmac = Hmac::<Sha256>::new_from_slice(token.as_bytes()).expect("any key will do");
        hmac.update(body.as_bytes());
        let signature = format!("sha256={}", hex::encode(hmac.finalize().into_bytes()));
        let request = self.http.post(format!("{}/{path}", self.base)).header("x-github-event", event);
        let answer = request.header("x-hub-signature-256", signature).body(body.to_owned()).send().await.expect("the operator answers");
        (answer.status().as_u16(), answer.text().await.unwrap_or_default())
    }
}

async fn requested(place: &Place) -> Option<String> {
    let release = place.api::<Release>().get(NAME).await.expect("the Release is there");
    release.annotations().get(names::REQUESTED_AT).cloned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_is_deployed_when_the_git_server_tells_of_it_and_not_before() {
    let place = Place::new("webhooks").await;
    place.secret("hook", json!({"token": TOKEN})).await;
    let mut spec = place.spec();
    spec["interval"] = json!("1h");
    spec["source"]["git"]["webhook"] = json!({"secretRef": {"name": "hook"}});
    place.write_release("1.0.0");
    place.repository.push("liqui 1.0.0");
    place.create(spec).await.expect("the Release is accepted");
    place.until("1.0.0 is ready", PATIENCE, ready("1.0.0")).await;
    place.write_release("1.1.0");
    place.repository.push("liqui 1.1.0");

    let server = Server::new(&place).await;
    let (path, other) = (format!("webhooks/{NAME}"), format!("webhooks/{NAME}-other"));
    let refused = server.tells(&path, "push", "wrong", PUSH).await;
    assert_eq!(refused.0, 401);
    assert_eq!(server.tells(&other, "push", TOKEN, PUSH).await, refused, "a Release that is not there looks the same");
    assert_eq!(server.tells(&path, "ping", TOKEN, r#"{"zen":"x"}"#).await.0, 202);
    assert_eq!(server.tells(&path, "push", TOKEN, r#"{"ref":"refs/heads/other"}"#).await.0, 202);
    assert_eq!(server.tells(&path, "push", TOKEN, &" ".repeat(2 * 1024 * 1024)).await.0, 413);
    let read = server.http.get(format!("{}/{path}", server.base)).send().await.expect("the operator answers");
    assert_eq!(read.status().as_u16(), 405);
    // Connections end after a time, and a message that is sent on one just then would be lost.
    assert_eq!(read.headers().get("connection").and_then(|value| value.to_str().ok()), Some("close"));
    assert_eq!(requested(&place).await, None, "none of these is a reason to look");

    assert_eq!(server.tells(&path, "push", TOKEN, PUSH).await.0, 202);
    place.until("1.1.0 is ready", PATIENCE, ready("1.1.0")).await;

    // A flood is a look a second and replica, however many there are.
    let mut tokens = BTreeSet::new();
    let watching = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(20));
        loop {
            ticks.tick().await;
            tokens.extend(requested(&place).await);
        }
    };
    let flood = futures::future::join_all((0..100).map(|_| server.tells(&path, "push", TOKEN, PUSH)));
    let answers = tokio::select! {
        answers = flood => answers,
        () = watching => Vec::new(),
    };
    assert!(answers.iter().all(|(status, _)| matches!(status, 202 | 429)), "{answers:?}");
    assert!(answers.iter().any(|(status, _)| *status == 202));
    assert!(tokens.len() <= 10, "{} looks were asked for", tokens.len());
    println!("100 messages asked for {} looks", tokens.len());
}
