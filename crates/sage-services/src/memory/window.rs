//! [`Window`]: the latest turns of a scope.

use std::collections::BinaryHeap;
use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;

use super::contents::{Contents, View};
use super::error::MemoryError;
use super::times::to_micros;
use super::turn::Turn;
use crate::tokens::estimated_tokens;

/// How much of the latest turns is wanted: so many turns, or as many as have so many tokens together.
///
/// ```
/// use sage_services::memory::Window;
///
/// let window = Window::tokens(2_000).and_turns(50);
/// # let _ = window;
/// ```
#[derive(Clone)]
pub struct Window {
    turns: usize,
    tokens: Option<usize>,
    count: Option<Arc<dyn Fn(&str) -> usize + Send + Sync>>,
    at: Option<Timestamp>,
}

impl Window {
    /// The latest turns, 1 or more.
    pub fn turns(turns: usize) -> Self {
        Self { turns, tokens: None, count: None, at: None }
    }

    /// The latest turns whose texts have at most so many tokens together, 1 or more. A turn that alone has more is not
    /// among them, nor is any before it. A token is about four letters, unless [`count_by`](Self::count_by) is told
    /// otherwise.
    pub fn tokens(tokens: usize) -> Self {
        Self { turns: usize::MAX, tokens: Some(tokens), count: None, at: None }
    }

    /// Sets how many turns there are at most.
    #[must_use]
    pub fn and_turns(mut self, turns: usize) -> Self {
        self.turns = turns;
        self
    }

    /// Sets what counts the tokens of a text, such as a model's tokeniser.
    #[must_use]
    pub fn count_by(mut self, count: impl Fn(&str) -> usize + Send + Sync + 'static) -> Self {
        self.count = Some(Arc::new(count));
        self
    }

    /// Asks the memory as it was at a moment. Turns that were erased or have expired since are not in it.
    #[must_use]
    pub fn at(mut self, moment: Timestamp) -> Self {
        self.at = Some(moment);
        self
    }

    pub(super) fn check(&self) -> Result<(), MemoryError> {
        if self.turns == 0 || self.tokens == Some(0) {
            return Err(MemoryError::BadQuery { why: "a window of nothing".to_owned() });
        }
        Ok(())
    }

    pub(super) fn moment(&self) -> Option<i64> {
        self.at.map(to_micros)
    }

    /// The window, oldest first, out of what `read` gives: at most so many turns before a place, the latest first.
    /// Nothing is locked while tokens are counted.
    pub(super) fn fill<E>(&self, read: impl Fn(u64, usize) -> Result<Vec<(u64, Turn)>, E>) -> Result<Vec<Turn>, E> {
        let mut turns = Vec::new();
        let mut before = u64::MAX;
        let mut left = self.tokens;
        while turns.len() < self.turns {
            let wanted = self.turns - turns.len();
            let most = if left.is_some() { wanted.min(AT_ONCE) } else { wanted };
            let latest = read(before, most)?;
            let is_last = latest.len() < most || left.is_none();
            for (place, turn) in latest {
                if let Some(left) = &mut left {
                    let Some(rest) = left.checked_sub(self.count(&turn.text)) else {
                        turns.reverse();
                        return Ok(turns);
                    };
                    *left = rest;
                }
                before = place;
                turns.push(turn);
            }
            if is_last {
                break;
            }
        }
        turns.reverse();
        Ok(turns)
    }

    fn count(&self, text: &str) -> usize {
        match &self.count {
            Some(count) => count(text),
            None => usize::try_from(estimated_tokens(text)).unwrap_or(usize::MAX),
        }
    }
}

/// Turns of which the tokens are counted before more are read.
const AT_ONCE: usize = 64;

/// The latest turns of these leaves before a place, the latest first, with their places.
pub(super) fn latest(contents: &Contents, leaves: &[u32], view: View, before: u64, most: usize) -> Vec<(u64, Turn)> {
    // The latest turn of each leaf that is not looked at yet.
    let latest = |leaf: u32, before: u64| {
        let turns = contents.order(leaf);
        let latest = if before == u64::MAX { turns.last_key_value() } else { turns.range(..before).next_back() };
        latest.map(|(place, slot)| (*place, *slot, leaf))
    };
    let mut heads: BinaryHeap<_> = leaves.iter().filter_map(|leaf| latest(*leaf, before)).collect::<Vec<_>>().into();
    let mut found = Vec::new();
    while found.len() < most
        && let Some((place, slot, leaf)) = heads.pop()
    {
        heads.extend(latest(leaf, place));
        let slot = contents.slot(slot);
        found.extend(view.of(slot).map(|state| (place, contents.turn(slot, state))));
    }
    found
}

/// A number is one of turns.
impl From<usize> for Window {
    fn from(turns: usize) -> Self {
        Self::turns(turns)
    }
}

impl fmt::Debug for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { turns, tokens, at, .. } = self;
        f.debug_struct("Window").field("turns", turns).field("tokens", tokens).field("at", at).finish_non_exhaustive()
    }
}
