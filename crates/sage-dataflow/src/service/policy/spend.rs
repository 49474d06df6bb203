//! [`Spend`]: how much may be spent within a time; [`Window`], which counts it.
//!
//! Invariant: in no time as long as the window is more recorded than its limit, but for what calls cost above their
//! estimate.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::sync::FOREVER;

/// At most so much may be spent on a service within any time of a given length.
///
/// An amount is in any unit, such as a currency's; it is counted to a billionth. When it is spent, calls are refused
/// until enough of it has left the window, or [wait](Self::waiting) for that.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spend {
    amount: f64,
    per: Duration,
    waits: bool,
}

impl Spend {
    /// Allows `amount` within any time of the length `per`. The amount is more than 0 and finite; `per` is more than
    /// zero, and one above a hundred years counts as a hundred years.
    pub const fn at_most(amount: f64, per: Duration) -> Self {
        Self { amount, per, waits: false }
    }

    /// Lets calls wait until there is something to spend again. Default: they are refused at once.
    pub const fn waiting(mut self) -> Self {
        self.waits = true;
        self
    }

    pub(super) fn mistake(&self) -> Option<String> {
        if !self.amount.is_finite() || Amount::of(self.amount) == Amount::default() {
            return Some(format!("a spend of at most {} is none: give a finite number above 0", self.amount));
        }
        self.per.is_zero().then(|| "a spend needs a time longer than zero".to_owned())
    }
}

/// What is spent, in billionths.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Amount(u128);

impl Amount {
    /// What is no amount counts as none, and nothing as more than a billion billions.
    pub(super) fn of(amount: f64) -> Self {
        Self(((amount * 1e9).round() as u128).min(1_000_000_000_000_000_000_000_000_000))
    }

    pub(super) fn plain(self) -> f64 {
        self.0 as f64 / 1e9
    }

    pub(super) fn billionths(self) -> u64 {
        u64::try_from(self.0).unwrap_or(u64::MAX)
    }

    pub(super) fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    fn minus(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

/// A window is counted in so many parts. What was spent leaves it a part too late at most, never too early.
const PARTS: u32 = 128;

/// What was spent within the last while.
pub(super) struct Window {
    limit: Amount,
    per: Duration,
    waits: bool,
    parts: VecDeque<Part>,
    spent: Amount,
    /// Of calls that are not settled.
    reserved: Amount,
}

/// What was spent within a short while.
struct Part {
    ends: Instant,
    amount: Amount,
}

/// Whether an amount may be spent.
pub(super) enum Room {
    Now,
    /// Once calls that are not settled have cost less than was reserved for them.
    WhenSettled,
    /// Not before this moment.
    At(Instant),
    /// As before, and nobody waits for it.
    Not(Instant),
    /// At no time: it is more than the limit, which is told.
    Never(Amount),
}

impl Window {
    pub(super) fn new(spend: &Spend) -> Self {
        let Spend { amount, per, waits } = *spend;
        let (parts, none) = (VecDeque::new(), Amount::default());
        Self { limit: Amount::of(amount), per: per.min(FOREVER), waits, parts, spent: none, reserved: none }
    }

    /// Forgets what has left the window.
    pub(super) fn pass(&mut self, now: Instant) {
        while let Some(part) = self.parts.front().filter(|part| part.ends + self.per <= now) {
            self.spent = self.spent.minus(part.amount);
            self.parts.pop_front();
        }
    }

    /// Whether so much may be spent. Of a call whose amount nobody knows, it is asked whether anything may.
    pub(super) fn room(&self, amount: Amount) -> Room {
        let amount = amount.max(Amount(1));
        let after = self.spent.plus(amount);
        if amount > self.limit {
            Room::Never(self.limit)
        } else if after > self.limit {
            let opens = self.opens(amount);
            if self.waits { Room::At(opens) } else { Room::Not(opens) }
        } else if after.plus(self.reserved) > self.limit {
            Room::WhenSettled
        } else {
            Room::Now
        }
    }

    /// When so much may be spent again, if nothing more is spent until then.
    fn opens(&self, amount: Amount) -> Instant {
        let mut spent = self.spent;
        let last = self.parts.iter().find(|part| {
            spent = spent.minus(part.amount);
            spent.plus(amount) <= self.limit
        });
        last.expect("the amount is within the limit, so there is room once all parts have left").ends + self.per
    }

    pub(super) fn reserve(&mut self, amount: Amount) {
        self.reserved = self.reserved.plus(amount);
    }

    /// Turns what was reserved into what was spent.
    pub(super) fn settle(&mut self, reserved: Amount, spent: Amount, now: Instant) {
        self.reserved = self.reserved.minus(reserved);
        if spent == Amount::default() {
            return;
        }
        self.spent = self.spent.plus(spent);
        match self.parts.back_mut().filter(|part| part.ends > now) {
            Some(part) => part.amount = part.amount.plus(spent),
            None => self.parts.push_back(Part { ends: now + self.per / PARTS, amount: spent }),
        }
    }
}
