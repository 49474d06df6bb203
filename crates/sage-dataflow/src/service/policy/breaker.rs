//! [`Breaker`]: when calls of a service that fails are not let through any more; [`Circuit`], which keeps count of
//! them.
//!
//! ```text
//!           too many of the last calls failed
//!   closed ───────────────────────────────────▶ open ◀──────────────┐
//!      ▲                                          │ its time is over │
//!      │ as many probes succeeded                 ▼                  │ a probe failed
//!      └─────────────────────────────────────  half open ────────────┘
//! ```
//!
//! Invariants: a call counts only in the stretch of closed, open or half open in which it began. While half open, no
//! more calls are under way than the probes that are still missing. A probe that is dropped undecided makes room for
//! another. Whoever waits for room is woken by each change that may make some; nobody is woken under the lock.

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::sync::{AtomicU64, FOREVER, Mutex, Ordering, lock};
use super::time::Time;
use super::turn::{Giver, turn};
use super::verdict::Verdict;
use super::waiters::Waiters;
use super::within::within;

/// After which failures calls of a service are refused for a while.
///
/// Failures are counted among the last calls that ended. A failure is an error that the policy judges
/// [`Passing`](Verdict::Passing) or [`Outage`](Verdict::Outage). An answer that the request is at fault, or that the
/// service has too much to do, tells that it is there: it counts as a success.
///
/// ```
/// use std::time::Duration;
/// use sage::Breaker;
///
/// // Opens when 8 of the last 10 calls failed, and tries again with one call after 5 seconds.
/// let breaker = Breaker::after_share(0.8).of_last(10).open_for(Duration::from_secs(5)).probes(1);
/// // Opens when 5 calls in a row failed.
/// let in_a_row = Breaker::after_consecutive(5);
/// # let _ = (breaker, in_a_row);
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Breaker {
    share: f64,
    window: usize,
    least: Option<usize>,
    open: Duration,
    probes: u32,
}

/// How many calls a breaker counts at most.
const LONGEST_WINDOW: usize = 100_000;

impl Breaker {
    /// Opens when this share of the last calls, or more, failed: above 0, 1 at most.
    pub const fn after_share(share: f64) -> Self {
        Self { share, window: 20, least: None, open: Duration::from_secs(30), probes: 3 }
    }

    /// Opens when so many calls in a row failed: 1 to 100,000.
    pub const fn after_consecutive(failures: usize) -> Self {
        Self { window: failures, least: Some(failures), ..Self::after_share(1.0) }
    }

    /// Counts failures among so many calls: 1 to 100,000. Default: 20.
    pub const fn of_last(mut self, calls: usize) -> Self {
        self.window = calls;
        self
    }

    /// Opens only once so many calls have been counted: 1 to the number of [those counted](Self::of_last). Default:
    /// half of that number, rounded up.
    pub const fn at_least(mut self, calls: usize) -> Self {
        self.least = Some(calls);
        self
    }

    /// Stays open for so long: more than zero. Then it is half open. Default: 30 seconds.
    pub const fn open_for(mut self, time: Duration) -> Self {
        self.open = time;
        self
    }

    /// Lets so many calls through when it is half open, and closes when all of them have succeeded: 1 or more. One that
    /// fails opens it again. Default: 3.
    pub const fn probes(mut self, calls: u32) -> Self {
        self.probes = calls;
        self
    }

    /// How many calls are counted before it may open.
    fn least(&self) -> usize {
        self.least.unwrap_or(self.window.div_ceil(2))
    }

    pub(super) fn mistake(&self) -> Option<String> {
        let Self { share, window, open, probes, .. } = *self;
        let least = self.least();
        if !(share > 0.0 && share <= 1.0) {
            Some(format!("a breaker opens after a share of failures above 0 and up to 1, not {share}"))
        } else if !(1..=LONGEST_WINDOW).contains(&window) {
            Some(format!("a breaker counts 1 to {LONGEST_WINDOW} calls, not {window}"))
        } else if !(1..=window).contains(&least) {
            Some(format!("a breaker that counts {window} calls opens after 1 to {window} of them, not after {least}"))
        } else if open.is_zero() {
            Some("a breaker that is open for no time lets every call through".to_owned())
        } else {
            (probes == 0).then(|| "a breaker without probes never closes again".to_owned())
        }
    }
}

