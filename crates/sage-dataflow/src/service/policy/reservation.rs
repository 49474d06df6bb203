//! [`Waiting`] and [`Reservation`]: what a caller holds of a [`Limiter`], and gives back when it is dropped.

use std::time::Instant;

use super::limiter::{Limiter, Refusal};
use super::rate::Counted;
use super::spend::Amount;
use super::time::Time;
use super::turn::Turn;
use super::within::within;

/// What a call asks for before it is made: an estimate.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Ask {
    pub(super) cost: u64,
    pub(super) amount: Amount,
}

impl Ask {
    /// An `amount` that is below zero or no number counts as unknown.
    pub(super) fn new(cost: u64, amount: f64) -> Self {
        Self { cost, amount: Amount::of(amount) }
    }

    /// What it takes from a bucket that counts calls, or cost.
    pub(super) fn tokens(&self, of: Counted) -> u64 {
        match of {
            Counted::Calls => 1,
            Counted::Cost => self.cost,
        }
    }
}

/// What a waiting caller sees.
enum Look<'a> {
    Passed(Reservation<'a>),
    /// It waits for its turn, or until the moment, and looks again. Only the head has a moment.
    Waits(Turn<()>, Option<Instant>),
}

/// A caller's place in the queue. One that is dropped leaves it, and gives back what it was granted.
pub(super) struct Waiting<'a> {
    limiter: &'a Limiter,
    ticket: u64,
    ask: Ask,
    is_over: bool,
}

impl<'a> Waiting<'a> {
    pub(super) fn new(limiter: &'a Limiter, ticket: u64, ask: Ask) -> Self {
        Self { limiter, ticket, ask, is_over: false }
    }

    /// Waits for this caller's turn.
    pub(super) async fn granted<T: Time>(mut self, time: &T) -> Result<Reservation<'a>, Refusal> {
        loop {
            match self.look(time.now())? {
                Look::Passed(reservation) => return Ok(reservation),
                Look::Waits(turn, moment) => _ = within(time, moment, turn).await,
            }
        }
    }

    /// Whether it is this caller's turn. Once it is refused, it has left.
    fn look(&mut self, now: Instant) -> Result<Look<'a>, Refusal> {
        let looked = self.limiter.look(self.ticket, now);
        self.is_over = matches!(looked, Ok(None) | Err(_));
        Ok(match looked? {
            Some((turn, moment)) => Look::Waits(turn, moment),
            None => Look::Passed(Reservation::new(self.limiter, self.ask)),
        })
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.limiter.leave(self.ticket, self.ask);
        }
    }
}

/// A call that may be made. If it is dropped before the call has [begun](Self::begin), all comes back; after that, the
/// call has cost what was estimated, unless it is settled.
pub(super) struct Reservation<'a> {
    limiter: &'a Limiter,
    ask: Ask,
    has_begun: bool,
    is_settled: bool,
}

impl<'a> Reservation<'a> {
    /// A call that was granted, and counted as one that has not begun.
    pub(super) fn new(limiter: &'a Limiter, ask: Ask) -> Self {
        Self { limiter, ask, has_begun: false, is_settled: false }
    }

    /// The call is made now: it counts, whatever becomes of it.
    pub(super) fn begin(&mut self) {
        if !self.has_begun {
            self.has_begun = true;
            self.limiter.begin();
        }
    }

    /// The call, which has begun, did cost `did`. What was reserved above it comes back; what it cost above that is a
    /// debt, which delays the next calls.
    pub(super) fn settle(mut self, now: Instant, did: Ask) {
        self.begin();
        self.is_settled = true;
        self.limiter.settle(self.ask, Some((now, did)));
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        if !self.has_begun {
            self.limiter.give_back(self.ask);
        } else if !self.is_settled {
            self.limiter.settle(self.ask, None);
        }
    }
}
