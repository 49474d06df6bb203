//! The record of a job, from its folder: what was submitted, and what has become of it.

use std::io;

use sage::{Cleanliness, Outcome};
use sage_api::home::JobFolder;
use sage_api::job::{JobRecord, JobSpec, Program, State};
use sage_api::message::{Event, Happened};
use sage_api::outcome::ProgramEnd;

use crate::clock::now_ms;
use crate::folder;
use crate::progress::{ended_as, read_events};

/// The longest text that a record says what is run with, in characters.
const LONGEST: usize = 1000;

/// The exit code of `sage run` for what failed, and for what was not started.
const FAILED: u8 = 1;
const NOT_STARTED: u8 = 2;

/// The record of what was just submitted, or is to be started anew.
pub(crate) fn queued(spec: &JobSpec) -> JobRecord {
    JobRecord {
        id: spec.id.clone(),
        number: spec.number,
        name: spec.name.clone(),
        state: State::Queued,
        clean: None,
        why: None,
        program: shown(&spec.program),
        folder: spec.folder.clone(),
        submitted_ms: spec.submitted_ms,
        started_ms: None,
        ended_ms: None,
        updated_ms: now_ms(),
        restart_count: spec.restart_count,
        autostop: spec.autostop,
        exit_code: None,
    }
}

/// Adds how it ended.
pub(crate) fn end(record: &mut JobRecord, end: &ProgramEnd) {
    record.state = ended_as(end.outcome);
    record.clean = Some(end.cleanliness == Cleanliness::Clean);
    record.why.clone_from(&end.why);
    record.ended_ms = Some(end.at_ms);
    record.exit_code = Some(end.exit_code);
    record.updated_ms = now_ms();
}

/// The record as the folder has it; `None` if that is no folder of a job. Of one that is not over, it says no more than
/// whether it was started.
pub(crate) fn of_folder(files: &JobFolder) -> io::Result<Option<(JobSpec, JobRecord)>> {
    let Some(spec) = folder::read_json::<JobSpec>(&files.spec())? else { return Ok(None) };
    folder::finish_restart(files, &spec)?;
    let mut record = queued(&spec);
    if folder::was_started(files) {
        record.state = State::Starting;
        read_events(&files.events(), 0, u64::MAX, &mut |event: Event, _| {
            if let Happened::Started { .. } = event.what {
                record.started_ms = Some(event.at_ms);
            }
            false
        })?;
    }
    if let Some(outcome) = folder::outcome(files) {
        end(&mut record, &outcome);
        record.updated_ms = outcome.at_ms;
    }
    Ok(Some((spec, record)))
}

/// How a job ended whose reaper did not say.
pub(crate) fn lost(why: String, ended: Vec<String>, left: Vec<String>) -> ProgramEnd {
    let is_clean = left.is_empty();
    ProgramEnd {
        outcome: Outcome::Lost,
        cleanliness: if is_clean { Cleanliness::Clean } else { Cleanliness::Unclean },
        exit_code: if is_clean { FAILED } else { 3 },
        why: Some(why),
        ended,
        left,
        at_ms: now_ms(),
        peak_bytes: 0,
        cpu_ms: 0,
    }
}

/// How a job ended that was never started.
pub(crate) fn not_started(outcome: Outcome, why: String) -> ProgramEnd {
    ProgramEnd {
        outcome,
        cleanliness: Cleanliness::Clean,
        exit_code: if outcome == Outcome::Failed { NOT_STARTED } else { FAILED },
        why: Some(why),
        ended: Vec::new(),
        left: Vec::new(),
        at_ms: now_ms(),
        peak_bytes: 0,
        cpu_ms: 0,
    }
}

/// What is run, as it would be typed.
fn shown(program: &Program) -> String {
    let words: Vec<String> = match program {
        Program::File { path, arguments, .. } => {
            [path.display().to_string()].into_iter().chain(arguments.iter().cloned()).collect()
        }
        Program::Environment { python, .. } => {
            let python = python.display().to_string();
            [python, "-m".to_owned(), "sage.worker".to_owned(), "--job".to_owned(), "payload".to_owned()].into()
        }
    };
    let typed = words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ");
    match typed.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &typed[..end]),
        None => typed,
    }
}

fn quoted(word: &str) -> String {
    let is_plain = |character: char| character.is_alphanumeric() || "/._-=:,+@%".contains(character);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}
