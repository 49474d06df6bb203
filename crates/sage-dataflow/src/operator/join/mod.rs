//! Hash joins of two streams by key: inner, left and full, over bounded input.
//!
//! The right stream is the build side: its records are gathered, and go into tables when the stream has ended and its
//! size is known. The left stream is the probe side: its records are gathered until then too; later ones are looked up
//! and passed on at once. Both inputs are read as they come, so a join never holds one back while it waits for the
//! other.
//!
//! Gathered records are dealt to drawers by a hash of their key as they come. So where one table would outgrow the
//! cache there can be several, each for some of the drawers, and a table is probed while it lies in the cache.
//!
//! Invariants:
//!  1. Every record is in exactly one place: gathered, in the table, or emitted.
//!  2. Until the right input has ended nothing is emitted, and there are no tables; from then on nothing is gathered.
//!  3. Where the left input ends first, a table is of no use once the gathered records were looked up in it: it is
//!     emptied then, and filled with what the next one would have.
//!  4. A row of a table that a left record has met is marked; `full` emits the unmarked ones at the end of input.

mod gathered;
mod slabs;
mod table;
#[cfg(test)]
mod tests;
pub(crate) mod windowed;

use std::convert::Infallible;
use std::marker::PhantomData;

use gathered::{Dealing, Gathered};
use table::Table;

use super::connect::In2;
use crate::chain::{Emit, Fault, Flags, Outlet, Signal, Stage};
use crate::key::KeySelector;

/// How many records of one side a replica of a join may gather, unless the user says otherwise.
pub(crate) const DEFAULT_RECORDS: usize = 100_000_000;

/// What is wrong with a limit of records, if anything: with none, a join could keep nothing and fails at the first
/// record.
pub(crate) fn limit_problem(max_records: usize) -> Option<&'static str> {
    (max_records == 0).then_some("`max_records` is 0; it may be 1 or more")
}

/// How often an operator that emits nothing looks whether its job is cancelled, in records.
const LOOK_EVERY: usize = 4096;

/// Why a join failed the job.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// A replica would have to keep more records of one stream than `max_records`.
    #[error(
        "one replica would have to keep more than {limit} records of the {side} stream; raise `max_records`, use more \
         replicas, or let the smaller stream be the right one"
    )]
    TooManyRecords {
        /// Which stream, `left` or `right`.
        side: &'static str,
        /// How many records of each stream a replica may keep.
        limit: usize,
    },
    /// A replica would have to keep more records of one stream in open windows than `max_records`.
    #[error(
        "one replica would have to keep more than {limit} records of the {side} stream in open windows; raise \
         `max_records`, use more replicas, or join in shorter windows"
    )]
    TooManyInWindows {
        /// Which stream, `left` or `right`.
        side: &'static str,
        /// How many records of each stream a replica may keep.
        limit: usize,
    },
}

/// What a join makes of records that meet and of those that do not.
pub(crate) trait Joining<K, A, B>: Send + 'static {
    /// The records that come out.
    type Out: Send + 'static;
    /// Whether left records that met none come out.
    const LEFT_ALONE: bool;
    /// Whether right records that met none come out.
    const RIGHT_ALONE: bool;
    /// Two records of equal keys.
    fn both(key: K, left: A, right: B) -> Self::Out;
    /// A left record that met none, if such come out.
    fn left_alone(key: K, left: A) -> Option<Self::Out>;
    /// A right record that met none, if such come out.
    fn right_alone(key: K, right: B) -> Option<Self::Out>;
}

/// The pairs of records with equal keys.
pub(crate) struct Inner;

/// The pairs, and the left records that met none.
pub(crate) struct Left;

/// The pairs, and the records of both sides that met none.
pub(crate) struct Full;

impl<K: Send + 'static, A: Send + 'static, B: Send + 'static> Joining<K, A, B> for Inner {
    type Out = (K, A, B);
    const LEFT_ALONE: bool = false;
    const RIGHT_ALONE: bool = false;

    #[inline(always)]
    fn both(key: K, left: A, right: B) -> Self::Out {
        (key, left, right)
    }
    fn left_alone(_key: K, _left: A) -> Option<Self::Out> {
        None
    }
    fn right_alone(_key: K, _right: B) -> Option<Self::Out> {
        None
    }
}

