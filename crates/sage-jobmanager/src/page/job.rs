//! The page of a job.

use maud::{Markup, html};
use sage::{JobReport, OperatorReport, ServiceReport, Transition};
use sage_api::api::{EventPage, FiguresNow, FiguresOf, GraphOf, JobDetail};
use sage_api::job::{JobRecord, Program, State};
use sage_api::message::{Event, Happened, Told};

use super::graph;
use super::jobs::state;
use super::policy::policy;
use super::shell::{self, Viewer};
use super::words::{brief, count, lasting, moment, runtime, time_of_day};

/// What is shown of a job.
#[derive(Debug)]
pub(crate) struct Seen<'a> {
    pub(crate) detail: &'a JobDetail,
    pub(crate) graphs: &'a [GraphOf],
    pub(crate) reports: &'a [JobReport],
    pub(crate) figures: &'a [FiguresOf],
    pub(crate) events: &'a EventPage,
    pub(crate) output: &'a str,
    pub(crate) output_next: u64,
    pub(crate) files: &'a [String],
}

/// What can be done about a job in this state: the word in the address, and on the button.
pub(crate) fn actions(state: State) -> &'static [(&'static str, &'static str)] {
    match state {
        State::Queued => &[("cancel", "Cancel")],
        State::Paused => &[("resume", "Resume"), ("drain", "Drain"), ("cancel", "Cancel"), ("kill", "Kill")],
        State::Draining | State::Stopping => &[("cancel", "Cancel"), ("kill", "Kill")],
        state if state.is_over() => &[("resume", "Run again"), ("delete", "Delete")],
        _ => &[("drain", "Drain"), ("pause", "Pause"), ("cancel", "Cancel"), ("kill", "Kill")],
    }
}

/// What an action comes to, for who has to confirm it; `None` for what can be undone.
pub(crate) fn consequence(action: &str) -> Option<&'static str> {
    Some(match action {
        "drain" => "Its sources end, and what is in flight is finished. It then cleans up, and ends as succeeded.",
        "cancel" => "What is in flight is dropped. It then cleans up, and ends as cancelled.",
        "kill" => {
            "It ends at once, with all that it has started. None of its own code runs any more: nothing is cleaned up."
        }
        "delete" => "Its record, output and events are deleted. This cannot be undone.",
        _ => return None,
    })
}

/// Whether an action drops what cannot be had again.
fn is_hard(action: &str) -> bool {
    matches!(action, "kill" | "delete")
}

/// The page of a job.
pub(crate) fn page(seen: &Seen<'_>, viewer: Viewer<'_>) -> Markup {
    let job = &seen.detail.record;
    shell::page(
        &format!("{} #{}", job.name, job.number),
        Some("job"),
        html! {
            div.job data-job=(job.id) data-events=(seen.events.next) data-output=(seen.output_next)
                data-over[job.state.is_over()] {
                div.title {
                    h1 { (job.name) " " small { "#" (job.number) } }
                    (state(job))
                    (buttons(job, viewer))
                }
                p.why role="status" data-part="why" { @if let Some(why) = &job.why { (why) } }
                (facts(seen))
                @if !seen.graphs.is_empty() { h2 { "Graph" } p.legend {
                    span.key.busy { "busy" } span.key.idle { "waits for records" }
                    span.key.blocked { "blocked: waits for room downstream" }
                @if !job.state.is_over() { a href={ "/jobs/" (job.id) "/threads" } { "Where its threads are" } }
                } }
                @for (index, graph) in seen.graphs.iter().enumerate() {
                    (graph_of(seen, graph, index + 1 == seen.graphs.len()))
                }
                @if !job.state.is_over() { div id="chart" aria-hidden="true" {} }
                (timeline(seen))
                (output(seen))
                (letters(seen))
            }
        },
    )
}

fn buttons(job: &JobRecord, viewer: Viewer<'_>) -> Markup {
    html! {
        div.actions data-part="actions" {
            @for (action, word) in actions(job.state) {
                @if consequence(action).is_some() {
                    a.button.danger[is_hard(action)] href={ "/jobs/" (job.id) "/" (action) } { (word) }
                } @else {
                    form method="post" action={ "/jobs/" (job.id) "/" (action) } {
                        (shell::csrf(viewer)) button { (word) }
                    }
                }
            }
        }
    }
}

