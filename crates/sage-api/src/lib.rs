//! What the parts of the job manager say to each other, and where they find each other.
//!
//! ```text
//! sage job …, Python, a browser ── HTTP, JSON (`job`, `client`) ──> the daemon
//!                                                                     │ dials
//!                                        lines of JSON (`message`)    ▼
//! the program's jobs ──────────── dial ─────────────────────> the reaper (`sage run`)
//! (`Reporting`)
//! ```
//!
//! The reaper is the parent of one program, and outlives the daemon. All that is told of a job is in the folder of that
//! job (`home`), which the reaper writes: whoever starts anew reads it there.
//!
//! It knows nothing of how HTTP is spoken, how records are kept or how a program is run.

pub mod api;
mod cleanup;
#[cfg(feature = "client")]
pub mod client;
pub mod home;
pub mod job;
pub mod message;
pub mod outcome;
mod report;
pub mod socket;
mod threads;

pub use cleanup::ExternalCleanup;
pub use report::{Reporter, Reporting, SOCKET_VARIABLE, ToldJob, run, submit};
pub use threads::threads_of_this_process;
