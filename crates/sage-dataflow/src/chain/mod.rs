//! A chain: operators fused into one loop, which runs in one task.
//!
//! Knows nothing of how records get to another task, of who runs a chain, or of services.

mod context;
mod failure;
mod fault;
mod held;
mod kept;
mod letters;
mod link;
mod operator;
mod policy;
mod position;
mod push;
mod refusal;
mod signal;
mod stage;
mod ways;

pub use context::{Cancelling, CloseContext, FinishContext, JobBell, LeftBehind, OpenContext};
pub(crate) use failure::{During, Failure};
pub use fault::{Fault, Stop};
pub(crate) use kept::{Handling, Keeper, NotKept};
pub use letters::DeadLetter;
pub(crate) use link::{Link, Place, WindowCounters};
pub use operator::Operator;
pub use policy::{BudgetExceeded, ErrorPolicy};
pub(crate) use policy::{Errors, Passed};
pub(crate) use position::Cursor;
pub(crate) use position::{Position, TaskContext};
pub(crate) use push::Nowhere;
pub(crate) use push::Push;
pub(crate) use signal::Signal;
#[cfg(test)]
pub(crate) use signal::traced;
pub use stage::Emit;
pub(crate) use stage::{Flags, Outlet, Stage};
pub(crate) use ways::{sent, signalled, still};
