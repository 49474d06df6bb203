//! The job manager itself: which one it is, that it works, and its end.

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use sage_api::api::{Health, Info, Shutdown};

use super::App;
use super::answer::Refused;
use super::jobs::body;
use crate::clock::now_ms;

pub(super) async fn info(State(app): State<App>) -> Result<Json<Info>, Refused> {
    Ok(Json(info_of(&app)?))
}

/// What the job manager is.
pub(crate) fn info_of(app: &App) -> Result<Info, Refused> {
    Ok(Info {
        version: app.address.version.clone(),
        session: app.address.session.clone(),
        pid: app.address.pid,
        started_ms: app.started_ms,
        http: app.address.http.clone(),
        log_folder: app.log_folder.display().to_string(),
        jobs: app.jobs.counts()?,
        queue: app.jobs.queue(),
    })
}

pub(super) async fn health(State(app): State<App>) -> Result<Json<Health>, Refused> {
    let jobs_count = app.jobs.counts()?.values().sum();
    Ok(Json(Health { status: "healthy".to_owned(), timestamp_ms: now_ms(), jobs_count }))
}

pub(super) async fn shutdown(State(app): State<App>, bytes: Bytes) -> Result<StatusCode, Refused> {
    let Shutdown { jobs } = if bytes.is_empty() { Shutdown::default() } else { body(&bytes)? };
    // If nobody reads it, the daemon is ending already.
    let _ = app.end.try_send(jobs);
    Ok(StatusCode::ACCEPTED)
}

pub(super) async fn healthz() -> &'static str {
    "ok"
}

pub(super) async fn readyz(State(app): State<App>) -> (StatusCode, &'static str) {
    if app.jobs.is_ready() {
        (StatusCode::OK, "ok")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "the jobs of an earlier run are being looked for")
    }
}
