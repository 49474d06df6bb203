//! [`Limiter`]: keeps the calls of a service within its [rates](Rate) and [spends](Spend).
//!
//! Callers wait in one queue, in the order of their tickets: a call of great cost at its head lets no small one pass.
//! Only the head has a timer, and who was the head before. A caller reserves before its call what it may cost, and
//! settles after it what it did cost.
//!
//! Invariants: whoever is granted its call leaves the queue under the lock, and holds a reservation or is on its way to
//! one. A reservation that is dropped before its call began is as if it had never been. Whoever becomes the head, or
//! whose moment has come nearer, is woken and looks anew. Nobody is woken under the lock.
//!
//! Knows nothing of what a call is.

use std::time::{Duration, Instant};

use super::bucket::Bucket;
use super::rate::{Counted, Rate, RateFigures};
use super::reservation::{Ask, Reservation, Waiting};
use super::spend::{Amount, Room, Spend, Window};
use super::sync::{AtomicU64, Mutex, MutexGuard, Ordering, lock};
use super::turn::{Giver, Turn, turn};
use super::waiters::Waiters;

/// The longest delay that a service may ask for: what a longer one is taken as.
pub(super) const LONGEST_DELAY: Duration = Duration::from_secs(120);

/// Why a call may not be made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Refusal {
    /// It costs more than the bucket holds when it is full.
    CostTooLarge { cost: u64, bucket: u64 },
    /// It may be made after this wait at the earliest, which is past its deadline.
    PastDeadline { wait: Duration },
    /// What may be spent is spent. Some may be again after this wait.
    Spent { reopens_in: Duration },
    /// It spends more than may be spent within the whole window.
    AmountTooLarge { amount: f64, limit: f64 },
}

/// Keeps calls within rates and spends.
pub(super) struct Limiter {
    state: Mutex<State>,
    /// The calls that were granted and have not begun: what may still be given back.
    unbegun: AtomicU64,
    /// Whether a call is settled at all.
    settles: bool,
}

struct State {
    /// With what each counts.
    buckets: Vec<(Counted, Bucket)>,
    windows: Vec<Window>,
    paused_until: Option<Instant>,
    queue: Waiters<Waiter>,
    /// The latest time that was told.
    latest: Instant,
    /// The cost of the calls that are not settled: what may still be given back.
    reserved: u64,
    figures: RateFigures,
    spent: Amount,
}

struct Waiter {
    ask: Ask,
    deadline: Option<Instant>,
    /// Wakes it; `None` while it is awake.
    giver: Option<Giver<()>>,
}

/// Those to wake once the lock is free.
type Wakes = Vec<Giver<()>>;

/// Whether a call may be made.
enum Chance {
    Now,
    /// Not before this moment; `None` if only an event can tell.
    Later(Option<Instant>),
    Refused(Refusal),
}

