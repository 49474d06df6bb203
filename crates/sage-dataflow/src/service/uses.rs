//! Which service of a job uses which: declared uses, and uses seen while the job runs.
//!
//! Invariants:
//!  1. There is no cycle: a use that would close one is refused.
//!  2. Whoever is used has a lower rank than its user, so that most uses are known to close no cycle without a look at
//!     any other. For one that goes against the ranks, what the used one uses and what uses the user are looked for by
//!     turns, and whichever is found first is moved past the other service: into a gap between two ranks, of which
//!     there are plenty.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

/// How far ranks are apart when they are given out.
const GAP: i64 = 1 << 32;
/// Beyond these ranks there is no more room.
const MOST_RANK: i64 = i64::MAX / 2;

/// The services, by number, and the uses between them.
#[derive(Debug, Default)]
pub(crate) struct Uses {
    uses: Vec<Vec<usize>>,
    users: Vec<Vec<usize>>,
    rank: Vec<i64>,
    /// The other way round.
    ranked: BTreeMap<i64, usize>,
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
        let ranked: BTreeMap<i64, usize> = spaced(order).collect();
        ranked.iter().for_each(|(&at, &service)| rank[service] = at);
        Self { uses: declared, users, rank, ranked, known, observed: Vec::new(), looked_at: 0 }
    }

    /// Whether there is a service of this number.
    pub(crate) fn has(&self, service: usize) -> bool {
        service < self.uses.len()
    }

    /// Notes that `user` uses `used`, unless that would close a cycle; says whether it would not.
    pub(crate) fn observe(&mut self, user: usize, used: usize) -> bool {
        if !self.has(user) || !self.has(used) || self.known.contains(&(user, used)) {
            return true;
        }
        if user == used || !self.put_in_order(user, used) {
            return false;
        }
        self.known.insert((user, used));
        self.uses[user].push(used);
        self.users[used].push(user);
        self.observed.push((user, used));
        true
    }

    /// From `from` to `to`, both included, through `through`: each uses the next. `None` if there is no such way.
    pub(crate) fn way(&self, from: usize, through: usize, to: usize) -> Option<Vec<usize>> {
        let mut way = self.shortest(from, through)?;
        way.extend(self.shortest(through, to)?.into_iter().skip(1));
        Some(way)
    }

    fn shortest(&self, from: usize, to: usize) -> Option<Vec<usize>> {
        if !self.has(from) {
            return None;
        }
        let mut before = HashMap::from([(from, from)]);
        let mut open = VecDeque::from([from]);
        while let Some(service) = open.pop_front() {
            if service == to {
                let mut way = vec![to];
                while way[way.len() - 1] != from {
                    way.push(before[&way[way.len() - 1]]);
                }
                way.reverse();
                return Some(way);
            }
            for &used in &self.uses[service] {
                before.entry(used).or_insert_with(|| {
                    open.push_back(used);
                    service
                });
            }
        }
        None
    }

    /// What was seen since `from` uses were known.
    pub(crate) fn observed_since(&self, from: usize) -> &[(usize, usize)] {
        &self.observed[from.min(self.observed.len())..]
    }

    /// Whether `user` uses `used`, directly or not.
    pub(crate) fn depends(&mut self, user: usize, used: usize) -> bool {
        if user == used || !self.has(user) || !self.has(used) {
            return false;
        }
        let mut below = Search::new(user);
        let low = self.rank[used];
        while let Some(service) = below.next(&self.uses, |other| self.rank[other] >= low) {
            if service == used {
                return true;
            }
        }
        false
    }

    /// Sees to it that `used` is ranked below `user`; false if it is a user of `user`.
    fn put_in_order(&mut self, user: usize, used: usize) -> bool {
        let (low, high) = (self.rank[user], self.rank[used]);
        if high < low {
            return true;
        }
        // What `used` uses and is not ranked below `user`; and what uses `user` and is not ranked above `used`.
        let (mut below, mut above) = (Search::new(used), Search::new(user));
        let found = loop {
            self.looked_at += 1;
            match below.next(&self.uses, |other| self.rank[other] >= low) {
                Some(service) if service == user => return false,
                Some(_) => {}
                None => break below.found,
            }
            match above.next(&self.users, |other| self.rank[other] <= high) {
                Some(service) if service == used => return false,
                Some(_) => {}
                None => break above.found,
            }
        };
        let is_below = found.contains(&used);
        let mut moved: Vec<usize> = found.into_iter().collect();
        moved.sort_unstable_by_key(|&service| self.rank[service]);
        self.place(&moved, if is_below { user } else { used }, is_below);
        true
    }

    /// Gives services, in their order, ranks just below or above that of another one.
    fn place(&mut self, moved: &[usize], beside: usize, is_below: bool) {
        for &service in moved {
            self.ranked.remove(&self.rank[service]);
        }
        let mut ranks = self.gap(moved.len(), beside, is_below);
        if ranks.is_none() {
            let all: Vec<usize> = std::mem::take(&mut self.ranked).into_values().collect();
            self.ranked = spaced(all).collect();
            self.ranked.iter().for_each(|(&at, &service)| self.rank[service] = at);
            ranks = self.gap(moved.len(), beside, is_below);
        }
        let (from, step) = ranks.expect("there are fewer services than ranks between two that are spaced");
        for (nth, &service) in moved.iter().enumerate() {
            self.rank[service] = from + step * (nth as i64 + 1);
            self.ranked.insert(self.rank[service], service);
        }
    }

    /// Where there is room for so many services below or above one: the rank before the first of them, and from one to
    /// the next.
    fn gap(&self, services: usize, beside: usize, is_below: bool) -> Option<(i64, i64)> {
        let at = self.rank[beside];
        let width = GAP.checked_mul(services as i64 + 1)?;
        let (from, to) = if is_below {
            (self.ranked.range(..at).next_back().map_or(at - width, |(&rank, _)| rank), at)
        } else {
            (at, self.ranked.range(at + 1..).next().map_or(at + width, |(&rank, _)| rank))
        };
        let step = (to - from) / (services as i64 + 1);
        (step > 0 && from > -MOST_RANK && to < MOST_RANK).then_some((from, step))
    }
}

/// Services with ranks in this order.
fn spaced(order: Vec<usize>) -> impl Iterator<Item = (i64, usize)> {
    order.into_iter().enumerate().map(|(position, service)| (GAP * position as i64, service))
}

/// A walk over what one service leads to, itself included.
struct Search {
    found: HashSet<usize>,
    open: Vec<usize>,
}

impl Search {
    fn new(from: usize) -> Self {
        Self { found: HashSet::from([from]), open: vec![from] }
    }

    /// Visits one more service.
    fn next(&mut self, lead: &[Vec<usize>], within: impl Fn(usize) -> bool) -> Option<usize> {
        let service = self.open.pop()?;
        let new = lead[service].iter().copied().filter(|&other| within(other));
        self.open.extend(new.filter(|&other| self.found.insert(other)));
        Some(service)
    }
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
                    (1..services).rev().for_each(|nth| _ = uses.observe(number(nth), number(nth - 1)));
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
                prop_assert_eq!(uses.observe(user, used), !closes);
                prop_assert_eq!(uses.known.contains(&(user, used)), !closes);
                let way = uses.way(used, used, user);
                prop_assert_eq!(way.is_some(), closes);
                let is_way = |way: Vec<usize>| way.windows(2).all(|step| uses.known.contains(&(step[0], step[1])));
                prop_assert!(way.is_none_or(is_way));
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
