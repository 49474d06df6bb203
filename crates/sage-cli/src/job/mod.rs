//! `sage job`: submits jobs to a job manager, lists and shows them, and tells them to end.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use sage_api::client::{Action, Client, ClientError};

use crate::output;
use crate::place::Place;

mod act;
mod follow;
mod list;
mod show;
mod submit;

/// Submit jobs to the job manager, see how they are, and end them.
///
/// JOB is the number of a job, its id, or a part of the id from its begin on that no other has.
#[derive(Debug, clap::Args)]
#[command(after_help = crate::EXIT_CODES)]
pub(crate) struct Args {
    #[command(flatten)]
    place: Place,

    /// Print JSON
    #[arg(long, global = true)]
    json: bool,

    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Submit(submit::Args),
    List(list::Args),
    Show(show::Args),
    /// Say in a line how a job is
    Status {
        /// The job
        job: String,
    },
    Logs(follow::LogArgs),
    Watch(follow::WatchArgs),
    Monitor(list::MonitorArgs),
    /// End a job's sources, finish what is in flight, and wait until it is over
    #[command(visible_alias = "stop")]
    Drain(act::Args),
    /// Drop what is in flight, clean up, and wait until it is over
    Cancel(act::Args),
    /// Kill a job and all that it has started: nothing is cleaned up
    Kill(act::Args),
    /// Have a job read nothing until it is resumed
    Pause(act::Args),
    /// Have a paused job go on; submit one that is over anew
    #[command(visible_alias = "continue")]
    Resume(act::Args),
    /// Delete a job that is over, with its output and events
    Delete(act::Args),
    /// Cancel all jobs that run, and delete all
    Cleanup {
        /// Do not ask
        #[arg(short, long)]
        force: bool,
    },
    /// Say whether the job manager works
    Health,
    /// Say where the job manager listens and writes, and how many jobs it has
    Info,
}

pub(crate) fn run(args: &Args, python: Option<&Path>) -> u8 {
    match asked(args, python) {
        Ok(code) => code,
        Err(error) => output::failed(&error, args.json),
    }
}

/// Why a verb could not do what it should.
#[derive(Debug, thiserror::Error)]
enum JobError {
    #[error(transparent)]
    Asking(#[from] ClientError),
    #[error("the variable {0} is not set here: set it, or say --env {0}=VALUE")]
    NoVariable(String),
    #[error("there is no file {0}: give the path of a Python file, or of a program")]
    NoFile(PathBuf),
    #[error("what the job manager is to be sent is not UTF-8: {0}")]
    NotText(String),
    #[error("reading the current folder failed")]
    Folder(#[source] std::io::Error),
    #[error("there is no output to follow any more: the job manager is gone, and the job goes on")]
    Gone,
}

fn asked(args: &Args, python: Option<&Path>) -> Result<u8, JobError> {
    let (client, json) = (args.place.client()?, args.json);
    match &args.verb {
        Verb::Submit(args) => return submit::run(&client, args, python, json),
        Verb::List(args) => list::run(&client, args, json)?,
        Verb::Monitor(args) => list::monitor(&client, args, json)?,
        Verb::Show(args) => show::run(&client, args, json)?,
        Verb::Status { job } => show::status(&client, job, json)?,
        Verb::Logs(args) => follow::logs(&client, args)?,
        Verb::Watch(args) => return follow::watch(&client, args, json),
        Verb::Drain(args) => return act::ended(&client, args, Action::Drain, json),
        Verb::Cancel(args) => return act::ended(&client, args, Action::Cancel, json),
        Verb::Kill(args) => return act::ended(&client, args, Action::Kill, json),
        Verb::Pause(args) => act::told(&client, args, Action::Pause, json)?,
        Verb::Resume(args) => act::told(&client, args, Action::Resume, json)?,
        Verb::Delete(args) => act::deleted(&client, args, json)?,
        Verb::Cleanup { force } => act::cleanup(&client, *force, json)?,
        Verb::Health => health(&client, json)?,
        Verb::Info => info(&client, json)?,
    }
    Ok(0)
}

fn health(client: &Client, json: bool) -> Result<(), ClientError> {
    let (health, info) = (client.health()?, client.info()?);
    if json {
        output::object(&health);
    } else {
        output::done("JobManager is healthy");
        output::line(format_args!("Daemon: {}", info.http));
    }
    Ok(())
}

fn info(client: &Client, json: bool) -> Result<(), ClientError> {
    let info = client.info()?;
    if json {
        output::object(&info);
        return Ok(());
    }
    output::line("=== JobManager ===");
    output::line(format_args!("Session: {}", info.session));
    output::line(format_args!("Daemon: {}", info.http));
    output::line(format_args!("Process: {}", info.pid));
    output::line(format_args!("Version: {}", info.version));
    output::line(format_args!("Log folder: {}", info.log_folder));
    let queue = info.queue;
    output::line(format_args!("Running: {} of {} at a time, {} queued", queue.running, queue.limit, queue.queued));
    for (state, count) in &info.jobs {
        output::line(format_args!("  {state}: {count}"));
    }
    Ok(())
}

/// An id, as far as a person needs it.
fn short(id: &str) -> String {
    format!("{}...", id.get(..8).unwrap_or(id))
}
