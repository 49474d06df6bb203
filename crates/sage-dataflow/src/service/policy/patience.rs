//! [`Patience`]: for how long the attempts of a call that the service throttles do not use up those it may make.
//!
//! Where callers are too many, each of them is throttled now and then, however well the service does: that is a wait
//! for a turn, not a failure. It is one when the service answers nobody.

use std::time::{Duration, Instant};

use super::limiter::LONGEST_DELAY;

/// For how long the calls that are under way may all stay without an answer.
const LONGEST: Duration = LONGEST_DELAY;

/// The patience of one call.
#[derive(Default)]
pub(super) struct Patience {
    /// How many calls the service had answered when that was last more than before, and when.
    last: Option<(u64, Instant)>,
}

impl Patience {
    /// The service has throttled the call. Whether it is no failure: the service has answered others since the call
    /// looked last, or is about to, as some are under way.
    pub(super) fn lasts(&mut self, answered: u64, are_others_under_way: bool, now: Instant) -> bool {
        match self.last {
            Some((before, since)) if before == answered => {
                are_others_under_way && now.saturating_duration_since(since) < LONGEST
            }
            before => {
                self.last = Some((answered, now));
                before.is_some() || are_others_under_way
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_lasts_while_others_are_answered_and_for_two_minutes_while_they_may_be() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut patience = Patience::default();
        assert!(!patience.lasts(7, false, at(0)), "nobody is answered that it knows of");
        assert!(patience.lasts(8, false, at(1)) && !patience.lasts(8, false, at(2)));
        assert!(patience.lasts(8, true, at(120)) && !patience.lasts(8, true, at(121)));
        assert!(patience.lasts(9, true, at(500)) && patience.lasts(9, true, at(619)));
        assert!(Patience::default().lasts(0, true, at(0)));
    }
}
