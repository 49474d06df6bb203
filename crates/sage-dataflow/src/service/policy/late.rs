//! What is known of an answer only after it was given, such as of a stream at its end.

use std::error::Error;

use super::method::PolicyService;
use super::state::count;
use super::tally::Tally;
use crate::guarded::chain_of;

impl<S: Send + Sync + 'static> PolicyService<S> {
    /// Adds to the figures of the service what an answer tells after it was given, as
    /// [`MethodBuilder::tally`](super::MethodBuilder::tally) does before. What comes after the end of the run is in the
    /// figures of no run.
    pub fn tally(&self, tally: Tally) {
        self.state_of_calls().tallies.count(tally);
    }

    /// An answer has broken off after it was given. It is in the report: its call has failed, and this is the last
    /// error. The call is not made again, and its breaker counts nothing.
    pub fn broke_off(&self, error: &(dyn Error + 'static)) {
        let state = self.state_of_calls();
        count(&state.counts.failed);
        state.met(chain_of(error));
    }
}
