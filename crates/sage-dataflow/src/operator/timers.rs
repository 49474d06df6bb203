//! Timers: those that a key has set, and the queues in which they come due.
//!
//! An entry of a queue is a moment and the hash of a key. It says that a key with this hash may have something to do
//! then; whether it has, only the key's [`Timers`] say. So nothing is taken out of a queue when a timer is cancelled or
//! a key is forgotten, and a key that has one timer, which is moved on and on, has one entry: that is put in again for
//! the later moment when it comes due.
//!
//! Invariant: of the entries of one moment and hash there are as many as keys of this hash that are
//! [awaited](Timers::is_awaited) then, or more; those find nobody.

use std::collections::BTreeSet;

use super::queue::TimeQueue;
use crate::time::Timestamp;

/// The moment at which a key's timer function is called, by event time or by the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Timer {
    /// When the watermark reaches this moment: every earlier record has been seen, but for late ones.
    Event(Timestamp),
    /// When the job's clock reaches this moment.
    Clock(Timestamp),
}

impl Timer {
    /// The moment at which the timer is due.
    pub fn moment(self) -> Timestamp {
        match self {
            Self::Event(at) | Self::Clock(at) => at,
        }
    }

    #[inline]
    pub(super) fn kind(self) -> Kind {
        match self {
            Self::Event(_) => Kind::Event,
            Self::Clock(_) => Kind::Clock,
        }
    }

    /// Whether it is of the kind of `other`, and not due after it.
    fn is_not_behind(self, other: Self) -> bool {
        self.kind() == other.kind() && self <= other
    }
}

/// Whose time a timer goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Event,
    Clock,
}

impl Kind {
    #[inline]
    pub(super) fn at(self, millis: i64) -> Timer {
        let at = Timestamp::from_millis(millis);
        match self {
            Self::Event => Timer::Event(at),
            Self::Clock => Timer::Clock(at),
        }
    }
}

/// The timers of a key. Most keys have one at most, which takes no more memory and is in the queue as one entry.
#[derive(Debug, Default)]
pub(super) enum Timers {
    /// None is set, and no entry is known of.
    #[default]
    None,
    /// None is set, but there is an entry for this moment, which one that is set later can use.
    Idle { kind: Kind, entry: i64 },
    /// One is set, and there is an entry for the moment `before` milliseconds earlier.
    One { kind: Kind, before: u32, at: i64 },
    /// One is set, and held until the timers that are due now have fired.
    Held { kind: Kind, at: i64 },
    /// Several are or were set, each with an entry of its own.
    Many(Box<Several>),
}

#[derive(Debug, Default)]
pub(super) struct Several {
    set: BTreeSet<Timer>,
    /// Those of them that are held.
    held: BTreeSet<Timer>,
}

/// What has to get an entry once a timer is set: nothing, the timer, or it and the one that was set before.
enum Enters {
    Nothing,
    Timer,
    Both(Timer),
}

/// What becomes of an entry.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Its timer fires, and is not set any more.
    Fires,
    /// It is to come again, later.
    Again(i64),
    /// There is nothing to do.
    Over,
}

impl Timers {
    /// Sets a timer, and holds it if `hold` says so. Says what has to get an entry.
    #[inline(always)]
    fn set(&mut self, timer: Timer, hold: bool) -> Enters {
        let (kind, at) = (timer.kind(), timer.moment().millis());
        match *self {
            Self::None | Self::Idle { .. } if hold => {
                *self = Self::Held { kind, at };
                Enters::Timer
            }
            Self::Idle { kind: of, entry }
                if of == kind && entry <= at && at.abs_diff(entry) <= u64::from(u32::MAX) =>
            {
                let before = u32::try_from(at.abs_diff(entry)).unwrap_or_default();
                *self = Self::One { kind, before, at };
                Enters::Nothing
            }
            Self::None | Self::Idle { .. } => {
                *self = Self::One { kind, before: 0, at };
                Enters::Timer
            }
            Self::One { kind: of, at: moment, .. } | Self::Held { kind: of, at: moment }
                if of == kind && moment == at =>
            {
                Enters::Nothing
            }
            Self::One { .. } | Self::Held { .. } | Self::Many(_) => self.set_another(timer, hold),
        }
    }

    #[cold]
    fn set_another(&mut self, timer: Timer, hold: bool) -> Enters {
        let mut enters = Enters::Timer;
        let mut several = match std::mem::take(self) {
            Self::None | Self::Idle { .. } => Box::default(),
            Self::One { kind, before, at } => {
                let one = kind.at(at);
                if before > 0 {
                    enters = Enters::Both(one);
                }
                Box::new(Several { set: BTreeSet::from([one]), held: BTreeSet::new() })
            }
            Self::Held { kind, at } => {
                let one = kind.at(at);
                Box::new(Several { set: BTreeSet::from([one]), held: BTreeSet::from([one]) })
            }
            Self::Many(several) => several,
        };
        if !several.set.insert(timer) {
            enters = Enters::Nothing;
        } else if hold {
            several.held.insert(timer);
        }
        *self = Self::Many(several);
        enters
    }

