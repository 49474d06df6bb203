//! The HTTP interface: the routes (`routes`), the layer that all of them pass (`gate`), and what each does.
//!
//! It knows nothing of how connections come about, and of jobs no more than the methods of [`Jobs`].

mod about;
mod answer;
mod files;
mod gate;
mod jobs;
mod login;
mod metrics;
mod openapi;
mod routes;
mod stream;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use sage_api::api::Running;
use sage_api::home::Address;
use tokio::sync::{Semaphore, mpsc, watch};

pub(crate) use self::about::info_of as info;
pub(crate) use self::answer::Refused;
pub(crate) use self::gate::{Door, Hosts};
pub use self::routes::{Listed, listed};
pub(crate) use self::routes::{Route, row};
use crate::auth::Auth;
use crate::jobs::Jobs;

/// How many streams there are at once.
const MOST_STREAMS: usize = 64;

/// How many requests of jobs, which may be long, are served at once.
const MOST_LARGE: usize = 2;

/// What the routes work with.
#[derive(Debug, Clone)]
pub(crate) struct App(Arc<Parts>);

/// The parts of an [`App`].
#[derive(Debug)]
pub(crate) struct Parts {
    /// The jobs.
    pub jobs: Jobs,
    pub(crate) auth: Auth,
    pub(crate) hosts: Hosts,
    pub(crate) address: Address,
    pub(crate) started_ms: u64,
    pub(crate) log_folder: PathBuf,
    pub(crate) streams: Arc<Semaphore>,
    pub(crate) large: Arc<Semaphore>,
    /// Who asks for the end, and what becomes of the jobs.
    pub(crate) end: mpsc::Sender<Running>,
    /// Whether the daemon is ending: streams end then.
    pub(crate) is_ending: watch::Sender<bool>,
}

impl std::ops::Deref for App {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl App {
    pub(crate) fn new(
        jobs: Jobs,
        auth: Auth,
        hosts: Hosts,
        address: Address,
        log_folder: PathBuf,
        end: mpsc::Sender<Running>,
    ) -> Self {
        Self(Arc::new(Parts {
            jobs,
            auth,
            hosts,
            address,
            started_ms: crate::clock::now_ms(),
            log_folder,
            streams: Arc::new(Semaphore::new(MOST_STREAMS)),
            large: Arc::new(Semaphore::new(MOST_LARGE)),
            end,
            is_ending: watch::Sender::new(false),
        }))
    }
}

/// All routes, with the layer that they pass.
pub(crate) fn router(app: App) -> Router {
    routes::all()
        .fallback(async || Refused::new(StatusCode::NOT_FOUND, "not_found", "there is no such page"))
        .method_not_allowed_fallback(async || {
            Refused::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "this is not done with this method")
        })
        // The layer has read the body by then, with limits of its own.
        .layer(DefaultBodyLimit::disable())
        .layer(from_fn_with_state(app.clone(), gate::gate))
        .with_state(app)
}

/// How often a stream says that it is there, if there is nothing else to say.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
