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
    failures: u32,
}

impl Patience {
    /// How many attempts were throttled, one after the other, and count.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    /// The service has throttled an attempt. It does not count, nor do those before it, if the service has answered
    /// others since the one before, or is about to, as some are under way.
    pub(super) fn throttled(&mut self, answered: u64, are_others_under_way: bool, now: Instant) {
        let is_patient = match self.last {
            Some((before, since)) if before == answered => {
                are_others_under_way && now.saturating_duration_since(since) < LONGEST
            }
            before => {
                self.last = Some((answered, now));
                before.is_some() || are_others_under_way
            }
        };
        self.failures = if is_patient { 0 } else { self.failures + 1 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_lasts_while_others_are_answered_and_for_two_minutes_while_they_may_be() {
        let begin = Instant::now();
        let mut patience = Patience::default();
        // Nobody is answered that it knows of, at first.
        for (answered, are_others_under_way, at, failures) in [
            (7, false, 0, 1),
            (8, false, 1, 0),
            (8, false, 2, 1),
            (8, false, 3, 2),
            (9, false, 4, 0),
            (9, true, 123, 0),
            (9, true, 124, 1),
            (9, true, 125, 2),
            (10, true, 500, 0),
            (10, true, 619, 0),
        ] {
            patience.throttled(answered, are_others_under_way, begin + Duration::from_secs(at));
            assert_eq!(patience.failures(), failures, "after {at} seconds");
        }
    }
}