    /// Cancels a timer; whether it was set.
    #[inline]
    pub(super) fn cancel(&mut self, timer: Timer) -> bool {
        match *self {
            Self::One { kind, before, at } if kind.at(at) == timer => {
                *self = Self::Idle { kind, entry: entry(at, before) };
                true
            }
            Self::Held { kind, at } if kind.at(at) == timer => {
                *self = Self::None;
                true
            }
            Self::None | Self::Idle { .. } | Self::One { .. } | Self::Held { .. } => false,
            Self::Many(_) => self.cancel_of_many(timer),
        }
    }

    #[cold]
    fn cancel_of_many(&mut self, timer: Timer) -> bool {
        let Self::Many(several) = self else { return false };
        several.held.remove(&timer);
        let was_set = several.set.remove(&timer);
        if several.set.is_empty() {
            *self = Self::None;
        }
        was_set
    }

    /// Whether an entry of this kind and moment may be one of this key.
    #[inline]
    pub(super) fn is_awaited(&self, kind: Kind, moment: i64) -> bool {
        match self {
            Self::None | Self::Held { .. } => false,
            Self::Idle { kind: of, entry } => *of == kind && *entry == moment,
            Self::One { kind: of, before, at } => *of == kind && entry(*at, *before) == moment,
            Self::Many(several) => {
                let timer = kind.at(moment);
                several.set.contains(&timer) && !several.held.contains(&timer)
            }
        }
    }

    /// Says what becomes of an entry that has come due, and for which the key was awaited.
    #[inline]
    pub(super) fn come(&mut self, timer: Timer) -> Due {
        match self {
            Self::One { before: before @ 1.., at, .. } => {
                *before = 0;
                Due::Again(*at)
            }
            Self::One { .. } => {
                *self = Self::None;
                Due::Fires
            }
            Self::Many(_) => {
                self.cancel_of_many(timer);
                Due::Fires
            }
            Self::None | Self::Idle { .. } | Self::Held { .. } => {
                *self = Self::None;
                Due::Over
            }
        }
    }

    pub(super) fn is_held(&self, timer: Timer) -> bool {
        match self {
            Self::Held { kind, at } => kind.at(*at) == timer,
            Self::Many(several) => several.held.contains(&timer),
            Self::None | Self::Idle { .. } | Self::One { .. } => false,
        }
    }

    /// Holds a timer no more.
    pub(super) fn release(&mut self, timer: Timer) {
        match self {
            Self::Held { kind, at } => *self = Self::One { kind: *kind, before: 0, at: *at },
            Self::Many(several) => {
                several.held.remove(&timer);
            }
            Self::None | Self::Idle { .. } | Self::One { .. } => {}
        }
    }
}

/// The moment of the entry of a timer.
#[inline]
fn entry(at: i64, before: u32) -> i64 {
    at.saturating_sub_unsigned(u64::from(before))
}

/// The queues of an operator's timers, those of all keys.
pub(super) struct Queues {
    pub(super) event: TimeQueue,
    pub(super) clock: TimeQueue,
    /// Timers that are held, and the hashes of their keys: set for a time that has passed, by one that was called.
    pub(super) held: Vec<(Timer, u64)>,
}

impl Queues {
    pub(super) const fn new() -> Self {
        Self { event: TimeQueue::new(), clock: TimeQueue::new(), held: Vec::new() }
    }

    #[inline]
    pub(super) fn of(&mut self, kind: Kind) -> &mut TimeQueue {
        match kind {
            Kind::Event => &mut self.event,
            Kind::Clock => &mut self.clock,
        }
    }

    /// Sets a timer of a key with this hash, in the name of the timer that has fired, if one has.
    #[inline(always)]
    pub(super) fn set(&mut self, timers: &mut Timers, timer: Timer, hash: u64, fired: Option<Timer>) {
        let hold = fired.is_some_and(|fired| timer.is_not_behind(fired));
        match timers.set(timer, hold) {
            Enters::Nothing => return,
            Enters::Timer => {}
            Enters::Both(one) => self.push(one, hash),
        }
        if hold {
            self.held.push((timer, hash));
        } else {
            self.push(timer, hash);
        }
    }

    #[inline(always)]
    fn push(&mut self, timer: Timer, hash: u64) {
        self.of(timer.kind()).push(timer.moment().millis(), hash);
    }
}