/// Asks whether to go on.
pub(crate) fn confirm(job: &JobRecord, action: &str, viewer: Viewer<'_>) -> Option<Markup> {
    let (word, consequence) = (actions(job.state).iter().find(|(name, _)| *name == action)?.1, consequence(action)?);
    let title = format!("{word} {} #{}?", job.name, job.number);
    Some(shell::page(
        &title,
        None,
        html! {
            h1 { (title) }
            p { (consequence) }
            form.actions method="post" action={ "/jobs/" (job.id) "/" (action) } {
                (shell::csrf(viewer))
                button.danger[is_hard(action)] autofocus { (word) }
                a.button href={ "/jobs/" (job.id) } { "Back" }
            }
        },
    ))
}

fn facts(seen: &Seen<'_>) -> Markup {
    let JobDetail { record: job, spec, outcome, reaper, .. } = seen.detail;
    html! {
        dl.facts {
            dt { "Program" } dd { code { (job.program) } }
            dt { "Folder" } dd { code { (job.folder.display()) } }
            dt { "Submitted" } dd { (moment(job.submitted_ms)) }
            @if let Some(started) = job.started_ms { dt { "Started" } dd { (moment(started)) } }
            dt { "Runtime" } dd data-part="runtime" { (runtime(job).map(lasting).unwrap_or_default()) }
            @if job.restart_count > 0 { dt { "Run again" } dd { (job.restart_count) " times" } }
            @if !spec.variables.is_empty() {
                dt { "Variables" } dd { (spec.variables.join(", ")) " (their values are not kept)" }
            }
            @if let Program::File { python: Some(python), .. } = &spec.program {
                dt { "Interpreter" } dd { code { (python.display()) } }
            }
            @if let Some(reaper) = reaper { @for (limit, enforced) in &reaper.limits {
                dt { "Limit: " (format!("{limit:?}").to_lowercase()) } dd { (format!("{enforced:?}").to_lowercase()) }
            } }
            @if let Some(outcome) = outcome {
                dt { "Exit code" } dd { (outcome.exit_code) }
                dt { "Memory, at most" } dd { (outcome.peak_bytes >> 20) " MiB" }
                dt { "Processors" } dd { (lasting(outcome.cpu_ms)) }
                @for left in &outcome.left { dt { "Left behind" } dd.error { (left) } }
                @for ended in &outcome.ended { dt { "Left, and ended" } dd { (ended) } }
            }
        }
    }
}

fn graph_of(seen: &Seen<'_>, of: &GraphOf, is_last: bool) -> Markup {
    let report = seen.reports.iter().find(|report| report.job == of.id);
    let live = seen.figures.iter().find(|it| it.id == of.id).map(|it| &it.figures.metrics);
    let operators = report.map(|report| &report.operators).or(live.map(|live| &live.operators));
    let services = report.map(|report| &report.services).or(live.map(|live| &live.services));
    html! {
        details.engine open[is_last] data-engine=(of.id) {
            summary { (of.graph.environment) @if seen.graphs.len() > 1 { " " small { (of.id) } } }
            (graph::svg(&of.graph, &of.id))
            @if let Some(report) = report { details { summary { "Report" } pre { (report) } } }
            div.scroll tabindex="0" role="group" aria-label="Operators" {
                table.operators {
                    caption { "Operators" }
                    thead { tr { th scope="col" { "Operator" } th.n scope="col" { "In" } th.n scope="col" { "Out" }
                        th.n scope="col" { "Per second" } th.n scope="col" { "Failed" } th scope="col" { "Doing" } } }
                    tbody { @for chain in &of.graph.chains { @for operator in &chain.operators {
                        @let figures = operators.and_then(|all| all.iter().find(|one| one.name == operator.name));
                        (operator_row(&operator.name, chain.number, figures))
                    } } }
                }
            }
            @if !of.graph.services.is_empty() { div.scroll tabindex="0" role="group" aria-label="Services" {
                table.services {
                    caption { "Services" }
                    thead { tr { th scope="col" { "Service" } th scope="col" { "State" } th.n scope="col" { "Calls" }
                        th.n scope="col" { "In flight" } th.n scope="col" { "Errors" }
                        th.n scope="col" { "Median" } th.n scope="col" { "99th percentile" } } }
                    tbody { @for service in &of.graph.services {
                        @let figures = services.and_then(|all| all.iter().find(|one| one.name == service.name));
                        (service_row(&service.name, figures))
                    } }
                }
            }
            @for service in &of.graph.services {
                (policy(&service.name, services.and_then(|all| all.iter().find(|one| one.name == service.name))))
            } }
        }
    }
}

