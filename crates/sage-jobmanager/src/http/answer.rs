//! What is answered when something is not done: JSON, and in the place of that a page for a browser, by `gate`.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use sage_api::api::ApiError;

use crate::jobs::JobError;
use crate::page;

/// Why a request is not served.
#[derive(Debug, Clone)]
pub(crate) struct Refused {
    status: StatusCode,
    code: &'static str,
    words: String,
}

impl Refused {
    /// With this status, this word for programs, and these for people: what, where, what next.
    pub(crate) fn new(status: StatusCode, code: &'static str, words: impl Into<String>) -> Self {
        Self { status, code, words: words.into() }
    }
}

impl Refused {
    /// The page that says so.
    pub(super) fn page(&self) -> Response {
        match self.code {
            "unauthorized" => page::login(self.status, None),
            "wrong_token" | "void_link" => page::login(self.status, Some(&self.words)),
            _ => page::refused(self.status, &self.words),
        }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let told = ApiError { error: self.words.clone(), code: self.code.to_owned() };
        let mut response = (self.status, Json(told)).into_response();
        // For the layer, if it is a browser that asks.
        response.extensions_mut().insert(self);
        response
    }
}

impl From<JobError> for Refused {
    fn from(error: JobError) -> Self {
        let (status, code) = match &error {
            JobError::NotFound(_) => (StatusCode::NOT_FOUND, "not_found"),
            JobError::Ambiguous { .. } => (StatusCode::CONFLICT, "ambiguous"),
            JobError::Conflict(_) => (StatusCode::CONFLICT, "conflict"),
            JobError::Malformed(_) => (StatusCode::BAD_REQUEST, "malformed"),
            JobError::Refused(_) => (StatusCode::UNPROCESSABLE_ENTITY, "refused"),
            JobError::TooMany(_) => (StatusCode::SERVICE_UNAVAILABLE, "too_many"),
            JobError::Store(_) | JobError::System(_) => {
                tracing::error!(error = &error as &dyn std::error::Error, "a request failed");
                let mut words = error.to_string();
                let mut source = std::error::Error::source(&error);
                while let Some(error) = source {
                    words.push_str(&format!(": {error}"));
                    source = error.source();
                }
                return Self::new(StatusCode::INTERNAL_SERVER_ERROR, "failed", words);
            }
        };
        Self::new(status, code, error.to_string())
    }
}
