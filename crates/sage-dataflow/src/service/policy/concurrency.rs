//! [`Concurrency`]: how many calls of a service may be under way at once; [`Slots`], which lends that many permits.
//!
//! Invariants: no more permits are out than the limit and the replacements allow, but for those that were out when the
//! limit was lowered. Callers wait in the order of their tickets; nobody passes while somebody waits. A permit gives
//! itself back when it is dropped, and goes to the next. Permits are given, and dropped, outside the lock.
//!
//! Knows nothing of time: a call began before a cut of the limit if the cut is not among those its permit knows of.

use serde::{Deserialize, Serialize};

use super::sync::{Arc, AtomicBool, Mutex, Ordering, lock};
use super::turn::{Giver, Turn, turn};
use super::waiters::Waiters;

/// How many calls of a service may be under way at once, and how many may wait.
///
/// ```
/// use sage::Concurrency;
///
/// // Between 2 and 16 at once, as the service bears it.
/// let concurrency = Concurrency::at_most(16).adaptive(2).queue(100);
/// # let _ = concurrency;
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Concurrency {
    most: usize,
    queue: usize,
    least: Option<usize>,
    replacements: usize,
}

impl Concurrency {
    /// Lets `calls` calls be under way at once: 1 or more. Others wait for their turn, in the order in which they came.
    /// A call that the service makes to itself is part of one that is under way, and waits for nothing here.
    pub const fn at_most(calls: usize) -> Self {
        Self { most: calls, queue: 1_024, least: None, replacements: 0 }
    }

    /// How many calls may wait; one more is refused at once. With 0, none waits. Default: 1,024.
    pub const fn queue(mut self, calls: usize) -> Self {
        self.queue = calls;
        self
    }

    /// Lowers the limit while the service answers that it has too much to do, down to `least`: from 1 to the limit.
    ///
    /// An answer of that kind halves the limit; those to calls that began before the last such cut do not. As many
    /// successful calls as the limit allows at once raise it by 1. It begins at its greatest. Default: the limit stays.
    pub const fn adaptive(mut self, least: usize) -> Self {
        self.least = Some(least);
        self
    }

    /// For how many calls that are past their timeout, and cannot be stopped, another may go at the same time: their
    /// code still runs, beside that of the others. Default: 0, so such calls take up the limit until they end.
    pub const fn replacements(mut self, calls: usize) -> Self {
        self.replacements = calls;
        self
    }

    pub(super) fn mistake(&self) -> Option<String> {
        let Self { most, least, .. } = *self;
        if most == 0 {
            return Some("a concurrency of 0 lets no call pass".to_owned());
        }
        least.filter(|least| !(1..=most).contains(least)).map(|least| {
            format!(
                "a concurrency that adapts goes down to 1 or more, and to no more than its limit of {most}: not {least}"
            )
        })
    }
}

/// Figures of the concurrency of a service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ConcurrencyFigures {
    /// The calls that are under way, those past their timeout whose code still runs included.
    pub in_flight: usize,
    /// How many may be at once now, without replacements.
    pub limit: usize,
    /// The calls that wait now.
    pub waiting: usize,
    /// How many had to wait.
    pub waited: u64,
    /// The calls now under way whose slot is replaced, as they are past their timeout.
    pub stuck: usize,
    /// How often a slot was replaced.
    pub replaced: u64,
    /// The calls that were refused, as too many waited.
    pub refused: u64,
    /// How often the limit was halved.
    pub cuts: u64,
}

/// As many calls as may wait do so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct QueueFull {
    pub(super) waiting: usize,
}

/// Lends permits.
pub(super) struct Slots {
    settings: Concurrency,
    state: Mutex<State>,
}

struct State {
    limit: usize,
    out: usize,
    /// How many permits that are out have a replacement.
    replaced: usize,
    queue: Waiters<Giver<Permit>>,
    /// Successful calls that began since the limit last changed by them.
    successes: usize,
    waited: u64,
    replacements: u64,
    refused: u64,
    cuts: u64,
}

/// A call may be under way while this is held.
pub(super) struct Permit {
    slots: Arc<Slots>,
    /// How often the limit had been cut when the call began.
    cuts: u64,
    is_replaced: AtomicBool,
    end: End,
}

/// What a call came to, as far as the limit depends on it.
#[derive(Clone, Copy)]
enum End {
    Succeeded,
    Throttled,
    Other,
}

/// Those to give a permit to once the lock is free, and the cuts it is to know.
type Granted = (Vec<Giver<Permit>>, u64);

impl Slots {
    pub(super) fn new(settings: Concurrency) -> Arc<Self> {
        let state = State {
            limit: settings.most,
            out: 0,
            replaced: 0,
            queue: Waiters::new(),
            successes: 0,
            waited: 0,
            replacements: 0,
            refused: 0,
            cuts: 0,
        };
        Arc::new(Self { settings, state: Mutex::new(state) })
    }

