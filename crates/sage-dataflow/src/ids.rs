//! The ids of the parts of a graph.

use serde::{Deserialize, Serialize};

/// Names a transformation within its environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NodeId(pub(crate) u32);

/// Names the receiving end of an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InletId(pub(crate) usize);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
/// Names an exchange from a chain to an inlet.
pub struct EdgeId(pub(crate) usize);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
/// Names a chain.
pub(crate) struct ChainId(pub(crate) usize);
