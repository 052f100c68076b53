//! The sample application: a small API over the table `binance_liqs`, cached in Redis. Backout takes its
//! releases back in the demo and in the integration tests.
//!
//! It starts and serves whatever is missing around it: the configuration, the database and Redis are
//! reported by `/health`, never by an exit, so that a faulty release shows its fault through the API.
//! It owns no schema: the migrations beside it do, and its queries name only columns of the first one,
//! so every version runs on every schema.

mod cache;
mod config;
mod db;
mod error;
mod health;
mod http;
mod row;

use std::{
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
    sync::oneshot,
    time::{sleep, timeout},
};
use tracing_subscriber::EnvFilter;

use crate::{cache::Cache, config::Config, db::Database};

/// After SIGTERM new connections are still taken for this long, until every node has dropped the pod from
/// its service. Shorter, and clients are refused during a rollout.
const DRAIN: Duration = Duration::from_secs(1);

/// What requests in flight get after the drain. Together with [`DRAIN`] and [`CLOSE`] it stays below 5 s,
/// far inside the grace period of the Deployment.
const GRACE: Duration = Duration::from_secs(3);

/// How long the database connections may take to say goodbye.
const CLOSE: Duration = Duration::from_millis(500);

/// What makes one version different from another; fixed when its binary is built.
#[derive(Clone, Copy, Debug)]
pub struct Build {
    /// The version told by `/health` and in the header `x-liqui-version`.
    pub version: &'static str,
    pub fault: Fault,
}

/// The mistake a version was released with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    /// `/health` answers 500; the rest of the API works.
    HealthFails,
}

/// Everything a request may use.
struct App {
    build: Build,
    config: Config,
    database: Option<Database>,
    cache: Cache,
    draining: AtomicBool,
}

/// Runs this version until SIGTERM or SIGINT. Fails only when it cannot listen at all.
pub fn serve(build: Build) -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,sqlx=warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).init();

    let outcome =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|error| format!("no runtime: {error}")).and_then(
            |runtime| {
                let served = runtime.block_on(run(build));
                // A task stuck in the network must not outlive the grace period.
                runtime.shutdown_background();
                served
            },
        );
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "cannot serve");
            ExitCode::FAILURE
        }
    }
}

async fn run(build: Build) -> Result<(), String> {
    let config = Config::read(|name| std::env::var(name).ok());
    for problem in &config.problems {
        tracing::warn!(%problem, "configuration");
    }
    let mut terminate = signal(SignalKind::terminate()).map_err(|e| format!("no SIGTERM: {e}"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|e| format!("no SIGINT: {e}"))?;

    let listen = config.listen;
    let listener = TcpListener::bind(listen).await.map_err(|error| format!("cannot listen on {listen}: {error}"))?;
    let app = Arc::new(App {
        build,
        database: config.database.as_ref().map(Database::lazy),
        cache: Cache::lazy(&config.redis),
        config,
        draining: AtomicBool::new(false),
    });
    tracing::info!(version = build.version, %listen, "serving");

    let (drained, told) = oneshot::channel();
    let draining = Arc::clone(&app);
    let shutdown = async move {
        first(&mut terminate, &mut interrupt).await;
        tracing::info!("draining");
        draining.draining.store(true, Ordering::Relaxed);
        sleep(DRAIN).await;
        // Nobody listens any more only when serving has already ended.
        let _ = drained.send(());
    };
    let server = axum::serve(listener, http::router(Arc::clone(&app))).with_graceful_shutdown(shutdown);
    tokio::select! {
        served = server => served.map_err(|error| format!("serving ended: {error}"))?,
        () = grace_is_over(told) => tracing::warn!("requests were still in flight at the end of the grace"),
    }
    if let Some(database) = &app.database
        && timeout(CLOSE, database.close()).await.is_err()
    {
        tracing::warn!("database connections did not close in time");
    }
    tracing::info!("stopped");
    Ok(())
}

async fn first(one: &mut Signal, other: &mut Signal) {
    tokio::select! {
        _ = one.recv() => {}
        _ = other.recv() => {}
    }
}

async fn grace_is_over(drained: oneshot::Receiver<()>) {
    match drained.await {
        Ok(()) => sleep(GRACE).await,
        // The sender lives as long as the server: the server's own branch ends the select.
        Err(_) => std::future::pending().await,
    }
}
