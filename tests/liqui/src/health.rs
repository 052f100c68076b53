//! `/health`: asks the database and Redis, both at once, and says why when one of them is down. It reports
//! and repairs nothing; every question has a limit, so the answer comes within about four seconds.

use std::sync::Arc;

use axum::{Json, extract::State, http::StatusCode};
use serde_json::{Value, json};

use crate::{App, Fault, cache::CacheError, db::DatabaseError};

pub async fn health(State(app): State<Arc<App>>) -> (StatusCode, Json<Value>) {
    let (mysql, redis) = tokio::join!(database(&app), app.cache.check());
    let mut reasons = app.config.problems.clone();
    let mysql = match mysql {
        Ok(()) => "ok".to_owned(),
        Err(error) => {
            reasons.push(format!("mysql: {error}"));
            error.to_string()
        }
    };
    let redis = match redis {
        Ok(()) => "ok".to_owned(),
        Err(CacheError::Disabled) => "disabled".to_owned(),
        Err(error @ (CacheError::Missing | CacheError::Away(_))) => {
            reasons.push(format!("redis: {error}"));
            error.to_string()
        }
    };
    let (status, word) = match (app.build.fault, reasons.is_empty()) {
        (Fault::HealthFails, _) => {
            reasons.push("the health check of this version is broken".to_owned());
            (StatusCode::INTERNAL_SERVER_ERROR, "failed")
        }
        (Fault::None, true) => (StatusCode::OK, "ok"),
        (Fault::None, false) => (StatusCode::SERVICE_UNAVAILABLE, "down"),
    };
    let mut body = json!({
        "status": word,
        "version": app.build.version,
        "mysql": mysql,
        "redis": redis,
        "cache_ttl_seconds": app.config.cache_ttl.as_secs(),
    });
    if !reasons.is_empty() {
        let reason = reasons.join("; ");
        tracing::warn!(status = status.as_u16(), %reason, "not healthy");
        if let Some(fields) = body.as_object_mut() {
            fields.insert("reason".to_owned(), reason.into());
        }
    }
    (status, Json(body))
}

async fn database(app: &App) -> Result<(), DatabaseError> {
    match &app.database {
        Some(database) => database.check().await,
        None => Err(DatabaseError::NotConfigured),
    }
}
