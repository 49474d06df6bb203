//! The page: what a browser shows of jobs. It is rendered here and works without a script; with one, `static/page.js`,
//! it stays as the jobs are.
//!
//! Its routes are a table like those of the HTTP interface, pass the same layer, and ask [`Jobs`](crate::jobs::Jobs)
//! alone.

mod graph;
mod handlers;
mod job;
mod jobs;
mod policy;
mod shell;
mod words;

use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use maud::Markup;

use crate::http::{Route, row};

/// Its routes.
pub(crate) const ROUTES: &[Route] = &[
    row("GET", "/", "The page with the list of jobs", || get(handlers::list)),
    row("GET", "/about", "The page about the job manager", || get(handlers::about)),
    row("GET", "/jobs/{job}", "The page of a job", || get(handlers::job)),
    row("GET", "/jobs/{job}/output", "The page with a job's output", || get(handlers::output)),
    row("GET", "/jobs/{job}/logs/{*name}", "The page with a log file", || get(handlers::log)),
    row("GET", "/jobs/{job}/threads", "The page with where a job's threads are", || get(handlers::threads)),
    row("GET", "/jobs/{job}/{action}", "The page that asks whether a job is to be told to do this", || {
        get(handlers::confirm)
    }),
    row("POST", "/jobs/{job}/{action}", "Tells a job to do this", || post(handlers::act)),
    row("GET", "/static/page.css", "A part of the page", || get(|| asset("text/css", CSS))),
    row("GET", "/static/page.js", "A part of the page", || get(|| asset("text/javascript", SCRIPT))),
    row("GET", "/static/uplot.js", "A part of the page", || get(|| asset("text/javascript", UPLOT))),
    row("GET", "/static/uplot.css", "A part of the page", || get(|| asset("text/css", UPLOT_CSS))),
    row("GET", "/static/icon.svg", "A part of the page", || get(|| asset("image/svg+xml", ICON))),
];

const CSS: &str = include_str!("static/page.css");
const SCRIPT: &str = include_str!("static/page.js");
/// uPlot 1.6.32, under the MIT licence: `static/uplot-LICENSE`.
const UPLOT: &str = include_str!("static/uplot.js");
const UPLOT_CSS: &str = include_str!("static/uplot.css");
const ICON: &str = include_str!("static/icon.svg");

async fn asset(kind: &'static str, text: &'static str) -> Response {
    // It changes with the daemon alone; the browser asks again after a while.
    let headers = [(CONTENT_TYPE, kind), (CACHE_CONTROL, "private, max-age=300"), (X_CONTENT_TYPE_OPTIONS, "nosniff")];
    (headers, text).into_response()
}

/// What a page may load: what this daemon serves.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      form-action 'self'; frame-ancestors 'none'; base-uri 'none'";
/// The page for whoever is not logged in has its style in itself, as nothing else is served to it.
const POLICY_OF_LOGIN: &str = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; \
                               frame-ancestors 'none'; base-uri 'none'";

fn answer(status: StatusCode, policy: &'static str, page: Markup) -> Response {
    let headers = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CONTENT_SECURITY_POLICY, policy),
        (CACHE_CONTROL, "no-store"),
        // With `no-referrer`, a browser does not say of forms either that they are from here.
        (REFERRER_POLICY, "same-origin"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (status, headers, page.into_string()).into_response()
}

fn ok(page: Markup) -> Response {
    answer(StatusCode::OK, POLICY, page)
}

/// Whether a browser asks, which shows pages.
pub(crate) fn is_wanted(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all("accept").iter();
    accepted.filter_map(|value| value.to_str().ok()).any(|accepted| accepted.contains("text/html"))
}

/// The page that says why a request was not served.
pub(crate) fn refused(status: StatusCode, words: &str) -> Response {
    let title = match status {
        StatusCode::NOT_FOUND => "Not found",
        StatusCode::CONFLICT => "That cannot be done now",
        _ => "That was not done",
    };
    answer(status, POLICY, shell::said(title, words))
}

/// The form with which a session begins.
pub(crate) fn login(status: StatusCode, wrong: Option<&str>) -> Response {
    answer(status, POLICY_OF_LOGIN, shell::login(wrong))
}
