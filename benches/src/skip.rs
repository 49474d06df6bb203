//! What an error policy costs where nothing fails: a chain of filters and fallible functions with `ErrorPolicy::skip`,
//! and the same without a policy.

use std::hint::black_box;

use anyhow::Result;
use sage::{Environment, ErrorPolicy};

use crate::Options;
use crate::inputs::{keep, scramble, stir};
use crate::measure::{Contender, Side, alternate};
use crate::r1::{only, per_record};
use crate::results::{Goal, Row};

const RECORDS: u64 = 50_000_000;
const UNIT: &str = "ns/record";

/// Measures the policy.
pub(crate) fn measure(options: &Options) -> Result<Vec<Row>> {
    let records = options.size(RECORDS);
    let contenders = &mut [
        Contender::new(Side::Ours, "skip", || per_record(records, || run(records, ErrorPolicy::skip()))),
        Contender::new(Side::Baseline, "no policy", || per_record(records, || run(records, ErrorPolicy::fail()))),
    ];
    let measurement = alternate("skip", UNIT, options.runs(), contenders)?;
    Ok(vec![Row::compare("skip_policy", UNIT, &measurement, Side::Baseline, Goal::RatioAtMost(1.05))?])
}

/// Fails for one number, which none of the inputs is turned into.
#[inline(always)]
fn checked(x: u64) -> Result<u64, &'static str> {
    if x == u64::MAX { Err("out of range") } else { Ok(stir(x)) }
}

fn run(records: u64, policy: ErrorPolicy) -> Result<u64> {
    let env = Environment::local("skip").on_error(policy);
    let sum = env
        .from_factory(move |_replica| 0..black_box(records))
        .map(scramble)
        .filter(|&x| keep(x))
        .try_map(checked)
        .filter(|&x| x & 7 != 0)
        .try_map(checked)
        .filter(|&x| x & 56 != 0)
        .fold(0u64, |sum, x| *sum = sum.wrapping_add(x))
        .collect();
    env.run()?;
    only(sum.take())
}
