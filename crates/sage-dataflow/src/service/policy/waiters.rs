//! [`Waiters`]: callers that wait, first in, first out, each known by its ticket.
//!
//! Invariant: tickets ascend from the front to the back.

use std::collections::VecDeque;

/// Callers that wait, and what is kept for each.
pub(super) struct Waiters<W> {
    waiters: VecDeque<(u64, W)>,
    next: u64,
}

impl<W> Waiters<W> {
    pub(super) fn new() -> Self {
        Self { waiters: VecDeque::new(), next: 0 }
    }

    /// Goes to the end of the queue, and gets a ticket.
    pub(super) fn join(&mut self, waiter: W) -> u64 {
        let ticket = self.next;
        self.next += 1;
        self.waiters.push_back((ticket, waiter));
        ticket
    }

    /// Whoever has this ticket, and how many are before it; `None` if it has left.
    pub(super) fn find(&mut self, ticket: u64) -> Option<(usize, &mut W)> {
        let position = self.waiters.binary_search_by_key(&ticket, |(ticket, _)| *ticket).ok()?;
        Some((position, &mut self.waiters[position].1))
    }

    pub(super) fn head(&mut self) -> Option<&mut W> {
        self.waiters.front_mut().map(|(_, waiter)| waiter)
    }

    /// Takes the one with so many before it out of the queue.
    pub(super) fn remove(&mut self, position: usize) -> Option<W> {
        self.waiters.remove(position).map(|(_, waiter)| waiter)
    }

    /// Takes the one with this ticket out of the queue; `None` if it has left.
    pub(super) fn leave(&mut self, ticket: u64) -> Option<W> {
        let (position, _) = self.find(ticket)?;
        self.remove(position)
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
