//! What a join keeps: every record once, in its part, and dropped once; every row with its key.

use std::collections::HashMap;
use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;

use super::JoinError;
use super::gathered::{Dealing, Gathered};
use super::slabs::Records;
use super::table::Table;
use crate::chain::Fault;
use crate::key::Computed;

const DRAWERS: u32 = 512;

/// Stops a visit.
fn stop() -> Fault {
    JoinError::TooManyRecords { side: "left", limit: 0 }.into()
}

fn taken<T>(gathered: &mut Gathered<T>, part: usize, parts: usize) -> Vec<T> {
    let mut all = Vec::new();
    let visit = |records: Records<'_, T>| {
        assert!(records.len() <= super::LOOK_EVERY);
        all.extend(records);
        Ok(())
    };
    gathered.take(part, parts, visit).expect("nothing stops it");
    all
}

/// Rows of which some keys have one, some several, and one perhaps most.
fn rows() -> impl Strategy<Value = Vec<(u64, u64)>> {
    let keys = (1..5000_u64, prop_oneof![Just(0_u64), Just(1), Just(9)], 0..6000_usize);
    keys.prop_flat_map(|(keys, hot, count)| {
        vec((0..10_u64, 0..keys), count).prop_map(move |all| {
            let key = |(die, key)| if die < hot { 0 } else { key };
            all.into_iter().zip(0..).map(|(row, at)| (key(row), at)).collect()
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_gathered_record_is_taken_once_with_the_part_of_its_drawer(
        drawers in vec(0..DRAWERS as usize, 0..12_000),
        part_bits in 0..10_u32,
    ) {
        let parts = 1 << part_bits;
        let mut gathered = Gathered::new();
        for (at, drawer) in drawers.iter().enumerate() {
            gathered.push(*drawer, (*drawer, at));
        }
        assert_eq!(gathered.len(), drawers.len());
        let mut all = Vec::new();
        for part in 0..parts {
            let records = taken(&mut gathered, part, parts);
            assert!(records.iter().all(|(drawer, _)| drawer * parts / DRAWERS as usize == part));
            all.extend(records);
        }
        all.sort_unstable_by_key(|(_, at)| *at);
        assert!(all.into_iter().eq(drawers.into_iter().zip(0..)));
    }

    #[test]
    fn a_table_has_every_row_under_its_key_and_knows_which_were_met(
        fillings in vec((rows(), rows()), 1..3),
        part_bits in 0..4_u32,
    ) {
        let mut key = Computed::new(|row: &(u64, u64)| row.0);
        let dealing = Dealing::new();
        // That of several parts is filled once.
        let fillings = if part_bits == 0 { fillings } else { fillings[..1].to_vec() };
        let most = fillings.iter().map(|(right, _)| right.len()).max().unwrap_or_default();
        let mut table = Table::new(most >> part_bits);
        // The same table again: nothing of the first filling is found in the second.
        for (right, left) in fillings {
            let mut expected: HashMap<u64, Vec<u64>> = HashMap::new();
            let mut gathered = Gathered::new();
            for row in right {
                expected.entry(row.0).or_default().push(row.1);
                gathered.push(dealing.drawer(&mut key, &row), row);
            }
            let parts = 1 << part_bits;
            for part in 0..parts {
                let mut seen = 0;
                gathered
                    .take(part, parts, |rows| {
                        seen += rows.len();
                        table.fill(rows, &dealing, &mut key);
                        Ok(())
                    })
                    .expect("nothing stops it");
                table.mark();
                if part == 0 && parts > 1 {
                    table.divide(part_bits, gathered.len() - seen, &dealing);
                }
            }
            for (wanted, _) in &left {
                let hash = dealing.hash::<(u64, u64), Computed<fn(&(u64, u64)) -> u64, u64>>(wanted);
                let found = table.find::<Computed<fn(&(u64, u64)) -> u64, u64>, (u64, u64)>(hash, wanted, true);
                let mut rows: Vec<u64> = found
                    .map(|matches| matches.others.chain([matches.first]).inspect(|row| assert_eq!(row.0, *wanted)))
                    .map(|rows| rows.map(|row| row.1).collect())
                    .unwrap_or_default();
                rows.sort_unstable();
                assert_eq!(Some(&rows).filter(|rows| !rows.is_empty()), expected.get(wanted));
            }
            left.iter().for_each(|(met, _)| { expected.remove(met); });
            let mut alone: HashMap<u64, Vec<u64>> = HashMap::new();
            table
                .drain_alone(|key, row| {
                    assert_eq!(key, row.0);
                    alone.entry(key).or_default().push(row.1);
                    Ok(())
                })
                .expect("nothing stops it");
            alone.values_mut().for_each(|rows| rows.sort_unstable());
            assert_eq!(alone, expected);
            table.clear();
        }
    }
}

#[test]
fn a_gathered_record_is_dropped_once_wherever_its_join_stops() {
    for count in [0, 10, 4095, 4096, 4097, 20_000] {
        for (parts, whole, more) in [(1, 0, 0), (1, 0, 3), (1, 1, 0), (8, 3, 5), (512, 511, 1), (512, 512, 0)] {
            let record = Arc::new(());
            let mut gathered = Gathered::new();
            for n in 0..count {
                gathered.push(n * 7 % DRAWERS as usize, record.clone());
            }
            for part in 0..whole {
                drop(taken(&mut gathered, part, parts));
            }
            let left = Arc::strong_count(&record) - 1;
            let expected = if whole < parts && left > 0 { more.min(left) } else { 0 };
            let mut kept = Vec::new();
            if more > 0 {
                let stopped = gathered.take(whole, parts, |records| {
                    kept.extend(records.take(more - kept.len()));
                    if kept.len() == more { Err(stop()) } else { Ok(()) }
                });
                assert_eq!(stopped.is_err(), kept.len() == more);
                assert_eq!(kept.len(), expected);
            }
            drop(gathered);
            assert_eq!(Arc::strong_count(&record), 1 + kept.len());
        }
    }
}
