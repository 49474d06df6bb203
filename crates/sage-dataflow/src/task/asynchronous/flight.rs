//! The futures that are in flight, and the results that have not left.
//!
//! Each record has a slot from the moment it is taken until its result leaves; slots are made as they are
//! needed and used again: a future is made in the place of an earlier one, and nothing is allocated for it.
//!
//! Wakers. Each slot has one, for good. Waking puts the slot on a list (`wakes.rs`) and rouses the task. A waker that
//! outlives its future wakes the future that is in the slot by then; polling a future without need does no harm.
//!
//! Invariant: a future that has completed, or is past its timeout, is dropped at once. One that has panicked is not
//! polled again: its task has failed.
//!
//! Knows nothing of threads, and nothing of what comes after.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Poll, Wake};

use super::function::{AsyncFunction, Order, Policy, Since};
use super::parting::Leaving;
use super::polling::Rouser;
use super::slot::{FlightSlot, Woken};
use super::wakes::Wakes;
use crate::BoxError;
use crate::chain::DeadLetter;

/// The futures of one task.
pub(crate) struct Flight<I, F: AsyncFunction<I>> {
    pub(super) function: F,
    pub(super) policy: Policy<I>,
    since: Option<Since<F::Future>>,
    slots: Vec<FlightSlot<I, F>>,
    vacant: Vec<u32>,
    /// Slots in the order in which their results leave: in order, all that are taken; else those that are done.
    leaving: VecDeque<u32>,
    woken: Arc<Woken>,
    /// The list that is being worked off, and how far that is.
    list: Vec<u32>,
    worked_off: usize,
    /// How many further attempts were made.
    pub(super) retries: u64,
    /// Whether they do not wait any more.
    pub(super) hurried: bool,
}

impl<I, F: AsyncFunction<I>> Flight<I, F> {
    pub(crate) fn new(function: F, policy: Policy<I>, since: Option<Since<F::Future>>, rouser: Rouser) -> Self {
        let woken = Arc::new(Woken { wakes: Wakes::new(), rouser });
        Self {
            function,
            policy,
            since,
            slots: Vec::new(),
            vacant: Vec::new(),
            leaving: VecDeque::new(),
            woken,
            list: Vec::new(),
            worked_off: 0,
            retries: 0,
            hurried: false,
        }
    }

    /// How many records are in flight, or have a result that has not left.
    pub(crate) fn taken(&self) -> usize {
        self.slots.len() - self.vacant.len()
    }

    /// Says that the calling thread is the one that polls.
    pub(crate) fn settle(&self) {
        self.woken.rouser.settle();
    }

    /// Whether a future was woken since the last look.
    pub(crate) fn is_roused(&self) -> bool {
        self.woken.wakes.is_roused()
    }

    /// Whether another record has to wait.
    pub(crate) fn is_full(&self) -> bool {
        self.taken() >= self.policy.in_flight
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.taken() == 0
    }

    /// Makes and first polls the future of a record. There is room for it. An error comes with its slot.
    pub(crate) fn start(&mut self, record: I, number: u64) -> Result<(), (u32, BoxError)> {
        debug_assert!(!self.is_full(), "no more are in flight than may be");
        let index = self.vacant.pop().unwrap_or_else(|| {
            let index = u32::try_from(self.slots.len()).expect("far fewer may be in flight");
            self.slots.push(FlightSlot::new(index, &self.woken));
            index
        });
        if self.policy.order == Order::Ordered {
            self.leaving.push_back(index);
        }
        self.slots[index as usize].start(record, number, &mut self.function, &self.policy);
        self.poll(index).map_err(|error| (index, error))
    }

    /// Takes the list of the slots that were woken, unless there is something left of the last one. Returns whether
    /// there are any.
    pub(crate) fn look(&mut self) -> bool {
        if self.worked_off == self.list.len() {
            self.list.clear();
            self.worked_off = 0;
            self.woken.wakes.take(&mut self.list);
        }
        self.worked_off < self.list.len()
    }

    /// The record in a slot that was woken and is to be polled.
    pub(crate) fn next_woken(&mut self) -> Option<(u32, u64)> {
        while let Some(&index) = self.list.get(self.worked_off) {
            self.worked_off += 1;
            let slot = &self.slots[index as usize];
            slot.wake.queued.take_back();
            if slot.is_running() {
                return Some((index, slot.record));
            }
        }
        None
    }

    /// Polls the future in a slot.
    pub(crate) fn poll(&mut self, index: u32) -> Result<(), BoxError> {
        let slot = &mut self.slots[index as usize];
        match slot.poll(&mut self.function, &self.policy, self.since, self.hurried, &mut self.retries) {
            Poll::Pending => Ok(()),
            Poll::Ready(Ok(record)) => {
                slot.done = Some(Ok(record));
                slot.kept = None;
                if self.policy.order == Order::Unordered {
                    self.leaving.push_back(index);
                }
                Ok(())
            }
            Poll::Ready(Err(error)) => Err(error),
        }
    }

    /// Has every further attempt made at once from here on, as the last one of its record.
    pub(crate) fn hurry(&mut self) {
        self.hurried = true;
        self.function.hurry();
        self.slots.iter().filter(|slot| slot.pausing).for_each(|slot| slot.wake.wake_by_ref());
    }

    /// Takes the record back that has failed in a slot, where it was kept, with its number and how often it was tried.
    pub(crate) fn take_failed(&mut self, index: u32) -> Option<(I, u64, u32)> {
        let slot = &mut self.slots[index as usize];
        Some((slot.kept.take()?, slot.record, slot.attempt))
    }

    /// Has a dead letter leave in place of the result of a record that has failed.
    pub(crate) fn replace(&mut self, index: u32, letter: DeadLetter<I>) {
        self.slots[index as usize].done = Some(Err(Box::new(letter)));
        if self.policy.order == Order::Unordered {
            self.leaving.push_back(index);
        }
    }

    /// Gives up the slot of a record whose failure was let pass; in order, once those before it have left.
    pub(crate) fn skip(&mut self, index: u32) {
        self.slots[index as usize].clear();
        match self.policy.order {
            Order::Unordered => self.vacant.push(index),
            Order::Ordered => {
                self.slots[index as usize].failed = true;
                self.vacate_failed();
            }
        }
    }

    /// Takes failed records from the front of those that leave.
    fn vacate_failed(&mut self) {
        while let Some(index) = self.leaving.pop_front_if(|index| self.slots[*index as usize].failed) {
            self.vacant.push(index);
        }
    }

    /// Whether a result can leave.
    pub(crate) fn has_result(&self) -> bool {
        self.leaving.front().is_some_and(|&index| self.slots[index as usize].done.is_some())
    }

    /// The next result that can leave, and the number of the record it was made of.
    pub(crate) fn next_result(&mut self) -> Option<(u64, Leaving<F::Out, I>)> {
        let index = *self.leaving.front()?;
        let slot = &mut self.slots[index as usize];
        let result = slot.done.take()?;
        let record = slot.record;
        self.leaving.pop_front();
        self.vacant.push(index);
        self.vacate_failed();
        Some((record, result))
    }

    /// Drops what is in one of the slots that are taken; false when there is none.
    pub(crate) fn clear_one(&mut self) -> bool {
        let Some(slot) = self.slots.pop() else { return false };
        self.vacant.clear();
        self.leaving.clear();
        drop(slot);
        true
    }
}
