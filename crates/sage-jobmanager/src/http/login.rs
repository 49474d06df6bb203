//! How a browser begins a session: with a link that is good once, or with the token.

use axum::Extension;
use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, LOCATION, REFERRER_POLICY, SET_COOKIE};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use sage_api::api::{LoginLink, NewToken, SESSION_COOKIE};
use serde::Deserialize;

use super::App;
use super::answer::Refused;
use super::gate::field;
use super::jobs::query;
use crate::auth::{Caller, Session};
use crate::jobs::JobError;
use crate::page;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ByLink {
    code: Option<String>,
}

pub(super) async fn by_link(State(app): State<App>, uri: Uri) -> Result<Response, Refused> {
    let ByLink { code } = query(&uri)?;
    let Some(code) = code else { return Ok(page::login(StatusCode::OK, None)) };
    match app.auth.use_link(&code).map_err(JobError::from)? {
        Some(session) => Ok(begun(&session)),
        None => {
            let words = "this link was used, or is older than ten minutes: `sage jobmanager status` prints another one";
            Err(Refused::new(StatusCode::UNAUTHORIZED, "void_link", words))
        }
    }
}

pub(super) async fn by_token(State(app): State<App>, bytes: Bytes) -> Result<Response, Refused> {
    match field(&bytes, "token") {
        Some(token) if app.auth.is_token(token.trim()) => {
            let session = app.auth.begin_session().map_err(JobError::from)?;
            Ok(begun(&session))
        }
        _ => Err(Refused::new(StatusCode::UNAUTHORIZED, "wrong_token", "this is not the token of this job manager")),
    }
}

pub(super) async fn logout(State(app): State<App>, Extension(caller): Extension<Caller>) -> Response {
    if let Caller::Session(session) = caller {
        app.auth.end_session(&session);
    }
    let cookie = format!("{SESSION_COOKIE}=; HttpOnly; SameSite=Strict; Path=/; Max-Age=0");
    (StatusCode::SEE_OTHER, [(SET_COOKIE, cookie), (LOCATION, "/login".to_owned())]).into_response()
}

pub(super) async fn rotate(State(app): State<App>) -> Result<Json<NewToken>, Refused> {
    Ok(Json(NewToken { token: app.auth.rotate().map_err(JobError::from)? }))
}

pub(super) async fn link(State(app): State<App>) -> Result<Json<LoginLink>, Refused> {
    let code = app.auth.new_link().map_err(JobError::from)?;
    Ok(Json(LoginLink { url: format!("http://{}/login?code={code}", app.address.http) }))
}

fn begun(session: &Session) -> Response {
    let cookie = format!("{SESSION_COOKIE}={}; HttpOnly; SameSite=Strict; Path=/", session.cookie);
    let headers = [
        (SET_COOKIE, cookie),
        (LOCATION, "/".to_owned()),
        (CACHE_CONTROL, "no-store".to_owned()),
        (REFERRER_POLICY, "no-referrer".to_owned()),
    ];
    (StatusCode::SEE_OTHER, headers).into_response()
}
