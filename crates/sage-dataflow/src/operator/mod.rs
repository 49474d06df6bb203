//! The engine's own operators: each a [`Stage`](crate::chain::Stage), in one file per family.
//!
//! Knows nothing of other tasks, of services, or of how operators get into a graph.

mod aggregate;
mod clocked;
mod connect;
mod filter;
mod fold;
mod function;
pub(crate) mod grid;
pub(crate) mod join;
mod keyed;
mod late;
mod map;
mod session;
mod split;
mod states;
mod timers;
mod timestamps;
mod window;
pub(crate) mod zip;

pub use aggregate::Aggregate;
pub(crate) use aggregate::{Applied, Counted, Folded, Reduced};
pub use clocked::Fires;
pub(crate) use clocked::{Clocked, OfValue};
pub(crate) use connect::{CoMap, CoProcess, Of, Slot};
pub use connect::{In2, In3, In4, In5};
pub(crate) use filter::{Filter, Take};
pub(crate) use fold::{Count, Fold, Reduce};
pub(crate) use function::OnBoth;
pub use function::{FoldFunction, ProcessFunction};
pub use join::JoinError;
pub(crate) use join::{Full, Inner, Join, Joining, Left};
pub(crate) use keyed::{Distinct, KeyedAggregate, KeyedFlatMap, KeyedFold, KeyedMap, KeyedReduce, TopK};
pub(crate) use late::{Dropped, HandedTo};
pub use late::{LateRecords, SetsApart};
pub use map::Output;
pub(crate) use map::{FlatMap, FlatMapInto, Inspect, Map, TryMap, clone_by_function};
pub(crate) use session::SessionWindows;
pub(crate) use split::{Split, SplitOk};
pub(crate) use states::{Expiring, ForEver};
pub(crate) use timers::Process;
pub use timers::{KeyContext, Timer};
pub(crate) use timestamps::Timestamps;
pub(crate) use window::{AlignedWindows, CountWindows};
pub(crate) use zip::Zip;
pub use zip::ZipError;
