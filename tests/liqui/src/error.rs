//! What went wrong in a request, in the words of the client, and the status it is answered with.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::json;

use crate::db::DatabaseError;

#[derive(Debug)]
pub enum ApiError {
    /// The client's mistake, with the reason.
    BadRequest(String),
    NoSuchPath,
    Database(DatabaseError),
    /// Only for requests about the cache itself; reads go to the database instead.
    Cache(String),
    /// The whole request took longer than all its parts may.
    TimedOut,
}

impl From<DatabaseError> for ApiError {
    fn from(error: DatabaseError) -> Self {
        Self::Database(error)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, reason) = match self {
            Self::BadRequest(reason) => (StatusCode::BAD_REQUEST, reason),
            Self::NoSuchPath => (StatusCode::NOT_FOUND, "no such path".to_owned()),
            Self::Database(error) => {
                let status = match error {
                    DatabaseError::NotConfigured | DatabaseError::Away(_) => StatusCode::SERVICE_UNAVAILABLE,
                    DatabaseError::TimedOut(_) => StatusCode::GATEWAY_TIMEOUT,
                    DatabaseError::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
                };
                (status, format!("mysql: {error}"))
            }
            Self::Cache(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("redis: {reason}")),
            Self::TimedOut => (StatusCode::GATEWAY_TIMEOUT, "the request took too long".to_owned()),
        };
        if status.is_server_error() {
            tracing::warn!(status = status.as_u16(), %reason, "request failed");
        }
        (status, Json(json!({ "error": reason }))).into_response()
    }
}
