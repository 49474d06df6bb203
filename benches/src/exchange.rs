//! What the exchanges of other shapes than R3 have in common: the exchange by hand, its consumers, and the sink that
//! sums in each replica, so that nothing but the exchange is between the producers and the sums.

use std::hash::{BuildHasher, Hash};
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context, Result};
use foldhash::{HashMap, HashMapExt, fast::FixedState};
use sage::{BoxError, FinishContext, Sink};

use crate::Options;
use crate::batches::{Inbox, Outbox, connect};
use crate::inputs::digest_pairs;
use crate::measure::{Contender, Sample, Side, alternate, nanos_per};
use crate::results::{Goal, Row};

/// The unit of all of them.
pub(crate) const UNIT: &str = "ns/record";

/// Producers, and consumers.
pub(crate) const REPLICAS: usize = 2;

/// The batch sizes that the exchange by hand is tried with.
pub(crate) const BATCHES: [usize; 3] = [1024, 4096, 16384];

/// Sets ours beside the exchange by hand with each of its batch sizes.
///
/// # Errors
/// One of them failed, or their answers differ.
pub(crate) fn beside_hand(
    name: &str,
    options: &Options,
    batches: &[usize],
    hand: impl Fn(usize) -> Result<Sample> + Copy,
    ours: impl FnMut() -> Result<Sample>,
) -> Result<Vec<Row>> {
    let mut contenders: Vec<Contender<'_>> = Vec::new();
    for &batch in batches {
        contenders.push(Contender::new(Side::Hand, format!("batch {batch}"), move || hand(batch)));
    }
    contenders.push(Contender::new(Side::Ours, "", ours));
    let measurement = alternate(name, UNIT, options.runs(), &mut contenders)?;
    Ok(vec![Row::compare(&format!("{name}_hand"), UNIT, &measurement, Side::Hand, Goal::Reported)?])
}

/// Times one run up to its table of amounts; the digest of the table is not part of the time.
pub(crate) fn timed_table<K: Hash>(records: u64, run: impl FnOnce() -> Result<Vec<(K, u64)>>) -> Result<Sample> {
    let start = Instant::now();
    let amounts = run()?;
    let value = nanos_per(start.elapsed(), records);
    let hasher = FixedState::with_seed(7);
    let digest = digest_pairs(amounts.iter().map(|(key, amount)| (hasher.hash_one(key), *amount)));
    Ok(Sample { value, digest })
}

/// `N` producers with the records that `produce` gives each, and `N` consumers. A record goes to the consumer that the
/// hash of its key names. Gives what every consumer made.
///
/// # Errors
/// A thread panicked.
pub(crate) fn exchange<T, I, K, R, const N: usize>(
    batch: usize,
    produce: impl Fn(usize) -> I + Sync,
    key: impl Fn(&T) -> &K + Copy + Send,
    consume: impl Fn(Inbox<T>) -> R + Sync,
) -> Result<Vec<R>>
where
    T: Send,
    I: Iterator<Item = T>,
    K: Hash + ?Sized,
    R: Send,
{
    let mut outboxes: Vec<Vec<Outbox<T>>> = (0..N).map(|_| Vec::with_capacity(N)).collect();
    let mut inboxes = Vec::with_capacity(N);
    for _ in 0..N {
        let (to_one, inbox) = connect::<T, N>(batch);
        outboxes.iter_mut().zip(to_one).for_each(|(own, outbox)| own.push(outbox));
        inboxes.push(inbox);
    }
    let (produce, consume) = (&produce, &consume);
    std::thread::scope(|scope| {
        for (index, outboxes) in outboxes.into_iter().enumerate() {
            scope.spawn(move || send::<_, _, N>(produce(index), outboxes, key));
        }
        let consumers: Vec<_> = inboxes.into_iter().map(|inbox| scope.spawn(move || consume(inbox))).collect();
        let made = consumers.into_iter().map(|consumer| consumer.join().ok().context("a consumer panicked"));
        made.collect()
    })
}

fn send<T, K: Hash + ?Sized, const N: usize>(
    records: impl Iterator<Item = T>,
    outboxes: Vec<Outbox<T>>,
    key: impl Fn(&T) -> &K,
) {
    let hasher = FixedState::with_seed(0);
    // An array, so that no index need be checked.
    let Ok(mut outboxes) = <[Outbox<T>; N]>::try_from(outboxes) else { unreachable!("one for each consumer") };
    for record in records {
        let consumer = hasher.hash_one(key(&record)) as usize % N;
        outboxes[consumer].push(record);
    }
    outboxes.iter_mut().for_each(Outbox::flush);
}

/// A consumer that sums the second of each pair by the first.
pub(crate) fn sums<T, K: Hash + Eq>(inbox: Inbox<T>, pair: impl Fn(T) -> (K, u64)) -> HashMap<K, u64> {
    let mut sums: HashMap<K, u64> = HashMap::new();
    inbox.drain(|batch| {
        for (key, value) in batch.drain(..).map(&pair) {
            let sum = sums.entry(key).or_default();
            *sum = sum.wrapping_add(value);
        }
    });
    sums
}

/// A consumer that sums what `weight` gives for each record.
pub(crate) fn total<T>(inbox: Inbox<T>, weight: impl Fn(&T) -> u64) -> u64 {
    let mut total = 0u64;
    inbox.drain(|batch| total = batch.iter().fold(total, |total, record| total.wrapping_add(weight(record))));
    total
}

/// The same as a sink of ours: each replica has a total, and adds it to that of all when its records are done.
pub(crate) struct Total<T, W> {
    weight: W,
    own: u64,
    all: Arc<AtomicU64>,
    takes: PhantomData<fn(T)>,
}

impl<T, W: Fn(&T) -> u64> Total<T, W> {
    /// A replica's part of `all`.
    pub(crate) fn new(weight: W, all: &Arc<AtomicU64>) -> Self {
        Self { weight, own: 0, all: all.clone(), takes: PhantomData }
    }
}

impl<T: Send + 'static, W: Fn(&T) -> u64 + Send + 'static> Sink for Total<T, W> {
    type In = T;

    #[inline]
    fn write(&mut self, record: T) -> Result<(), BoxError> {
        self.own = self.own.wrapping_add((self.weight)(&record));
        Ok(())
    }

    fn finish(&mut self, _cx: &FinishContext) -> Result<(), BoxError> {
        self.all.fetch_add(self.own, Ordering::Relaxed);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_record_goes_to_the_consumer_of_its_key() {
        let pairs = |producer: usize| (0..1000u64).map(move |n| (n % 10, producer as u64));
        let sums = exchange::<(u64, u64), _, _, _, 4>(7, pairs, |pair| &pair.0, |inbox| sums(inbox, |pair| pair));
        let mut all: Vec<_> = sums.expect("nothing panics").into_iter().flatten().collect();
        all.sort_unstable();
        // 0 + 1 + 2 + 3, a hundred times each; a key that two consumers had would be there twice.
        assert_eq!(all, (0..10).map(|key| (key, 600)).collect::<Vec<_>>());
    }

    #[test]
    fn totals_are_of_all_consumers() {
        let numbers = |producer: usize| (0..100u64).map(move |n| n + producer as u64);
        let totals = exchange::<u64, _, _, _, 2>(8, numbers, |n| n, |inbox| total(inbox, |&n| 2 * n));
        assert_eq!(totals.expect("nothing panics").into_iter().sum::<u64>(), 2 * (4950 + 5050));
    }
}
