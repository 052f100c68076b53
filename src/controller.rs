//! The wiring: watches and timers in, one step out.
//!
//! Each reconcile goes observe → plan → record → execute → record, at most one step of it, for one Release. Several Releases
//! run beside each other; one Release never beside itself.

use std::{
    convert::Infallible,
    fmt::Debug,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{FutureExt, Stream, StreamExt, future::BoxFuture};
use jiff::{RoundMode, Timestamp, TimestampRound, Unit};
use k8s_openapi::{
    api::apps::v1::{ControllerRevision, Deployment},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, Client, Resource, ResourceExt,
    core::DeserializeGuard,
    runtime::{
        Controller, WatchStreamExt,
        controller::Action,
        reflector::{self, ObjectRef, Store},
        utils::Backoff,
        watcher,
    },
};
use serde::de::DeserializeOwned;
use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::CancellationToken;

use crate::{
    access::Access,
    api::{BackupPoint, Release, names},
    cli::Settings,
    cluster::{self, within},
    error::Class,
    execute::{Full, Hands},
    lease::{self, Election, Identity, Leadership, Terms},
    observe::{Eyes, GitError, git::Limits},
    plan::{
        self, Decision,
        input::{PointSeen, Seen, World},
        journal::Outcome,
        pace::{self, Pace},
    },
    record::{self, Pen},
    stores::Stores,
    telemetry::{self, Metrics, Readiness},
    webhook,
};

/// How long running reconciles may go on after a signal to stop. What is cut off goes on after the next start.
const DRAIN: Duration = Duration::from_secs(20);
/// How long open requests for probes, metrics and webhooks may go on after that.
const FAREWELL: Duration = Duration::from_secs(5);
/// Pause after a reconcile that failed on something that may pass.
const PAUSE_AFTER_ERROR: Duration = Duration::from_secs(5);
/// Somebody else wrote first: the watch has the newer object in a moment.
const PAUSE_AFTER_CONFLICT: Duration = Duration::from_millis(100);

/// Pause between two looks at how far a step has come. Much shorter than that between two writes, so that a new part is noticed.
const LISTEN_EVERY: Duration = Duration::from_millis(500);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Cluster(#[from] cluster::Error),
    #[error(transparent)]
    Record(#[from] record::Error),
    #[error("no connection to a cluster: {0}")]
    NoCluster(String),
    #[error(transparent)]
    Git(#[from] GitError),
    #[error("HTTP client: {0}")]
    Http(#[from] reqwest::Error),
    #[error(transparent)]
    Lease(#[from] lease::Error),
    #[error("serving {what} on {address}: {source}")]
    Serve { what: &'static str, address: SocketAddr, source: std::io::Error },
    #[error("another TLS provider is installed already")]
    Tls,
    #[error("the system gives no random numbers")]
    NoRandomness,
    #[error("a part of the operator stopped: {0}")]
    Stopped(String),
}

impl Error {
    fn class(&self) -> Class {
        match self {
            Self::Cluster(error) => error.class(),
            Self::Record(error) => error.class(),
            Self::NoCluster(_) | Self::Serve { .. } => Class::Transient,
            Self::Git(_) | Self::Http(_) | Self::Lease(_) | Self::Tls | Self::NoRandomness | Self::Stopped(_) => Class::Permanent,
        }
    }
}

struct Context {
    client: Client,
    eyes: Eyes,
    hands: Hands,
    pen: Pen,
    metrics: Metrics,
    leadership: Leadership,
}

/// Runs the operator until SIGTERM or SIGINT, or until another has taken its place.
///
/// A standby fills the same watch caches as the leader and does nothing with them: taking over then costs no listing, and its
/// `/readyz` tells the truth. An error ends the process at once: what still runs must not outlive it.
pub async fn run(settings: Settings) -> Result<(), Error> {
    rustls::crypto::ring::default_provider().install_default().map_err(|_| Error::Tls)?;
    let client = Client::try_default().await.map_err(|error| Error::NoCluster(error.to_string()))?;
    let (metrics, readiness, stop) = (Metrics::default(), Readiness::default(), CancellationToken::new());
    let probes = bind("probes and metrics", settings.listen).await?;
    let messages = bind("webhooks", settings.webhook_listen).await?;
    let Candidacy { leadership, election, release } = stand(&settings, &client)?;

    let (deployments, deployment_events) = cached::<Deployment>(&client, watcher::Config::default());
    let ours = watcher::Config::default().labels(&format!("{}={}", names::MANAGED_BY.0, names::MANAGED_BY.1));
    let (revisions, revision_events) = cached::<ControllerRevision>(&client, ours.clone());
    let (points, point_events) = cached::<BackupPoint>(&client, ours);

    let controller = Controller::new(Api::<DeserializeGuard<Release>>::all(client.clone()), watcher::Config::default());
    let releases = controller.store();
    let access = Access::new(client.clone(), Stores::new(settings.backups(), settings.own_stores.clone()));
    let pen = Pen::new(client.clone(), metrics.clone(), leadership.clone());
    let context = Arc::new(Context {
        eyes: Eyes::new(
            releases.clone(),
            deployments.clone(),
            revisions.clone(),
            points.clone(),
            access.clone(),
            settings.mirrors(),
            Limits { repository: settings.max_repository, ..Limits::default() },
        )?,
        hands: Hands::new(client.clone(), access.clone(), pen.clone(), leadership.clone())?,
        client: client.clone(),
        pen,
        metrics: metrics.clone(),
        leadership: leadership.clone(),
    });

    let by_workload = {
        let releases = releases.clone();
        move |deployment: Deployment| using(&releases, &deployment)
    };
    let gained = {
        let (leadership, metrics) = (leadership.clone(), metrics.clone());
        // What came while this process stood by was passed over: everything is looked at once it leads.
        futures::stream::once(async move {
            leadership.gained().await;
            metrics.leader(true);
        })
    };
    let controller = controller
        .with_config(kube::runtime::controller::Config::default().concurrency(settings.concurrency))
        .trigger_backoff(WatchBackoff::default())
        .watches_stream(deployment_events, by_workload)
        .watches_stream(revision_events, |object| owner(&object))
        .watches_stream(point_events, |object| owner(&object))
        .reconcile_all_on(gained)
        .graceful_shutdown_on(signalled(stop.clone()))
        .run(reconcile, on_error, Arc::clone(&context))
        .for_each(|result| async move {
            if let Err(kube::runtime::controller::Error::QueueError(error)) = result {
                tracing::warn!(%error, "a watch failed; it is started again");
            }
        });

    tracing::info!(data = %settings.data.display(), "backout {} started", env!("CARGO_PKG_VERSION"));
    let webhooks = webhook::router(client, releases.clone(), access, metrics.clone());
    let primed = async {
        let (releases, deployments, revisions, points) = tokio::join!(
            releases.wait_until_ready(),
            deployments.wait_until_ready(),
            revisions.wait_until_ready(),
            points.wait_until_ready()
        );
        if releases.is_ok() && deployments.is_ok() && revisions.is_ok() && points.is_ok() {
            readiness.set();
        }
        futures::future::pending::<Infallible>().await
    };
    let overdue = async {
        stop.cancelled().await;
        tokio::time::sleep(DRAIN).await;
    };
    // Until the last reconcile has ended: a pod that drains is alive, and is watched.
    let farewell = CancellationToken::new();
    let mut served = tokio::spawn({
        let (metrics, readiness, farewell) = (metrics.clone(), readiness.clone(), farewell.clone());
        let broken = |what, address| move |source| Error::Serve { what, address, source };
        let (listen, webhook_listen) = (settings.listen, settings.webhook_listen);
        async move {
            tokio::try_join!(
                async {
                    telemetry::serve(probes, metrics, readiness, farewell.clone()).await.map_err(broken("probes and metrics", listen))
                },
                async { webhook::serve(messages, webhooks, farewell.clone()).await.map_err(broken("webhooks", webhook_listen)) },
            )
            .map(drop)
        }
    });
    let mut elected = tokio::spawn(election);
    tokio::select! {
        // What has to end at once comes first.
        biased;
        result = &mut elected => return joined(result),
        result = &mut served => return joined(result),
        () = controller => tracing::info!("stopped"),
        () = overdue => tracing::warn!("a reconcile did not end within {} s; it goes on after the next start", DRAIN.as_secs()),
        never = primed => match never {},
    }
    // No reconcile is left: they ended, or were dropped with the controller. Only now may another replica begin.
    release.cancel();
    farewell.cancel();
    joined(elected.await)?;
    match tokio::time::timeout(FAREWELL, served).await {
        Ok(result) => joined(result),
        Err(_) => Ok(()),
    }
}

/// Opened before anything else, so that a port that is taken ends the process at once.
async fn bind(what: &'static str, address: SocketAddr) -> Result<TcpListener, Error> {
    let listener = TcpListener::bind(address).await.map_err(|source| Error::Serve { what, address, source })?;
    tracing::info!(address = ?listener.local_addr().ok(), "serving {what}");
    Ok(listener)
}

/// A place in the election.
struct Candidacy {
    leadership: Leadership,
    /// Has to run as long as the operator does.
    election: BoxFuture<'static, Result<(), lease::Error>>,
    /// Gives leadership back.
    release: CancellationToken,
}

fn stand(settings: &Settings, client: &Client) -> Result<Candidacy, Error> {
    let release = CancellationToken::new();
    if !settings.leader_elect {
        return Ok(Candidacy { leadership: Leadership::alone(), election: release.clone().cancelled_owned().map(Ok).boxed(), release });
    }
    let terms = Terms::new(settings.lease_duration.0, settings.lease_renew_deadline.0, settings.lease_retry.0)?;
    let mut suffix = [0; 8];
    rustls::crypto::ring::default_provider().secure_random.fill(&mut suffix).map_err(|_| Error::NoRandomness)?;
    let namespace = settings.pod_namespace.as_deref().unwrap_or(client.default_namespace());
    let me = Identity::new(settings.pod_name.clone(), &hex::encode(suffix));
    let election = Election::new(Api::namespaced(client.clone(), namespace), me, terms);
    Ok(Candidacy { leadership: election.leadership(), election: election.run(release.clone()).boxed(), release })
}

/// What a task came to.
fn joined<E: Into<Error>>(result: Result<Result<(), E>, tokio::task::JoinError>) -> Result<(), Error> {
    match result {
        Ok(result) => result.map_err(Into::into),
        Err(stopped) => Err(Error::Stopped(stopped.to_string())),
    }
}

/// Pauses before a watch that failed is started again, doubled each time. kube's own grow to a minute, also for failures
/// that lie apart, and until then nothing is seen of what happens after the API server is back.
struct WatchBackoff(Duration);

const FIRST_WATCH_PAUSE: Duration = Duration::from_millis(500);
/// A few requests in this time are no load on an API server that struggles.
const LONGEST_WATCH_PAUSE: Duration = Duration::from_secs(4);

impl Default for WatchBackoff {
    fn default() -> Self {
        Self(FIRST_WATCH_PAUSE)
    }
}

impl Iterator for WatchBackoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let pause = self.0;
        self.0 = (pause * 2).min(LONGEST_WATCH_PAUSE);
        Some(pause)
    }
}

impl Backoff for WatchBackoff {
    fn reset(&mut self) {
        *self = Self::default();
    }
}

/// A watch cache, and the stream that fills it.
fn cached<K>(client: &Client, config: watcher::Config) -> (Store<K>, impl Stream<Item = Result<K, watcher::Error>> + Send + 'static)
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let (store, writer) = reflector::store();
    let stream = watcher(Api::<K>::all(client.clone()), config)
        .backoff(WatchBackoff::default())
        .modify(|object| {
            // The largest part of most objects, and never looked at.
            object.meta_mut().managed_fields = None;
        })
        .reflect(writer)
        .touched_objects();
    (store, stream)
}

/// Releases that name a Deployment as their target.
fn using(releases: &Store<DeserializeGuard<Release>>, deployment: &Deployment) -> Vec<ObjectRef<DeserializeGuard<Release>>> {
    let (namespace, name) = (deployment.namespace(), deployment.name_any());
    releases
        .state()
        .iter()
        .filter(|release| release.meta().namespace == namespace)
        .filter(|release| {
            release.0.as_ref().is_ok_and(|release| release.spec.target.kubernetes.workloads.iter().any(|workload| workload.name == name))
        })
        .map(|release| ObjectRef::from_obj(release.as_ref()))
        .collect()
}

/// The Release that an object of ours belongs to.
fn owner(object: &impl ResourceExt) -> Option<ObjectRef<DeserializeGuard<Release>>> {
    let name = object.labels().get(names::RELEASE_LABEL)?;
    Some(ObjectRef::new(name).within(&object.namespace()?))
}

async fn signalled(stop: CancellationToken) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) else {
        // Without handlers the default action ends the process.
        return futures::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping: what runs is finished, nothing new is begun");
    stop.cancel();
}

async fn reconcile(release: Arc<DeserializeGuard<Release>>, context: Arc<Context>) -> Result<Action, Error> {
    if !context.leadership.holds() {
        return Ok(Action::await_change());
    }
    let begun = Instant::now();
    let result = match &release.0 {
        Ok(release) => Box::pin(one_step(release, &context)).await,
        Err(invalid) => unreadable(&invalid.metadata, &invalid.error, &context).await,
    };
    context.metrics.reconcile(if result.is_ok() { "ok" } else { "error" }, begun.elapsed());
    result
}

/// At most one step.
async fn one_step(cached: &Release, context: &Context) -> Result<Action, Error> {
    if cached.metadata.deletion_timestamp.is_some() && !is_held(cached) {
        context.metrics.forget(&cached.namespace().unwrap_or_default(), &cached.name_any());
        return Ok(Action::await_change());
    }
    let release = newest(cached, context).await?;
    let Some(release) = release else { return Ok(Action::await_change()) };
    if !context.eyes.primed().await {
        return Ok(Action::requeue(PAUSE_AFTER_ERROR));
    }
    let now = now();
    let mut world = context.eyes.observe(&release, now).await;
    tell_of_points(&world, context);
    let mut decision = plan::decide(&world);
    if decision == Decision::LookAtDatabase {
        world.database = Some(context.eyes.database(&release).await);
        decision = plan::decide(&world);
    }
    if let Decision::Begin(_) = decision {
        // A watch cache may still show the replicas of a fence that is down, or not yet the newest backup point.
        context.eyes.afresh(&context.client, &release, &mut world).await?;
        decision = plan::decide(&world);
    }
    let revision = match &world.desired {
        Seen::Known(desired) => Some(desired.revision.clone()),
        Seen::Unknown(_) => None,
    };
    let pen = &context.pen;
    let release = match (&revision, &decision) {
        // What is told writes that down together with its verdict.
        (_, Decision::Rest { .. } | Decision::Tell { .. }) | (None, _) => release,
        (Some(_), _) => pen.looked(release, now).await?,
    };
    match decision {
        // Asked for twice: the answer was there, so there is nothing more to see.
        Decision::LookAtDatabase => Ok(Action::requeue(PAUSE_AFTER_ERROR)),
        Decision::Rest { verdict, again } => {
            pen.observed(&release, &verdict, revision, now).await?;
            Ok(Action::requeue(again))
        }
        Decision::Tell { verdict } => {
            pen.observed(&release, &verdict, revision, now).await?;
            Ok(Action::requeue(PAUSE_AFTER_CONFLICT))
        }
        Decision::Reset { token } => {
            pen.reset(&release, token, now).await?;
            Ok(Action::requeue(PAUSE_AFTER_CONFLICT))
        }
        Decision::Begin(_) if !is_held(&release) => {
            pen.hold(&release).await?;
            Ok(Action::requeue(PAUSE_AFTER_CONFLICT))
        }
        Decision::Begin(operation) => {
            pen.begin_operation(&release, *operation, now).await?;
            Ok(Action::requeue(PAUSE_AFTER_CONFLICT))
        }
        Decision::Grant { step, approval } => {
            pen.grant(&release, step, approval, now).await?;
            Ok(Action::requeue(PAUSE_AFTER_CONFLICT))
        }
        Decision::Refuse { request, message } => {
            pen.refuse(&release, request, message, now).await?;
            Ok(Action::requeue(PAUSE_AFTER_CONFLICT))
        }
        Decision::Farewell => {
            pen.farewell(&release).await?;
            Ok(Action::await_change())
        }
        Decision::Contain { workloads } => {
            pen.contain(&release, workloads, now).await?;
            Ok(Action::requeue(PAUSE_AFTER_CONFLICT))
        }
        Decision::Close(end) => {
            pen.close(&release, end, now).await?;
            Ok(Action::requeue(PAUSE_AFTER_CONFLICT))
        }
        Decision::Run { step } => {
            let desired = match &world.desired {
                Seen::Known(desired) => Some(desired),
                Seen::Unknown(_) => None,
            };
            Box::pin(run_step(release, step, desired, context, now)).await
        }
    }
}

fn tell_of_points(world: &World, context: &Context) {
    let points = world.own_points();
    let newest = points.last().and_then(|(_, point)| point.taken_at);
    let passed =
        |point: &PointSeen| point.rehearsed.as_ref().filter(|rehearsed| rehearsed.has_passed()).and_then(|rehearsed| rehearsed.took);
    let restore = points.iter().rev().find_map(|(_, point)| passed(point)).map(|took| took.0);
    context.metrics.points(&world.namespace, &world.name, newest, restore);
}

/// Intent before effect: the step runs only once the API server has its Started entry.
async fn run_step(
    release: Release,
    index: usize,
    desired: Option<&plan::input::Desired>,
    context: &Context,
    now: Timestamp,
) -> Result<Action, Error> {
    let recorded = |release: &Release| {
        release.status.as_ref().and_then(|status| status.operation.as_ref()).and_then(|operation| operation.steps.get(index)).cloned()
    };
    let planned = recorded(&release);
    let place = match planned.as_ref().map_or(Ok(None), |step| context.hands.place(&release, step)) {
        Ok(place) => place,
        Err(Full { message, again }) => {
            context.pen.queue(&release, index, message, now).await?;
            return Ok(Action::requeue(again));
        }
    };
    let begun = match planned {
        // Begun before and not told to try again: it goes on under the entry that is there.
        Some(step) if step.state == crate::api::operation::StepState::Started && step.retry_at.is_none() => release,
        Some(_) | None => context.pen.begin(&release, index, now).await?,
    };
    let Some(step) = recorded(&begun) else { return Ok(Action::requeue(PAUSE_AFTER_CONFLICT)) };
    // Writing the intent took time, in which a frozen process may have been replaced.
    if !context.leadership.holds() {
        return Ok(Action::requeue(PAUSE_AFTER_ERROR));
    }
    let (listener, heard) = watch::channel(None);
    let over = CancellationToken::new();
    let run = async {
        let outcome = context.hands.run(&begun, &step, place, desired, now, &listener).await;
        over.cancel();
        outcome
    };
    let (outcome, written) = tokio::join!(run, tell(&begun, index, heard, &over, context));
    context.pen.finish(&written, index, &outcome, self::now()).await?;
    Ok(match outcome {
        Outcome::Waiting { again, .. } => Action::requeue(again),
        Outcome::Done { .. }
        | Outcome::Retry { .. }
        | Outcome::Refused { .. }
        | Outcome::Failed { .. }
        | Outcome::Measured { .. }
        | Outcome::Unapproved { .. } => Action::requeue(PAUSE_AFTER_CONFLICT),
    })
}

/// Writes down how far a step has come until it is over; gives back the Release as it was written last. The step waits for none of this:
/// at most its end waits for a write that is under way. After one that is refused there are no more: somebody else wrote, or nobody
/// can, and what follows from that is found out when the step's end is written.
async fn tell(
    begun: &Release,
    index: usize,
    mut heard: watch::Receiver<Option<pace::Seen>>,
    over: &CancellationToken,
    context: &Context,
) -> Release {
    let (mut written, mut pace) = (begun.clone(), Pace::new(now()));
    loop {
        tokio::select! {
            biased;
            () = over.cancelled() => return written,
            () = tokio::time::sleep(LISTEN_EVERY) => {}
        }
        let Some(seen) = *heard.borrow_and_update() else { continue };
        let Some(progress) = pace.tell(seen, now()) else { continue };
        if !context.leadership.holds() {
            continue;
        }
        match context.pen.progress(&written, index, progress, now()).await {
            Ok(release) => written = release,
            Err(error) => {
                tracing::debug!(release = begun.name_any(), %error, "how far a step has come is not told any more");
                over.cancelled().await;
                return written;
            }
        }
    }
}

fn is_held(release: &Release) -> bool {
    release.finalizers().iter().any(|name| name == names::FINALIZER)
}

/// While an operation runs, what the watch cache has may be older than what was written last, and a step must not be run
/// again because of that: the object is read afresh.
async fn newest(cached: &Release, context: &Context) -> Result<Option<Release>, Error> {
    let running = cached
        .status
        .as_ref()
        .and_then(|status| status.operation.as_ref())
        .is_some_and(|operation| operation.state == crate::api::operation::OperationState::Running);
    if !running {
        return Ok(Some(cached.clone()));
    }
    let name = cached.name_any();
    let api: Api<Release> = Api::namespaced(context.client.clone(), &cached.namespace().unwrap_or_default());
    Ok(within(format!("reading Release {name}"), api.get_opt(&name)).await?)
}

async fn unreadable(metadata: &ObjectMeta, error: &str, context: &Context) -> Result<Action, Error> {
    tracing::warn!(namespace = metadata.namespace, release = metadata.name, error, "a Release can't be read");
    if metadata.deletion_timestamp.is_some() {
        context.pen.abandon(metadata, error).await?;
    } else {
        context.pen.unreadable(metadata, error, now()).await?;
    }
    Ok(Action::await_change())
}

fn on_error(release: Arc<DeserializeGuard<Release>>, error: &Error, _: Arc<Context>) -> Action {
    match error.class() {
        Class::Conflict => Action::requeue(PAUSE_AFTER_CONFLICT),
        Class::Transient | Class::Permanent => {
            tracing::warn!(namespace = release.namespace(), release = release.name_any(), %error, "reconcile failed; it is tried again");
            Action::requeue(PAUSE_AFTER_ERROR)
        }
    }
}

/// The clock, read once for each decision and write. Milliseconds are what people can use in a status.
fn now() -> Timestamp {
    let now = Timestamp::now();
    now.round(TimestampRound::new().smallest(Unit::Millisecond).mode(RoundMode::Trunc)).unwrap_or(now)
}