fn operator_row(name: &str, chain: usize, figures: Option<&OperatorReport>) -> Markup {
    let number = |of: fn(&OperatorReport) -> u64| figures.map(|figures| count(of(figures))).unwrap_or_default();
    html! {
        tr data-operator=(name) data-in-chain=(chain) {
            th scope="row" { (name) }
            td.n data-part="in" { (number(|it| it.records_in)) }
            td.n data-part="out" { (number(|it| it.records_out)) }
            td.n data-part="rate" {}
            td.n data-part="failed" { (number(|it| it.failed)) }
            td data-part="doing" {
                @if let Some(error) = figures.and_then(|it| it.first_error.as_ref()) { "first error: " (error) }
            }
        }
    }
}

fn service_row(name: &str, figures: Option<&ServiceReport>) -> Markup {
    html! {
        tr data-service=(name) {
            th scope="row" { (name) }
            td data-part="state" { @if let Some(it) = figures { (format!("{:?}", it.state).to_lowercase()) } }
            td.n data-part="calls" { @if let Some(it) = figures { (count(it.calls)) } }
            td.n data-part="inside" { @if let Some(it) = figures { (count(it.calls_inside)) } }
            td.n data-part="errors" { @if let Some(it) = figures { (count(it.errors)) } }
            td.n data-part="p50" { @if let Some(p50) = figures.and_then(|it| it.p50) { (brief(p50)) } }
            td.n data-part="p99" { @if let Some(p99) = figures.and_then(|it| it.p99) { (brief(p99)) } }
        }
    }
}

/// So many events are shown without asking for more.
const MOST_EVENTS: usize = 200;

fn timeline(seen: &Seen<'_>) -> Markup {
    let events = &seen.events.events;
    let hidden = events.len().saturating_sub(MOST_EVENTS);
    html! {
        h2 { "Timeline" }
        @if hidden > 0 { p.note {
            (hidden) " earlier events are in "
            a href={ "/api/v1/jobs/" (seen.detail.record.id) "/events" } { "the events" }
        } }
        ol.timeline id="timeline" tabindex="0" aria-label="Timeline" {
            @for event in &events[hidden..] { (told(event)) }
        }
    }
}

fn told(event: &Event) -> Markup {
    let (kind, words) = words_of(event);
    html! { li data-kind=(kind) { time { (time_of_day(event.at_ms)) } " " (words) } }
}

/// An event, by its kind and in words.
pub(crate) fn words_of(event: &Event) -> (&'static str, String) {
    let word = |state: &dyn std::fmt::Debug| format!("{state:?}").to_lowercase();
    match &event.what {
        Happened::Started { pid } => ("program", format!("the program was started as process {pid}")),
        Happened::Begins(begins) => ("job", format!("job `{}` begins", begins.environment)),
        Happened::Changed { change, .. } => match &change.transition {
            Transition::Job { to, .. } => ("job", format!("job: {}", word(to))),
            Transition::Task { name, to, .. } => ("task", format!("task `{name}`: {}", word(to))),
            Transition::Service { name, to, .. } => ("service", format!("service `{name}`: {}", word(to))),
            _ => ("job", "something changed".to_owned()),
        },
        Happened::Ended { report, .. } => {
            let clean = if report.left.is_empty() { "clean" } else { "unclean" };
            ("job", format!("job `{}` {}, {clean}", report.environment, report.outcome))
        }
        Happened::Gone { .. } => ("job", "a job is gone without a report".to_owned()),
        Happened::Cleaned { name, why: None } => ("program", format!("removed as the program is gone: {name}")),
        Happened::Cleaned { name, why: Some(why) } => ("program", format!("not removed: {name}: {why}")),
        Happened::Told(Told::Do(command)) => ("command", format!("told to {}", word(command))),
        Happened::Told(Told::Signal(number)) => ("command", format!("sent signal {number}")),
        Happened::Told(Told::Killed) => ("command", "killed".to_owned()),
        Happened::Told(Told::OutOfTime) => ("command", "its time was over: told to cancel".to_owned()),
    }
}