/// How a caller entered.
pub(super) enum Entered<'a> {
    Passed(Reservation<'a>),
    Waits(Waiting<'a>),
}

impl Limiter {
    pub(super) fn new(rates: &[Rate], spends: &[Spend], now: Instant) -> Self {
        let state = State {
            buckets: rates.iter().map(|rate| (rate.of, rate.bucket(now))).collect(),
            windows: spends.iter().map(Window::new).collect(),
            paused_until: None,
            queue: Waiters::new(),
            latest: now,
            reserved: 0,
            figures: RateFigures::default(),
            spent: Amount::default(),
        };
        let settles = !spends.is_empty() || rates.iter().any(|rate| rate.of == Counted::Cost);
        Self { state: Mutex::new(state), unbegun: AtomicU64::new(0), settles }
    }

    /// Waits until a call may be made. A call that certainly cannot go before `deadline` is refused at once. Whoever
    /// drops this future leaves the queue, and gives everything back.
    #[cfg(test)]
    pub(super) async fn reserve<T: super::time::Time>(
        &self,
        time: &T,
        now: Instant,
        ask: Ask,
        deadline: Option<Instant>,
    ) -> Result<Reservation<'_>, Refusal> {
        let ticket = lock(&self.state).queue.ticket();
        match self.enter(now, ask, deadline, ticket)? {
            Entered::Passed(reservation) => Ok(reservation),
            Entered::Waits(waiting) => waiting.granted(time).await,
        }
    }

    /// Lets a call through if nobody is before it and nothing to wait for; else it takes the place of its ticket in the
    /// queue. So most calls make no future.
    #[inline]
    pub(super) fn enter(
        &self,
        now: Instant,
        ask: Ask,
        deadline: Option<Instant>,
        ticket: u64,
    ) -> Result<Entered<'_>, Refusal> {
        let mut state = lock(&self.state);
        state.pass_time(now);
        if state.queue.is_first(ticket) && state.may_go(ask) {
            state.take(ask);
            self.unbegun.fetch_add(1, Ordering::Relaxed);
            return Ok(Entered::Passed(Reservation::new(self, ask)));
        }
        self.joins(state, ask, deadline, ticket)
    }

    #[cold]
    fn joins<'a>(
        &'a self,
        mut state: MutexGuard<'_, State>,
        ask: Ask,
        deadline: Option<Instant>,
        ticket: u64,
    ) -> Result<Entered<'a>, Refusal> {
        match state.chance(ask, deadline, self.unbegun()) {
            Chance::Refused(refusal) => {
                state.figures.refused += 1;
                Err(refusal)
            }
            Chance::Now | Chance::Later(_) => {
                state.queue.join(ticket, Waiter { ask, deadline, giver: None });
                Ok(Entered::Waits(Waiting::new(self, ticket, ask)))
            }
        }
    }

    /// Nobody is let through until `delay` has passed, for which the service has asked. One that ends before another
    /// changes nothing.
    pub(super) fn pause(&self, now: Instant, delay: Duration) {
        let moment = now + delay.min(LONGEST_DELAY);
        let mut state = lock(&self.state);
        state.figures.pauses += 1;
        state.paused_until = state.paused_until.max(Some(moment));
        let late = state.queue.iter_mut().filter(|waiter| waiter.deadline.is_some_and(|deadline| deadline < moment));
        let wakes: Wakes = late.filter_map(|waiter| waiter.giver.take()).collect();
        drop(state);
        wake(wakes);
    }

    /// Whether the service has asked for a pause that is not over.
    pub(super) fn is_paused(&self, now: Instant) -> bool {
        lock(&self.state).paused_until.is_some_and(|until| now < until)
    }

    pub(super) fn figures(&self) -> RateFigures {
        let state = lock(&self.state);
        RateFigures { waiting: state.queue.len(), spent_billionths: state.spent.billionths(), ..state.figures.clone() }
    }

    /// A call that was granted begins, and cannot be given back any more.
    pub(super) fn begin(&self) {
        self.unbegun.fetch_sub(1, Ordering::Relaxed);
    }

    fn unbegun(&self) -> u64 {
        self.unbegun.load(Ordering::Relaxed)
    }

    /// Takes back a call that was granted and will not be made.
    pub(super) fn give_back(&self, ask: Ask) {
        let mut state = lock(&self.state);
        self.unbegun.fetch_sub(1, Ordering::Relaxed);
        state.give_back(ask);
        let head = state.wake_head();
        drop(state);
        wake(head);
    }

    /// Counts what a call did cost; by its estimate, at the latest time that was told, if nobody knows better.
    pub(super) fn settle(&self, ask: Ask, did: Option<(Instant, Ask)>) {
        if !self.settles {
            return;
        }
        let mut state = lock(&self.state);
        let cost = did.map_or(ask, |(now, cost)| {
            state.pass_time(now);
            cost
        });
        state.settle(ask, cost);
        let is_sooner = cost.cost < ask.cost || !state.windows.is_empty();
        let head = if is_sooner { state.wake_head() } else { None };
        drop(state);
        wake(head);
    }

    /// What a caller waits for, that has this ticket; `None` if it may go.
    pub(super) fn look(&self, ticket: u64, now: Instant) -> Result<Option<(Turn<()>, Option<Instant>)>, Refusal> {
        let mut state = lock(&self.state);
        state.pass_time(now);
        let mut wakes = state.grant(&self.unbegun);
        let Some((position, &mut Waiter { ask, deadline, .. })) = state.queue.find(ticket) else {
            drop(state);
            wake(wakes);
            return Ok(None);
        };
        let looked = match state.chance(ask, deadline, self.unbegun()) {
            Chance::Refused(refusal) => {
                state.figures.refused += 1;
                wakes.extend(state.remove(position));
                Err(refusal)
            }
            chance => {
                let (giver, turn) = turn();
                // Nobody waits for the one before any more.
                wakes.extend(state.queue.find(ticket).and_then(|(_, waiter)| waiter.giver.replace(giver)));
                let moment = if let (0, Chance::Later(moment)) = (position, chance) { moment } else { None };
                Ok(Some((turn, moment)))
            }
        };
        drop(state);
        wake(wakes);
        looked
    }

    /// A caller leaves before it has seen that it may go.
    pub(super) fn leave(&self, ticket: u64, ask: Ask) {
        let mut state = lock(&self.state);
        let left = match state.queue.find(ticket) {
            Some((position, _)) => state.remove(position),
            None => {
                self.unbegun.fetch_sub(1, Ordering::Relaxed);
                state.give_back(ask);
                state.wake_head().into_iter().collect()
            }
        };
        drop(state);
        wake(left);
    }
}

impl State {
    fn pass_time(&mut self, now: Instant) {
        self.latest = self.latest.max(now);
        self.buckets.iter_mut().for_each(|(_, bucket)| bucket.refill(now));
        self.windows.iter_mut().for_each(|window| window.pass(now));
    }

    /// Whether a call could go now if it were the head.
    fn may_go(&self, ask: Ask) -> bool {
        self.paused_until.is_none_or(|until| until <= self.latest)
            && self.buckets.iter().all(|(of, bucket)| bucket.has(ask.tokens(*of)))
            && self.windows.iter().all(|window| matches!(window.room(ask.amount), Room::Now))
    }

