//! Logs, metrics and probes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{Router, http::StatusCode, routing::get};
use jiff::{SignedDuration, Timestamp};
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use crate::cli::LogFormat;

/// Seconds, from a status write to a restore of a large database.
const BUCKETS: [f64; 14] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3_600.0];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct StepLabels {
    step: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OperationLabels {
    kind: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ReleaseLabels {
    namespace: String,
    name: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ReconcileLabels {
    result: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct WebhookLabels {
    result: &'static str,
}

/// What is counted and timed. Label values are fixed words, besides namespace and name.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    reconciles: Family<ReconcileLabels, Histogram>,
    steps: Family<StepLabels, Histogram>,
    operations: Family<OperationLabels, Histogram>,
    ready: Family<ReleaseLabels, Gauge>,
    newest_point: Family<ReleaseLabels, Gauge>,
    restore: Family<ReleaseLabels, Gauge<f64, AtomicU64>>,
    webhooks: Family<WebhookLabels, Counter>,
    leader: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        let histogram = || Histogram::new(BUCKETS);
        let mut registry = Registry::with_prefix("backout");
        let reconciles = Family::new_with_constructor(histogram as fn() -> Histogram);
        let steps = Family::new_with_constructor(histogram as fn() -> Histogram);
        let operations = Family::new_with_constructor(histogram as fn() -> Histogram);
        let ready = Family::default();
        registry.register_with_unit("reconcile_duration", "Time of one reconcile", Unit::Seconds, reconciles.clone());
        registry.register_with_unit("step_duration", "Time from the start of a step to its end", Unit::Seconds, steps.clone());
        registry.register_with_unit(
            "operation_duration",
            "Time from the start of an operation to its end",
            Unit::Seconds,
            operations.clone(),
        );
        registry.register("release_ready", "1 while the Release is Ready", ready.clone());
        let newest_point = Family::default();
        registry.register_with_unit(
            "newest_backup_point_timestamp",
            "Unix time at which the newest complete backup point was taken",
            Unit::Seconds,
            newest_point.clone(),
        );
        let restore = Family::default();
        registry.register_with_unit(
            "predicted_restore_duration",
            "How long loading and comparing took at the last rehearsal that passed",
            Unit::Seconds,
            restore.clone(),
        );
        let webhooks = Family::default();
        registry.register("webhooks", "Requests to /webhook by how they were answered", webhooks.clone());
        let leader = Gauge::default();
        registry.register("leader", "1 while this process is the one that works", leader.clone());
        Self { registry: Arc::new(registry), reconciles, steps, operations, ready, newest_point, restore, webhooks, leader }
    }
}

impl Metrics {
    pub fn reconcile(&self, result: &'static str, took: Duration) {
        self.reconciles.get_or_create(&ReconcileLabels { result }).observe(took.as_secs_f64());
    }

    pub fn step(&self, step: &'static str, result: &'static str, took: SignedDuration) {
        self.steps.get_or_create(&StepLabels { step, result }).observe(took.as_secs_f64());
    }

    pub fn operation(&self, kind: &'static str, result: &'static str, took: SignedDuration) {
        self.operations.get_or_create(&OperationLabels { kind, result }).observe(took.as_secs_f64());
    }

    pub fn ready(&self, namespace: &str, name: &str, ready: bool) {
        self.ready.get_or_create(&labels(namespace, name)).set(i64::from(ready));
    }

    /// What is known of a Release's backup points; without any there is no series.
    pub fn points(&self, namespace: &str, name: &str, newest: Option<Timestamp>, restore: Option<Duration>) {
        let labels = labels(namespace, name);
        match newest {
            Some(newest) => {
                self.newest_point.get_or_create(&labels).set(newest.as_second());
            }
            None => {
                self.newest_point.remove(&labels);
            }
        }
        match restore {
            Some(restore) => {
                self.restore.get_or_create(&labels).set(restore.as_secs_f64());
            }
            None => {
                self.restore.remove(&labels);
            }
        }
    }

    pub fn webhook(&self, result: &'static str) {
        self.webhooks.get_or_create(&WebhookLabels { result }).inc();
    }

    pub fn leader(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }

    /// A Release is gone: so is its series.
    pub fn forget(&self, namespace: &str, name: &str) {
        self.ready.remove(&labels(namespace, name));
        self.points(namespace, name, None, None);
    }

    fn render(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

fn labels(namespace: &str, name: &str) -> ReleaseLabels {
    ReleaseLabels { namespace: namespace.to_owned(), name: name.to_owned() }
}

/// Whether the watch caches are primed: before that nothing may be decided. A standby is ready as soon as a leader is: what it
/// is ready for is taking over, and a rollout waits for it.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<AtomicBool>);

impl Readiness {
    pub fn set(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn get(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Starts logging to standard error. `filter` is in the syntax of `RUST_LOG`.
pub fn log(format: LogFormat, filter: &str) -> Result<(), String> {
    let filter = EnvFilter::try_new(filter).map_err(|error| format!("{filter:?} is no log filter: {error}"))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    }
    .map_err(|error| error.to_string())
}

/// Serves `/livez`, `/readyz` and `/metrics` until `stop`.
pub async fn serve(listener: TcpListener, metrics: Metrics, readiness: Readiness, stop: CancellationToken) -> std::io::Result<()> {
    let app = Router::new()
        .route("/livez", get(|| async { "ok" }))
        .route(
            "/readyz",
            get(move || async move {
                if readiness.get() { (StatusCode::OK, "ok") } else { (StatusCode::SERVICE_UNAVAILABLE, "watch caches are not primed") }
            }),
        )
        .route("/metrics", get(move || async move { metrics.render().map_err(|_| StatusCode::INTERNAL_SERVER_ERROR) }));
    axum::serve(listener, app).with_graceful_shutdown(stop.cancelled_owned()).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_of_backup_points_goes_with_them() {
        let metrics = Metrics::default();
        let told =
            || metrics.render().expect("it can be written").lines().filter(|line| line.contains("shop")).map(str::to_owned).collect();
        metrics.points("shops", "shop", Timestamp::from_second(1_700_000_000).ok(), Some(Duration::from_millis(2500)));
        let lines: Vec<String> = told();
        assert_eq!(
            lines,
            [
                r#"backout_newest_backup_point_timestamp_seconds{namespace="shops",name="shop"} 1700000000"#,
                r#"backout_predicted_restore_duration_seconds{namespace="shops",name="shop"} 2.5"#,
            ]
        );
        metrics.forget("shops", "shop");
        let lines: Vec<String> = told();
        assert_eq!(lines, Vec::<String>::new());
    }
}
