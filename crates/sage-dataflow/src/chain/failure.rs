//! A failure in a chain, as the report shows it.

use super::context::LeftBehind;
use crate::guarded::What;
use crate::ids::NodeId;

/// A failure in a chain.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    /// The operator that was running; `None` where the engine's own code was.
    pub(crate) operator: Option<NodeId>,
    /// Which record of the chain's input was being processed, from 1; 0 before the first.
    pub(crate) record: u64,
    pub(crate) during: During,
    pub(crate) what: What,
}

impl Failure {
    /// What was left behind, where that is all it is.
    pub(crate) fn left_behind(&self) -> Option<&LeftBehind> {
        match &self.what {
            What::Error { error, .. } if self.during == During::Close => error.downcast_ref(),
            _ => None,
        }
    }
}

/// The part of a chain's life a failure fell into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum During {
    Open,
    Record,
    Finish,
    Close,
    /// The chain was closed, and what it consisted of is dropped.
    Drop,
}
