//! The verbs that tell a job to do something.

use sage_api::client::{Action, Client};
use sage_api::job::{JobRecord, State};
use serde_json::json;

use super::list::as_json;
use super::{JobError, follow, short};
use crate::output;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The job
    job: String,

    /// Do not ask; delete a job that is not over
    #[arg(short, long)]
    force: bool,

    /// Do not wait until it is over
    #[arg(long)]
    no_wait: bool,
}

/// Ends a job, and waits until it is over.
pub(super) fn ended(client: &Client, args: &Args, action: Action, json: bool) -> Result<u8, JobError> {
    let id = client.job(&args.job)?.record.id;
    let loses = action != Action::Drain;
    if loses && !args.force && !output::confirmed(&format!("{} job {}?", capital(action), short(&id))) {
        output::note("Nothing was done");
        return Ok(1);
    }
    let record = client.tell(&id, action)?;
    let record = if args.no_wait { record } else { follow::over(client, &id)? };
    if json {
        output::object(&as_json(&record));
    } else if args.no_wait {
        output::done(format_args!("Job {} was told to {}", short(&id), action.word()));
    } else {
        output::done(format_args!("Job {} stopped successfully: {}", short(&id), ending(&record)));
    }
    Ok(code(&record))
}

fn capital(action: Action) -> &'static str {
    match action {
        Action::Kill => "Kill, without cleaning up,",
        _ => "Cancel",
    }
}

/// How a job ended, in words.
pub(super) fn ending(job: &JobRecord) -> String {
    let why = job.why.iter().map(|why| format!(", {why}")).collect::<String>();
    format!("{}{}{why}", job.state.word(), if job.clean == Some(false) { ", unclean" } else { "" })
}

/// The exit code for a job that was to end: whether it left something, or failed.
fn code(job: &JobRecord) -> u8 {
    match (job.clean, job.state) {
        (Some(false), _) => 3,
        (_, State::Failed | State::Lost | State::TimedOut) => 1,
        _ => 0,
    }
}

/// Tells a job to pause or to go on.
pub(super) fn told(client: &Client, args: &Args, action: Action, json: bool) -> Result<(), JobError> {
    let before = client.job(&args.job)?.record;
    let record = client.tell(&before.id, action)?;
    let (id, number) = (short(&record.id), record.number);
    if json {
        output::object(&as_json(&record));
    } else if action == Action::Pause {
        output::done(format_args!(
            "Job {id} paused: it reads nothing until `sage job resume {number}`; `sage job stop {number}` ends it"
        ));
    } else if before.state.is_over() {
        output::done(format_args!(
            "Job {id} continued successfully: submitted anew, {} times so far",
            record.restart_count
        ));
    } else {
        output::done(format_args!("Job {id} continued successfully"));
    }
    Ok(())
}

pub(super) fn deleted(client: &Client, args: &Args, json: bool) -> Result<(), JobError> {
    let record = client.job(&args.job)?.record;
    let id = short(&record.id);
    if !args.force && !output::confirmed(&format!("Delete job {id}, with its output and events?")) {
        output::note("Nothing was done");
        return Ok(());
    }
    client.delete(&record.id, args.force)?;
    if json {
        output::object(&json!({ "uuid": record.id, "status": "deleted" }));
    } else {
        output::done(format_args!("Job {id} deleted successfully"));
    }
    Ok(())
}

pub(super) fn cleanup(client: &Client, force: bool, json: bool) -> Result<(), JobError> {
    if !force && !output::confirmed("Cancel all jobs that run, and delete all?") {
        output::note("Nothing was done");
        return Ok(());
    }
    let deleted = client.cleanup()?.deleted;
    if json {
        output::object(&json!({ "status": "success", "deleted": deleted }));
    } else {
        output::done(format_args!("Cleaned up {deleted} jobs"));
    }
    Ok(())
}
