//! The memory of `sage_services` as Python classes: what the package shows in `sage.services`. The class `Memory`
//! itself is in `python/sage/_memory.py`; it calls a [`MemoryLog`].
//!
//! Invariants:
//!  1. A memory is asked detached from the interpreter: whatever of the user's it calls meanwhile, such as an embedder,
//!     attaches. So nobody waits for a memory's lock while attached.
//!  2. What the user's code raises comes out as the object it is.
//!
//! What a memory does is said in `sage_services`; here are conversions only.

mod arguments;
mod embedder;
mod errors;
mod log;
mod recalled;
mod receipt;
mod scope;
mod turn;

pub(crate) use errors::{
    MemoryClosed, MemoryDamaged, MemoryFailed, MemoryFull, MemoryLocked, OtherEmbedder, OtherText, TurnsChanged,
    UnknownScope, UnknownTurn,
};
pub(crate) use log::MemoryLog;
pub(crate) use recalled::{Parts, Recalled, Weights};
pub(crate) use receipt::Receipt;
pub(crate) use scope::Scope;
pub(crate) use turn::{NewTurn, Turn, Version};
