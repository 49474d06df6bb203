//! Streams of server-sent events.
//!
//! A stream remembers how far it has told, and reads from there: records by the number of their change, events of a job
//! from its file. So a client that reads slowly holds nothing up, takes no memory, and misses nothing.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use hyper::body::{Bytes, Frame};
use sage_api::job::JobRecord;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::time::{Instant, sleep_until};

use super::answer::Refused;
use super::jobs::query;
use super::{App, KEEP_ALIVE};
use crate::jobs::JobError;
use crate::live::{Seen, ToJob};

/// How many events are told at a time.
const AT_ONCE: u64 = 200;

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Asked {
    after: Option<u64>,
    figures: Option<String>,
}

/// Why a stream ends.
enum End {
    /// The client is gone, or the daemon ends.
    Gone,
    Failed(JobError),
}

impl<E: Into<JobError>> From<E> for End {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// Where a stream tells.
struct Teller {
    app: App,
    frames: mpsc::Sender<Bytes>,
    _permit: OwnedSemaphorePermit,
}

impl Teller {
    async fn tell(&self, event: &str, id: Option<u64>, data: &impl Serialize) -> Result<(), End> {
        let data = serde_json::to_string(data).map_err(std::io::Error::other)?;
        let id = id.map(|id| format!("id: {id}\n")).unwrap_or_default();
        self.send(format!("{id}event: {event}\ndata: {data}\n\n")).await
    }

    /// Hands on a piece; waits while the client does not read.
    async fn send(&self, text: String) -> Result<(), End> {
        let mut is_ending = self.app.is_ending.subscribe();
        tokio::select! {
            sent = self.frames.send(text.into()) => sent.map_err(|_| End::Gone),
            () = is_true(&mut is_ending) => Err(End::Gone),
        }
    }

    /// Waits for what comes about; says from time to time that it is there. Ends with the client and the daemon.
    async fn wait<T>(&self, for_what: impl Future<Output = T>) -> Result<T, End> {
        let mut is_ending = self.app.is_ending.subscribe();
        tokio::pin!(for_what);
        loop {
            tokio::select! {
                result = &mut for_what => return Ok(result),
                () = self.frames.closed() => return Err(End::Gone),
                () = is_true(&mut is_ending) => return Err(End::Gone),
                () = sleep_until(Instant::now() + KEEP_ALIVE) => self.send(": here\n\n".to_owned()).await?,
            }
        }
    }
}

/// Waits until it is.
async fn is_true(what: &mut watch::Receiver<bool>) {
    // It fails if nobody can say so any more.
    drop(what.wait_for(|is_true| *is_true).await);
}

/// The body of a stream.
struct Frames(mpsc::Receiver<Bytes>);

impl hyper::body::Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}

/// Begins a stream, which `told` tells.
fn begin<F>(app: &App, told: impl FnOnce(Teller) -> F) -> Result<Response, Refused>
where
    F: Future<Output = Result<(), End>> + Send + 'static,
{
    let permit = app.streams.clone().try_acquire_owned().map_err(|_| {
        let words = "64 streams are open already: close some of them";
        Refused::new(StatusCode::SERVICE_UNAVAILABLE, "too_many_streams", words)
    })?;
    // Little waits here: what is not read yet is where it was.
    let (frames, body) = mpsc::channel(4);
    let telling = told(Teller { app: app.clone(), frames: frames.clone(), _permit: permit });
    drop(tokio::spawn(async move {
        if let Err(End::Failed(error)) = telling.await {
            tracing::warn!(error = &error as &dyn std::error::Error, "a stream ends");
            let data = json!({ "error": error.to_string() });
            // The client may be gone.
            let _ = frames.send(format!("event: error\ndata: {data}\n\n").into()).await;
        }
    }));
    let headers = [(CONTENT_TYPE, "text/event-stream"), (CACHE_CONTROL, "no-store")];
    Ok((headers, Body::new(Frames(body))).into_response())
}

/// The number that a browser sends which connects again.
fn last_id(headers: &HeaderMap) -> Option<u64> {
    headers.get("last-event-id")?.to_str().ok()?.parse().ok()
}

