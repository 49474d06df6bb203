//! When a loop has ended: the probes its head sends round it.
//!
//! A probe lies between records, like a watermark, and is numbered. A task passes it on when it has come by every lane
//! of the loop that leads to the task, and all other lanes that do have ended; an async operator also waits for what is
//! in flight in it. So a probe drives before it every record that was in the loop when it was sent, and those made of
//! them.
//!
//! Claim: if the head has taken no record from sending a probe until its return, no record is left in the loop. One
//! that is left lies behind the probe. It comes from a record ahead of the probe, or from outside; and nothing from
//! outside can be behind it, as a probe passes a task only when the outside has ended there. Where a record ahead of
//! the probe becomes one behind it, it has gone through the head between the sending and the return.
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
