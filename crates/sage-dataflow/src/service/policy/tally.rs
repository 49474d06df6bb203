//! [`Tally`]: figures of a service that its methods read from answers, such as the tokens that a model took;
//! [`Tallies`], which sums them up.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::sync::{Mutex, lock};

/// So many kinds of answers are told apart. What further ones add is summed up as of no kind.
const MOST_KINDS: usize = 64;

/// What an answer adds to the figures of its service: see [`MethodBuilder::tally`](super::MethodBuilder::tally).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tally {
    of: BTreeMap<String, String>,
    amounts: Vec<(Cow<'static, str>, f64)>,
}

/// The sums of what answers of one kind have added.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TallyFigures {
    /// What the answers have in common, such as the model that gave them. Empty for those of the kinds beyond the first
    /// 64.
    pub of: BTreeMap<String, String>,
    /// The sums, by their names.
    pub sums: BTreeMap<String, f64>,
}

impl Tally {
    /// Adds nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Says of which kind the answer is. Each kind has sums of its own.
    pub fn of(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.of.insert(name.into(), value.into());
        self
    }

    /// Adds an amount to the sum of this name. One that is no finite number adds nothing.
    pub fn add(mut self, name: impl Into<Cow<'static, str>>, amount: f64) -> Self {
        self.amounts.push((name.into(), amount));
        self
    }
}

/// The sums of a run so far.
#[derive(Default)]
pub(super) struct Tallies(Mutex<BTreeMap<BTreeMap<String, String>, Sums>>);

type Sums = BTreeMap<Cow<'static, str>, f64>;

impl Tallies {
    pub(super) fn count(&self, tally: Tally) {
        if tally.amounts.is_empty() {
            return;
        }
        let mut kinds = lock(&self.0);
        let is_told_apart = kinds.len() < MOST_KINDS || kinds.contains_key(&tally.of);
        let sums = kinds.entry(if is_told_apart { tally.of } else { BTreeMap::new() }).or_default();
        for (name, amount) in tally.amounts.into_iter().filter(|(_, amount)| amount.is_finite()) {
            *sums.entry(name).or_default() += amount;
        }
    }

    pub(super) fn clear(&self) {
        lock(&self.0).clear();
    }

    pub(super) fn figures(&self) -> Vec<TallyFigures> {
        let named = |sums: &Sums| sums.iter().map(|(name, sum)| (name.clone().into_owned(), *sum)).collect();
        lock(&self.0).iter().map(|(of, sums)| TallyFigures { of: of.clone(), sums: named(sums) }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_told_apart_up_to_a_limit_and_nothing_is_lost() {
        let tallies = Tallies::default();
        for model in 0..MOST_KINDS + 10 {
            let tally = Tally::new().of("model", model.to_string()).add("tokens", 2.0).add("odd", f64::NAN);
            tallies.count(tally.clone());
            tallies.count(tally);
        }
        let figures = tallies.figures();
        assert_eq!(figures.len(), MOST_KINDS + 1);
        assert_eq!((figures[0].of.len(), figures[0].sums["tokens"]), (0, 40.0));
        assert!(figures[1..].iter().all(|kind| kind.sums == BTreeMap::from([("tokens".to_owned(), 4.0)])));
    }
}
