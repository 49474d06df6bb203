//! Takes a job: checks what was asked for, writes its folder, and lets it wait for its turn.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sage_api::SOCKET_VARIABLE;
use sage_api::job::{ID_VARIABLE, JobRecord, JobRequest, JobSpec, Limits, Program};
use tokio::task::spawn_blocking;

use super::{JobError, Jobs, MOST_WAITING};
use crate::clock::now_ms;
use crate::{folder, ids};

const LONGEST_NAME: usize = 200;
const MOST_VARIABLES: usize = 1000;
const MOST_VARIABLE_BYTES: usize = 256 << 10;
const MOST_ARGUMENTS: usize = 10_000;
/// The system takes about two megabytes of arguments and variables.
const MOST_ARGUMENT_BYTES: usize = 1 << 20;
/// A path that is longer is none.
const LONGEST_PATH: usize = 4096;

impl Jobs {
    /// Submits a job. Returns when it is on the disk: it is not lost then.
    ///
    /// # Errors
    /// [`JobError::Refused`] says what is wrong with the request; [`JobError::TooMany`] that 10,000 jobs wait; others
    /// that the job manager cannot write.
    pub(crate) async fn submit(&self, mut request: JobRequest) -> Result<JobRecord, JobError> {
        // Decoding takes a while, and so may folders on other machines.
        let check = move || {
            let payload = checked(&request)?;
            request.program = request.program.without_payload();
            Ok::<_, JobError>((request, payload))
        };
        let (request, payload) = spawn_blocking(check).await.map_err(io::Error::other)??;
        let number = {
            let mut table = self.table();
            if table.is_closing {
                return Err(JobError::Refused(
                    "the job manager is ending: submit the job when it runs again".to_owned(),
                ));
            }
            if table.waiting.len() >= MOST_WAITING {
                let words =
                    format!("{MOST_WAITING} jobs wait already: submit the job again when some of them are over");
                return Err(JobError::TooMany(words));
            }
            table.store.next_number()?
        };
        let id = ids::new_id()?;
        let log_folder = self.0.options.logs.join(format!("job_{number}_{}", &id[..8]));
        let spec = JobSpec {
            id: id.clone(),
            number,
            name: request.name,
            program: request.program,
            folder: request.folder,
            variables: request.variables.keys().cloned().collect(),
            autostop: request.autostop,
            limits: request.limits,
            submitted_ms: now_ms(),
            restart_count: 0,
            log_folder,
        };
        let (files, written) = (self.files(&id), spec.clone());
        let write = move || {
            let submitted = folder::submit(&files, &written, payload.as_deref());
            submitted.inspect_err(|_| drop(folder::delete(&files)))
        };
        spawn_blocking(write).await.map_err(io::Error::other)??;
        let record = {
            let mut table = self.table();
            table.values.keep(&id, request.variables);
            table.enqueue(spec)
        };
        tracing::info!(job = %id, number, name = %record.name, "submitted");
        self.tell_changed();
        self.start_waiting();
        // It may have been started at once.
        Ok(self.table().live.get(&id).map_or(record, |live| live.record()))
    }
}

