//! The paths of the API. Reads are answered from the cache where they can be, writes only by the database.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{
        Query, Request, State,
        rejection::{BytesRejection, QueryRejection},
    },
    http::{HeaderValue, StatusCode, header},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::{
    App,
    cache::CacheError,
    db::{Database, DatabaseError, Range},
    error::ApiError,
    health,
    row::NewLiquidation,
};

/// Buckets of one answer. More would let one request fill the memory of a pod and the cache.
const MAX_BUCKETS: i64 = 50_000;

/// What a request may take beyond its longest query: reading the body, a connection, the cache.
const OVERHEAD: Duration = Duration::from_secs(10);

pub fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/health", get(health::health))
        .route("/api/symbols", get(symbols))
        .route("/api/liquidations", get(liquidations).post(insert))
        .route("/api/cache/stats", get(cache_stats))
        .route("/api/cache/clear", post(cache_clear))
        .fallback(async || ApiError::NoSuchPath)
        .layer(from_fn_with_state(Arc::clone(&app), around))
        .with_state(app)
}

/// Limits every request and names the version in every answer.
async fn around(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let longest = app.config.database.as_ref().map_or(Duration::ZERO, |it| it.query_timeout.max(it.long_query_timeout));
    let mut response = match timeout(longest + OVERHEAD, next.run(request)).await {
        Ok(response) => response,
        Err(_) => ApiError::TimedOut.into_response(),
    };
    let headers = response.headers_mut();
    headers.insert("x-liqui-version", HeaderValue::from_static(app.build.version));
    // A client that keeps its connection would stay on a pod that is about to go.
    if app.draining.load(Ordering::Relaxed) {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

async fn symbols(State(app): State<Arc<App>>) -> Result<Response, ApiError> {
    cached(&app, "symbols", app.config.symbols_ttl, async || Ok(json!(database(&app)?.symbols().await?))).await
}

#[derive(Deserialize)]
struct Window {
    symbol: String,
    timeframe: Timeframe,
    /// First instant, included, in milliseconds since 1970.
    start_timestamp: i64,
    /// Last instant, included.
    end_timestamp: i64,
}

#[derive(Clone, Copy, Deserialize)]
enum Timeframe {
    #[serde(rename = "1m")]
    Minute,
    #[serde(rename = "5m")]
    FiveMinutes,
    #[serde(rename = "15m")]
    Quarter,
    #[serde(rename = "1h")]
    Hour,
    #[serde(rename = "4h")]
    FourHours,
    #[serde(rename = "1d")]
    Day,
}

impl Timeframe {
    fn milliseconds(self) -> i64 {
        let minutes = match self {
            Self::Minute => 1,
            Self::FiveMinutes => 5,
            Self::Quarter => 15,
            Self::Hour => 60,
            Self::FourHours => 240,
            Self::Day => 1440,
        };
        minutes * 60_000
    }
}

/// One bucket of the answer. The size is a string so that no digit is lost; it is absent when no row of
/// the bucket has one.
#[derive(Serialize)]
struct Aggregate {
    timestamp: i64,
    side: Option<String>,
    count: i64,
    usd_size: Option<String>,
}

async fn liquidations(State(app): State<Arc<App>>, window: Result<Query<Window>, QueryRejection>) -> Result<Response, ApiError> {
    let Query(window) = window.map_err(|error| ApiError::BadRequest(error.body_text()))?;
    let range = range(&window).map_err(ApiError::BadRequest)?;
    let key = format!("liquidations:{}:{}:{}:{}", range.symbol, range.bucket, range.start, range.end);
    cached(&app, &key, app.config.cache_ttl, async || {
        let buckets = database(&app)?.aggregate(&range).await?;
        let answer = buckets.into_iter().map(|(timestamp, side, count, usd_size)| Aggregate { timestamp, side, count, usd_size });
        Ok(json!(answer.collect::<Vec<_>>()))
    })
    .await
}

fn range(window: &Window) -> Result<Range<'_>, String> {
    let Window { symbol, timeframe, start_timestamp: start, end_timestamp: end } = window;
    // It becomes part of a key in Redis.
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if symbol.is_empty() || symbol.len() > 64 || !symbol.bytes().all(plain) {
        return Err("symbol is not 1 to 64 letters, digits and underscores".to_owned());
    }
    if *start < 0 || start > end {
        return Err("start_timestamp is negative or after end_timestamp".to_owned());
    }
    let bucket = timeframe.milliseconds();
    if (end - start) / bucket >= MAX_BUCKETS {
        return Err(format!("more than {MAX_BUCKETS} intervals; take a longer timeframe"));
    }
    Ok(Range { symbol, bucket, start: *start, end: *end })
}

async fn insert(State(app): State<Arc<App>>, body: Result<Bytes, BytesRejection>) -> Result<impl IntoResponse, ApiError> {
    let body = body.map_err(|error| ApiError::BadRequest(error.body_text()))?;
    let row: NewLiquidation = serde_json::from_slice(&body).map_err(|error| ApiError::BadRequest(error.to_string()))?;
    let id = database(&app)?.insert(&row).await?;
    Ok((StatusCode::CREATED, Json(json!({ "id": id }))))
}

async fn cache_stats(State(app): State<Arc<App>>) -> Json<Value> {
    let (hits, misses) = app.cache.counters();
    let (redis, keys) = match app.cache.keys().await {
        Ok(keys) => ("ok".to_owned(), Some(keys)),
        Err(error) => (error.to_string(), None),
    };
    Json(json!({ "redis": redis, "keys": keys, "hits": hits, "misses": misses }))
}

/// Unlike a read this fails when Redis is away: nothing was cleared then.
async fn cache_clear(State(app): State<Arc<App>>) -> Result<Json<Value>, ApiError> {
    match app.cache.clear().await {
        Ok(cleared) => Ok(Json(json!({ "cleared": cleared }))),
        Err(CacheError::Disabled) => Ok(Json(json!({ "cleared": 0 }))),
        Err(error @ (CacheError::Missing | CacheError::Away(_))) => Err(ApiError::Cache(error.to_string())),
    }
}

/// The answer from the cache, or from `load` and then cached for `ttl`. `x-cache` tells which.
async fn cached(app: &App, key: &str, ttl: Duration, load: impl AsyncFnOnce() -> Result<Value, ApiError>) -> Result<Response, ApiError> {
    let (answer, from) = match app.cache.get(key).await {
        Some(answer) => (answer, "hit"),
        None => {
            let answer = load().await?.to_string();
            app.cache.put(key, &answer, ttl).await;
            (answer, "miss")
        }
    };
    let headers = [(header::CONTENT_TYPE.as_str(), "application/json"), ("x-cache", from)];
    Ok((headers, answer).into_response())
}

fn database(app: &App) -> Result<&Database, DatabaseError> {
    app.database.as_ref().ok_or(DatabaseError::NotConfigured)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_limited_in_both_directions() {
        let minute = Timeframe::Minute.milliseconds();
        for (symbol, start, end, accepted) in [
            ("BTCUSDT", 0, 0, true),
            ("BTCUSDT", 0, MAX_BUCKETS * minute - 1, true),
            ("BTCUSDT", 0, MAX_BUCKETS * minute, false),
            ("BTCUSDT", 5, 4, false),
            ("BTCUSDT", -1, 4, false),
            ("BTCUSDT", 0, i64::MAX, false),
            ("", 0, 1, false),
            ("BTC:*", 0, 1, false),
        ] {
            let window = Window { symbol: symbol.to_owned(), timeframe: Timeframe::Minute, start_timestamp: start, end_timestamp: end };
            assert_eq!(range(&window).is_ok(), accepted, "{symbol} {start} {end}");
        }
    }
}