impl<K: Send + 'static, A: Send + 'static, B: Send + 'static> Joining<K, A, B> for Left {
    type Out = (K, A, Option<B>);
    const LEFT_ALONE: bool = true;
    const RIGHT_ALONE: bool = false;

    #[inline(always)]
    fn both(key: K, left: A, right: B) -> Self::Out {
        (key, left, Some(right))
    }
    fn left_alone(key: K, left: A) -> Option<Self::Out> {
        Some((key, left, None))
    }
    fn right_alone(_key: K, _right: B) -> Option<Self::Out> {
        None
    }
}

impl<K: Send + 'static, A: Send + 'static, B: Send + 'static> Joining<K, A, B> for Full {
    type Out = (K, Option<A>, Option<B>);
    const LEFT_ALONE: bool = true;
    const RIGHT_ALONE: bool = true;

    #[inline(always)]
    fn both(key: K, left: A, right: B) -> Self::Out {
        (key, Some(left), Some(right))
    }
    fn left_alone(key: K, left: A) -> Option<Self::Out> {
        Some((key, Some(left), None))
    }
    fn right_alone(key: K, right: B) -> Option<Self::Out> {
        Some((key, None, Some(right)))
    }
}

/// A hash join. `S` and `R` select the keys of left and right records, `J` is which join it is.
pub(crate) struct Join<S, R, A, B, K, J> {
    left_key: S,
    right_key: R,
    max_records: usize,
    dealing: Dealing,
    phase: Phase<A, B, K>,
    left_ended: bool,
    joining: PhantomData<fn() -> J>,
}

enum Phase<A, B, K> {
    Gathering { left: Gathered<A>, right: Gathered<B> },
    Probing(Table<K, B>),
    Ended,
}

impl<A, B, K> Phase<A, B, K> {
    fn new() -> Self {
        Self::Gathering { left: Gathered::new(), right: Gathered::new() }
    }
}

impl<S, R, A, B, K, J> Join<S, R, A, B, K, J> {
    pub(crate) fn new(left_key: S, right_key: R, max_records: usize) -> Self {
        let (dealing, phase) = (Dealing::new(), Phase::new());
        let max_records = max_records.min(Table::<K, B>::MOST_ROWS);
        Self { left_key, right_key, max_records, dealing, phase, left_ended: false, joining: PhantomData }
    }
}

impl<S: Clone, R: Clone, A, B, K, J> Clone for Join<S, R, A, B, K, J> {
    fn clone(&self) -> Self {
        Self::new(self.left_key.clone(), self.right_key.clone(), self.max_records)
    }
}

impl<S, R, A, B, J> Stage for Join<S, R, A, B, S::Key, J>
where
    S: KeySelector<A>,
    R: KeySelector<B, Key = S::Key>,
    A: Clone + Send + 'static,
    B: Clone + Send + 'static,
    S::Key: Clone,
    J: Joining<S::Key, A, B>,
{
    type In = In2<A, B>;
    type Out = J::Out;
    type Side = Infallible;
    const FLAGS: Flags = Flags::ANY;

    #[inline(always)]
    fn process(&mut self, record: In2<A, B>, out: &mut impl Outlet<J::Out, Infallible>) -> Result<(), Fault> {
        match (record, &mut self.phase) {
            (In2::A(record), Phase::Probing(table)) => {
                probe::<_, _, _, _, J>(table, &self.dealing, &mut self.left_key, record, out)
            }
            (In2::A(record), Phase::Gathering { left, .. }) => {
                let drawer = self.dealing.drawer(&mut self.left_key, &record);
                gather(left, drawer, record, "left", self.max_records)
            }
            (In2::B(record), Phase::Gathering { right, .. }) => {
                let drawer = self.dealing.drawer(&mut self.right_key, &record);
                gather(right, drawer, record, "right", self.max_records)
            }
            (In2::B(_), Phase::Probing(_)) => unreachable!("the right input has ended"),
            (_, Phase::Ended) => unreachable!("both inputs have ended"),
        }
    }

    fn signal(&mut self, signal: Signal, out: &mut impl Outlet<J::Out, Infallible>) -> Result<(), Fault> {
        const LEFT: usize = 0;
        const RIGHT: usize = 1;
        match signal {
            Signal::InputEnded(LEFT) => {
                self.left_ended = true;
                Ok(())
            }
            Signal::InputEnded(RIGHT) => self.probe_from_here(out),
            Signal::Finish => self.emit_alone(out),
            _ => Ok(()),
        }
    }
}

