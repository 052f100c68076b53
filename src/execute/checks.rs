//! One round of a Release's checks: http, sql and redis. Each ends within [`CHECK_TIMEOUT`], whatever hangs, and none reaches
//! an address that `reach` bars. They only read, so that a round may be repeated at any time.

use std::{
    error::Error as _,
    time::{Duration, Instant},
};

use futures::future::join_all;
use serde_json::{Map, Value};
use tokio::{sync::Mutex, time::timeout};
use url::Url;

use super::Task;
use crate::{
    api::release::{Check, HttpCheck, SqlCheck},
    expression::Evaluator,
    mysql,
    reach::{self, Refused, Resolver},
};

/// A check that needs longer has failed.
const CHECK_TIMEOUT: Duration = Duration::from_secs(10);
/// A body larger than this is no health answer; reading on would cost memory.
const LARGEST_BODY: usize = 1024 * 1024;

/// The client for all http checks. Redirects are followed by nobody's surprise: a health check that moved is a failure.
pub fn client() -> Result<reqwest::Client, reqwest::Error> {
    reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        // A connection to a pod that has gone must not answer for the one that came.
        .pool_max_idle_per_host(0)
        .no_proxy()
        .dns_resolver(Resolver::shared())
        .user_agent(concat!("backout/", env!("CARGO_PKG_VERSION")))
        .build()
}

/// Runs all checks at the same time; returns what failed, by check, in the order of the spec.
pub async fn round(task: &Task<'_>) -> Vec<String> {
    let judge = &Judge { evaluator: &task.hands.evaluator, turn: Mutex::new(()) };
    let checks = task.release.spec.verify.checks.iter().map(|check| async move {
        let result = timeout(CHECK_TIMEOUT, run(task, judge, check))
            .await
            .unwrap_or_else(|_| Err(format!("no answer within {} s", CHECK_TIMEOUT.as_secs())));
        result.err().map(|reason| format!("check {} failed: {reason}", check.name))
    });
    join_all(checks).await.into_iter().flatten().collect()
}

/// What the sql checks ask.
pub fn questions(task: &Task<'_>) -> Vec<String> {
    sql_checks(task).map(|(_, check)| check.query.clone()).collect()
}

/// What a copy of the data answered to [`questions`], as the end of a sentence. The copy may be of another release's schema, so that a
/// check that does not hold says nothing against it.
pub async fn of_copy(task: &Task<'_>, answers: Vec<(String, Result<mysql::Answer, String>)>) -> String {
    let judge = &Judge { evaluator: &task.hands.evaluator, turn: Mutex::new(()) };
    let (mut holding, mut failing) = (Vec::new(), Vec::new());
    for (name, check) in sql_checks(task) {
        // One that was written since was not asked.
        let Some((_, answer)) = answers.iter().find(|(question, _)| *question == check.query) else { continue };
        let held = match answer.clone() {
            Ok(rows) => answered(judge, check, rows).await,
            Err(reason) => Err(reason),
        };
        match held {
            Ok(()) => holding.push(name),
            Err(reason) => failing.push(format!("; check {name} does not hold on it: {reason}")),
        }
    }
    let holding = if holding.is_empty() { String::new() } else { format!("; sql checks hold on it: {}", holding.join(", ")) };
    format!("{holding}{}", failing.concat())
}

fn sql_checks<'a>(task: &Task<'a>) -> impl Iterator<Item = (&'a str, &'a SqlCheck)> {
    task.release.spec.verify.checks.iter().filter_map(|check| Some((check.name.as_str(), check.sql.as_ref()?)))
}

/// One round's expressions one after the other: however many expensive ones a Release has, it takes one place from the others.
struct Judge<'a> {
    evaluator: &'a Evaluator,
    turn: Mutex<()>,
}

impl Judge<'_> {
    async fn holds<const N: usize>(&self, expression: &str, variables: [(&str, Value); N]) -> Result<(), String> {
        let _turn = self.turn.lock().await;
        self.evaluator.holds(expression, variables).await
    }
}

async fn run(task: &Task<'_>, judge: &Judge<'_>, check: &Check) -> Result<(), String> {
    if let Some(http) = &check.http {
        self::http(&task.hands.http, judge, http).await
    } else if let Some(sql) = &check.sql {
        self::sql(task, judge, sql).await
    } else if check.redis.is_some() {
        let cache = task.cache().await.map_err(|error| error.to_string())?;
        cache.ping().await.map_err(|error| error.to_string())
    } else {
        Err("it is none of http, sql and redis".to_owned())
    }
}

async fn http(client: &reqwest::Client, judge: &Judge<'_>, check: &HttpCheck) -> Result<(), String> {
    let begun = Instant::now();
    let url = Url::parse(&check.url).map_err(|_| "its url can't be read".to_owned())?;
    reach::literal(&url).map_err(|refused| refused.to_string())?;
    let mut answer = client.get(url).send().await.map_err(|error| unanswered(&error))?;
    let status = answer.status().as_u16();
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|error| unanswered(&error))? {
        body.extend_from_slice(&chunk);
        if body.len() > LARGEST_BODY {
            return Err(format!("the answer is larger than {LARGEST_BODY} bytes"));
        }
    }
    let took = begun.elapsed();
    if status != check.status {
        return Err(format!("status {status}, expected {}", check.status));
    }
    if let Some(most) = check.max_latency
        && took > most.0
    {
        return Err(format!("it took longer than {most}"));
    }
    let Some(expect) = &check.expect else { return Ok(()) };
    let body: Value = serde_json::from_slice(&body).map_err(|_| "the answer is not JSON".to_owned())?;
    judge.holds(expect, [("body", body), ("status", Value::from(status))]).await
}

async fn sql(task: &Task<'_>, judge: &Judge<'_>, check: &SqlCheck) -> Result<(), String> {
    let database = task.database().await.map_err(|error| error.to_string())?;
    let rows = mysql::query(&database, &check.query).await.map_err(|error| error.to_string())?;
    answered(judge, check, rows).await
}

async fn answered(judge: &Judge<'_>, check: &SqlCheck, rows: mysql::Answer) -> Result<(), String> {
    let first = rows.first().cloned().unwrap_or_default();
    let count = Value::from(rows.len());
    let first: Map<String, Value> = first.into_iter().collect();
    judge.holds(&check.expect, [("row", Value::Object(first)), ("rows", count)]).await
}

/// Without the URL, which the check's name stands for and which may carry a token.
fn unanswered(error: &reqwest::Error) -> String {
    if let Some(refused) = refused(error) {
        refused.to_string()
    } else if error.is_connect() {
        "no connection".to_owned()
    } else if error.is_timeout() {
        "no answer in time".to_owned()
    } else {
        "the answer broke off".to_owned()
    }
}

/// The resolver's refusal, if that is what lies at the bottom of an error.
fn refused(error: &reqwest::Error) -> Option<&Refused> {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(refused) = error.downcast_ref() {
            return Some(refused);
        }
        cause = error.source();
    }
    None
}