/// Whether a breaker lets calls through.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum BreakerState {
    /// All calls are let through.
    #[default]
    Closed,
    /// No call is, for a while.
    Open,
    /// Some are, to see how they go.
    HalfOpen,
}

impl fmt::Display for BreakerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half open",
        })
    }
}

/// Figures of the breaker of a service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct BreakerFigures {
    /// Its state.
    pub state: BreakerState,
    /// How often it opened.
    pub opened: u64,
    /// How often it became half open.
    pub half_opened: u64,
    /// How often it closed again.
    pub closed: u64,
    /// The calls that were refused.
    pub refused: u64,
}

/// The breaker lets no call through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Open {
    /// After how long it will; `None` if that depends on probes that are under way.
    pub(super) reopens_in: Option<Duration>,
}

/// Counts failures, and refuses calls after too many.
pub(super) struct Circuit {
    settings: Breaker,
    /// The stretch in progress while it is closed; else [`NOT_CLOSED`]. Written under the lock only.
    closed: AtomicU64,
    state: Mutex<State>,
}

const NOT_CLOSED: u64 = u64::MAX;

struct State {
    phase: Phase,
    /// The number of the stretch in progress.
    stretch: u64,
    /// Whether each of the last calls failed.
    last: VecDeque<bool>,
    failures: usize,
    waiting: Waiters<Option<Giver<()>>>,
    figures: BreakerFigures,
}

#[derive(Clone, Copy)]
enum Phase {
    Closed,
    Open { until: Instant },
    HalfOpen { under_way: u32, succeeded: u32 },
}

/// Those to wake once the lock is free.
type Wakes = Vec<Giver<()>>;

impl Circuit {
    pub(super) fn new(settings: Breaker) -> Self {
        let state = State {
            phase: Phase::Closed,
            stretch: 0,
            last: VecDeque::with_capacity(settings.window),
            failures: 0,
            waiting: Waiters::new(),
            figures: BreakerFigures::default(),
        };
        Self { settings, closed: AtomicU64::new(0), state: Mutex::new(state) }
    }

