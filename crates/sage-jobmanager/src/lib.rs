//! The job manager's daemon: [`serve`] runs it until it is told to end.
//!
//! ```text
//! HTTP, over TCP and a socket ──> connections ──> http (gate, routes) ──> jobs ──> store (an index, in SQLite)
//!                                                                          │
//!                                                   a task for each job    │ starts, dials, waits for
//!                                                                          ▼
//!                                                               the reaper of the job (`sage run`)
//! ```
//!
//! It runs on one thread, and on up to four more for what takes files a while. It waits for events alone, so that it
//! takes no processor's time when nothing happens.
//!
//! What it knows of a job is in the job's folder, most of it written by the job's reaper: so it may be killed at any
//! moment. The next one takes up the jobs that live, ends what is left of those whose reaper was killed as well, and
//! says of none that it has succeeded without having read so.
//!
//! It knows nothing of how a program is run, and of the engine no more than what its jobs tell.

mod arrivals;
mod auth;
mod clock;
mod connections;
mod folder;
mod http;
mod ids;
mod jobs;
mod link;
mod live;
mod lock;
mod log;
mod page;
mod process;
mod progress;
mod record;
mod retention;
mod serve;
mod signals;
mod spawn;
mod store;
mod sweep;
mod values;

pub use http::{Listed, listed};
pub use jobs::JobError;
pub use retention::Retention;
pub use serve::{Options, ServeError, serve};
pub use store::StoreError;
