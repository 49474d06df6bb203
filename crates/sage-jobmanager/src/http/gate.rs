//! The one layer that every request passes, of whatever route: which host it was sent to, from which page, who sends
//! it, and how large it is.
//!
//! 1. A foreign `Host` or `Origin` is refused first, so that a page elsewhere learns nothing (DNS rebinding).
//! 2. Then whoever shows neither the token nor a session's cookie, but for the routes that say so themselves.
//! 3. Then what changes something, comes with a cookie and has no token of the session's (CSRF).
//! 4. Only then the body is read, of which the size and the time are limited.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, COOKIE, HOST, ORIGIN, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body_util::LengthLimitError;
use sage_api::api::{CSRF_HEADER, MOST_BYTES_OF_A_JOB, MOST_BYTES_OF_A_REQUEST, SESSION_COOKIE};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::App;
use super::answer::Refused;
use super::routes::is_open;
use crate::auth::{Caller, Session};
use crate::page;

/// How long a body may take to come.
const PATIENCE: Duration = Duration::from_secs(30);

/// A body of so many bytes is long.
const LONG: usize = 1 << 20;

/// The place of a request of a job, as long as that is served.
#[derive(Debug)]
struct Place {
    _permit: OwnedSemaphorePermit,
    is_long: bool,
}

/// Where a request has come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    Tcp,
    Socket,
}

/// The hosts that requests may name.
#[derive(Debug, Clone)]
pub(crate) struct Hosts(Vec<String>);

impl Hosts {
    /// Those of a daemon that listens at this address.
    pub(crate) fn at(host: IpAddr, port: u16) -> Self {
        let given = match host {
            IpAddr::V4(host) => format!("{host}:{port}"),
            IpAddr::V6(host) => format!("[{host}]:{port}"),
        };
        Self(vec![format!("127.0.0.1:{port}"), format!("localhost:{port}"), format!("[::1]:{port}"), given])
    }

    fn has(&self, host: &str, door: Door) -> bool {
        let is_own = self.0.iter().any(|own| own.eq_ignore_ascii_case(host));
        is_own || door == Door::Socket && host.eq_ignore_ascii_case("localhost")
    }
}

