//! `POST /webhook/<namespace>/<name>`: a git server says that it has something new. All that follows is a hint, a new
//! `backout.dev/requestedAt` token on the Release, so that the reconciler looks at git now. What it finds there decides, never
//! what the message says.
//!
//! Any replica takes messages, since the hint travels through the API server. Repeating one is safe: it is another look.

mod authentic;
mod listen;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header::CONNECTION},
    middleware::map_response,
    response::{IntoResponse, Response},
    routing::post,
};
use futures::StreamExt;
use jiff::Timestamp;
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams},
    core::DeserializeGuard,
    runtime::reflector::{ObjectRef, Store},
};
use serde_json::json;
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep_until, timeout},
};

use authentic::{authentic, concerns};
pub use listen::serve;

use crate::{
    access::{self, Access},
    api::{Release, names, release::GitSource},
    cluster::within,
    secret::Sensitive,
    telemetry::Metrics,
};

/// A push to a large repository is some 100 KiB; GitHub's largest is 25 MiB, of which nothing here needs more than `ref`.
const LARGEST_BODY: usize = 1024 * 1024;
/// So much of a larger one is read all the same, and thrown away: who is cut off while sending never sees the answer, and finds
/// the connection dead at the next message.
const MOST_DISCARDED: usize = 32 * LARGEST_BODY;
/// From the first byte of the body to the answer. Git servers give up after ten seconds.
const DEADLINE: Duration = Duration::from_secs(10);
/// Pause between two hints to one Release: pushes that come faster share a look.
const PAUSE: Duration = Duration::from_secs(1);
/// Messages of one Release that may wait for the next hint. More are refused: the look that comes is theirs too.
const WAITING: usize = 16;
/// How long a token that was read from a Secret is used: strangers must not make the operator read Secrets as fast as they ask.
const TOKEN_KEPT: Duration = Duration::from_secs(2);

/// What the endpoint needs. Clones share it.
#[derive(Clone)]
pub struct Webhooks(Arc<Inner>);

struct Inner {
    client: Client,
    releases: Store<DeserializeGuard<Release>>,
    access: Access,
    metrics: Metrics,
    /// One for each Release that was asked for and is there.
    doors: Mutex<HashMap<(String, String), Arc<Door>>>,
}

/// What is remembered of one Release.
struct Door {
    token: tokio::sync::Mutex<Option<(Instant, Option<Sensitive>)>>,
    waiting: Semaphore,
    hinted: tokio::sync::Mutex<Option<Instant>>,
}

impl Default for Door {
    fn default() -> Self {
        Self { token: tokio::sync::Mutex::default(), waiting: Semaphore::new(WAITING), hinted: tokio::sync::Mutex::default() }
    }
}

/// How a message is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Accepted,
    /// It has nothing to say about what the Release follows.
    Ignored,
    Unauthorized,
    TooMany,
    Unavailable,
}

impl Answer {
    fn label(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Ignored => "ignored",
            Self::Unauthorized => "unauthorized",
            Self::TooMany => "too_many",
            Self::Unavailable => "unavailable",
        }
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        match self {
            Self::Accepted => (StatusCode::ACCEPTED, "accepted\n"),
            Self::Ignored => (StatusCode::ACCEPTED, "accepted; it does not concern this Release\n"),
            // One answer for everything that may be wrong: it tells nobody which Releases there are.
            Self::Unauthorized => (StatusCode::UNAUTHORIZED, "no such Release, or the message is not signed with its token\n"),
            Self::TooMany => (StatusCode::TOO_MANY_REQUESTS, "a look at git is on its way already\n"),
            Self::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "try again\n"),
        }
        .into_response()
    }
}

/// The endpoint. Each message has a connection to itself: one that was kept would come to the end of its time, and with it whatever is
/// being sent on it then. `releases` is the controller's watch cache.
pub fn router(client: Client, releases: Store<DeserializeGuard<Release>>, access: Access, metrics: Metrics) -> Router {
    let inner = Inner { client, releases, access, metrics, doors: Mutex::default() };
    let router = Router::new().route("/webhook/{namespace}/{name}", post(receive)).with_state(Webhooks(Arc::new(inner)));
    router.layer(map_response(|response: Response| async { ([(CONNECTION, "close")], response) }))
}

async fn receive(
    State(webhooks): State<Webhooks>,
    Path((namespace, name)): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let metrics = webhooks.0.metrics.clone();
    let work = async {
        match read(body).await {
            Ok(body) => {
                let answer = webhooks.answer(&namespace, &name, &headers, &body).await;
                metrics.webhook(answer.label());
                answer.into_response()
            }
            Err(refusal) => {
                metrics.webhook("unreadable");
                refusal.into_response()
            }
        }
    };
    timeout(DEADLINE, work).await.unwrap_or_else(|_| {
        metrics.webhook("timed_out");
        StatusCode::REQUEST_TIMEOUT.into_response()
    })
}