impl<S, R, A, B, J> Join<S, R, A, B, S::Key, J>
where
    S: KeySelector<A>,
    R: KeySelector<B, Key = S::Key>,
    A: Clone,
    B: Clone,
    S::Key: Clone,
    J: Joining<S::Key, A, B>,
{
    /// Makes a table of the right records, which have all come, and looks up the left ones that have.
    fn probe_from_here(&mut self, out: &mut impl Emit<J::Out>) -> Result<(), Fault> {
        let Phase::Gathering { mut left, mut right } = std::mem::replace(&mut self.phase, Phase::Ended) else {
            unreachable!("an input ends once");
        };
        let is_kept = !self.left_ended;
        let rows = right.len();
        let part_bits = Dealing::part_bits(rows, Table::<S::Key, B>::row_bytes());
        let parts = 1 << part_bits;
        let mut table = Table::new(rows / parts);
        for part in 0..parts {
            let mut seen = 0;
            right.take(part, parts, |rows| {
                out.look()?;
                seen += rows.len();
                table.fill(rows, &self.dealing, &mut self.right_key);
                Ok(())
            })?;
            if J::RIGHT_ALONE {
                table.mark();
            }
            if is_kept && part == 0 && parts > 1 {
                table.divide(part_bits, rows - seen, &self.dealing);
            }
            left.take(part, parts, |mut records| {
                out.look()?;
                records.try_for_each(|record| {
                    probe::<_, _, _, _, J>(&mut table, &self.dealing, &mut self.left_key, record, out)
                })
            })?;
            if !is_kept {
                if J::RIGHT_ALONE {
                    emit_alone::<_, _, _, J>(&mut table, out)?;
                }
                table.clear();
            }
        }
        if is_kept {
            self.phase = Phase::Probing(table);
        }
        Ok(())
    }

    /// Emits the right records that met none, if such come out.
    fn emit_alone(&mut self, out: &mut impl Emit<J::Out>) -> Result<(), Fault> {
        match std::mem::replace(&mut self.phase, Phase::Ended) {
            Phase::Probing(mut table) if J::RIGHT_ALONE => emit_alone::<_, _, _, J>(&mut table, out),
            // Where it still gathers, what follows wants no more records, and never saw one.
            _ => Ok(()),
        }
    }
}

/// Takes all rows out of a table, and emits those that no left record has met.
fn emit_alone<A, B, K: Clone, J: Joining<K, A, B>>(
    table: &mut Table<K, B>,
    out: &mut impl Emit<J::Out>,
) -> Result<(), Fault> {
    out.look()?;
    table.drain_alone(|key, row| J::right_alone(key, row).map_or(Ok(()), |record| out.emit(record)))
}

#[inline(always)]
fn gather<T>(
    records: &mut Gathered<T>,
    drawer: usize,
    record: T,
    side: &'static str,
    limit: usize,
) -> Result<(), Fault> {
    if records.len() >= limit {
        return Err(JoinError::TooManyRecords { side, limit }.into());
    }
    records.push(drawer, record);
    Ok(())
}

/// Emits what a left record and the rows of its key make. The last match takes the record itself, any other a clone.
#[inline(always)]
fn probe<S, A, B, K, J>(
    table: &mut Table<K, B>,
    dealing: &Dealing,
    selector: &mut S,
    record: A,
    out: &mut impl Emit<J::Out>,
) -> Result<(), Fault>
where
    S: KeySelector<A, Key = K>,
    K: Clone,
    A: Clone,
    B: Clone,
    J: Joining<K, A, B>,
{
    let selected = selector.select(&record);
    let hash = dealing.hash::<A, S>(&selected);
    let Some(matches) = table.find::<S, A>(hash, &selected, J::RIGHT_ALONE) else {
        if J::LEFT_ALONE {
            let key = S::into_key(selected);
            return J::left_alone(key, record).map_or(Ok(()), |record| out.emit(record));
        }
        return Ok(());
    };
    let key = S::into_key(selected);
    for row in matches.others {
        out.emit(J::both(key.clone(), record.clone(), row.clone()))?;
    }
    out.emit(J::both(key, record, matches.first.clone()))
}
