//! Single flight: callers that make equal calls at the same time share one.
//!
//! The first caller of a key leads: it makes the call. Those that come meanwhile follow: each gets a copy of the
//! result, an error included. A leader whose future is dropped, or whose result is its own affair (its deadline),
//! passes the lead on: the follower that has waited longest makes the call. Nothing is remembered once the call has
//! ended.
//!
//! Invariants:
//!  1. A key that is in the table has exactly one [`Lead`], which is held by a caller or lies in a follower's turn.
//!  2. A result is copied, given and dropped outside of the lock. Where a copy panics, the leader's call panics, and
//!     the followers that have nothing yet begin again.
//!
//! A call that makes an equal call inside waits for itself: only a deadline ends that.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::hash::Hash;
use std::time::Instant;

use foldhash::fast::RandomState;
use serde::{Deserialize, Serialize};

use super::sync::{Arc, AtomicU64, Mutex, Ordering, lock};
use super::time::Time;
use super::turn::{Giver, Turn, turn};
use super::within::within;

/// The calls of a method that are being made, and who waits for them.
pub(super) struct Flight<K: Key, R>(Arc<Calls<K, R>>);

pub(super) trait Key: Copy + Eq + Hash {}
impl<K: Copy + Eq + Hash> Key for K {}

struct Calls<K: Key, R> {
    followers: Mutex<HashMap<K, Followers<K, R>, RandomState>>,
    shared: AtomicU64,
    passed_on: AtomicU64,
}

type Followers<K, R> = VecDeque<Giver<Landing<K, R>>>;

/// What single flight has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct FlightFigures {
    /// The calls that took the result of an equal call.
    pub shared: u64,
    /// How often a caller left while others waited for its result, and one of them made the call.
    pub passed_on: u64,
}

/// The place of a caller among those of equal calls.
pub(super) enum Joined<K: Key, R> {
    /// It makes the call.
    Leads(Lead<K, R>),
    /// It waits. The turn ends with nothing if the leader's result could not be copied: the caller joins again.
    Follows(Turn<Landing<K, R>>),
}

/// What a follower gets.
pub(super) enum Landing<K: Key, R> {
    Result(R),
    Lead(Lead<K, R>),
}

/// Makes the call for all who wait for it. Dropped, it passes the lead on.
pub(super) struct Lead<K: Key, R> {
    calls: Arc<Calls<K, R>>,
    /// `None` once the call has ended, or somebody else leads.
    key: Option<K>,
}

impl<K: Key, R> Flight<K, R> {
    pub(super) fn new() -> Self {
        let followers = Mutex::new(HashMap::default());
        Self(Arc::new(Calls { followers, shared: AtomicU64::new(0), passed_on: AtomicU64::new(0) }))
    }

    /// Joins the callers of equal calls.
    pub(super) fn join(&self, key: K) -> Joined<K, R> {
        let mut calls = lock(&self.0.followers);
        match calls.entry(key) {
            Entry::Vacant(place) => {
                place.insert(VecDeque::new());
                drop(calls);
                Joined::Leads(Lead { calls: self.0.clone(), key: Some(key) })
            }
            Entry::Occupied(mut followers) => {
                let followers = followers.get_mut();
                if followers.len() == followers.capacity() {
                    // Nothing of a user's is dropped by this: a follower that has left has been given nothing.
                    followers.retain(|giver| !giver.is_left());
                }
                let (giver, turn) = turn();
                followers.push_back(giver);
                Joined::Follows(turn)
            }
        }
    }

    pub(super) fn figures(&self) -> FlightFigures {
        FlightFigures {
            shared: self.0.shared.load(Ordering::Relaxed),
            passed_on: self.0.passed_on.load(Ordering::Relaxed),
        }
    }

    /// Makes a call, or waits for the result of an equal one, until `until` at most: then `None`. `is_own` says of a
    /// result that it concerns its caller alone.
    pub(super) async fn share<F: Future<Output = R>>(
        &self,
        time: &impl Time,
        until: Option<Instant>,
        key: K,
        call: impl FnOnce() -> F,
        is_own: impl Fn(&R) -> bool,
    ) -> Option<R>
    where
        R: Clone,
    {
        let lead = loop {
            match self.join(key) {
                Joined::Leads(lead) => break lead,
                Joined::Follows(turn) => match within(time, until, turn).await? {
                    Some(Landing::Lead(lead)) => break lead,
                    Some(Landing::Result(result)) => {
                        self.0.shared.fetch_add(1, Ordering::Relaxed);
                        return Some(result);
                    }
                    None => {}
                },
            }
        };
        let result = call().await;
        if !is_own(&result) {
            lead.land(&result);
        }
        Some(result)
    }
}

impl<K: Key, R: Clone> Lead<K, R> {
    /// Gives each follower a copy of the result.
    pub(super) fn land(mut self, result: &R) {
        let followers = self.key.take().and_then(|key| lock(&self.calls.followers).remove(&key));
        for giver in followers.into_iter().flatten().filter(|giver| !giver.is_left()) {
            // Whoever has left meanwhile needs no copy.
            let _ = giver.give(Landing::Result(result.clone()));
        }
    }
}

impl<K: Key, R> Drop for Lead<K, R> {
    fn drop(&mut self) {
        let Some(key) = self.key.take() else { return };
        loop {
            let mut calls = lock(&self.calls.followers);
            let Some(next) = calls.get_mut(&key).and_then(VecDeque::pop_front) else {
                calls.remove(&key);
                return;
            };
            drop(calls);
            let lead = Self { calls: self.calls.clone(), key: Some(key) };
            match next.give(Landing::Lead(lead)) {
                Ok(()) => {
                    self.calls.passed_on.fetch_add(1, Ordering::Relaxed);
                    return;
                }
                // That one has left. Its lead is the one held here.
                Err(Landing::Lead(mut lead)) => lead.key = None,
                Err(Landing::Result(_)) => {}
            }
        }
    }
}

#[cfg(test)]
impl<K: Key, R> Flight<K, R> {
    /// How many wait for the result of a call; `None` if nobody makes it.
    pub(super) fn waiting(&self, key: K) -> Option<usize> {
        lock(&self.0.followers).get(&key).map(VecDeque::len)
    }
}