fn output(seen: &Seen<'_>) -> Markup {
    let id = &seen.detail.record.id;
    html! {
        h2 { "Output" }
        p.note {
            label { input type="checkbox" id="follow" checked[!seen.detail.record.state.is_over()]; " Follow" } " "
            a href={ "/jobs/" (id) "/output" } { "All of it" }
            @for file in seen.files {
                " · "
                a href={ "/jobs/" (id) "/logs/" (file) } title=(file) { (file.rsplit('/').next().unwrap_or(file)) }
            }
        }
        pre.output id="output" tabindex="0" role="log" aria-label="Output of the job" { (seen.output) }
    }
}

/// The dead letters that the reports tell of, with what replays them.
fn letters(seen: &Seen<'_>) -> Markup {
    let notes: Vec<&String> = seen.reports.iter().flat_map(|report| &report.notes).collect();
    html! { @if !notes.is_empty() { h2 { "Notes" } ul { @for note in notes { li { (note) } } } } }
}

/// Where the threads of a job are, task by task.
pub(crate) fn threads(job: &JobRecord, now: &FiguresNow) -> Markup {
    let title = format!("Threads of {} #{}", job.name, job.number);
    let content = html! {
        p { a href={ "/jobs/" (job.id) } { (job.name) " #" (job.number) } }
        h1 { "Threads" }
        p.note { "As of now: load the page again to see whether they have moved." }
        @for of in &now.jobs { section {
            div.scroll tabindex="0" role="group" aria-label="Tasks" { table {
                caption { "Tasks" }
                thead { tr { th scope="col" { "Task" } th scope="col" { "Doing" } th.n scope="col" { "For" } } }
                tbody { @for task in &of.figures.metrics.tasks { tr {
                    th scope="row" { (task.name) }
                    td {
                        (format!("{:?}", task.doing).to_lowercase())
                        @if let Some(bound) = task.blocked_by { ": too many " (bound) " wait" }
                    }
                    td.n { (brief(task.since)) }
                } } }
            } }
            @for thread in &of.figures.threads { details open[thread.stack.is_some()] {
                summary { code { (thread.name) } " " (thread.state) }
                @match &thread.stack {
                    Some(stack) => pre { (stack) },
                    None => p.note { "Its language tells no stack." },
                }
            } }
        } }
    };
    shell::page(&title, None, content)
}

/// All output of a job, or one of its log files, a piece at a time.
pub(crate) fn text(
    job: &JobRecord,
    what: &str,
    text: &str,
    (from, next, length): (u64, u64, u64),
    piece: u64,
) -> Markup {
    let title = format!("{what} of {} #{}", job.name, job.number);
    shell::page(
        &title,
        None,
        html! {
            p { a href={ "/jobs/" (job.id) } { (job.name) " #" (job.number) } }
            h1 { (what) }
            p.note { "Bytes " (from) " to " (next) " of " (length) }
            nav.pieces aria-label="Pieces" {
                @if from > 0 {
                a href={ "?from=" (from.saturating_sub(piece)) } { "Before" } a href="?from=0" { "Begin" }
            }
                @if next < length {
                a href={ "?from=" (next) } { "Next" } a href={ "?from=" (length.saturating_sub(piece)) } { "End" }
            }
            }
            pre.output tabindex="0" { (text) }
        },
    )
}
