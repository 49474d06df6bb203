//! What the routes of the page do.

use std::collections::VecDeque;

use axum::Extension;
use axum::extract::{Path, State};
use axum::http::header::LOCATION;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use sage_api::api::{EventPage, MOST_EVENTS};
use sage_api::job::State as JobState;

use super::job::{Seen, consequence};
use super::jobs::{Shown, about as about_page, list as list_page};
use super::shell::Viewer;
use super::{job as job_page, ok};
use crate::auth::Caller;
use crate::http::{App, Refused, info};
use crate::jobs::{Action, JobError, Piece};
use crate::store::Asked;

/// How many jobs are on a page.
const JOBS: u64 = 50;

/// How much of the output is on the page of a job, and how much on a page of its own.
const OUTPUT: u64 = 16 << 10;
const PIECE: u64 = 256 << 10;

/// So many times events are read for a page; the rest comes by the stream.
const MOST_READS: usize = 20;

/// The latest events that are on a page.
const LATEST: usize = 200;

/// The token for forms of whoever asks: programs need none.
fn csrf(caller: &Caller) -> &str {
    match caller {
        Caller::Session(session) => &session.csrf,
        Caller::Token => "",
    }
}

/// What the address says that the list is to show.
fn shown(uri: &Uri) -> Result<(Shown, Asked), JobError> {
    let pairs: Vec<(String, String)> = serde_urlencoded::from_str(uri.query().unwrap_or_default())
        .map_err(|error| JobError::Malformed(format!("the address is not understood: {error}")))?;
    let (mut shown, mut states) = (Shown::default(), Vec::new());
    for (name, value) in pairs {
        match name.as_str() {
            "state" => shown.states.extend(value.split(',').filter(|word| !word.is_empty()).map(str::to_owned)),
            "name" => shown.name = value,
            "before" => shown.before = value.parse().ok(),
            _ => {}
        }
    }
    for word in &shown.states {
        let unknown = || JobError::Malformed(format!("there is no state {word:?}"));
        states.push(JobState::of_word(word).ok_or_else(unknown)?);
    }
    let asked = Asked { states, name: shown.name.clone(), before: shown.before, limit: JOBS };
    Ok((shown, asked))
}

pub(super) async fn list(State(app): State<App>, uri: Uri) -> Result<Response, Refused> {
    let (shown, asked) = shown(&uri)?;
    Ok(ok(list_page(&app.jobs.page(&asked)?, &shown)))
}

pub(super) async fn about(State(app): State<App>) -> Result<Response, Refused> {
    Ok(ok(about_page(&info(&app)?)))
}

pub(super) async fn job(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Path(job): Path<String>,
) -> Result<Response, Refused> {
    let detail = app.jobs.detail(&job).await?;
    let id = &detail.record.id;
    // First: what comes about from here on is told by the stream, and is not missing on the page.
    let events = latest_events(&app, id).await?;
    let (graphs, reports) = (app.jobs.graphs(id).await?.jobs, app.jobs.reports(id).await?.jobs);
    // There are none when it is over, or not begun.
    let figures = match app.jobs.figures(id).await {
        Ok(figures) => figures.jobs,
        Err(_) => Vec::new(),
    };
    let output = app.jobs.output(id, -i64::try_from(OUTPUT).unwrap_or(i64::MAX), OUTPUT).await?;
    let files: Vec<_> = app.jobs.log_files(id).await?.files.into_iter().map(|file| file.name).collect();
    let seen = Seen {
        detail: &detail,
        graphs: &graphs,
        reports: &reports,
        figures: &figures,
        events: &events,
        output: &String::from_utf8_lossy(&output.bytes),
        output_next: output.next,
        files: &files,
    };
    Ok(ok(job_page::page(&seen, Viewer { csrf: csrf(&caller) })))
}

async fn latest_events(app: &App, id: &str) -> Result<EventPage, JobError> {
    let (mut latest, mut next) = (VecDeque::new(), 0);
    for _ in 0..MOST_READS {
        let found = app.jobs.events_of(id, next, MOST_EVENTS).await?;
        let is_all = found.events.is_empty();
        latest.extend(found.events.into_iter().map(|(event, _)| event));
        latest.drain(..latest.len().saturating_sub(LATEST));
        next = found.next;
        if is_all {
            break;
        }
    }
    Ok(EventPage { events: latest.into(), next })
}

/// Where a piece begins, as the address says.
fn from(uri: &Uri) -> i64 {
    let pairs: Vec<(String, String)> = serde_urlencoded::from_str(uri.query().unwrap_or_default()).unwrap_or_default();
    let from = pairs.into_iter().find_map(|(name, value)| if name == "from" { value.parse().ok() } else { None });
    from.unwrap_or(-i64::try_from(PIECE).unwrap_or(i64::MAX))
}

fn text(app: &App, job: &str, what: &str, piece: &Piece) -> Result<Response, Refused> {
    let record = app.jobs.record(job)?;
    let numbers = (piece.from, piece.next, piece.length);
    Ok(ok(job_page::text(&record, what, &String::from_utf8_lossy(&piece.bytes), numbers, PIECE)))
}

pub(super) async fn output(State(app): State<App>, Path(job): Path<String>, uri: Uri) -> Result<Response, Refused> {
    let piece = app.jobs.output(&job, from(&uri), PIECE).await?;
    text(&app, &job, "Output", &piece)
}

pub(super) async fn log(
    State(app): State<App>,
    Path((job, name)): Path<(String, String)>,
    uri: Uri,
) -> Result<Response, Refused> {
    let piece = app.jobs.log(&job, &name, from(&uri), PIECE).await?;
    text(&app, &job, &name, &piece)
}

pub(super) async fn threads(State(app): State<App>, Path(job): Path<String>) -> Result<Response, Refused> {
    let record = app.jobs.record(&job)?;
    Ok(ok(job_page::threads(&record, &app.jobs.figures(&record.id).await?)))
}

fn unknown(action: &str) -> Refused {
    let words = format!("a job cannot be told to {action:?}");
    Refused::new(StatusCode::NOT_FOUND, "not_found", words)
}

pub(super) async fn confirm(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Path((job, action)): Path<(String, String)>,
) -> Result<Response, Refused> {
    if consequence(&action).is_none() {
        return Err(unknown(&action));
    }
    let record = app.jobs.record(&job)?;
    let page = job_page::confirm(&record, &action, Viewer { csrf: csrf(&caller) });
    let words = || format!("job {} is {}: it cannot be told to {action}", record.number, record.state.word());
    page.map(ok).ok_or_else(|| JobError::Conflict(words()).into())
}

pub(super) async fn act(
    State(app): State<App>,
    Path((job, action)): Path<(String, String)>,
) -> Result<Response, Refused> {
    let id = app.jobs.record(&job)?.id;
    let action = match action.as_str() {
        "drain" => Action::Drain,
        "cancel" => Action::Cancel,
        "pause" => Action::Pause,
        "resume" => Action::Resume,
        "kill" => Action::Kill,
        "delete" => {
            app.jobs.delete(&id, false).await?;
            return Ok((StatusCode::SEE_OTHER, [(LOCATION, "/".to_owned())]).into_response());
        }
        other => return Err(unknown(other)),
    };
    app.jobs.tell(&id, action).await?;
    Ok((StatusCode::SEE_OTHER, [(LOCATION, format!("/jobs/{id}"))]).into_response())
}
