//! The list of jobs, and the page about the job manager.

use maud::{Markup, html};
use sage_api::api::{Info, JobPage};
use sage_api::job::{JobRecord, State};

use super::shell;
use super::words::{lasting, moment, runtime};

/// What the list shows: what the address says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Shown {
    pub(crate) states: Vec<String>,
    pub(crate) name: String,
    pub(crate) before: Option<u64>,
}

/// The states that can be asked for, in groups that people think in.
const GROUPS: [(&str, &[State]); 4] = [
    ("queued", &[State::Queued]),
    ("running", &[State::Starting, State::Running, State::Paused, State::Draining, State::Stopping]),
    ("succeeded", &[State::Succeeded]),
    ("not succeeded", &[State::Failed, State::Cancelled, State::TimedOut, State::Lost]),
];

/// The list of jobs.
pub(crate) fn list(page: &JobPage, shown: &Shown) -> Markup {
    let is_filtered = !shown.states.is_empty() || !shown.name.is_empty();
    shell::page(
        "Jobs",
        Some("jobs"),
        html! {
            h1 { "Jobs" }
            form.filter role="search" method="get" action="/" {
                label { "Name " input type="search" name="name" value=(shown.name) maxlength="200"; }
                fieldset {
                    legend { "State" }
                    @for (group, states) in GROUPS {
                        @let value = states.iter().map(|state| state.word()).collect::<Vec<_>>().join(",");
                        @let is_on = states.iter().all(|state| shown.states.iter().any(|word| word == state.word()));
                        label { input type="checkbox" name="state" value=(value) checked[is_on]; " " (group) }
                    }
                }
                button { "Filter" }
                @if is_filtered { a href="/" { "Show all" } }
            }
            @if page.jobs.is_empty() {
                p.empty { @if is_filtered { "No job fits this. " a href="/" { "Show all" } }
                    @else { "There are no jobs yet. Submit one with " code { "sage job submit program.py" } "." } }
            } @else {
                p.note { (page.jobs.len()) " of " (page.total) " jobs, newest first" }
                div.scroll tabindex="0" role="group" aria-label="Jobs" {
                    table {
                        thead { tr { th scope="col" { "#" } th scope="col" { "Name" } th scope="col" { "State" }
                            th scope="col" { "Why" } th scope="col" { "Started" } th scope="col" { "Runtime" } } }
                        tbody id="jobs" { @for job in &page.jobs { (row(job)) } }
                    }
                }
            }
            @if let Some(next) = page.next {
                p { a rel="next" href=(address(&Shown { before: Some(next), ..shown.clone() })) { "Older jobs" } }
            }
        },
    )
}

fn row(job: &JobRecord) -> Markup {
    html! {
        tr data-job=(job.id) {
            td { (job.number) }
            th scope="row" { a href={ "/jobs/" (job.id) } { (job.name) } }
            td { (state(job)) }
            td.why data-part="why" { @if let Some(why) = &job.why { (why) } }
            td data-part="started" { @if let Some(started) = job.started_ms { (moment(started)) } }
            td data-part="runtime" { @if let Some(runtime) = runtime(job) { (lasting(runtime)) } }
        }
    }
}

/// The state of a job, as a word in its colour.
pub(crate) fn state(job: &JobRecord) -> Markup {
    html! {
        span.state data-part="state" data-state=(job.state.word()) {
            (job.state.word().replace('_', " ")) @if job.clean == Some(false) { ", unclean" }
        }
    }
}

/// The address of a list that shows this.
fn address(shown: &Shown) -> String {
    let quote = |text: &str| -> String {
        text.bytes()
            .map(|byte| match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b',' => char::from(byte).to_string(),
                byte => format!("%{byte:02X}"),
            })
            .collect()
    };
    let mut parts: Vec<String> = shown.states.iter().map(|state| format!("state={}", quote(state))).collect();
    if !shown.name.is_empty() {
        parts.push(format!("name={}", quote(&shown.name)));
    }
    parts.extend(shown.before.map(|before| format!("before={before}")));
    format!("/?{}", parts.join("&"))
}

/// The page about the job manager.
pub(crate) fn about(info: &Info) -> Markup {
    let queue = info.queue;
    shell::page(
        "Job manager",
        None,
        html! {
            h1 { "Job manager" }
            dl.facts {
                dt { "Version" } dd { (info.version) }
                dt { "Started" } dd { (moment(info.started_ms)) }
                dt { "Listens at" } dd { (info.http) }
                dt { "Process" } dd { (info.pid) }
                dt { "Log folder" } dd { code { (info.log_folder) } }
                dt { "Jobs that run" }
            dd { (queue.running) " of " (queue.limit) " at a time, " (queue.queued) " queued" }
                @for (state, count) in &info.jobs { dt { (state) } dd { (count) } }
            }
            p { "What can be asked over HTTP is described in " a href="/api/v1/openapi.json" { "an OpenAPI document" }
                ", and figures for Prometheus are at " a href="/metrics" { "/metrics" } "." }
        },
    )
}
