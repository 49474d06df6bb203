//! Joins of two streams in windows of event time, by key: records of both meet if they are in the same window.
//!
//! A window keeps the records of both sides until the watermark of the two streams together reaches its end. Then its
//! pairs are emitted and its memory is freed. No result is emitted before that, so none has to be taken back.
//!
//! Invariants:
//!  1. A window that is kept ends after the watermark; a record that belongs to none such is late.
//!  2. `left` and `right` are how many records the kept windows have, each counted once per window.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::marker::PhantomData;

use super::{Full, Inner, JoinError, Left};
use crate::chain::{Emit, Fault, Flags, OpenContext, Outlet, Signal, Stage};
use crate::key::KeySelector;
use crate::operator::connect::In2;
use crate::operator::cut::{AsPartial, Cut, End};
use crate::operator::grid::Grid;
use crate::operator::window::result;
use crate::table::Table;
use crate::time::{Timed, Window, Windowed};

/// What comes out of two records that meet, and of one that meets none.
pub(crate) trait Pairing<A, B>: Send + 'static {
    /// The value of a result.
    type Out: Send + 'static;
    /// The value for these two, of which at least one is there; `None` if the join leaves them out.
    fn pair(left: Option<A>, right: Option<B>) -> Option<Self::Out>;
}

impl<A: Send + 'static, B: Send + 'static> Pairing<A, B> for Inner {
    type Out = (A, B);
    fn pair(left: Option<A>, right: Option<B>) -> Option<Self::Out> {
        left.zip(right)
    }
}

impl<A: Send + 'static, B: Send + 'static> Pairing<A, B> for Left {
    type Out = (A, Option<B>);
    fn pair(left: Option<A>, right: Option<B>) -> Option<Self::Out> {
        left.map(|left| (left, right))
    }
}

impl<A: Send + 'static, B: Send + 'static> Pairing<A, B> for Full {
    type Out = (Option<A>, Option<B>);
    fn pair(left: Option<A>, right: Option<B>) -> Option<Self::Out> {
        Some((left, right))
    }
}

/// The records of both sides, by key.
type Both<K, A, B> = Table<K, (Vec<A>, Vec<B>)>;

/// A join in windows. `S` and `R` select the keys of left and right records, `J` is which join it is.
pub(crate) struct WindowJoin<S, R, A, B, K, J> {
    left_key: S,
    right_key: R,
    grid: Grid,
    max_records: usize,
    /// The windows that are open, by their start.
    windows: BTreeMap<i128, Both<K, A, B>>,
    left: usize,
    right: usize,
    watermark: i64,
    late: u64,
    cut: Cut,
    joining: PhantomData<fn() -> J>,
}

impl<S, R, A, B, K, J> WindowJoin<S, R, A, B, K, J> {
    pub(crate) fn new(left_key: S, right_key: R, grid: Grid, max_records: usize, cut: Cut) -> Self {
        let (windows, watermark, joining) = (BTreeMap::new(), i64::MIN, PhantomData);
        Self { left_key, right_key, grid, max_records, windows, left: 0, right: 0, watermark, late: 0, cut, joining }
    }
}

impl<S: Clone, R: Clone, A, B, K, J> Clone for WindowJoin<S, R, A, B, K, J> {
    fn clone(&self) -> Self {
        Self::new(self.left_key.clone(), self.right_key.clone(), self.grid, self.max_records, self.cut.clone())
    }
}

impl<S, R, A, B, J> WindowJoin<S, R, A, B, S::Key, J>
where
    S: KeySelector<Timed<A>>,
    R: KeySelector<Timed<B>, Key = S::Key>,
    S::Key: Clone,
    A: Clone,
    B: Clone,
    J: Pairing<A, B>,
{
    /// Fires the windows that end at `watermark` or before, the earliest first.
    fn advance(&mut self, watermark: i64, out: &mut impl Emit<Timed<Windowed<S::Key, J::Out>>>) -> Result<(), Fault> {
        self.watermark = self.watermark.max(watermark);
        while let Some(entry) = self.windows.first_entry() {
            if self.grid.end(*entry.key()) > self.watermark {
                break;
            }
            let (start, table) = entry.remove_entry();
            let window = self.grid.window(start);
            for (key, (left, right)) in table {
                self.left -= left.len();
                self.right -= right.len();
                fire::<_, _, _, J>(&key, window, left, right, out)?;
            }
        }
        Ok(())
    }
}

