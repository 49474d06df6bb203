//! `sage job list` and `sage job monitor`.

use std::io::{self, IsTerminal};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::ValueEnum;
use sage_api::client::{Client, ClientError, Filter};
use sage_api::job::{JobRecord, State};
use serde_json::{Value, json};

use super::{JobError, short};
use crate::output;

/// List the jobs, newest first
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only those in this state, or in one of these, separated by commas; `stopped` is any that is over but not failed
    #[arg(short, long, value_name = "STATE")]
    status: Option<String>,

    /// Only those with this in their name
    #[arg(long)]
    name: Option<String>,

    /// How to print them
    #[arg(short, long, default_value = "table")]
    format: Format,

    /// Print whole ids
    #[arg(long)]
    full_uuid: bool,

    /// So many at most, 1 to 1000
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=1000))]
    limit: u64,
}

/// List the jobs again whenever one has changed, until Ctrl-C
#[derive(Debug, clap::Args)]
pub(super) struct MonitorArgs {
    /// After so many seconds at the earliest
    #[arg(short, long, default_value_t = 5.0)]
    refresh: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Json,
}

/// What SAGE calls several of our states by.
fn states(word: &str) -> String {
    let states = word.split(',').map(|word| match word.trim() {
        "initializing" => "queued,starting",
        "stopped" => "succeeded,cancelled,timed_out",
        "failed" => "failed,lost",
        other => other,
    });
    states.collect::<Vec<_>>().join(",")
}

pub(super) fn run(client: &Client, args: &Args, json: bool) -> Result<(), ClientError> {
    let states = args.status.as_deref().map(states).unwrap_or_default();
    let filter = Filter { states, name: args.name.clone().unwrap_or_default(), limit: Some(args.limit), before: None };
    let page = client.jobs(&filter)?;
    if json || args.format == Format::Json {
        let jobs: Vec<_> = page.jobs.iter().map(as_json).collect();
        output::object(&json!({ "jobs": jobs, "total": page.total, "next": page.next }));
        return Ok(());
    }
    table(&page.jobs, args.full_uuid);
    if page.next.is_some() {
        output::note(format_args!("{} of {} jobs; see more with --limit", page.jobs.len(), page.total));
    }
    Ok(())
}

pub(super) fn monitor(client: &Client, args: &MonitorArgs, json: bool) -> Result<(), JobError> {
    let mut changes = client.follow_all()?;
    let pause = Duration::try_from_secs_f64(args.refresh.max(0.1)).unwrap_or(Duration::from_secs(5));
    loop {
        let jobs = client.jobs(&Filter::default())?.jobs;
        if json {
            output::object(&json!({ "jobs": jobs.iter().map(as_json).collect::<Vec<_>>() }));
        } else {
            clear();
            table(&jobs, false);
        }
        // Until something changes; then for a while, so that it can be read.
        changes.next().ok_or(JobError::Gone)??;
        std::thread::sleep(pause);
    }
}

/// Begins at the top of the screen.
pub(super) fn clear() {
    if io::stdout().is_terminal() {
        output::line("\x1b[2J\x1b[H");
    }
}

fn table(jobs: &[JobRecord], full: bool) {
    if jobs.is_empty() {
        output::note("No jobs found");
        return;
    }
    let short_ids = !full && output::width() < 120;
    let head = ["#", if short_ids { "UUID (Short)" } else { "UUID" }, "Name", "Status", "Started", "Runtime"];
    let rows = jobs.iter().map(|job| {
        vec![
            job.number.to_string(),
            if short_ids { short(&job.id) } else { job.id.clone() },
            printable(&job.name, 40),
            status(job),
            job.started_ms.map(output::moment).unwrap_or_default(),
            runtime(job).map(output::lasting).unwrap_or_default(),
        ]
    });
    output::grid(&head, &rows.collect::<Vec<_>>());
}

/// Its state, and whether it left something.
fn status(job: &JobRecord) -> String {
    match job.clean {
        Some(false) => format!("{}, unclean", job.state.word()),
        _ => job.state.word().to_owned(),
    }
}

/// How long it has been running, or was, in milliseconds.
pub(super) fn runtime(job: &JobRecord) -> Option<u64> {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
    Some(job.ended_ms.unwrap_or_else(now).saturating_sub(job.started_ms?))
}

/// A name on one line, this long at most.
pub(super) fn printable(name: &str, most: usize) -> String {
    let name: String = name.chars().map(|it| if it.is_control() { '?' } else { it }).collect();
    if name.chars().count() <= most {
        return name;
    }
    name.chars().take(most - 1).chain(['…']).collect()
}

/// A job with its own fields, and those by SAGE's names.
pub(super) fn as_json(job: &JobRecord) -> Value {
    let mut value = json!(job);
    if let Value::Object(fields) = &mut value {
        fields.insert("uuid".to_owned(), json!(job.id));
        fields.insert("status".to_owned(), json!(sage_word(job.state)));
        fields.insert("start_time".to_owned(), json!(job.started_ms.map(output::moment)));
        fields.insert("runtime".to_owned(), json!(runtime(job).map(output::lasting)));
        fields.insert("last_update".to_owned(), json!(output::moment(job.updated_ms)));
    }
    value
}

/// SAGE's word for a state.
fn sage_word(state: State) -> &'static str {
    match state {
        State::Queued | State::Starting => "initializing",
        State::Failed | State::Lost => "failed",
        state if state.is_over() => "stopped",
        _ => "running",
    }
}