pub(super) async fn all(State(app): State<App>, headers: HeaderMap) -> Result<Response, Refused> {
    let mut changed = app.jobs.changed();
    let last = last_id(&headers).unwrap_or_else(|| *changed.borrow());
    begin(&app, async move |teller: Teller| {
        let mut last = last;
        teller.send(": here\n\n".to_owned()).await?;
        loop {
            changed.borrow_and_update();
            let changes = teller.app.jobs.since(last)?;
            let is_all = changes.records.is_empty() && changes.deleted.is_empty();
            for record in &changes.records {
                teller.tell("record", None, record).await?;
            }
            for id in &changes.deleted {
                teller.tell("deleted", None, &json!({ "id": id })).await?;
            }
            if changes.last != last {
                last = changes.last;
                // All up to here was told.
                teller.send(format!("id: {last}\n\n")).await?;
            }
            if is_all && teller.wait(changed.changed()).await?.is_err() {
                return Ok(());
            }
        }
    })
}

pub(super) async fn job(
    State(app): State<App>,
    Path(job): Path<String>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let Asked { after, figures } = query(&uri)?;
    let record = app.jobs.record(&job)?;
    let after = last_id(&headers).or(after);
    let wants_figures = figures.is_some_and(|figures| figures != "0");
    begin(&app, move |teller| follow(teller, record, after.unwrap_or_default(), wants_figures))
}

/// Tells what becomes of a job until it is over.
async fn follow(teller: Teller, record: JobRecord, after: u64, wants_figures: bool) -> Result<(), End> {
    let mut following = Following { id: record.id.clone(), after, told: Seen::default(), record };
    teller.tell("record", None, &following.record).await?;
    loop {
        let jobs = teller.app.jobs.clone();
        if let Some((mut seen, live)) = jobs.watch(&following.id) {
            let mut figures = wants_figures.then(|| live.figures.subscribe());
            if wants_figures {
                // If nobody reads it, the job is over.
                let _ = live.inbox.send(ToJob::WatchFigures).await;
            }
            loop {
                let now = *seen.borrow_and_update();
                following.tell(&teller, live.record(), now).await?;
                if now.is_over {
                    break;
                }
                let figures_come = async {
                    match &mut figures {
                        Some(figures) => figures.changed().await,
                        None => std::future::pending().await,
                    }
                };
                let what = teller.wait(async {
                    tokio::select! {
                        changed = seen.changed() => changed.is_ok().then_some(false),
                        come = figures_come => come.is_ok().then_some(true),
                    }
                });
                match what.await? {
                    Some(true) => {
                        let now = figures.as_mut().map(|figures| figures.borrow_and_update().clone());
                        if let Some(now) = now {
                            teller.tell("figures", None, &Arc::unwrap_or_clone(now)).await?;
                        }
                    }
                    Some(false) => {}
                    None => break,
                }
            }
        }
        let mut changed = jobs.changed();
        changed.borrow_and_update();
        match jobs.record(&following.id) {
            Ok(record) if record.state.is_over() => {
                let output = jobs.output(&following.id, i64::MAX, 0).await?.length;
                let all = Seen { events: u64::MAX, output, ..following.told };
                following.tell(&teller, record.clone(), all).await?;
                return teller.tell("over", None, &record).await;
            }
            Ok(record) => following.tell(&teller, record, following.told).await?,
            // It was deleted.
            Err(JobError::NotFound(_)) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        // It waits for its turn.
        if jobs.watch(&following.id).is_none() && teller.wait(changed.changed()).await?.is_err() {
            return Ok(());
        }
    }
}

/// What was told of a job.
struct Following {
    id: String,
    record: JobRecord,
    /// The offset behind the last event that was told.
    after: u64,
    told: Seen,
}

impl Following {
    /// Tells what is new: events before the record that they have led to.
    async fn tell(&mut self, teller: &Teller, record: JobRecord, now: Seen) -> Result<(), End> {
        if record.restart_count != self.record.restart_count {
            // Its files are new.
            (self.after, self.told) = (0, Seen::default());
        }
        while self.after < now.events {
            let found = teller.app.jobs.events_of(&self.id, self.after, AT_ONCE).await?;
            for (event, next) in &found.events {
                teller.tell("happened", Some(*next), event).await?;
            }
            if found.next == self.after {
                break;
            }
            self.after = found.next;
        }
        if now.output != self.told.output {
            teller.tell("output", None, &json!({ "output": now.output })).await?;
        }
        if record != self.record {
            teller.tell("record", None, &record).await?;
        }
        (self.record, self.told) = (record, now);
        Ok(())
    }
}
