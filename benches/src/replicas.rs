//! Many more replicas than processors: R3's exchange with 16 producers and 16 consumers beside the same with 2 and 2.

use anyhow::Result;

use crate::Options;
use crate::measure::{Contender, Side, alternate};
use crate::r3::{ours, timed};
use crate::results::{Goal, Row};

const RECORDS: u64 = 50_000_000;
const UNIT: &str = "ns/record";
const FEW: usize = 2;
const MANY: usize = 16;

/// Measures the replicas.
pub(crate) fn measure(options: &Options) -> Result<Vec<Row>> {
    let records = options.size(RECORDS);
    let contenders = &mut [
        Contender::new(Side::Ours, "16 replicas", || timed(records, || ours(records, MANY))),
        Contender::new(Side::Baseline, "2 replicas", || timed(records, || ours(records, FEW))),
    ];
    let measurement = alternate("replicas", UNIT, options.runs(), contenders)?;
    Ok(vec![Row::compare("replicas_16", UNIT, &measurement, Side::Baseline, Goal::RatioAtMost(1.2))?])
}