/// The whole body, or how it is refused.
async fn read(body: Body) -> Result<Vec<u8>, StatusCode> {
    let (mut kept, mut seen) = (Vec::new(), 0);
    let mut portions = body.into_data_stream();
    while let Some(portion) = portions.next().await {
        let portion = portion.map_err(|_| StatusCode::BAD_REQUEST)?;
        seen += portion.len();
        if seen <= LARGEST_BODY {
            kept.extend_from_slice(&portion);
        } else {
            kept = Vec::new();
        }
        if seen > MOST_DISCARDED {
            break;
        }
    }
    if seen > LARGEST_BODY { Err(StatusCode::PAYLOAD_TOO_LARGE) } else { Ok(kept) }
}

impl Webhooks {
    async fn answer(&self, namespace: &str, name: &str, headers: &HeaderMap, body: &[u8]) -> Answer {
        let Some(source) = self.source(namespace, name) else {
            tracing::debug!(namespace, release = name, "a message to no Release with spec.source.git.webhook was refused");
            return Answer::Unauthorized;
        };
        let door = self.door(namespace, name);
        match self.token(&door, namespace, &source).await {
            Err(error) => {
                tracing::warn!(namespace, release = name, %error, "a message could not be judged");
                return Answer::Unavailable;
            }
            Ok(Some(token)) if authentic(token.reveal(), headers, body, Timestamp::now()) => {}
            Ok(_) => {
                tracing::debug!(namespace, release = name, "a message that is not signed with the token was refused");
                return Answer::Unauthorized;
            }
        }
        if !concerns(&source.reference, headers, body) {
            return Answer::Ignored;
        }
        let Ok(_place) = door.waiting.try_acquire() else { return Answer::TooMany };
        self.hint(&door, namespace, name).await
    }

    /// The source of a Release that takes messages.
    fn source(&self, namespace: &str, name: &str) -> Option<GitSource> {
        let release = self.0.releases.get(&ObjectRef::new(name).within(namespace))?;
        let source = release.0.as_ref().ok()?.spec.source.as_ref()?.git.clone();
        source.webhook.is_some().then_some(source)
    }

    fn door(&self, namespace: &str, name: &str) -> Arc<Door> {
        let mut doors = self.0.doors.lock().unwrap_or_else(PoisonError::into_inner);
        // Releases come and go: what is not in use and of none that is there is forgotten.
        if doors.len() > 2 * self.0.releases.len() + 16 {
            doors.retain(|(namespace, name), door| {
                Arc::strong_count(door) > 1 || self.0.releases.get(&ObjectRef::new(name).within(namespace)).is_some()
            });
        }
        Arc::clone(doors.entry((namespace.to_owned(), name.to_owned())).or_default())
    }

    /// The Release's token; none where its Secret has none, which is the same to strangers as a wrong one.
    async fn token(&self, door: &Door, namespace: &str, source: &GitSource) -> Result<Option<Sensitive>, access::Error> {
        let Some(webhook) = &source.webhook else { return Ok(None) };
        let mut kept = door.token.lock().await;
        if let Some((read, token)) = kept.as_ref()
            && read.elapsed() < TOKEN_KEPT
        {
            return Ok(token.clone());
        }
        let token = match self.0.access.webhook(namespace, &webhook.secret_ref).await {
            Ok(token) => Some(token),
            Err(error @ access::Error::Cluster(_)) => return Err(error),
            Err(error) => {
                tracing::warn!(namespace, %error, "spec.source.git.webhook can't be used");
                None
            }
        };
        *kept = Some((Instant::now(), token.clone()));
        Ok(token)
    }

    /// Sees to it that a look begins after this message came. Messages that come while one waits for its turn share its hint.
    async fn hint(&self, door: &Door, namespace: &str, name: &str) -> Answer {
        let arrived = Instant::now();
        let mut hinted = door.hinted.lock().await;
        match *hinted {
            Some(at) if at > arrived => return Answer::Accepted,
            Some(at) => sleep_until(at + PAUSE).await,
            None => {}
        }
        let begun = Instant::now();
        let patch = json!({"metadata": {"annotations": {names::REQUESTED_AT: Timestamp::now().to_string()}}});
        let api: Api<Release> = Api::namespaced(self.0.client.clone(), namespace);
        let params = PatchParams { field_manager: Some(names::MANAGER.to_owned()), ..PatchParams::default() };
        match within(format!("annotating Release {name}"), api.patch_metadata(name, &params, &Patch::Merge(&patch))).await {
            Ok(written) => {
                *hinted = Some(begun);
                tracing::info!(namespace, release = written.name_any(), "a git server tells of a push");
                Answer::Accepted
            }
            Err(error) => {
                tracing::warn!(namespace, release = name, %error, "a hint to look at git was lost");
                Answer::Unavailable
            }
        }
    }
}
