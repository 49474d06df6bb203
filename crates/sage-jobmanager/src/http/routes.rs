//! The table of all routes. The router is made of it, and so are the OpenAPI document and the tests of all routes.

use axum::Router;
use axum::http::Method;
use axum::routing::{MethodRouter, delete, get, post};

use super::{App, about, files, jobs, login, metrics, openapi, stream};
use crate::page;

/// A route.
pub(crate) struct Route {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    /// Whether it is for everybody: without token and session.
    pub(super) is_open: bool,
    /// What it does, in a line.
    pub(super) about: &'static str,
    handler: fn() -> MethodRouter<App>,
}

/// A route, for whoever lists them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Listed {
    /// Its method.
    pub method: &'static str,
    /// Its path, with `{job}` and `{name}` in it.
    pub path: &'static str,
    /// What it does, in a line.
    pub about: &'static str,
    /// Whether it is served without token and session.
    pub is_open: bool,
}

/// A row of a table.
pub(crate) const fn row(
    method: &'static str,
    path: &'static str,
    about: &'static str,
    handler: fn() -> MethodRouter<App>,
) -> Route {
    Route { method, path, is_open: false, about, handler }
}

/// A row of a route that is for everybody.
const fn open(
    method: &'static str,
    path: &'static str,
    about: &'static str,
    handler: fn() -> MethodRouter<App>,
) -> Route {
    Route { method, path, is_open: true, about, handler }
}

pub(super) const ROUTES: &[Route] = &[
    row("POST", "/api/v1/jobs", "Submits a job", || post(jobs::submit)),
    row("GET", "/api/v1/jobs", "Lists jobs, newest first", || get(jobs::list)),
    row("GET", "/api/v1/jobs/{job}", "Says all about a job but its events and output", || get(jobs::show)),
    row("DELETE", "/api/v1/jobs/{job}", "Deletes a job", || delete(jobs::delete)),
    row("GET", "/api/v1/jobs/{job}/events", "Lists events of a job", || get(jobs::events)),
    row("GET", "/api/v1/jobs/{job}/graph", "Shows the graphs of a program's jobs", || get(jobs::graph)),
    row("GET", "/api/v1/jobs/{job}/figures", "Shows the figures of a program's jobs", || get(jobs::figures)),
    row("GET", "/api/v1/jobs/{job}/report", "Shows the reports of a program's jobs", || get(jobs::report)),
    row("GET", "/api/v1/jobs/{job}/output", "Shows a piece of a job's output", || get(files::output)),
    row("GET", "/api/v1/jobs/{job}/logs", "Lists the log files of a job", || get(files::logs)),
    row("GET", "/api/v1/jobs/{job}/logs/{*name}", "Shows a piece of a log file", || get(files::log)),
    row("GET", "/api/v1/jobs/{job}/stream", "Tells what becomes of a job", || get(stream::job)),
    row("POST", "/api/v1/jobs/{job}/drain", "Ends a job's sources; what is in flight is finished", || {
        post(jobs::drain)
    }),
    row("POST", "/api/v1/jobs/{job}/cancel", "Ends a job; what is in flight is dropped", || post(jobs::cancel)),
    row("POST", "/api/v1/jobs/{job}/pause", "Lets a job read nothing for now", || post(jobs::pause)),
    row("POST", "/api/v1/jobs/{job}/resume", "Lets a job go on; starts one anew that is over", || post(jobs::resume)),
    row("POST", "/api/v1/jobs/{job}/kill", "Kills a job with all that it has started", || post(jobs::kill)),
    row("GET", "/api/v1/stream", "Tells what becomes of all jobs", || get(stream::all)),
    row("POST", "/api/v1/cleanup", "Cancels all jobs, and deletes all", || post(jobs::cleanup)),
    row("GET", "/api/v1/info", "Says which job manager this is", || get(about::info)),
    row("GET", "/api/v1/health", "Says that the job manager works", || get(about::health)),
    row("POST", "/api/v1/token/rotate", "Makes a new token; the old one and all sessions are void", || {
        post(login::rotate)
    }),
    row("POST", "/api/v1/login-link", "Makes a link that opens the page once", || post(login::link)),
    row("POST", "/api/v1/shutdown", "Ends the job manager", || post(about::shutdown)),
    row("GET", "/api/v1/openapi.json", "Shows this document", || get(openapi::openapi)),
    row("GET", "/metrics", "Shows figures of the job manager for Prometheus", || get(metrics::metrics)),
    open("GET", "/healthz", "Says that the process lives", || get(about::healthz)),
    open("GET", "/readyz", "Says that all jobs of an earlier run are found", || get(about::readyz)),
    open("GET", "/login", "Begins a session with a link, or shows the form", || get(login::by_link)),
    open("POST", "/login", "Begins a session with the token", || post(login::by_token)),
    row("POST", "/logout", "Ends a session", || post(login::logout)),
];

/// All routes, those of the page last.
pub fn listed() -> impl Iterator<Item = Listed> {
    ROUTES.iter().chain(page::ROUTES).map(|Route { method, path, about, is_open, .. }| Listed {
        method,
        path,
        about,
        is_open: *is_open,
    })
}

/// Whether this is served without token and session.
pub(super) fn is_open(method: &Method, path: &str) -> bool {
    // Whoever may get something may ask whether it is there.
    let method = if *method == Method::HEAD { "GET" } else { method.as_str() };
    ROUTES.iter().any(|route| route.is_open && route.method == method && route.path == path)
}

pub(super) fn all() -> Router<App> {
    ROUTES.iter().chain(page::ROUTES).fold(Router::new(), |router, route| router.route(route.path, (route.handler)()))
}
