//! `sage job show` and `sage job status`.

use sage_api::api::JobDetail;
use sage_api::client::{Client, ClientError};
use sage_api::job::{JobRecord, Limit};
use sage_api::outcome::Enforced;
use serde_json::json;

use super::list::{as_json, printable, runtime};
use super::short;
use crate::output;

/// Show all about a job
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The job
    job: String,

    /// Show more: what is run and how it is limited, its environments, and the reports
    #[arg(short, long)]
    verbose: bool,
}

pub(super) fn run(client: &Client, args: &Args, json: bool) -> Result<(), ClientError> {
    let detail = client.job(&args.job)?;
    if json {
        let mut record = as_json(&detail.record);
        let JobDetail { spec, reaper, outcome, engine_jobs, .. } = &detail;
        record["spec"] = json!(spec);
        record["reaper"] = json!(reaper);
        record["outcome"] = json!(outcome);
        record["engine_jobs"] = json!(engine_jobs);
        record["reports"] = json!(client.reports(&detail.record.id)?.jobs);
        output::object(&record);
        return Ok(());
    }
    summary(&detail.record);
    if args.verbose {
        more(&detail);
        for report in client.reports(&detail.record.id)?.jobs {
            output::line(format_args!("\n{report}"));
        }
    }
    Ok(())
}

/// What is shown of each job.
pub(super) fn summary(job: &JobRecord) {
    output::line("=== Job Details ===");
    output::line(format_args!("UUID: {}", job.id));
    output::line(format_args!("Number: {}", job.number));
    output::line(format_args!("Name: {}", printable(&job.name, 200)));
    let unclean = if job.clean == Some(false) { ", unclean" } else { "" };
    output::line(format_args!("Status: {}{unclean}", job.state.word()));
    job.why.iter().for_each(|why| output::line(format_args!("Why: {why}")));
    let started = job.started_ms.map_or_else(|| "not yet".to_owned(), output::moment);
    output::line(format_args!("Start Time: {started}"));
    runtime(job).into_iter().for_each(|runtime| output::line(format_args!("Runtime: {}", output::lasting(runtime))));
}

fn more(detail: &JobDetail) {
    let JobDetail { record, spec, reaper, outcome, engine_jobs } = detail;
    output::line(format_args!("Submitted: {}", output::moment(record.submitted_ms)));
    output::line(format_args!("Restarts: {}", record.restart_count));
    output::line(format_args!("Program: {}", record.program));
    output::line(format_args!("Folder: {}", record.folder.display()));
    if !spec.variables.is_empty() {
        output::line(format_args!("Variables: {}", spec.variables.join(", ")));
    }
    for (limit, enforced) in reaper.iter().flat_map(|reaper| &reaper.limits) {
        output::line(format_args!("Limit on {}: {}", limited(*limit), by(enforced)));
    }
    if let Some(outcome) = outcome {
        let code = outcome.exit_code;
        let (peak, cpu) = (outcome.peak_bytes >> 20, output::lasting(outcome.cpu_ms));
        output::line(format_args!("Exit code: {code}; {peak} MiB at most, {cpu} of processors"));
        outcome.ended.iter().for_each(|name| output::line(format_args!("It left, and was ended: {name}")));
        outcome.left.iter().for_each(|name| output::line(format_args!("Error: left behind: {name}")));
    }
    output::line("Environment Details:");
    for job in engine_jobs {
        let name = printable(&job.environment, 80);
        output::line(format_args!(
            "  {name} ({}): {}, since {}",
            job.id,
            job.state.word(),
            output::moment(job.begun_ms)
        ));
    }
}

fn limited(limit: Limit) -> &'static str {
    match limit {
        Limit::Memory => "memory",
        Limit::Processes => "processes",
        Limit::Cpu => "time of processors",
        Limit::Time => "time",
    }
}

fn by(enforced: &Enforced) -> String {
    match enforced {
        Enforced::Cgroup => "by a control group, for all its processes together".to_owned(),
        Enforced::EachProcess => "for each of its processes".to_owned(),
        Enforced::Reaper => "by the process that watches it".to_owned(),
        Enforced::No(why) => format!("not enforced: {why}"),
    }
}

pub(super) fn status(client: &Client, job: &str, json: bool) -> Result<(), ClientError> {
    let JobDetail { record, .. } = client.job(job)?;
    if json {
        output::object(&as_json(&record));
        return Ok(());
    }
    let why = record.why.iter().map(|why| format!(": {why}")).collect::<String>();
    let name = printable(&record.name, 80);
    output::line(format_args!("Job '{name}' ({}) status: {}{why}", short(&record.id), record.state.word()));
    Ok(())
}
