//! Clients of the sample application: two writers and two readers that send requests all the time and keep
//! account of every answer, so that a test can say what a release, a rollback or a cut-over cost them.
//!
//! Each client sends one request at a time over a fresh connection: a connection kept to a pod that is gone
//! would measure the client and not the service. A write counts as acknowledged only when its id was read.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use reqwest::{Client, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use tokio::{task::JoinHandle, time};
use tokio_util::sync::CancellationToken;

/// Pace of one client. Faster, and four of them take the core that the pods under test need.
const PACE: Duration = Duration::from_millis(50);

/// A request without an answer after this time has failed.
const PATIENCE: Duration = Duration::from_secs(5);

/// Failures of one act kept in words; the rest is only counted.
const REASONS: usize = 5;

/// Running clients. Dropped without [`Clients::stop`] they are cut in the middle of a request.
#[must_use = "dropping the clients ends them"]
pub struct Clients {
    log: Arc<Mutex<Log>>,
    end: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

/// A marked stretch of time; [`Act::finish`] tells how it went.
#[must_use = "an act tells nothing before it is finished"]
pub struct Act {
    log: Arc<Mutex<Log>>,
    start: Instant,
}

/// How an act went for all clients together. A request belongs to the act in which it ended.
#[derive(Clone, Debug)]
pub struct ActReport {
    pub requests: usize,
    /// Requests without a 2xx answer.
    pub failed: usize,
    /// Longest time within the act in which no request of any client was answered with success.
    pub longest_gap: Duration,
    /// Ids of the rows acknowledged in this act.
    pub acknowledged: Vec<u64>,
    /// The first few failures in words.
    pub reasons: Vec<String>,
}

impl Clients {
    /// Starts two writers and two readers against `base_url`, for example `http://127.0.0.1:8080`.
    /// Needs a running tokio runtime; fails when the HTTP client cannot be made.
    pub fn start(base_url: &str) -> Result<Self, reqwest::Error> {
        // It fails when another test has installed the provider before, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = Client::builder().timeout(PATIENCE).no_proxy();
        let http = http.pool_max_idle_per_host(0).build()?;
        let (log, end) = (Arc::default(), CancellationToken::new());
        let base = format!("{}/api", base_url.trim_end_matches('/'));
        let roles: [Role; 4] = [write, write, read, read];
        let mut first = time::Instant::now();
        let tasks = roles.map(|role| {
            // One after the other, so that together they see a gap shorter than the pace of one.
            first += PACE / 4;
            let (http, base, log) = (http.clone(), base.clone(), Arc::clone(&log));
            let request = move |turn| role(&http, &base, turn);
            tokio::spawn(work(first, request, log, end.clone()))
        });
        let tasks = tasks.into();
        Ok(Self { log, end, tasks })
    }

    /// Marks the start of an act. Acts may overlap.
    pub fn act(&self) -> Act {
        let (log, start) = (Arc::clone(&self.log), Instant::now());
        Act { log, start }
    }

    /// Id of every row acknowledged so far, oldest first.
    pub fn acknowledged(&self) -> Vec<u64> {
        lock(&self.log).iter().filter_map(Answer::ack).collect()
    }

