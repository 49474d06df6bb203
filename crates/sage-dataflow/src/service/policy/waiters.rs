//! [`Waiters`]: callers that wait, each known by its ticket, those with lower tickets first.
//!
//! Invariant: tickets ascend from the front to the back, and no two are the same.

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

    /// A ticket that is higher than all before.
    pub(super) fn ticket(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }

    /// Takes the place of this ticket. Its owner does not wait yet.
    pub(super) fn join(&mut self, ticket: u64, waiter: W) {
        self.next = self.next.max(ticket + 1);
        let position = self.waiters.partition_point(|(before, _)| *before < ticket);
        self.waiters.insert(position, (ticket, waiter));
    }

    /// Whether nobody who waits is before this ticket.
    pub(super) fn is_first(&self, ticket: u64) -> bool {
        self.waiters.front().is_none_or(|(first, _)| ticket < *first)
    }

    /// Whether nobody who waits is behind this ticket.
    pub(super) fn is_last(&self, ticket: u64) -> bool {
        self.waiters.back().is_none_or(|(last, _)| *last < ticket)
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
