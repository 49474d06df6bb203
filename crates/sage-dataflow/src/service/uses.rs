//! Who uses whom among the services of a job: what was declared, and what was seen since.
//!
//! Invariants:
//!  1. There is no cycle: a use that would close one is refused.
//!  2. Whoever is used has a lower rank than its user, so that most uses are known to close no cycle without a look at any
//!     other. One that goes against the ranks has those between the two put in order, and no others are looked at.

use std::collections::{HashMap, HashSet};

/// The services, by number, and the uses between them.
#[derive(Debug, Default)]
pub(crate) struct Uses {
    uses: Vec<Vec<usize>>,
    users: Vec<Vec<usize>>,
    rank: Vec<usize>,
    known: HashSet<(usize, usize)>,
    /// User and used, in the order in which they were seen.
    observed: Vec<(usize, usize)>,
    /// How many services were looked at to keep the ranks: what tests measure.
    looked_at: u64,
}

impl Uses {
    /// Of declared dependencies, which have no cycle.
    pub(crate) fn new(declared: Vec<Vec<usize>>) -> Self {
        let mut users = vec![Vec::new(); declared.len()];
        let mut known = HashSet::new();
        for (user, uses) in declared.iter().enumerate() {
            for &used in uses {
                users[used].push(user);
                known.insert((user, used));
            }
        }
        // Each as soon as all it uses have their ranks.
        let mut open: Vec<usize> = declared.iter().map(Vec::len).collect();
        let mut order: Vec<usize> = (0..declared.len()).filter(|&service| open[service] == 0).collect();
        let mut next = 0;
        while let Some(&service) = order.get(next) {
            next += 1;
            for &user in &users[service] {
                open[user] -= 1;
                if open[user] == 0 {
                    order.push(user);
                }
            }
        }
        let mut rank = vec![0; declared.len()];
        order.iter().enumerate().for_each(|(position, &service)| rank[service] = position);
        Self { uses: declared, users, rank, known, observed: Vec::new(), looked_at: 0 }
    }

    /// Whether there is a service of this number.
    pub(crate) fn has(&self, service: usize) -> bool {
        service < self.uses.len()
    }

    /// Notes that `user` uses `used`, unless that would close a cycle.
    pub(crate) fn observe(&mut self, user: usize, used: usize) {
        let is_new = user != used && self.has(user) && self.has(used) && !self.known.contains(&(user, used));
        if is_new && self.put_in_order(user, used) {
            self.known.insert((user, used));
            self.uses[user].push(used);
            self.users[used].push(user);
            self.observed.push((user, used));
        }
    }

    /// What was seen since `from` uses were known.
    pub(crate) fn observed_since(&self, from: usize) -> &[(usize, usize)] {
        &self.observed[from.min(self.observed.len())..]
    }

    /// Whether `user` uses `used`, directly or not.
    pub(crate) fn depends(&mut self, user: usize, used: usize) -> bool {
        user != used && self.has(user) && self.has(used) && self.below(user, self.rank[used]).contains_key(&used)
    }

    /// Sees to it that `used` is ranked below `user`; false if it is a user of `user`.
    fn put_in_order(&mut self, user: usize, used: usize) -> bool {
        let (low, high) = (self.rank[user], self.rank[used]);
        if high < low {
            return true;
        }
        let below = self.below(used, low);
        if below.contains_key(&user) {
            return false;
        }
        let above = self.above(user, high);
        let sorted = |found: HashMap<usize, usize>| {
            let mut found: Vec<(usize, usize)> = found.into_iter().map(|(service, rank)| (rank, service)).collect();
            found.sort_unstable();
            found
        };
        // Those that are used come first, in the places that both have.
        let order: Vec<(usize, usize)> = sorted(below).into_iter().chain(sorted(above)).collect();
        let mut ranks: Vec<usize> = order.iter().map(|(rank, _)| *rank).collect();
        ranks.sort_unstable();
        for ((_, service), rank) in order.into_iter().zip(ranks) {
            self.rank[service] = rank;
        }
        true
    }

    /// `from` and all it uses that are not ranked below `low`, with their ranks.
    fn below(&mut self, from: usize, low: usize) -> HashMap<usize, usize> {
        let found = reach(&self.uses, &self.rank, from, |rank| rank >= low);
        self.looked_at += found.len() as u64;
        found
    }

    /// `from` and all that use it and are not ranked above `high`, with their ranks.
    fn above(&mut self, from: usize, high: usize) -> HashMap<usize, usize> {
        let found = reach(&self.users, &self.rank, from, |rank| rank <= high);
        self.looked_at += found.len() as u64;
        found
    }
}

fn reach(next: &[Vec<usize>], rank: &[usize], from: usize, within: impl Fn(usize) -> bool) -> HashMap<usize, usize> {
    let mut found = HashMap::from([(from, rank[from])]);
    let mut open = vec![from];
    while let Some(service) = open.pop() {
        for &other in next[service].iter().filter(|&&other| within(rank[other])) {
            if found.insert(other, rank[other]).is_none() {
                open.push(other);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_chain_is_noted_in_time_that_grows_with_its_length_whichever_way_it_was_registered() {
        for declared in [false, true] {
            for reversed in [false, true] {
                let looked_at = [1_000, 4_000].map(|services| {
                    let number = |nth: usize| if reversed { services - 1 - nth } else { nth };
                    let mut uses = vec![Vec::new(); services];
                    if declared {
                        (1..services).for_each(|nth| uses[number(nth)].push(number(nth - 1)));
                    }
                    let mut uses = Uses::new(uses);
                    // The outermost calls first, which calls the next, and so on.
                    (1..services).rev().for_each(|nth| uses.observe(number(nth), number(nth - 1)));
                    assert_eq!(uses.observed_since(0).len(), if declared { 0 } else { services - 1 });
                    uses.looked_at
                });
                assert!(looked_at[1] <= 5 * looked_at[0] + 10, "{looked_at:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn no_use_closes_a_cycle_and_none_that_closes_none_is_refused(
            pairs in proptest::collection::vec((0..12_usize, 0..12_usize), 0..60),
        ) {
            let mut uses = Uses::new(vec![Vec::new(); 12]);
            let mut plain = [[false; 12]; 12];
            for (user, used) in pairs {
                // What reaches what, found the slow way.
                let closes = user == used || plain[used][user];
                uses.observe(user, used);
                prop_assert_eq!(uses.known.contains(&(user, used)), !closes);
                if !closes {
                    for from in 0..12 {
                        for to in 0..12 {
                            let (before, after) = (from == user || plain[from][user], to == used || plain[used][to]);
                            plain[from][to] |= before && after;
                        }
                    }
                }
                for (from, row) in plain.iter().enumerate() {
                    for (to, &reaches) in row.iter().enumerate() {
                        prop_assert!(!reaches || uses.rank[to] < uses.rank[from]);
                        prop_assert_eq!(uses.depends(from, to), reaches);
                    }
                }
            }
        }
    }
}
