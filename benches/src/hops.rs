//! R1 over three hops: a thread for the source, one for each map and the filter between, and the sum on the last.

use std::hint::black_box;

use anyhow::Result;
use sage::Environment;

use crate::Options;
use crate::batches::{BATCH_SIZES, Inbox, Outbox, connect};
use crate::exchange::beside_hand;
use crate::inputs::{keep, scramble, stir};
use crate::r1::{only, per_record};
use crate::results::Row;

const RECORDS: u64 = 100_000_000;

/// Measures the hops.
pub(crate) fn measure(options: &Options) -> Result<Vec<Row>> {
    let records = options.size(RECORDS);
    let hand = move |batch| per_record(records, || Ok(by_hand(records, batch)));
    beside_hand("three_hops", options, &BATCH_SIZES, hand, || per_record(records, || ours(records)))
}

fn by_hand(records: u64, batch: usize) -> u64 {
    let ([mut first], scrambling) = connect(batch);
    let ([second], keeping) = connect(batch);
    let ([third], summing) = connect(batch);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            (0..black_box(records)).for_each(|n| first.push(n));
            first.flush();
        });
        scope.spawn(move || pass(scrambling, second, |records, out| out.extend(records.iter().map(|&n| scramble(n)))));
        scope.spawn(move || {
            let kept = |records: &[u64], out: &mut Vec<u64>| out.extend(records.iter().copied().filter(|&x| keep(x)));
            pass(keeping, third, kept);
        });
        let mut sum = 0u64;
        summing.drain(|batch| sum = batch.iter().fold(sum, |sum, &x| sum.wrapping_add(stir(x))));
        sum
    })
}

/// A thread between two hops makes a batch of every batch.
fn pass(inbox: Inbox<u64>, mut outbox: Outbox<u64>, make: impl Fn(&[u64], &mut Vec<u64>)) {
    inbox.drain(|batch| outbox.send_with(|out| make(batch, out)));
}

fn ours(records: u64) -> Result<u64> {
    let env = Environment::local("hops");
    let sum = env
        .from_factory(move |_replica| 0..black_box(records))
        .on_another_thread()
        .map(scramble)
        .on_another_thread()
        .filter(|&x| keep(x))
        .on_another_thread()
        .map(stir)
        .fold(0u64, |sum, x| *sum = sum.wrapping_add(x))
        .collect();
    env.run()?;
    only(sum.take())
}
