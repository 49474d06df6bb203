//! Joins of so many records that a replica deals them to drawers, and divides its table: every pair once, whichever
//! side ends first.

use std::collections::HashMap;
use std::iter;

use proptest::prelude::*;
use sage::Environment;

use crate::leaks::leak_free;
use crate::probes::{Gate, sorted};

/// A record that owns memory: a key and its number.
type Record = (String, usize);

/// One side of a join.
#[derive(Debug, Clone)]
struct Side {
    records: usize,
    /// Keys are spread over so many, from `first` on.
    keys: usize,
    first: usize,
    /// So many more, all of one key.
    hot: usize,
}

impl Side {
    fn records(&self) -> Vec<Record> {
        // A prime, so that it meets every key before one again.
        let keys = (0..self.records).map(|n| self.first + n * 7919 % self.keys);
        keys.chain(iter::repeat_n(self.first, self.hot)).map(|key| format!("key {key}")).zip(0..).collect()
    }
}

fn side(hot: usize) -> impl Strategy<Value = Side> {
    let keys = prop_oneof![1..40_usize, 500..2000_usize, 20_000..30_000_usize];
    // Few keys have few records here, so that the pairs stay few.
    let records = |keys: usize| if keys < 40 { 0..60_usize } else { 0..9000 };
    let sizes = keys.prop_flat_map(move |keys| (Just(keys), records(keys)));
    (sizes, prop_oneof![Just(0_usize), Just(5000)], prop_oneof![Just(0), Just(hot)])
        .prop_map(|((keys, records), first, hot)| Side { records, keys, first, hot })
}

#[derive(Debug, Clone)]
struct Case {
    left: Side,
    right: Side,
    replicas: usize,
    left_ends_first: bool,
}

fn case() -> impl Strategy<Value = Case> {
    let sides = prop_oneof![(side(20), side(9000)), (side(9000), side(20))];
    (sides, 1..4_usize, any::<bool>()).prop_map(|((left, right), replicas, left_ends_first)| Case {
        left,
        right,
        replicas,
        left_ends_first,
    })
}

/// The numbers of the records of each key.
fn by_key(records: &[Record]) -> HashMap<&str, Vec<usize>> {
    let mut numbers: HashMap<&str, Vec<usize>> = HashMap::new();
    records.iter().for_each(|(key, number)| numbers.entry(key).or_default().push(*number));
    numbers
}

/// The numbers of the records that meet, and of those that meet none if they are to come out.
type Numbers = (Option<usize>, Option<usize>);

fn reference(left: &[Record], right: &[Record], lefts: bool, rights: bool) -> Vec<Numbers> {
    let (in_left, in_right) = (by_key(left), by_key(right));
    let mut out = Vec::new();
    for (key, number) in left {
        match in_right.get(&**key) {
            Some(partners) => out.extend(partners.iter().map(|partner| (Some(*number), Some(*partner)))),
            None => out.extend(lefts.then_some((Some(*number), None))),
        }
    }
    let alone = right.iter().filter(|(key, _)| rights && !in_left.contains_key(&**key));
    out.extend(alone.map(|(_, number)| (None, Some(*number))));
    sorted(out)
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Inner,
    Left,
    Full,
}

/// A source that opens the gate at its end, or one that waits there in its middle.
fn source(records: Vec<Record>, gate: Gate, ends_first: bool) -> impl Iterator<Item = Record> + Send {
    let half = if ends_first { records.len() } else { records.len() / 2 };
    let mut first = records;
    let second = first.split_off(half);
    let at_gate = iter::from_fn(move || {
        if ends_first {
            gate.open()
        } else {
            gate.pass()
        }
        None
    });
    first.into_iter().chain(at_gate).chain(second)
}

fn run(case: &Case, kind: Kind) -> Vec<Numbers> {
    let env = Environment::local("large");
    let gate = Gate::new();
    let left = env.from_iter(source(case.left.records(), gate.clone(), case.left_ends_first));
    let right = env.from_iter(source(case.right.records(), gate, !case.left_ends_first));
    let joined = left.key_by(|record| record.0.clone()).join(right.key_by_ref(|record| record.0.as_str()));
    let out = match kind {
        Kind::Inner => joined.inner().parallelism(case.replicas).map(|(key, a, b)| (key, Some(a), Some(b))).collect(),
        Kind::Left => joined.left().parallelism(case.replicas).map(|(key, a, b)| (key, Some(a), b)).collect(),
        Kind::Full => joined.full().parallelism(case.replicas).collect(),
    };
    env.run().expect("nothing in it fails");
    let numbers = |(key, left, right): (String, Option<Record>, Option<Record>)| {
        assert!([&left, &right].into_iter().flatten().all(|record| record.0 == key));
        (left.map(|record| record.1), right.map(|record| record.1))
    };
    sorted(out.take().into_iter().map(numbers).collect())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_large_join_gives_every_pair_once_whichever_side_ends_first(case in case()) {
        leak_free(|_| {
            let (left, right) = (case.left.records(), case.right.records());
            assert!(run(&case, Kind::Inner) == reference(&left, &right, false, false), "inner");
            assert!(run(&case, Kind::Left) == reference(&left, &right, true, false), "left");
            assert!(run(&case, Kind::Full) == reference(&left, &right, true, true), "full");
        });
    }
}

#[test]
fn joins_larger_than_a_cache_give_every_pair_once() {
    leak_free(|_| {
        for left_ends_first in [true, false] {
            for replicas in [1, 3] {
                let left = Side { records: 60_000, keys: 60_000, first: 0, hot: 50 };
                let right = Side { records: 80_000, keys: 60_000, first: 30_000, hot: 200 };
                let expected = reference(&left.records(), &right.records(), true, true);
                let case = Case { left, right, replicas, left_ends_first };
                assert!(run(&case, Kind::Full) == expected, "{case:?}");
            }
        }
    });
}
