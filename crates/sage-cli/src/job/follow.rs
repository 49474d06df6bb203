//! `sage job logs` and `sage job watch`: what becomes of a job, as it comes about.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use sage_api::api::{FiguresNow, Streamed};
use sage_api::client::Client;
use sage_api::job::JobRecord;

use super::list::{as_json, clear, printable};
use super::{JobError, act, show};
use crate::output;

/// Print the output of a job
#[derive(Debug, clap::Args)]
pub(super) struct LogArgs {
    /// The job
    job: String,

    /// Go on until the job is over
    #[arg(short, long)]
    follow: bool,

    /// Only so many bytes from the end
    #[arg(long, value_name = "BYTES")]
    tail: Option<u32>,

    /// A log file of its environments in place of its output; `list` says which there are
    #[arg(long, value_name = "NAME", conflicts_with = "follow")]
    file: Option<String>,
}

/// Show a job and its figures, until it is over or Ctrl-C: the exit code is the job's
#[derive(Debug, clap::Args)]
pub(super) struct WatchArgs {
    /// The job
    job: String,

    /// Draw again after so many seconds at the earliest
    #[arg(short, long, default_value_t = 2.0)]
    refresh: f64,
}

pub(super) fn logs(client: &Client, args: &LogArgs) -> Result<(), JobError> {
    let from = args.tail.map_or(0, |tail| -i64::from(tail));
    match args.file.as_deref() {
        Some("list") => {
            for file in client.log_files(&args.job)?.files {
                output::line(format_args!("{:>12}  {}", file.bytes, file.name));
            }
        }
        Some(name) => {
            let mut piece = client.log(&args.job, name, from)?;
            while write(&piece.bytes) && piece.next < piece.length {
                piece = client.log(&args.job, name, position(piece.next))?;
            }
        }
        None => {
            let id = client.job(&args.job)?.record.id;
            if args.follow {
                followed(client, &id, from)?;
            } else {
                rest(client, &id, from)?;
            }
        }
    }
    Ok(())
}

/// Shows the output of a job until it is over, and says what has become of it. Returns its exit code.
pub(super) fn until_over(client: &Client, id: &str, json: bool) -> Result<u8, JobError> {
    let record = followed(client, id, 0)?;
    if json {
        output::object(&as_json(&record));
    } else {
        let _ = writeln!(io::stderr(), "sage: job {} {}", record.number, act::ending(&record));
    }
    Ok(record.exit_code.unwrap_or(1))
}

fn followed(client: &Client, id: &str, from: i64) -> Result<JobRecord, JobError> {
    // From before the output is read, so that nothing that comes meanwhile is missed.
    let changes = client.follow(id, u64::MAX, false)?;
    let mut next = rest(client, id, from)?;
    for change in changes {
        match change? {
            Streamed::Output { output } if output > next => next = rest(client, id, position(next))?,
            Streamed::Over(record) => {
                rest(client, id, position(next))?;
                return Ok(*record);
            }
            _ => {}
        }
    }
    Err(JobError::Gone)
}

/// Prints the output from there on, and returns its end.
fn rest(client: &Client, id: &str, from: i64) -> Result<u64, JobError> {
    let mut piece = client.output(id, from)?;
    while write(&piece.bytes) && piece.next < piece.length {
        piece = client.output(id, position(piece.next))?;
    }
    Ok(piece.next)
}

fn position(next: u64) -> i64 {
    next.try_into().unwrap_or(i64::MAX)
}

/// Whether somebody reads it.
fn write(bytes: &[u8]) -> bool {
    let mut out = io::stdout();
    out.write_all(bytes).and_then(|()| out.flush()).is_ok()
}

/// Waits until a job is over.
pub(super) fn over(client: &Client, id: &str) -> Result<JobRecord, JobError> {
    for change in client.follow(id, u64::MAX, false)? {
        if let Streamed::Over(record) = change? {
            return Ok(*record);
        }
    }
    Err(JobError::Gone)
}

pub(super) fn watch(client: &Client, args: &WatchArgs, json: bool) -> Result<u8, JobError> {
    let id = client.job(&args.job)?.record.id;
    let pause = Duration::try_from_secs_f64(args.refresh.max(0.1)).unwrap_or(Duration::from_secs(2));
    let (mut record, mut figures, mut drawn) = (None, FiguresNow::default(), None::<Instant>);
    for change in client.follow(&id, u64::MAX, true)? {
        let (is_new, is_over) = match change? {
            Streamed::Record(now) => (record.replace(*now).is_none(), false),
            Streamed::Over(now) => (record.replace(*now).is_none(), true),
            Streamed::Figures(now) => {
                figures = now;
                (false, false)
            }
            _ => continue,
        };
        let Some(record) = &record else { continue };
        if is_new || is_over || drawn.is_none_or(|drawn| drawn.elapsed() >= pause) {
            draw(record, &figures, json);
            drawn = Some(Instant::now());
        }
        if is_over {
            return Ok(record.exit_code.unwrap_or(1));
        }
    }
    Err(JobError::Gone)
}

fn draw(record: &JobRecord, figures: &FiguresNow, json: bool) {
    if json {
        let mut value = as_json(record);
        value["figures"] = serde_json::json!(figures.jobs);
        // A line each, for whoever reads them one by one.
        output::line(value);
        return;
    }
    clear();
    show::summary(record);
    for job in &figures.jobs {
        let metrics = &job.figures.metrics;
        let operators = metrics.operators.iter().map(|operator| {
            let name = printable(&operator.name, 40);
            let numbers = [operator.records_in, operator.records_out, operator.failed].map(|count| count.to_string());
            [name].into_iter().chain(numbers).collect()
        });
        output::grid(&["Operator", "In", "Out", "Failed"], &operators.collect::<Vec<Vec<_>>>());
    }
    if !io::stdout().is_terminal() {
        output::line("");
    }
}
