//! The index of the embedded store: finds the rows of a matrix that score highest for a query.
//!
//! | file | what it does |
//! |---|---|
//! | `exact.rs` | compares a query with every row; `score.rs` has the scores, `best.rs` keeps the best rows |
//! | `quantised.rs` | small codes of all rows; `codes.rs` makes and moves them, `rotation.rs` prepares vectors for it |
//! | `search.rs` | a search, in codes or exactly, whichever takes less time |
//! | `cascade.rs` | a search in codes, coarse ones first; `query.rs` prepares the query |
//! | `kernel/` | the inner loops of all that, for every processor and for those with AVX2 |
//! | `cache.rs` | codes as bytes, and back |
//!
//! Rows lie one behind the other in one slice of `f32`; a position is a `u32`. Whoever calls checks that all numbers
//! are finite and, under [`Metric::Cosine`], that every vector has length 1.
//!
//! Knows nothing of locks, files, ids (beyond an order for equal scores) and metadata.

mod allowed;
mod best;
mod cache;
mod cascade;
mod codes;
mod exact;
mod kernel;
mod quantised;
mod query;
mod rotation;
mod score;
mod search;
#[cfg(test)]
mod tests;

use allowed::Allowed;
pub(crate) use best::Best;
pub use best::Found;
pub use cache::CacheError;
pub use exact::exact;
pub use quantised::Quantised;

use super::schema::Metric;

/// Rows whose codes lie together, so that one instruction compares all of them.
const BLOCK: usize = 32;