pub(super) async fn gate(State(app): State<App>, request: Request, next: Next) -> Response {
    let shows_pages = page::is_wanted(request.headers()) && !request.uri().path().starts_with("/api/");
    let response = match pass(&app, request).await {
        Ok((request, place)) => {
            let response = next.run(request).await;
            if place.is_some_and(|place| place.is_long) {
                give_back_memory();
            }
            response
        }
        Err(refused) => refused.into_response(),
    };
    // What is refused before a route has it, such as a path that is no text.
    let is_ours = response.extensions().get::<Refused>().is_some();
    let response = match response.status().is_client_error() && !is_ours {
        true => {
            Refused::new(response.status(), "malformed", "the path is not understood: it is no UTF-8").into_response()
        }
        false => response,
    };
    let mut response = match response.extensions().get::<Refused>() {
        Some(refused) if shows_pages => refused.page(),
        _ => response,
    };
    // What says nothing itself is to be neither kept, nor framed, nor taken for what it is not.
    for (name, value) in ALWAYS {
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

/// Gives the system back what a long request took: the C library would keep it.
fn give_back_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it changes nothing that is in use.
    unsafe {
        nix::libc::malloc_trim(0);
    }
}

/// What every answer says of itself, unless it says something else.
const ALWAYS: [(HeaderName, &str); 5] = [
    (CACHE_CONTROL, "no-store"),
    (CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
    (REFERRER_POLICY, "no-referrer"),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (X_FRAME_OPTIONS, "DENY"),
];

/// The request, if it is to be served; one of a job has a place as long as it is.
async fn pass(app: &App, request: Request) -> Result<(Request, Option<Place>), Refused> {
    let door = request.extensions().get::<Door>().copied().unwrap_or(Door::Tcp);
    check_host(app, &request, door)?;
    check_origin(app, request.headers(), door)?;
    let is_job = request.method() == Method::POST && request.uri().path() == "/api/v1/jobs";
    let open = is_open(request.method(), request.uri().path());
    let caller = match (open, caller(app, request.headers())) {
        (_, Some(caller)) => Some(caller),
        (true, None) => None,
        (false, None) => {
            let words = "show the token: `Authorization: Bearer <token>`; it is in the file `token` of the job \
                         manager's folder, and `sage jobmanager status` prints a link for a browser";
            return Err(Refused::new(StatusCode::UNAUTHORIZED, "unauthorized", words));
        }
    };
    let changes = !matches!(*request.method(), Method::GET | Method::HEAD);
    let session = match &caller {
        Some(Caller::Session(session)) if changes && !open => Some(session.clone()),
        _ => None,
    };
    let is_form = has_form(request.headers());
    if let Some(session) = session.as_ref().filter(|_| !is_form) {
        check_csrf(session, one(request.headers(), &HeaderName::from_static(CSRF_HEADER)))?;
    }
    let (mut head, body) = request.into_parts();
    let (body, place) =
        read(&app.large, body, if is_job { MOST_BYTES_OF_A_JOB } else { MOST_BYTES_OF_A_REQUEST }).await?;
    if let Some(session) = session.filter(|_| is_form) {
        let header = one(&head.headers, &HeaderName::from_static(CSRF_HEADER)).map(str::to_owned);
        check_csrf(&session, header.or_else(|| field(&body, "csrf")).as_deref())?;
    }
    if let Some(caller) = caller {
        head.extensions.insert(caller);
    }
    Ok((Request::from_parts(head, Body::from(body)), place))
}

fn foreign(words: String) -> Refused {
    Refused::new(StatusCode::FORBIDDEN, "foreign", words)
}

fn check_host(app: &App, request: &Request, door: Door) -> Result<(), Refused> {
    let named = one(request.headers(), &HOST).filter(|host| app.hosts.has(host, door));
    let is_own = match request.uri().authority() {
        Some(authority) => app.hosts.has(authority.as_str(), door),
        None => true,
    };
    if named.is_some() && is_own {
        return Ok(());
    }
    let own = app.hosts.0.first().map_or("", String::as_str);
    Err(foreign(format!("the header `Host` does not name this job manager: it is http://{own}")))
}

fn check_origin(app: &App, headers: &HeaderMap, door: Door) -> Result<(), Refused> {
    if !headers.contains_key(ORIGIN) {
        return Ok(());
    }
    let origin = one(headers, &ORIGIN);
    let host = origin.and_then(|origin| origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://")));
    match host {
        Some(host) if app.hosts.has(host, door) => Ok(()),
        _ => Err(foreign("the request comes from the page of another site (header `Origin`)".to_owned())),
    }
}

/// The value of a header that is there once.
fn one<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    if values.next().is_some() { None } else { value.to_str().ok() }
}

/// Who has sent it. A token that is wrong is not made good by a cookie.
fn caller(app: &App, headers: &HeaderMap) -> Option<Caller> {
    if headers.contains_key(AUTHORIZATION) {
        let (scheme, token) = one(headers, &AUTHORIZATION)?.split_once(' ')?;
        let is_good = scheme.eq_ignore_ascii_case("bearer") && app.auth.is_token(token.trim());
        return is_good.then_some(Caller::Token);
    }
    let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let (_, cookie) = pairs.find(|(name, _)| *name == SESSION_COOKIE)?;
    app.auth.session(cookie).map(Caller::Session)
}

fn check_csrf(session: &Session, sent: Option<&str>) -> Result<(), Refused> {
    if sent.is_some_and(|sent| session.is_csrf(sent)) {
        return Ok(());
    }
    let words = "with a session's cookie, what changes something needs the session's token, in the field `csrf` of a \
                 form or the header `X-CSRF-Token`: load the page anew";
    Err(Refused::new(StatusCode::FORBIDDEN, "no_csrf_token", words))
}

fn has_form(headers: &HeaderMap) -> bool {
    one(headers, &CONTENT_TYPE).is_some_and(|kind| kind.starts_with("application/x-www-form-urlencoded"))
}

/// A field of a form.
pub(super) fn field(form: &Bytes, name: &str) -> Option<String> {
    let fields: Vec<(String, String)> = serde_urlencoded::from_bytes(form).ok()?;
    fields.into_iter().find(|(field, _)| field == name).map(|(_, value)| value)
}

async fn read(large: &Arc<Semaphore>, body: Body, most: usize) -> Result<(Bytes, Option<Place>), Refused> {
    let reading = async {
        // It fails if the places are closed, which nobody does.
        let place = if most > MOST_BYTES_OF_A_REQUEST { large.clone().acquire_owned().await.ok() } else { None };
        let body = to_bytes(body, most).await?;
        let is_long = body.len() > LONG;
        Ok((body, place.map(|permit| Place { _permit: permit, is_long })))
    };
    match timeout(PATIENCE, reading).await {
        Ok(Ok(read)) => Ok(read),
        Err(_) => {
            let words = format!("the body did not come within {} s", PATIENCE.as_secs());
            Err(Refused::new(StatusCode::REQUEST_TIMEOUT, "late", words))
        }
        Ok(Err::<_, axum::Error>(error)) => {
            let is_long = std::error::Error::source(&error).is_some_and(|source| source.is::<LengthLimitError>());
            if is_long {
                let words = format!("the body is longer than {most} bytes");
                return Err(Refused::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", words));
            }
            Err(Refused::new(
                StatusCode::BAD_REQUEST,
                "malformed",
                format!("the body did not come as a whole: {error}"),
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use hyper::body::Frame;
    use tokio::time::Instant;

    use super::*;

    /// A body of which a byte comes now and then.
    struct Trickles(Pin<Box<tokio::time::Sleep>>, Duration);

    impl hyper::body::Body for Trickles {
        type Data = Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
            let Self(sleep, each) = &mut *self;
            std::task::ready!(Future::poll(sleep.as_mut(), cx));
            sleep.as_mut().reset(Instant::now() + *each);
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"x")))))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_trickles_is_waited_for_half_a_minute_and_one_that_is_long_not_at_all() {
        let large = Arc::new(Semaphore::new(1));
        let begun = Instant::now();
        let each = Duration::from_millis(700);
        let body = Body::new(Trickles(Box::pin(tokio::time::sleep(each)), each));
        let refused = read(&large, body, MOST_BYTES_OF_A_JOB).await.unwrap_err();
        assert_eq!((refused.into_response().status(), begun.elapsed()), (StatusCode::REQUEST_TIMEOUT, PATIENCE));
        let refused = read(&large, Body::from("xxxx"), 3).await.unwrap_err();
        assert_eq!(refused.into_response().status(), StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(read(&large, Body::from("xxx"), 3).await.unwrap().0, "xxx");
    }
}