    /// What a call would get if it were the head. `unbegun` calls may still be given back.
    fn chance(&self, ask: Ask, deadline: Option<Instant>, unbegun: u64) -> Chance {
        let now = self.latest;
        let mut moment = self.paused_until.map_or(now, |until| until.max(now));
        let mut certain = moment;
        let mut settled = true;
        for window in &self.windows {
            match window.room(ask.amount) {
                Room::Now => {}
                Room::WhenSettled => settled = false,
                Room::At(opens) => (moment, certain) = (moment.max(opens), certain.max(opens)),
                Room::Not(opens) => {
                    return Chance::Refused(Refusal::Spent { reopens_in: opens.saturating_duration_since(now) });
                }
                Room::Never(limit) => {
                    let (amount, limit) = (ask.amount.plain(), limit.plain());
                    return Chance::Refused(Refusal::AmountTooLarge { amount, limit });
                }
            }
        }
        for (of, bucket) in &self.buckets {
            let tokens = ask.tokens(*of);
            if tokens > bucket.size() {
                return Chance::Refused(Refusal::CostTooLarge { cost: tokens, bucket: bucket.size() });
            }
            if !bucket.has(tokens) {
                let returned = if *of == Counted::Calls { unbegun } else { self.reserved };
                moment = moment.max(bucket.when(tokens, 0));
                certain = certain.max(bucket.when(tokens, returned));
            }
        }
        match deadline {
            Some(deadline) if certain > now && certain > deadline => {
                Chance::Refused(Refusal::PastDeadline { wait: certain.saturating_duration_since(now) })
            }
            _ if !settled => Chance::Later(None),
            _ if moment > now => Chance::Later(Some(moment)),
            _ => Chance::Now,
        }
    }

    fn take(&mut self, ask: Ask) {
        self.figures.passed += 1;
        self.reserved = self.reserved.saturating_add(ask.cost);
        self.buckets.iter_mut().for_each(|(of, bucket)| bucket.take(ask.tokens(*of)));
        self.windows.iter_mut().for_each(|window| window.reserve(ask.amount));
    }

    /// As if the call had never been granted. No time need be told: what comes back is never too much.
    fn give_back(&mut self, ask: Ask) {
        self.figures.passed -= 1;
        self.figures.given_back += 1;
        self.reserved = self.reserved.saturating_sub(ask.cost);
        self.buckets.iter_mut().for_each(|(of, bucket)| bucket.give_back(ask.tokens(*of)));
        let (now, none) = (self.latest, Amount::default());
        self.windows.iter_mut().for_each(|window| window.settle(ask.amount, none, now));
    }

    fn settle(&mut self, ask: Ask, did: Ask) {
        self.figures.cost = self.figures.cost.saturating_add(did.cost);
        self.spent = self.spent.plus(did.amount);
        self.reserved = self.reserved.saturating_sub(ask.cost);
        for (_, bucket) in self.buckets.iter_mut().filter(|(of, _)| *of == Counted::Cost) {
            bucket.give_back(ask.cost.saturating_sub(did.cost));
            bucket.take(did.cost.saturating_sub(ask.cost));
        }
        let now = self.latest;
        self.windows.iter_mut().for_each(|window| window.settle(ask.amount, did.amount, now));
    }

    /// Grants all that may go now, from the head on. Who then is the head, and was not before, is to look.
    fn grant(&mut self, unbegun: &AtomicU64) -> Wakes {
        let (mut wakes, mut is_new) = (Wakes::new(), false);
        while let Some(head) = self.queue.head() {
            let (ask, deadline) = (head.ask, head.deadline);
            match self.chance(ask, deadline, unbegun.load(Ordering::Relaxed)) {
                Chance::Now => {
                    self.take(ask);
                    self.figures.waited += 1;
                    is_new = true;
                    unbegun.fetch_add(1, Ordering::Relaxed);
                    wakes.extend(self.queue.remove(0).and_then(|granted| granted.giver));
                }
                Chance::Later(_) if !is_new => break,
                Chance::Later(_) | Chance::Refused(_) => {
                    wakes.extend(self.wake_head());
                    break;
                }
            }
        }
        wakes
    }

    /// Takes a caller out of the queue. Its giver, and the head if it is a new one, are to be woken.
    fn remove(&mut self, position: usize) -> Wakes {
        let mut wakes: Wakes = self.queue.remove(position).and_then(|waiter| waiter.giver).into_iter().collect();
        if position == 0 {
            wakes.extend(self.wake_head());
        }
        wakes
    }

    fn wake_head(&mut self) -> Option<Giver<()>> {
        self.queue.head().and_then(|head| head.giver.take())
    }
}

fn wake(wakes: impl IntoIterator<Item = Giver<()>>) {
    // Whoever has left meanwhile is not to be woken.
    wakes.into_iter().for_each(|giver| _ = giver.give(()));
}
