//! A bounded channel of recycled batches: what an expert writes for one hop between two threads.
//!
//! Full batches go one way, emptied ones come back, so a steady stream allocates nothing. Eight batches may wait.

use crossbeam_channel::{Receiver, Sender, bounded};

/// Full batches that may wait for the consumer.
const DEPTH_BATCHES: usize = 8;

/// The batch sizes that the hand-written contenders are tried with; the fastest counts.
pub(crate) const BATCH_SIZES: [usize; 7] = [256, 512, 1024, 2048, 4096, 8192, 16384];

/// The consumer's end: full batches of any number of producers.
pub(crate) struct Inbox<T> {
    full: Receiver<Batch<T>>,
}

/// A full batch and the way back to its producer.
struct Batch<T> {
    records: Vec<T>,
    back: Sender<Vec<T>>,
}

/// A producer's end.
pub(crate) struct Outbox<T> {
    batch: Vec<T>,
    capacity: usize,
    full: Sender<Batch<T>>,
    empty: Receiver<Vec<T>>,
    back: Sender<Vec<T>>,
}

/// Connects `PRODUCERS` producers to one consumer.
pub(crate) fn connect<T, const PRODUCERS: usize>(capacity: usize) -> ([Outbox<T>; PRODUCERS], Inbox<T>) {
    let (full, inbox) = bounded(DEPTH_BATCHES);
    let outboxes = std::array::from_fn(|_| {
        let (back, empty) = bounded(2 * DEPTH_BATCHES);
        Outbox { batch: Vec::with_capacity(capacity), capacity, full: full.clone(), empty, back }
    });
    (outboxes, Inbox { full: inbox })
}

impl<T> Outbox<T> {
    /// Adds one record and sends the batch if that filled it.
    #[inline]
    pub(crate) fn push(&mut self, record: T) {
        self.batch.push(record);
        if self.batch.len() == self.capacity {
            self.flush();
        }
    }

    /// Hands the batch under construction to `fill`, then sends it.
    #[inline]
    pub(crate) fn send_with(&mut self, fill: impl FnOnce(&mut Vec<T>)) {
        fill(&mut self.batch);
        self.flush();
    }

    /// Sends what is there. A consumer that has gone ends the producer's work elsewhere, so it is no error here.
    #[inline(never)]
    pub(crate) fn flush(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let next = self.empty.try_recv().unwrap_or_else(|_| Vec::with_capacity(self.capacity));
        let records = std::mem::replace(&mut self.batch, next);
        drop(self.full.send(Batch { records, back: self.back.clone() }));
    }
}

impl<T> Inbox<T> {
    /// Gives `consume` every batch until all producers are gone, and sends each one back.
    pub(crate) fn drain(self, mut consume: impl FnMut(&mut Vec<T>)) {
        while let Ok(Batch { mut records, back }) = self.full.recv() {
            consume(&mut records);
            records.clear();
            // A producer that has finished no longer wants its batches.
            drop(back.try_send(records));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_record_of_every_producer_arrives() {
        let (outboxes, inbox) = connect::<_, 2>(4);
        std::thread::scope(|scope| {
            for mut outbox in outboxes {
                scope.spawn(move || {
                    (0..101u64).for_each(|n| outbox.push(n));
                    outbox.flush();
                });
            }
            let mut sum = 0;
            inbox.drain(|batch| sum += batch.iter().sum::<u64>());
            assert_eq!(sum, 2 * 5050);
        });
    }
}
