use std::fmt::Debug;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::key::Computed;
use crate::operator::{Counted, Folded};
use crate::time::Timestamp;

type Value = (u16, u32);

#[derive(Debug, Clone)]
enum Step {
    Record(i64, u16),
    Watermark(i64),
}

/// What came out: start, end and key of a window, and its result; or a late record.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Came<R> {
    Window(i64, i64, u16, R),
    Late(u32),
}

struct All<R>(Vec<Came<R>>);

impl<R> Emit<Timed<Windowed<u16, R>>> for All<R> {
    fn emit(&mut self, record: Timed<Windowed<u16, R>>) -> Result<(), Fault> {
        let Windowed { key, window, value, .. } = record.value;
        assert_eq!(record.time, window.last());
        self.0.push(Came::Window(window.start.millis(), window.end.millis(), key, value));
        Ok(())
    }
}

/// What came after each step and, with `finish`, at the end; when the next window was to fire then; what was dropped.
type Played<R> = (Vec<Vec<Came<R>>>, i64, u64);

fn play<R: Ord + Debug + Send + 'static>(
    windows: &mut impl OpenWindows<Value = Value, Key = u16, Result = R>,
    steps: &[Step],
    finish: bool,
) -> Played<R> {
    let mut came = Vec::new();
    for (number, step) in steps.iter().enumerate() {
        let mut all = All(Vec::new());
        match step {
            Step::Record(time, key) => {
                let record = Timed { time: Timestamp::from_millis(*time), value: (*key, number as u32) };
                let late = |record: Timed<Value>, out: &mut All<R>| {
                    out.0.push(Came::Late(record.value.1));
                    Ok(())
                };
                windows.take(record, &mut all, late).unwrap();
            }
            Step::Watermark(watermark) => windows.advance(*watermark, &mut all).unwrap(),
        }
        // Windows come in the order of their ends; keys have no order.
        let ends = all.0.iter().map(|came| if let Came::Window(_, end, ..) = came { *end } else { i64::MIN });
        assert!(ends.is_sorted(), "{:?}", all.0);
        all.0.sort();
        came.push(all.0);
    }
    let fires_at = windows.fires_at();
    if !finish {
        return (came, fires_at, windows.discard());
    }
    let mut all = All(Vec::new());
    windows.advance(i64::MAX, &mut all).unwrap();
    all.0.sort();
    came.push(all.0);
    (came, fires_at, windows.discard())
}

fn compare(size: u64, every: u64, lateness: u64, steps: &[Step], finish: bool) -> Result<(), TestCaseError> {
    let grid = Grid::new(Duration::from_millis(size), Duration::from_millis(every));
    let lateness = Lateness::new(Duration::from_millis(lateness));
    let key = Computed::new(|record: &Timed<Value>| record.value.0);
    let folded = Folded { initial: Vec::new(), function: |values: &mut Vec<u32>, value: &Value| values.push(value.1) };
    let mut tables = AlignedWindows::new(grid, lateness, key.clone(), folded.clone());
    let mut rows = SlidingWindows::new(grid, lateness, key.clone(), folded);
    prop_assert_eq!(play(&mut rows, steps, finish), play(&mut tables, steps, finish));
    let mut tables = AlignedWindows::new(grid, lateness, key.clone(), Counted);
    let mut panes = SlidingWindows::new(grid, lateness, key, Counted);
    prop_assert_eq!(play(&mut panes, steps, finish), play(&mut tables, steps, finish));
    Ok(())
}

/// Times around a moment that goes on, with some that are far away, and watermarks that follow.
fn steps() -> impl Strategy<Value = Vec<Step>> {
    let far = prop_oneof![any::<i64>(), 0..3000_i64, (0..3_i64).prop_map(|offset| i64::MAX - offset)];
    let first = prop_oneof![Just(0_i64), Just(1_700_000_000_000), Just(i64::MIN + 5), Just(i64::MAX - 900)];
    let step = prop_oneof![
        30 => (-20..20_i64, 0..5_u16).prop_map(|(offset, key)| (Some(offset), None, key)),
        5 => (-200..400_i64, 0..2000_u16).prop_map(|(offset, key)| (Some(offset), None, key)),
        8 => (-30..10_i64).prop_map(|offset| (None, Some(offset), 0)),
        1 => far.prop_map(|time| (None, None, (time & 7) as u16)).boxed(),
    ];
    let far = any::<i64>();
    (first, prop::collection::vec((step, 0..12_i64, far), 0..120)).prop_map(|(first, steps)| {
        let mut now = first;
        let steps = steps.into_iter().map(|((record, watermark, key), passed, far)| {
            now = now.saturating_add(passed);
            match (record, watermark) {
                (Some(offset), _) => Step::Record(now.saturating_add(offset), key),
                (_, Some(offset)) => Step::Watermark(now.saturating_add(offset).min(i64::MAX - 1)),
                _ => Step::Record(far, key),
            }
        });
        steps.collect()
    })
}