/// Checks a request, and returns its payload, if it has one.
fn checked(request: &JobRequest) -> Result<Option<Vec<u8>>, JobError> {
    let JobRequest { name, program, folder, variables, autostop: _, limits } = request;
    let refuse = |words: String| Err(JobError::Refused(words));
    if name.is_empty() || name.chars().count() > LONGEST_NAME || name.chars().any(char::is_control) {
        return refuse(format!("`name`: a job's name has 1 to {LONGEST_NAME} characters, and no control characters"));
    }
    check_path("folder", folder)?;
    if !folder.is_absolute() {
        return refuse(format!("`folder`: {} is no absolute path", folder.display()));
    }
    if !folder.is_dir() {
        return refuse(format!("`folder`: there is no folder {}", folder.display()));
    }
    check_variables(variables)?;
    check_limits(limits)?;
    match program {
        Program::File { path, arguments, python } => {
            check_path("program.file.path", path)?;
            if !folder.join(path).is_file() {
                let path = folder.join(path);
                return refuse(format!("`program.file.path`: there is no file {}", path.display()));
            }
            if let Some(python) = python {
                check_interpreter("program.file.python", &folder.join(python))?;
            }
            let bytes: usize = arguments.iter().map(String::len).sum();
            if arguments.len() > MOST_ARGUMENTS || bytes > MOST_ARGUMENT_BYTES {
                return refuse(format!(
                    "`program.file.arguments`: {} arguments of {bytes} bytes, of {MOST_ARGUMENTS} and {} at most",
                    arguments.len(),
                    MOST_ARGUMENT_BYTES
                ));
            }
            if let Some(index) = arguments.iter().position(|argument| argument.contains('\0')) {
                return refuse(format!("`program.file.arguments`: argument {index} has a zero byte"));
            }
            Ok(None)
        }
        Program::Environment { python, payload } => {
            check_path("program.environment.python", python)?;
            if !python.is_absolute() {
                return refuse(format!("`program.environment.python`: {} is no absolute path", python.display()));
            }
            check_interpreter("program.environment.python", python)?;
            match STANDARD.decode(payload) {
                Ok(payload) if !payload.is_empty() => Ok(Some(payload)),
                Ok(_) => refuse("`program.environment.payload` is empty: it is the pickled environment".to_owned()),
                Err(error) => refuse(format!("`program.environment.payload` is no base64: {error}")),
            }
        }
    }
}

fn check_path(field: &str, path: &Path) -> Result<(), JobError> {
    let bytes = path.as_os_str().as_encoded_bytes();
    if bytes.is_empty() || bytes.len() > LONGEST_PATH || bytes.contains(&0) {
        return Err(JobError::Refused(format!("`{field}`: a path has 1 to {LONGEST_PATH} bytes, and no zero byte")));
    }
    Ok(())
}

fn check_interpreter(field: &str, python: &Path) -> Result<(), JobError> {
    check_path(field, python)?;
    if python.is_file() {
        return Ok(());
    }
    Err(JobError::Refused(format!("`{field}`: there is no interpreter {}", python.display())))
}

fn check_variables(variables: &BTreeMap<String, String>) -> Result<(), JobError> {
    let refuse = |words: String| Err(JobError::Refused(words));
    let bytes: usize = variables.iter().map(|(name, value)| name.len() + value.len()).sum();
    if variables.len() > MOST_VARIABLES || bytes > MOST_VARIABLE_BYTES {
        let count = variables.len();
        return refuse(format!(
            "`variables`: {count} variables of {bytes} bytes, of {MOST_VARIABLES} and {MOST_VARIABLE_BYTES} at most"
        ));
    }
    for (name, value) in variables {
        if name.is_empty() || name.contains(['=', '\0']) {
            return refuse(format!("`variables`: {name:?} is no name of a variable"));
        }
        if [ID_VARIABLE, SOCKET_VARIABLE].contains(&name.as_str()) {
            return refuse(format!("`variables`: {name} is set by the job manager"));
        }
        if value.contains('\0') {
            return refuse(format!("`variables`: the value of {name} has a zero byte"));
        }
    }
    Ok(())
}

fn check_limits(limits: &Limits) -> Result<(), JobError> {
    let Limits { memory_bytes, processes, cpu_ms, time_ms } = limits;
    let all = [("memory_bytes", memory_bytes), ("processes", processes), ("cpu_ms", cpu_ms), ("time_ms", time_ms)];
    match all.into_iter().find(|(_, limit)| **limit == Some(0)) {
        Some((name, _)) => Err(JobError::Refused(format!("`limits.{name}`: a job that may take nothing cannot run"))),
        None => Ok(()),
    }
}
