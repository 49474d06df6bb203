//! Output and log files, a piece at a time.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderName, HeaderValue, Uri};
use axum::response::{IntoResponse, Response};
use sage_api::api::{FROM_HEADER, LENGTH_HEADER, LogFiles, MOST_BYTES_OF_A_PIECE, NEXT_HEADER};
use serde::Deserialize;

use super::App;
use super::answer::Refused;
use super::jobs::query;
use crate::jobs::{JobError, Piece};

/// Which piece.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Asked {
    from: i64,
    limit: Option<u64>,
}

fn asked(uri: &Uri) -> Result<(i64, u64), Refused> {
    let Asked { from, limit } = query(uri)?;
    let limit = limit.unwrap_or(MOST_BYTES_OF_A_PIECE);
    if limit == 0 || limit > MOST_BYTES_OF_A_PIECE {
        let words = format!("`limit` is {limit}: it has to be 1 to {MOST_BYTES_OF_A_PIECE}");
        return Err(JobError::Malformed(words).into());
    }
    Ok((from, limit))
}

fn answer(piece: Piece) -> Response {
    let Piece { from, next, length, bytes } = piece;
    let numbers = [(FROM_HEADER, from), (NEXT_HEADER, next), (LENGTH_HEADER, length)];
    let mut response = bytes.into_response();
    let headers = response.headers_mut();
    for (name, number) in numbers {
        headers.insert(HeaderName::from_static(name), HeaderValue::from(number));
    }
    // It is what a program has written: no browser is to make anything of it.
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

pub(super) async fn output(State(app): State<App>, Path(job): Path<String>, uri: Uri) -> Result<Response, Refused> {
    let (from, limit) = asked(&uri)?;
    Ok(answer(app.jobs.output(&job, from, limit).await?))
}

pub(super) async fn logs(State(app): State<App>, Path(job): Path<String>) -> Result<Json<LogFiles>, Refused> {
    Ok(Json(app.jobs.log_files(&job).await?))
}

pub(super) async fn log(
    State(app): State<App>,
    Path((job, name)): Path<(String, String)>,
    uri: Uri,
) -> Result<Response, Refused> {
    let (from, limit) = asked(&uri)?;
    Ok(answer(app.jobs.log(&job, &name, from, limit).await?))
}
