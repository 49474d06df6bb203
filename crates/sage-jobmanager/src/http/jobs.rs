//! Jobs: to submit, list, show, tell and delete them.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use sage_api::api::{Deleted, EventPage, FiguresNow, Graphs, JobDetail, JobPage, MOST_EVENTS, Reports, USUAL_JOBS};
use sage_api::job::{JobRecord, JobRequest, State as JobState};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::task::spawn_blocking;

use super::App;
use super::answer::Refused;
use crate::jobs::{Action, JobError};
use crate::store::Asked;

type Answer<T> = Result<Json<T>, Refused>;

/// Which jobs are listed.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct List {
    /// Their states, separated by commas.
    state: String,
    /// What their names have in them.
    name: String,
    before: Option<u64>,
    limit: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct EventsFrom {
    after: u64,
    limit: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Delete {
    force: bool,
}

/// What the query of a request says.
pub(super) fn query<T: DeserializeOwned>(uri: &axum::http::Uri) -> Result<T, Refused> {
    let query = Query::<T>::try_from_uri(uri);
    let words = |error| format!("the query (what follows `?`) is not understood: {error}");
    query.map(|Query(query)| query).map_err(|error| Refused::new(StatusCode::BAD_REQUEST, "malformed", words(error)))
}

/// What the body of a request says.
pub(super) fn body<T: DeserializeOwned>(body: &Bytes) -> Result<T, Refused> {
    let refuse = |words| Refused::new(StatusCode::BAD_REQUEST, "malformed", words);
    // A list would be taken for the fields in their order.
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err(refuse("the body has to be a JSON object".to_owned()));
    }
    let words = |error| format!("the body is no JSON of the kind that is needed: {error}");
    serde_json::from_slice(body).map_err(|error| refuse(words(error)))
}

pub(super) async fn submit(State(app): State<App>, bytes: Bytes) -> Result<Response, Refused> {
    // A long one takes a while, which others are not to wait for.
    let parse = move || body::<JobRequest>(&bytes);
    let request = spawn_blocking(parse).await.map_err(std::io::Error::other).map_err(JobError::from)??;
    let record = app.jobs.submit(request).await?;
    Ok((StatusCode::CREATED, Json(record)).into_response())
}

pub(super) async fn list(State(app): State<App>, uri: axum::http::Uri) -> Answer<JobPage> {
    let List { state, name, before, limit } = query(&uri)?;
    let states = state.split(',').filter(|word| !word.is_empty()).map(|word| {
        JobState::of_word(word).ok_or_else(|| {
            let all = JobState::ALL.map(JobState::word).join(", ");
            JobError::Malformed(format!("`state`: there is no state {word:?}; there are {all}"))
        })
    });
    let states = states.collect::<Result<Vec<_>, _>>()?;
    let asked = Asked { states, name, before, limit: limit.unwrap_or(USUAL_JOBS) };
    Ok(Json(app.jobs.page(&asked)?))
}

pub(super) async fn show(State(app): State<App>, Path(job): Path<String>) -> Answer<JobDetail> {
    Ok(Json(app.jobs.detail(&job).await?))
}

pub(super) async fn delete(
    State(app): State<App>,
    Path(job): Path<String>,
    uri: axum::http::Uri,
) -> Result<StatusCode, Refused> {
    let Delete { force } = query(&uri)?;
    app.jobs.delete(&job, force).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn events(State(app): State<App>, Path(job): Path<String>, uri: axum::http::Uri) -> Answer<EventPage> {
    let EventsFrom { after, limit } = query(&uri)?;
    let limit = limit.unwrap_or(MOST_EVENTS);
    if limit == 0 || limit > MOST_EVENTS {
        return Err(JobError::Malformed(format!("`limit` is {limit}: it has to be 1 to {MOST_EVENTS}")).into());
    }
    let found = app.jobs.events(&job, after, limit).await?;
    let events = found.events.into_iter().map(|(event, _)| event).collect();
    Ok(Json(EventPage { events, next: found.next }))
}

pub(super) async fn graph(State(app): State<App>, Path(job): Path<String>) -> Answer<Graphs> {
    Ok(Json(app.jobs.graphs(&job).await?))
}

pub(super) async fn figures(State(app): State<App>, Path(job): Path<String>) -> Answer<FiguresNow> {
    Ok(Json(app.jobs.figures(&job).await?))
}

pub(super) async fn report(State(app): State<App>, Path(job): Path<String>) -> Answer<Reports> {
    Ok(Json(app.jobs.reports(&job).await?))
}

async fn tell(app: &App, job: &str, action: Action) -> Result<(StatusCode, Json<JobRecord>), Refused> {
    Ok((StatusCode::ACCEPTED, Json(app.jobs.tell(job, action).await?)))
}

type Told = Result<(StatusCode, Json<JobRecord>), Refused>;

pub(super) async fn drain(State(app): State<App>, Path(job): Path<String>) -> Told {
    tell(&app, &job, Action::Drain).await
}

pub(super) async fn cancel(State(app): State<App>, Path(job): Path<String>) -> Told {
    tell(&app, &job, Action::Cancel).await
}

pub(super) async fn pause(State(app): State<App>, Path(job): Path<String>) -> Told {
    tell(&app, &job, Action::Pause).await
}

pub(super) async fn resume(State(app): State<App>, Path(job): Path<String>) -> Told {
    tell(&app, &job, Action::Resume).await
}

pub(super) async fn kill(State(app): State<App>, Path(job): Path<String>) -> Told {
    tell(&app, &job, Action::Kill).await
}

pub(super) async fn cleanup(State(app): State<App>) -> Answer<Deleted> {
    // It goes on if the client hangs up.
    let jobs = app.jobs.clone();
    let deleted = tokio::spawn(async move { jobs.delete_all().await }).await;
    let deleted = deleted.map_err(|error| JobError::System(std::io::Error::other(error)))??;
    Ok(Json(Deleted { deleted }))
}
