//! What drivers of servers share: a thread that speaks to the server, one write after the other, and searches that are
//! exact whatever the server leaves out.
//!
//! Knows no server's protocol.

mod driver;
mod failure;
mod kept;
mod narrow;
mod search;
mod values;

pub(super) use driver::{Collection, Remote, Server, driver_of};
pub(super) use failure::{judged, unsent};
#[cfg(feature = "milvus")]
pub(super) use kept::KINDS;
pub(super) use kept::{as_kept, json, kept};
pub(super) use narrow::{Condition, How, Narrowed, One, narrowed};
#[cfg(feature = "milvus")]
pub(super) use search::scored;