/// Emits what the records of one key and window make.
fn fire<K: Clone, A: Clone, B: Clone, J: Pairing<A, B>>(
    key: &K,
    window: Window,
    left: Vec<A>,
    right: Vec<B>,
    out: &mut impl Emit<Timed<Windowed<K, J::Out>>>,
) -> Result<(), Fault> {
    let mut emit = |left, right| match J::pair(left, right) {
        Some(value) => out.emit(result(key.clone(), window, value)),
        None => out.look(),
    };
    if right.is_empty() {
        return left.into_iter().try_for_each(|left| emit(Some(left), None));
    }
    if left.is_empty() {
        return right.into_iter().try_for_each(|right| emit(None, Some(right)));
    }
    let pairs = left.iter().flat_map(|left| right.iter().map(move |right| (left, right)));
    pairs.into_iter().try_for_each(|(left, right)| emit(Some(left.clone()), Some(right.clone())))
}

/// Puts a record of one side into its windows, of which it may be in several. A macro, as the sides differ in their
/// types.
macro_rules! keep {
    ($join:ident, $record:ident, $side:ident, $at:tt, $key:ident) => {{
        let (time, watermark) = ($record.time.millis(), $join.watermark);
        let copies = $join.grid.open(time, watermark).count();
        if copies == 0 {
            $join.late += 1;
            return Ok(());
        }
        let limit = $join.max_records;
        if $join.$side.saturating_add(copies) > limit {
            return Err(JoinError::TooManyInWindows { side: stringify!($side), limit }.into());
        }
        for start in $join.grid.open(time, watermark) {
            let table = $join.windows.entry(start).or_default();
            let records = $join.$key.state_of(table, &$record, Default::default);
            records.$at.push($record.value.clone());
            $join.$side += 1;
        }
        Ok(())
    }};
}

impl<S, R, A, B, J> Stage for WindowJoin<S, R, A, B, S::Key, J>
where
    S: KeySelector<Timed<A>>,
    R: KeySelector<Timed<B>, Key = S::Key>,
    S::Key: Clone,
    A: Clone + Send + 'static,
    B: Clone + Send + 'static,
    J: Pairing<A, B>,
{
    type In = In2<Timed<A>, Timed<B>>;
    type Out = Timed<Windowed<S::Key, J::Out>>;
    type Side = Infallible;
    const FLAGS: Flags = Flags { has_windows: true, ..Flags::GATHERS };

    fn open(&mut self, cx: &OpenContext) -> Result<(), Fault> {
        self.cut.open(cx);
        Ok(())
    }

    #[inline(always)]
    fn process(&mut self, record: Self::In, _out: &mut impl Outlet<Self::Out, Infallible>) -> Result<(), Fault> {
        match record {
            In2::A(record) => keep!(self, record, left, 0, left_key),
            In2::B(record) => keep!(self, record, right, 1, right_key),
        }
    }

    fn signal(&mut self, signal: Signal, out: &mut impl Outlet<Self::Out, Self::Side>) -> Result<(), Fault> {
        match signal {
            Signal::Watermark(watermark) if !watermark.is_last() => self.advance(watermark.millis, out),
            Signal::Watermark(_) | Signal::Finish => match self.cut.end() {
                End::Whole => self.advance(i64::MAX, out),
                End::Partial => self.advance(i64::MAX, &mut AsPartial(out)),
                End::Dropped => {
                    let open = std::mem::take(&mut self.windows);
                    self.cut.dropped += open.values().map(|table| table.len() as u64).sum::<u64>();
                    (self.left, self.right) = (0, 0);
                    Ok(())
                }
            },
            _ => Ok(()),
        }
    }

    fn late(&self) -> u64 {
        self.late
    }

    fn dropped_windows(&self) -> u64 {
        self.cut.dropped
    }
}