    /// Ends all clients. Waits for the requests in flight, at most five seconds, so that every commit that
    /// was acknowledged is in the account.
    pub async fn stop(mut self) {
        self.end.cancel();
        for task in self.tasks.drain(..) {
            task.await.expect("a client does not panic");
        }
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Act {
    /// Ends the act and accounts for it.
    pub fn finish(self) -> ActReport {
        // The clock is read under the lock: an answer is then either in the account or after the act.
        let log = lock(&self.log);
        report(&log, self.start, Instant::now())
    }
}

/// Makes the request of a turn.
type Role = fn(&Client, &str, usize) -> RequestBuilder;

/// Answers in the order in which they came.
type Log = Vec<Answer>;

struct Answer {
    at: Instant,
    /// The id of a written row, nothing for a read, or why the request failed.
    outcome: Result<Option<u64>, String>,
}

impl Answer {
    fn ack(&self) -> Option<u64> {
        self.outcome.clone().ok().flatten()
    }
}

async fn work(first: time::Instant, request: impl Fn(usize) -> RequestBuilder, log: Arc<Mutex<Log>>, end: CancellationToken) {
    let mut pace = time::interval_at(first, PACE);
    pace.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    for turn in 0.. {
        tokio::select! {
            () = end.cancelled() => return,
            _ = pace.tick() => {}
        }
        let outcome = send(request(turn)).await;
        let mut log = lock(&log);
        let at = Instant::now();
        log.push(Answer { at, outcome });
    }
}

fn write(http: &Client, base: &str, turn: usize) -> RequestBuilder {
    let row = json!({
        "symbol": if turn.is_multiple_of(3) { "ETHUSDT" } else { "BTCUSDT" },
        "side": if turn.is_multiple_of(2) { "SELL" } else { "BUY" },
        "price": "65000.5",
        "original_quantity": "0.25",
        "usd_size": "16250.125",
        "order_trade_time": now(),
    });
    http.post(format!("{base}/liquidations")).body(row.to_string())
}

fn read(http: &Client, base: &str, turn: usize) -> RequestBuilder {
    if turn.is_multiple_of(2) {
        return http.get(format!("{base}/symbols"));
    }
    // Whole minutes, so that most answers come from the cache, as they do for real clients.
    let end = now().next_multiple_of(60_000);
    let start = end.saturating_sub(3_600_000);
    let range = format!("start_timestamp={start}&end_timestamp={end}");
    http.get(format!("{base}/liquidations?symbol=BTCUSDT&timeframe=1m&{range}"))
}

async fn send(request: RequestBuilder) -> Result<Option<u64>, String> {
    let response = request.send().await.map_err(|error| format!("{error:?}"))?;
    let (status, body) = (response.status(), response.text().await);
    let body = body.map_err(|error| format!("{status}: {error:?}"))?;
    if !status.is_success() {
        return Err(format!("{status}: {body}"));
    }
    if status != StatusCode::CREATED {
        return Ok(None);
    }
    let answer: Option<Value> = serde_json::from_str(&body).ok();
    let id = answer.and_then(|answer| answer.get("id")?.as_u64());
    id.map(Some).ok_or_else(|| format!("no id in {body}"))
}

fn lock(log: &Mutex<Log>) -> MutexGuard<'_, Log> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Milliseconds since 1970.
fn now() -> u128 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis())
}

fn report(log: &[Answer], start: Instant, end: Instant) -> ActReport {
    let within = log.iter().skip_while(|answer| answer.at < start);
    let good = within.clone().filter(|answer| answer.outcome.is_ok());
    let (mut longest_gap, mut last) = (Duration::ZERO, start);
    for at in good.map(|answer| answer.at).chain([end]) {
        longest_gap = longest_gap.max(at - last);
        last = at;
    }
    let failures = within.clone().filter_map(|it| it.outcome.as_ref().err());
    let acks = within.clone().filter_map(Answer::ack);
    ActReport {
        requests: within.count(),
        failed: failures.clone().count(),
        longest_gap,
        acknowledged: acks.collect(),
        reasons: failures.take(REASONS).cloned().collect(),
    }
}

#[test]
fn a_gap_reaches_from_success_to_success_and_to_both_ends_of_the_act() {
    let zero = Instant::now();
    let at = |ms| zero + Duration::from_millis(ms);
    let answer = |ms, outcome| Answer { at: at(ms), outcome };
    let log = [
        answer(0, Ok(Some(1))),
        answer(100, Ok(None)),
        answer(150, Err("503".to_owned())),
        answer(400, Ok(Some(2))),
        answer(450, Err("timeout".to_owned())),
    ];
    for (start, end, gap, failed, acknowledged) in
        [(0, 450, 300, 2, vec![1, 2]), (50, 900, 500, 2, vec![2]), (420, 900, 480, 1, vec![]), (500, 700, 200, 0, vec![])]
    {
        let report = report(&log, at(start), at(end));
        let found = (report.longest_gap, report.failed, report.acknowledged);
        let expected = (Duration::from_millis(gap), failed, acknowledged);
        assert_eq!(found, expected, "{start}..{end}");
    }
}
