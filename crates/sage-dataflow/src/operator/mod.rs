//! The engine's own operators: each a [`Stage`](crate::chain::Stage), in one file per family.
//!
//! Knows nothing of other tasks, of services, or of how operators get into a graph.

mod aggregate;
mod batch;
mod broadcast;
mod clocked;
mod connect;
mod cut;
mod filter;
mod function;
mod gather;
pub(crate) mod grid;
mod iterate;
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
pub(crate) use batch::Batch;
pub(crate) use broadcast::{Broadcasting, ByBroadcast, ByBroadcastAndKey, WithBroadcast};
pub(crate) use clocked::{Clocked, OfValue};
pub(crate) use connect::{CoMap, CoProcess, HasInput, Of};
pub use connect::{In2, In3, In4, In5};
pub(crate) use cut::Cut;
pub use cut::OnSignal;
pub(crate) use filter::{Filter, Take};
pub(crate) use function::OnBoth;
pub use function::{FoldFunction, ProcessFunction};
pub(crate) use gather::{Folding, Gather, GatherAll, GatherByKey, Reducing, Top, counting, folding};
pub use iterate::Round;
pub(crate) use iterate::{Barrier, Iterate, Turn};
pub use join::JoinError;
pub(crate) use join::{Full, Inner, Join, Joining, Left};
pub(crate) use keyed::{Distinct, FlatMapWithState, MapWithState, StateFunction, WithState};
pub use late::LateRecords;
pub(crate) use late::{Dropped, HandedTo, SetApart, Windows};
pub use map::Output;
pub(crate) use map::{FlatMap, FlatMapInto, Inspect, Map, TryMap, clone_by_function};
pub(crate) use session::SessionWindows;
pub(crate) use split::{Split, SplitOk};
pub(crate) use states::{Expiring, ExpiringByEvents, ForEver, Keeps};
pub(crate) use timers::Process;
pub use timers::{KeyContext, Timer};
pub(crate) use timestamps::Timestamps;
pub use window::OpenWindows;
pub(crate) use window::{AlignedWindows, CountWindows};
pub(crate) use zip::Zip;
pub use zip::ZipError;
