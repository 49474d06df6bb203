//! What drivers of servers share: a thread that speaks to the server, one write after the other, and searches that are
//! exact whatever the server leaves out.
//!
//! Knows no server's protocol.

mod driver;
mod failure;
mod search;
mod values;

pub(super) use driver::{Collection, Remote, Server, driver_of};
pub(super) use failure::{judged, unsent};
pub(super) use values::{exact, from_exact};
