//! `sage job submit`.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use sage_api::client::Client;
use sage_api::job::{JobRequest, Limits, Program};

use super::{JobError, follow, short};
use crate::limits::LimitArgs;
use crate::output;

/// Submit a program to the job manager, which runs it in this folder
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The job's name [default: that of the program]
    #[arg(long)]
    name: Option<String>,

    /// A variable that the program gets, with this value or the one it has here; may be given several times
    #[arg(short, long = "env", value_name = "NAME[=VALUE]")]
    variables: Vec<String>,

    /// The interpreter for a Python program [default: the one that `sage` came with, that of the active virtual
    /// environment, or python3]
    #[arg(long, value_name = "PATH")]
    python: Option<PathBuf>,

    #[command(flatten)]
    limits: LimitArgs,

    /// Show its output, and wait until it is over: the exit code is the job's
    #[arg(short, long)]
    wait: bool,

    /// A Python file or a program, and what it is given
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_names = ["PROGRAM", "ARGUMENTS"])]
    program: Vec<OsString>,
}

/// `python` is the interpreter that hosts this command, if one does.
pub(super) fn run(client: &Client, args: &Args, python: Option<&Path>, json: bool) -> Result<u8, JobError> {
    let record = client.submit(&request(args, python)?)?;
    if !args.wait {
        if json {
            output::object(&record);
        } else {
            output::done(format_args!(
                "Job {} submitted: number {}, `{}`",
                short(&record.id),
                record.number,
                record.name
            ));
            let waits = record.why.iter().map(|why| format!("; {why}")).collect::<String>();
            output::line(format_args!(
                "It is {}{waits}. Follow it with `sage job logs -f {}`",
                record.state.word(),
                record.number
            ));
        }
        return Ok(0);
    }
    follow::until_over(client, &record.id, json)
}

fn request(args: &Args, host: Option<&Path>) -> Result<JobRequest, JobError> {
    let text = |text: OsString| text.into_string().map_err(|text| JobError::NotText(text.display().to_string()));
    let mut words = args.program.iter().cloned().map(text);
    let program = words.next().transpose()?.unwrap_or_default();
    let arguments = words.collect::<Result<_, _>>()?;
    let folder = env::current_dir().map_err(JobError::Folder)?;
    let absolute = folder.join(&program);
    // A name alone is looked for where the daemon looks for programs, unless it lies here.
    let path = if absolute.exists() { absolute } else { PathBuf::from(&program) };
    if !path.exists() && path.components().count() > 1 || program.ends_with(".py") && !path.exists() {
        return Err(JobError::NoFile(program.into()));
    }
    let name = args.name.clone().unwrap_or_else(|| name_of(Path::new(&program)));
    let python = args.python.as_deref().or(host).map(|python| folder.join(python));
    let program = Program::File { path, arguments, python };
    let limits: Limits = args.limits.limits();
    Ok(JobRequest { name, program, folder, variables: variables(&args.variables)?, autostop: true, limits })
}

fn name_of(program: &Path) -> String {
    program.file_stem().unwrap_or(program.as_os_str()).to_string_lossy().into_owned()
}

fn variables(given: &[String]) -> Result<BTreeMap<String, String>, JobError> {
    // What says which Python is meant goes along.
    let usual =
        ["VIRTUAL_ENV", "PYTHONPATH"].into_iter().filter_map(|name| Some((name.to_owned(), env::var(name).ok()?)));
    let mut variables: BTreeMap<_, _> = usual.collect();
    for variable in given {
        let (name, value) = match variable.split_once('=') {
            Some((name, value)) => (name, value.to_owned()),
            None => (variable.as_str(), env::var(variable).map_err(|_| JobError::NoVariable(variable.clone()))?),
        };
        variables.insert(name.to_owned(), value);
    }
    Ok(variables)
}
