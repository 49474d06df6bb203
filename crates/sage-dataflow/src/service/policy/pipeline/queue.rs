//! [`Queue`]: the calls of a pipeline in one run, from when they are made until they are answered.
//!
//! Invariants:
//!  1. A request that was let in is taken by the source, taken back by its caller, or given out by
//!     [`close`](Queue::close): none is lost, and none is given out twice.
//!  2. The source is told of the end once nothing waits any more, and nothing is let in from then on.
//!  3. The source leaves its waker under the lock under which it found nothing to take. So whoever makes something for
//!     it to do finds the waker.

use std::collections::VecDeque;
use std::task::Waker;

use super::sync::{Mutex, lock};

/// The calls of a pipeline in one run.
pub(crate) struct Queue<T> {
    calls: Mutex<Calls<T>>,
    /// How many may be records at once.
    at_once: usize,
}

struct Calls<T> {
    phase: Phase,
    /// With their numbers, which grow.
    waiting: VecDeque<(u64, T)>,
    next: u64,
    /// How many are records that are not answered.
    inside: usize,
    /// That of a source that has nothing to do.
    source: Option<Waker>,
    answered_again: u64,
    unanswered: u64,
}

/// How far the life of a queue has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// The tasks have not started.
    Starting,
    Open,
    /// Nobody is left that could call, but for those from outside of the job. What waits is still taken.
    Ending,
    Over,
}

/// What the source finds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Taken<T> {
    Request(T),
    /// Its waker will be woken.
    Nothing,
    End,
}

/// How many calls are where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Figures {
    pub(crate) waiting: usize,
    pub(crate) inside: usize,
    pub(crate) answered_again: u64,
    pub(crate) unanswered: u64,
}

impl<T> Queue<T> {
    pub(crate) fn new(at_once: usize) -> Self {
        let calls = Calls {
            phase: Phase::Starting,
            waiting: VecDeque::new(),
            next: 0,
            inside: 0,
            source: None,
            answered_again: 0,
            unanswered: 0,
        };
        Self { calls: Mutex::new(calls), at_once }
    }

    /// The tasks start.
    pub(crate) fn open(&self) {
        let mut calls = lock(&self.calls);
        if calls.phase == Phase::Starting {
            calls.phase = Phase::Open;
        }
    }

    /// Nobody is left that could call: the source is to end when nothing waits any more.
    pub(crate) fn end(&self) {
        let source = {
            let mut calls = lock(&self.calls);
            if calls.phase < Phase::Ending {
                calls.phase = Phase::Ending;
            }
            calls.source.take()
        };
        source.into_iter().for_each(Waker::wake);
    }

    /// The source is gone. Gives out what waits.
    pub(crate) fn close(&self) -> VecDeque<(u64, T)> {
        let mut calls = lock(&self.calls);
        calls.phase = Phase::Over;
        let source = calls.source.take();
        let waiting = std::mem::take(&mut calls.waiting);
        drop(calls);
        drop(source);
        waiting
    }

    /// Lets a request in, and gives it a number; gives it back if it comes too early or too late.
    pub(crate) fn push(&self, request: T) -> Result<u64, (T, Phase)> {
        let (number, source) = {
            let mut calls = lock(&self.calls);
            if calls.phase != Phase::Open {
                return Err((request, calls.phase));
            }
            calls.next += 1;
            let number = calls.next;
            calls.waiting.push_back((number, request));
            (number, self.to_be_woken(&mut calls))
        };
        source.into_iter().for_each(Waker::wake);
        Ok(number)
    }

    /// Takes back the request with this number, if it still waits.
    pub(crate) fn take_back(&self, number: u64) -> Option<T> {
        let mut calls = lock(&self.calls);
        let place = calls.waiting.binary_search_by_key(&number, |(number, _)| *number).ok()?;
        calls.waiting.remove(place).map(|(_, request)| request)
    }

    /// What the source is to do next. The request that it gives is [inside](Self::release) from then on.
    pub(crate) fn take(&self, waker: &Waker) -> Taken<T> {
        let mut calls = lock(&self.calls);
        // At the end there is no limit: what is inside may be waiting for the end itself, as an unfilled batch does.
        if (calls.inside < self.at_once || calls.phase == Phase::Ending)
            && let Some((_, request)) = calls.waiting.pop_front()
        {
            calls.inside += 1;
            return Taken::Request(request);
        }
        if calls.phase >= Phase::Ending {
            calls.phase = Phase::Over;
            return Taken::End;
        }
        calls.source = Some(waker.clone());
        Taken::Nothing
    }

    /// A request that was taken has its answer, or has been dropped without one.
    pub(crate) fn release(&self, is_answered: bool) {
        let source = {
            let mut calls = lock(&self.calls);
            calls.inside -= 1;
            calls.unanswered += u64::from(!is_answered);
            if calls.waiting.is_empty() { None } else { self.to_be_woken(&mut calls) }
        };
        source.into_iter().for_each(Waker::wake);
    }

    /// A call was answered that had its answer.
    pub(crate) fn answered_again(&self) {
        lock(&self.calls).answered_again += 1;
    }

    pub(crate) fn figures(&self) -> Figures {
        let calls = lock(&self.calls);
        let Calls { inside, answered_again, unanswered, .. } = *calls;
        Figures { waiting: calls.waiting.len(), inside, answered_again, unanswered }
    }

    fn to_be_woken(&self, calls: &mut Calls<T>) -> Option<Waker> {
        if calls.inside < self.at_once { calls.source.take() } else { None }
    }
}
