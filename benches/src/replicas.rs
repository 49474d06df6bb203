//! Many more replicas than processors: R3's exchange with 8 or 16 producers and as many consumers, beside the same with
//! 2 and 2, and beside the exchange by hand with few threads or as many, whichever is faster.

use anyhow::Result;

use crate::Options;
use crate::exchange::{BATCHES, UNIT, timed_table};
use crate::measure::{Contender, Measurement, Side, alternate};
use crate::r3::{hand, ours};
use crate::results::{Goal, Row};

const RECORDS: u64 = 50_000_000;
const FEW: usize = 2;

/// Measures the replicas.
pub(crate) fn measure(options: &Options) -> Result<Vec<Row>> {
    let sixteen = beside::<16>("replicas_16", options)?;
    let eight = beside::<8>("replicas_8", options)?;
    Ok(vec![
        Row::compare("replicas_16", UNIT, &sixteen, Side::Baseline, Goal::RatioAtMost(1.2))?,
        Row::compare("replicas_16_hand", UNIT, &sixteen, Side::Hand, Goal::Reported)?,
        Row::compare("replicas_8_hand", UNIT, &eight, Side::Hand, Goal::Reported)?,
    ])
}

fn beside<const MANY: usize>(name: &str, options: &Options) -> Result<Measurement> {
    let records = options.size(RECORDS);
    let mut contenders = vec![
        Contender::new(Side::Ours, format!("{MANY} replicas"), || timed_table(records, || ours(records, MANY))),
        Contender::new(Side::Baseline, "2 replicas", || timed_table(records, || ours(records, FEW))),
    ];
    for batch in BATCHES {
        let few = move || timed_table(records, || hand::<FEW>(records, batch));
        contenders.push(Contender::new(Side::Hand, format!("{FEW} and {FEW}, batch {batch}"), few));
        let many = move || timed_table(records, || hand::<MANY>(records, batch));
        contenders.push(Contender::new(Side::Hand, format!("{MANY} and {MANY}, batch {batch}"), many));
    }
    alternate(name, UNIT, options.runs(), &mut contenders)
}