proptest! {
    #[test]
    fn rows_and_panes_give_what_a_table_for_each_window_gives(
        every in 1..9_u64,
        times in 1..14_u64,
        more in 0..9_u64,
        late in prop_oneof![4 => Just(0_u64), 1 => 1..20_u64],
        steps in steps(),
        finish in any::<bool>(),
    ) {
        compare(every * times + more.min(every - 1), every, late, &steps, finish)?;
    }
}

#[test]
fn rows_are_given_back_when_few_keys_are_left() {
    let grid = Grid::new(Duration::from_millis(10), Duration::from_millis(5));
    let key = Computed::new(|record: &Timed<Value>| record.value.0);
    let aggregate =
        Folded { initial: Vec::new(), function: |values: &mut Vec<u32>, value: &Value| values.push(value.1) };
    let mut windows = SlidingWindows::new(grid, Lateness::new(Duration::ZERO), key, aggregate);
    let record = |time: i64, key: u16| Step::Record(time, key);
    let many: Vec<_> = (0..6000).map(|key| record(7, key)).chain([record(12, 1), record(13, 2)]).collect();
    play(&mut windows, &many, true);
    let rows = windows.rows.as_ref().unwrap();
    assert_eq!((rows.index.len(), rows.lists.iter().map(Vec::len).sum::<usize>()), (0, 0));

    let mut windows = windows.clone();
    let mut all = All(Vec::new());
    for step in many.into_iter().chain([Step::Watermark(15)]) {
        match step {
            Step::Record(time, key) => {
                let record = Timed { time: Timestamp::from_millis(time), value: (key, 0) };
                windows.take(record, &mut all, |_, _| Ok(())).unwrap();
            }
            Step::Watermark(watermark) => windows.advance(watermark, &mut all).unwrap(),
        }
    }
    // The windows from 10 on are open, for two keys.
    let rows = windows.rows.as_ref().unwrap();
    assert_eq!((rows.heads.len(), rows.states.len()), (2, 2 * rows.width));
    assert_eq!(all.0.len(), 6000 + 6000);
    all.0.clear();
    windows.advance(i64::MAX, &mut all).unwrap();
    let expected = [1, 2].map(|key| Came::Window(10, 20, key, vec![0]));
    all.0.sort();
    assert_eq!(all.0, expected);
}

#[test]
fn the_room_of_a_window_is_given_back_when_few_keys_are_left_in_its_panes() {
    let grid = Grid::new(Duration::from_millis(10), Duration::from_millis(5));
    let key = Computed::new(|record: &Timed<Value>| record.value.0);
    let mut windows = SlidingWindows::new(grid, Lateness::new(Duration::ZERO), key, Counted);
    let mut all = All(Vec::new());
    for (time, key) in (0..20_000).map(|key| (7, key)).chain([(12, 1), (13, 2), (17, 1)]) {
        let record = Timed { time: Timestamp::from_millis(time), value: (key, 0) };
        windows.take(record, &mut all, |_, _| Ok(())).unwrap();
    }
    windows.advance(10, &mut all).unwrap();
    assert_eq!((all.0.len(), windows.panes.as_ref().unwrap().room()), (20_000, 28_672));
    windows.advance(15, &mut all).unwrap();
    assert_eq!((all.0.len(), windows.panes.as_ref().unwrap().room()), (40_000, 3));
    all.0.clear();
    windows.advance(20, &mut all).unwrap();
    all.0.sort();
    assert_eq!(all.0, [Came::Window(10, 20, 1, 2), Came::Window(10, 20, 2, 1)]);
}

#[test]
fn a_pane_has_room_for_as_many_keys_as_the_one_before_it_and_others_have_none_to_spare() {
    let grid = Grid::new(Duration::from_millis(10), Duration::from_millis(5));
    let key = Computed::new(|record: &Timed<Value>| record.value.0);
    let mut windows = SlidingWindows::new(grid, Lateness::new(Duration::ZERO), key, Counted);
    let mut room_after = |time: i64, keys: u16| {
        for key in 0..keys {
            let record = Timed { time: Timestamp::from_millis(time), value: (key, 0) };
            windows.take(record, &mut All(Vec::new()), |_, _| Ok(())).unwrap();
        }
        windows.panes.as_ref().unwrap().at_hand().capacity()
    };
    assert_eq!([room_after(7, 20_000), room_after(12, 1), room_after(7, 1)], [28_672; 3]);
    assert_eq!([room_after(1000, 1), room_after(7, 1), room_after(3000, 1)], [3, 28_672, 3]);
}