    /// Lets a call through, or not. Only one that is not closed asks for the time.
    #[inline]
    pub(super) fn pass(&self, now: impl FnOnce() -> Instant) -> Result<Passed<'_>, Open> {
        match self.closed.load(Ordering::Acquire) {
            NOT_CLOSED => self.probe(now()),
            stretch => Ok(Passed { circuit: self, stretch, is_over: false }),
        }
    }

    #[cold]
    fn probe(&self, now: Instant) -> Result<Passed<'_>, Open> {
        let mut state = lock(&self.state);
        if let Err(open) = state.room(now, self.settings.probes) {
            state.figures.refused += 1;
            return Err(open);
        }
        if let Phase::Open { .. } = state.phase {
            self.enters(&mut state, Phase::HalfOpen { under_way: 0, succeeded: 0 });
        }
        if let Phase::HalfOpen { under_way, .. } = &mut state.phase {
            *under_way += 1;
        }
        Ok(Passed { circuit: self, stretch: state.stretch, is_over: false })
    }

    /// Waits until a call may be let through. Of several that wait, not all may then be.
    pub(super) async fn opened_again<T: Time>(&self, time: &T) {
        let waiting = self.waits();
        loop {
            let (turn, moment) = {
                let now = time.now();
                let mut state = lock(&self.state);
                let Err(Open { reopens_in }) = state.room(now, self.settings.probes) else { return };
                let (giver, turn) = turn();
                let place = state.waiting.find(waiting.ticket);
                let (_, place) = place.expect("it leaves the queue when it is dropped");
                // Nobody waits for the one before any more: it wakes nobody.
                drop(place.replace(giver));
                (turn, reopens_in.map(|time| now + time))
            };
            within(time, moment, turn).await;
        }
    }

    fn waits(&self) -> Waiting<'_> {
        let waiting = &mut lock(&self.state).waiting;
        let ticket = waiting.ticket();
        waiting.join(ticket, None);
        Waiting { circuit: self, ticket }
    }

    pub(super) fn figures(&self) -> BreakerFigures {
        lock(&self.state).figures.clone()
    }

    /// Begins another stretch.
    fn enters(&self, state: &mut State, phase: Phase) {
        let State { stretch, last, failures, figures, .. } = state;
        *stretch += 1;
        last.clear();
        *failures = 0;
        let (told, count) = match phase {
            Phase::Closed => (BreakerState::Closed, &mut figures.closed),
            Phase::Open { .. } => (BreakerState::Open, &mut figures.opened),
            Phase::HalfOpen { .. } => (BreakerState::HalfOpen, &mut figures.half_opened),
        };
        *count += 1;
        figures.state = told;
        state.phase = phase;
        let closed = if told == BreakerState::Closed { state.stretch } else { NOT_CLOSED };
        self.closed.store(closed, Ordering::Release);
    }

    /// A call of a stretch has ended: whether it failed, or `None` if nobody knows.
    fn ended(&self, stretch: u64, now: impl FnOnce() -> Instant, failed: Option<bool>) {
        let mut state = lock(&self.state);
        if state.stretch != stretch {
            return;
        }
        let Breaker { window, open, probes, .. } = self.settings;
        let opens = || Phase::Open { until: now() + open.min(FOREVER) };
        match (&mut state.phase, failed) {
            (Phase::Closed, Some(failed)) => {
                state.count(failed, window);
                if state.is_too_much(&self.settings) {
                    self.enters(&mut state, opens());
                }
                // Nobody waits for room where there is.
                return;
            }
            (Phase::HalfOpen { .. }, Some(true)) => self.enters(&mut state, opens()),
            (Phase::HalfOpen { under_way, succeeded }, failed) => {
                *under_way -= 1;
                *succeeded += u32::from(failed.is_some());
                if *succeeded == probes {
                    self.enters(&mut state, Phase::Closed);
                }
            }
            (Phase::Closed | Phase::Open { .. }, _) => return,
        }
        let wakes: Wakes = state.waiting.iter_mut().filter_map(Option::take).collect();
        drop(state);
        // Whoever has left meanwhile is not to be woken.
        wakes.into_iter().for_each(|giver| _ = giver.give(()));
    }
}

impl State {
    /// Whether a call may be let through.
    fn room(&self, now: Instant, probes: u32) -> Result<(), Open> {
        match self.phase {
            Phase::Open { until } if now < until => Err(Open { reopens_in: Some(until - now) }),
            Phase::HalfOpen { under_way, succeeded } if under_way + succeeded >= probes => {
                Err(Open { reopens_in: None })
            }
            _ => Ok(()),
        }
    }

    fn count(&mut self, failed: bool, window: usize) {
        if self.last.len() == window {
            self.failures -= usize::from(self.last.pop_front() == Some(true));
        }
        self.last.push_back(failed);
        self.failures += usize::from(failed);
    }

    fn is_too_much(&self, settings: &Breaker) -> bool {
        let calls = self.last.len();
        // A share such as 0.07 is not to ask for 8 of 100 because a product of it is a little more than 7.
        calls >= settings.least() && self.failures as f64 >= settings.share * calls as f64 - 1e-6 && self.failures > 0
    }
}

/// A call that was let through. One that is dropped before it is known how it ended counts as if it had not been made.
pub(super) struct Passed<'a> {
    circuit: &'a Circuit,
    stretch: u64,
    is_over: bool,
}

impl Passed<'_> {
    /// The call has ended, in an error that is judged so or in none. The time is asked for if the breaker opens.
    pub(super) fn ended(mut self, now: impl FnOnce() -> Instant, error: Option<Verdict>) {
        self.is_over = true;
        let failed = matches!(error, Some(Verdict::Passing(_) | Verdict::Outage));
        self.circuit.ended(self.stretch, now, Some(failed));
    }
}

impl Drop for Passed<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.circuit.ended(self.stretch, || unreachable!("what is not known opens nothing"), None);
        }
    }
}

/// A place in the queue of those that wait for room, which is left when this is dropped.
struct Waiting<'a> {
    circuit: &'a Circuit,
    ticket: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut state = lock(&self.circuit.state);
        let left = state.waiting.leave(self.ticket);
        drop(state);
        drop(left);
    }
}
