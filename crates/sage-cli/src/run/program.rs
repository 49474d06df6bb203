//! Which program is meant, and what starts it.

use std::env;
use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use sage_api::home::JobFolder;
use sage_api::job::{ID_VARIABLE, JobSpec, Program as Submitted};

/// What is to be started.
#[derive(Debug, Clone)]
pub(super) struct Program {
    name: String,
    /// The file to execute, and its arguments.
    pub(super) file: PathBuf,
    pub(super) arguments: Vec<OsString>,
    /// The folder to start it in, if that is not this process's.
    pub(super) folder: Option<PathBuf>,
    /// Variables of its environment, besides those of this process.
    pub(super) variables: Vec<(&'static str, OsString)>,
}

/// Why there is nothing to start.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoProgram {
    #[error("there is no file {0}: give the path of a Python file, or of a program")]
    Missing(PathBuf),
    #[error("there is no program {0}, neither in this folder nor in one of PATH")]
    Unknown(PathBuf),
    #[error("{0} is a folder: give the path of a Python file, or of a program")]
    Folder(PathBuf),
    #[error(
        "{0} cannot be executed: make it executable with `chmod +x`, or give a Python file, whose name ends in .py"
    )]
    NotExecutable(PathBuf),
    #[error("no Python was found to run {0} with: activate a virtual environment, or say --python PATH")]
    NoPython(PathBuf),
    #[error("there is no interpreter {0}")]
    NoInterpreter(PathBuf),
    #[error("there is no folder {0} to run it in")]
    NoFolder(PathBuf),
}

impl Program {
    /// The program of this path: Python files are run by an interpreter.
    pub(super) fn find(path: &Path, arguments: &[OsString], python: Option<&Path>) -> Result<Self, NoProgram> {
        let name = path.display().to_string();
        if path.extension().is_some_and(|extension| extension == "py") {
            if !path.exists() {
                return Err(NoProgram::Missing(path.to_owned()));
            }
            let file = match python {
                Some(python) => found(python).ok_or_else(|| NoProgram::NoInterpreter(python.to_owned()))?,
                None => interpreter().ok_or_else(|| NoProgram::NoPython(path.to_owned()))?,
            };
            let arguments = [path.as_os_str().to_owned()].into_iter().chain(arguments.iter().cloned()).collect();
            return Ok(Self { arguments, ..Self::new(name, file) });
        }
        let file = match found(path) {
            Some(file) => file,
            None if path.is_dir() => return Err(NoProgram::Folder(path.to_owned())),
            None if path.exists() => return Err(NoProgram::NotExecutable(path.to_owned())),
            None if is_bare(path) => return Err(NoProgram::Unknown(path.to_owned())),
            None => return Err(NoProgram::Missing(path.to_owned())),
        };
        Ok(Self { arguments: arguments.to_vec(), ..Self::new(name, file) })
    }

    /// That of a job of the job manager.
    pub(super) fn of_job(job: &JobSpec, folder: &JobFolder) -> Result<Self, NoProgram> {
        if !job.folder.is_dir() {
            return Err(NoProgram::NoFolder(job.folder.clone()));
        }
        let mut program = match &job.program {
            Submitted::File { path, arguments, python } => {
                let arguments: Vec<_> = arguments.iter().map(OsString::from).collect();
                // An absolute path stays as it is.
                Self::find(&job.folder.join(path), &arguments, python.as_deref())?
            }
            Submitted::Environment { python, .. } => {
                let file = found(python).ok_or_else(|| NoProgram::NoInterpreter(python.clone()))?;
                let arguments = ["-m", "sage.worker", "--job"].map(OsString::from).into_iter();
                let arguments = arguments.chain([folder.payload().into_os_string()]).collect();
                // Modules in the job's folder are not in the way of the package's. `sage.worker` takes it out again.
                let variables = vec![("PYTHONSAFEPATH", "1".into())];
                Self { arguments, variables, ..Self::new(job.name.clone(), file) }
            }
        };
        program.folder = Some(job.folder.clone());
        program.variables.push((ID_VARIABLE, job.id.clone().into()));
        Ok(program)
    }

    fn new(name: String, file: PathBuf) -> Self {
        Self { name, file, arguments: Vec::new(), folder: None, variables: Vec::new() }
    }

    /// As the user has called it.
    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

/// The interpreter of the active virtual environment, or the first one of `PATH`.
pub(crate) fn interpreter() -> Option<PathBuf> {
    let environment = env::var_os("VIRTUAL_ENV").map(|folder| Path::new(&folder).join("bin/python"));
    let own = environment.filter(|python| is_executable(python));
    own.or_else(|| ["python3", "python"].into_iter().find_map(|name| in_path(Path::new(name))))
}

/// The executable file that is meant: of a name without a folder, that in this folder, or the first one of `PATH`.
fn found(path: &Path) -> Option<PathBuf> {
    let here = if is_bare(path) { Path::new(".").join(path) } else { path.to_owned() };
    if is_executable(&here) {
        return Some(here);
    }
    if is_bare(path) { in_path(path) } else { None }
}

fn in_path(name: &Path) -> Option<PathBuf> {
    let folders = env::var_os("PATH")?;
    env::split_paths(&folders).map(|folder| folder.join(name)).find(|file| is_executable(file))
}

fn is_bare(path: &Path) -> bool {
    path.components().count() == 1 && !path.has_root() && path.file_name().is_some()
}

fn is_executable(file: &Path) -> bool {
    file.metadata().is_ok_and(|about| about.is_file() && about.permissions().mode() & 0o111 != 0)
}
