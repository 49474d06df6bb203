//! `sage doctor`: what of this machine helps or hinders jobs.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::resource::{Resource, getrlimit};
use sage_api::client::Client;
use serde::Serialize;

use crate::place::{Place, home};
use crate::{Host, output};

/// Check what jobs and the job manager need of this machine
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    place: Place,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What was found.
#[derive(Debug, Serialize)]
struct Finding {
    what: &'static str,
    is: Is,
    words: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Is {
    Good,
    /// Something works less well.
    Poor,
    /// Something does not work.
    Bad,
}

pub(crate) fn run(args: &Args, host: &Host) -> u8 {
    let findings = [folder(), manager(args), python(host), orphans(), cgroup(), files(), threads(), disk()];
    if args.json {
        output::object(&findings);
    } else {
        for Finding { what, is, words } in &findings {
            let mark = match is {
                Is::Good => "✅",
                Is::Poor => "⚠️",
                Is::Bad => "❌",
            };
            output::line(format_args!("{mark} {what}: {words}"));
        }
    }
    let _ = std::io::stdout().flush();
    u8::from(findings.iter().any(|finding| finding.is == Is::Bad))
}

fn found(what: &'static str, is: Is, words: impl Into<String>) -> Finding {
    Finding { what, is, words: words.into() }
}

fn folder() -> Finding {
    let what = "Folder";
    let home = match home() {
        Ok(home) => home,
        Err(error) => return found(what, Is::Bad, format!("{error}: neither SAGE_HOME nor HOME is set")),
    };
    let path = home.path();
    match fs::metadata(path) {
        Err(_) => found(what, Is::Good, format!("{} will be made when it is needed", path.display())),
        Ok(about) if !about.is_dir() => {
            found(what, Is::Bad, format!("{} is no folder: set SAGE_HOME to another path", path.display()))
        }
        Ok(about) if about.permissions().mode() & 0o022 != 0 => {
            let words = format!("others may write in {0}: say `chmod 700 {0}`", path.display());
            found(what, Is::Bad, words)
        }
        Ok(_) => found(what, Is::Good, path.display().to_string()),
    }
}

fn manager(args: &Args) -> Finding {
    let what = "Job manager";
    let asked = home().and_then(|home| Client::find(&home, args.place.port)).and_then(|client| client.info());
    match asked {
        Ok(info) if info.version == env!("CARGO_PKG_VERSION") => {
            found(what, Is::Good, format!("process {} at {}", info.pid, info.http))
        }
        Ok(info) => {
            let words = format!(
                "it has version {}, and this is {}: say `sage jobmanager restart`, which leaves jobs running",
                info.version,
                env!("CARGO_PKG_VERSION")
            );
            found(what, Is::Poor, words)
        }
        Err(error) => found(what, Is::Poor, error.to_string()),
    }
}

/// Which interpreter runs Python files, and whether it has the package.
fn python(host: &Host) -> Finding {
    let what = "Python";
    let Some(python) = host.python.clone().or_else(crate::run::interpreter) else {
        return found(what, Is::Poor, "none was found: Python files need one, in PATH or in a virtual environment");
    };
    let asked = "import importlib.metadata as m; print(m.version('sage-dataflow'))";
    let told = Command::new(&python).args(["-c", asked]).stdin(Stdio::null()).stderr(Stdio::null()).output();
    let python = python.display();
    match told {
        Ok(told) if told.status.success() => {
            let version = String::from_utf8_lossy(&told.stdout);
            found(what, Is::Good, format!("{python}, with the package in version {}", version.trim()))
        }
        Ok(_) => found(what, Is::Poor, format!("{python} does not have the package: `pip install sage-dataflow`")),
        Err(error) => found(what, Is::Bad, format!("{python} does not start: {error}")),
    }
}

fn orphans() -> Finding {
    let what = "What jobs leave";
    match nix::sys::prctl::get_child_subreaper() {
        Ok(_) => found(what, Is::Good, "is adopted and ended, also what has a session of its own"),
        Err(error) => found(what, Is::Bad, format!("cannot be adopted by this system: {error}")),
    }
}

/// Whether jobs can have control groups.
fn cgroup() -> Finding {
    let what = "Limits of jobs";
    match crate::run::may_make_cgroup() {
        Ok(()) => found(what, Is::Good, "a control group for each job, for all its processes together"),
        Err(why) => {
            let words = format!("for each process by itself, as there may be no control group: {why}");
            found(what, Is::Poor, words)
        }
    }
}

/// The least descriptors for some jobs at a time.
const FEW_FILES: u64 = 1024;

fn files() -> Finding {
    let what = "Open files";
    match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((most, _)) if most < FEW_FILES => {
            found(what, Is::Poor, format!("{most} at most: for more jobs at a time say `ulimit -n {FEW_FILES}`"))
        }
        Ok((most, _)) => found(what, Is::Good, format!("{most} at most")),
        Err(error) => found(what, Is::Poor, error.to_string()),
    }
}

fn threads() -> Finding {
    let what = "Processors";
    match std::thread::available_parallelism() {
        Ok(count) => found(what, Is::Good, format!("{count}")),
        Err(error) => found(what, Is::Poor, error.to_string()),
    }
}

/// The least room for output and records.
const LITTLE_ROOM: u64 = 1 << 30;

fn disk() -> Finding {
    let what = "Disk";
    let path = home().map_or_else(|_| "/".into(), |home| home.path().to_owned());
    let there = path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    match nix::sys::statvfs::statvfs(there) {
        Ok(about) => {
            let room = about.blocks_available() * about.fragment_size();
            let words = format!("{:.1} GiB are free at {}", room as f64 / (1_u64 << 30) as f64, there.display());
            found(what, if room < LITTLE_ROOM { Is::Poor } else { Is::Good }, words)
        }
        Err(error) => found(what, Is::Poor, error.to_string()),
    }
}
