//! How the engine finds out that a loop has ended: its head sends probes round it.
//!
//! A probe lies between records, like a watermark, and is numbered. A task passes it on when it has come by every lane
//! of the loop that leads to the task, and all other lanes that do have ended; an async operator also waits for what is
//! in flight in it. So every record that was in the loop when a probe was sent, and every record made of those, stays
//! ahead of the probe.
//!
//! Claim: if the head has taken no record between sending a probe and its return, no record is left in the loop. Proof:
//! a record that is left lies behind the probe. It comes from a record ahead of the probe, or from outside. It cannot
//! come from outside, because a probe passes a task only when the task's inputs from outside have ended. And a record
//! ahead of the probe gets behind it only through the head, between the sending and the return.
//!
//! Knows nothing of lanes and tasks; `tests/it/models/feedback.rs` runs it with those under a model checker.

/// The rounds of one loop, kept by its head. One probe is under way at any time.
#[derive(Debug)]
pub(crate) struct Rounds {
    /// The number of the probe under way.
    round: u64,
    /// How many records the head had taken when it sent it.
    taken: u64,
}

/// What a probe that has come back says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Returned {
    /// Records were under way: send this probe.
    Again(u64),
    /// None was: the loop has ended.
    Ended,
}

impl Rounds {
    /// The number of the first probe, to be sent before the first record.
    pub(crate) const FIRST: u64 = 1;

    pub(crate) const fn new() -> Self {
        Self { round: Self::FIRST, taken: 0 }
    }

    /// Takes the return of `round`, when the head has taken so many records since it began.
    pub(crate) fn returned(&mut self, round: u64, taken: u64) -> Returned {
        debug_assert_eq!(round, self.round, "one probe is under way");
        if std::mem::replace(&mut self.taken, taken) == taken {
            return Returned::Ended;
        }
        self.round += 1;
        Returned::Again(self.round)
    }
}
