//! [`Line`]: callers that wait, first in, first out, each known by its ticket.
//!
//! Invariant: tickets ascend from the front to the back.

use std::collections::VecDeque;

/// Callers that wait, and what is kept for each.
pub(super) struct Line<W> {
    waiters: VecDeque<(u64, W)>,
    next: u64,
}

impl<W> Line<W> {
    pub(super) fn new() -> Self {
        Self { waiters: VecDeque::new(), next: 0 }
    }

    /// Goes to the end of the line, and gets a ticket.
    pub(super) fn join(&mut self, waiter: W) -> u64 {
        let ticket = self.next;
        self.next += 1;
        self.waiters.push_back((ticket, waiter));
        ticket
    }

    /// How many are before the one with this ticket; `None` if it is not in the line any more.
    pub(super) fn position(&self, ticket: u64) -> Option<usize> {
        self.waiters.binary_search_by_key(&ticket, |(ticket, _)| *ticket).ok()
    }

    /// Takes the one at a position out of the line.
    pub(super) fn remove(&mut self, position: usize) -> Option<W> {
        self.waiters.remove(position).map(|(_, waiter)| waiter)
    }

    pub(super) fn get(&mut self, position: usize) -> Option<&mut W> {
        self.waiters.get_mut(position).map(|(_, waiter)| waiter)
    }

    /// Takes the head out of the line.
    pub(super) fn pop(&mut self) -> Option<W> {
        self.remove(0)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut W> {
        self.waiters.iter_mut().map(|(_, waiter)| waiter)
    }

    pub(super) fn len(&self) -> usize {
        self.waiters.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiters.is_empty()
    }
}
