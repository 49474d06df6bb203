//! The policy of a service: what is done for every caller about a dependency that is slow, limited, paid or not there.
//!
//! A call goes through these layers, from the outside in: cache and journal, outage, restart, deadline, fallback,
//! retry, breaker, rate and cost, concurrency, batch, timeout of the attempt. Each is off unless asked for.

mod again;
mod answer;
mod batch;
mod breaker;
mod bucket;
mod cache;
mod call;
mod calling;
mod closing;
mod concurrency;
mod failure;
mod flight;
mod job_time;
mod journal;
mod keep;
mod keeping;
mod kept;
mod key;
mod late;
mod layers;
mod limiter;
mod method;
mod outage;
mod patience;
mod pipeline;
mod rate;
mod refusal;
mod reservation;
mod restart;
mod retry_budget;
mod sending;
mod settings;
mod shelves;
mod spend;
mod state;
mod store;
mod tally;
#[cfg(test)]
mod tests;
mod time;
mod turn;
mod verdict;
mod waiters;
mod within;

use crate::{BoxError, sync};

pub use again::MadeAgain;
pub use batch::{Batch, Batching, WrongCount};
pub use breaker::{Breaker, BreakerFigures, BreakerState};
pub use cache::{Cache, CacheFigures, WhenInUse};
pub use calling::{Calling, with_deadline};
pub use concurrency::{Concurrency, ConcurrencyFigures};
pub use flight::FlightFigures;
pub use journal::{FullDisk, Journal, JournalFigures};
pub use keep::Keep;
pub use key::Codec;
pub use layers::KeptFigures;
pub use method::{Method, MethodBuilder, PolicyService, Usage};
pub(crate) use outage::PauseJob;
pub(crate) use pipeline::{AT_ONCE, Incoming, Pipeline, Served, Told};
pub use pipeline::{Asked, Asker, PipelineReport, Serves, Unanswered};
pub use rate::{Rate, RateFigures};
pub use refusal::Refusal;
pub use retry_budget::{RetryBudget, RetryFigures};
pub use settings::{CallPolicy, Policy};
pub use spend::Spend;
pub use state::PolicyReport;
pub(crate) use state::PolicyState;
pub use store::StoreError;
pub use tally::{Tally, TallyFigures};
pub use verdict::{ServiceError, Verdict};