    /// Waits until a call may be under way. Whoever drops this future leaves the queue; a permit that was meant for it
    /// goes to the next.
    #[cfg(test)]
    pub(super) async fn permit(self: &Arc<Self>) -> Result<Permit, QueueFull> {
        let ticket = lock(&self.state).queue.ticket();
        match self.enter(ticket)? {
            Entered::Passed(permit) => Ok(permit),
            Entered::Waits(waiting) => Ok(waiting.granted().await),
        }
    }

    /// Lends a permit if nobody waits and there is room; else the call takes the place of its ticket in the queue. So
    /// most calls make no future. One that goes before another is not one too many.
    #[inline]
    pub(super) fn enter(self: &Arc<Self>, ticket: u64) -> Result<Entered<'_>, QueueFull> {
        let mut state = lock(&self.state);
        if state.queue.is_empty() && state.has_room() {
            state.out += 1;
            let cuts = state.cuts;
            drop(state);
            return Ok(Entered::Passed(self.new_permit(cuts)));
        }
        let waiting = state.queue.len();
        if waiting >= self.settings.queue && state.queue.is_last(ticket) {
            state.refused += 1;
            return Err(QueueFull { waiting });
        }
        let (giver, turn) = turn();
        state.queue.join(ticket, giver);
        Ok(Entered::Waits(Waiting { slots: self, ticket, turn }))
    }

    fn new_permit(self: &Arc<Self>, cuts: u64) -> Permit {
        Permit { slots: self.clone(), cuts, is_replaced: AtomicBool::new(false), end: End::Other }
    }

    fn give(self: &Arc<Self>, (givers, cuts): Granted) {
        for giver in givers {
            // One whose caller leaves at this moment gives itself back.
            drop(giver.give(self.new_permit(cuts)));
        }
    }

    pub(super) fn figures(&self) -> ConcurrencyFigures {
        let state = lock(&self.state);
        ConcurrencyFigures {
            in_flight: state.out,
            limit: state.limit,
            waiting: state.queue.len(),
            waited: state.waited,
            stuck: state.replaced,
            replaced: state.replacements,
            refused: state.refused,
            cuts: state.cuts,
        }
    }
}

impl State {
    fn has_room(&self) -> bool {
        self.out < self.limit.saturating_add(self.replaced)
    }

    /// Takes out of the queue whoever may go now.
    fn grant(&mut self) -> Granted {
        let mut givers = Vec::new();
        while self.has_room()
            && let Some(giver) = self.queue.remove(0)
        {
            self.out += 1;
            self.waited += 1;
            givers.push(giver);
        }
        (givers, self.cuts)
    }

    /// Moves an adaptive limit, by the end of a call that began after the last cut.
    fn adapt(&mut self, end: End, least: usize, most: usize) {
        match end {
            End::Throttled => {
                self.limit = (self.limit / 2).max(least);
                self.cuts += 1;
                self.successes = 0;
            }
            End::Succeeded if self.limit < most => {
                self.successes += 1;
                if self.successes >= self.limit {
                    self.limit += 1;
                    self.successes = 0;
                }
            }
            End::Succeeded | End::Other => {}
        }
    }
}

/// How a caller entered.
pub(super) enum Entered<'a> {
    Passed(Permit),
    Waits(Waiting<'a>),
}

/// A caller's place in the queue, which it leaves when this is dropped. A permit in its turn is dropped after that.
pub(super) struct Waiting<'a> {
    slots: &'a Slots,
    ticket: u64,
    turn: Turn<Permit>,
}

impl Waiting<'_> {
    /// Waits for this caller's turn.
    pub(super) async fn granted(mut self) -> Permit {
        let given = (&mut self.turn).await;
        given.expect("a giver leaves the queue to give, or because its caller left")
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut state = lock(&self.slots.state);
        let left = state.queue.leave(self.ticket);
        drop(state);
        drop(left);
    }
}

impl Permit {
    /// The call has succeeded.
    pub(super) fn succeeded(&mut self) {
        self.end = End::Succeeded;
    }

    /// The service has answered that it has too much to do.
    pub(super) fn throttled(&mut self) {
        self.end = End::Throttled;
    }

    /// The call is past its timeout, and its code cannot be stopped: another may go instead, while the permit stays
    /// with the code. False if no more such replacements are allowed. Once the code has ended, and the permit is
    /// dropped, its replacement is taken back.
    pub(super) fn replace(&self) -> bool {
        let mut state = lock(&self.slots.state);
        if state.replaced >= self.slots.settings.replacements || self.is_replaced.load(Ordering::Relaxed) {
            return false;
        }
        self.is_replaced.store(true, Ordering::Relaxed);
        state.replaced += 1;
        state.replacements += 1;
        let granted = state.grant();
        drop(state);
        self.slots.give(granted);
        true
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut state = lock(&self.slots.state);
        state.out -= 1;
        if self.is_replaced.load(Ordering::Relaxed) {
            state.replaced -= 1;
        }
        let Concurrency { most, least, .. } = self.slots.settings;
        if let Some(least) = least
            && state.cuts == self.cuts
        {
            state.adapt(self.end, least, most);
        }
        if state.queue.is_empty() {
            return;
        }
        let granted = state.grant();
        drop(state);
        self.slots.give(granted);
    }
}
