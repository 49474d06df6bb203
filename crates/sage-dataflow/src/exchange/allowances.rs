//! Tests: the number of records that may wait follows their reader's pace.

use std::time::Duration;

use super::lane::allowance::Allowance;

const QUICK: Duration = Duration::from_nanos(1);

fn quick_with(allowance: &mut Allowance, records: usize) {
    for _ in 0..20 {
        allowance.took(records, QUICK);
    }
}

#[test]
fn a_quick_reader_is_allowed_as_many_as_it_has_dealt_with() {
    let mut allowance = Allowance::new(2, 1 << 20);
    for taken in 1..100_000 {
        allowance.took(1, QUICK);
        assert!(allowance.records() <= 2 + taken, "{} after {taken}", allowance.records());
    }
    assert!(allowance.records() >= 32_768);
}

#[test]
fn it_is_widened_to_its_most_and_no_further() {
    let mut allowance = Allowance::new(2, 1000);
    quick_with(&mut allowance, 1000);
    assert_eq!(allowance.records(), 1000);
}

#[test]
fn ten_milliseconds_of_its_work_may_wait() {
    let mut allowance = Allowance::new(2, 1 << 20);
    for _ in 0..10_000 {
        allowance.took(1, Duration::from_micros(100));
    }
    assert_eq!(allowance.records(), 64);
}

#[test]
fn a_reader_that_turns_slow_is_cut_back_at_once() {
    let mut allowance = Allowance::new(32, 1 << 20);
    quick_with(&mut allowance, 1 << 20);
    assert!(allowance.took(1, Duration::from_millis(100)));
    assert_eq!(allowance.records(), 32);
}

/// A thread that was not let run for a while is not slow.
#[test]
fn it_is_not_cut_back_for_a_single_wait() {
    let mut allowance = Allowance::new(2, 4096);
    quick_with(&mut allowance, 4096);
    assert!(!allowance.took(1000, Duration::from_millis(5)));
}

/// Sixteen calls of 20 ms end together; that some of them are found a moment later does not make them quick.
#[test]
fn calls_that_end_together_are_not_quick() {
    let mut allowance = Allowance::new(32, 1 << 20);
    for _ in 0..100 {
        allowance.took(4, Duration::from_millis(20));
        allowance.took(12, QUICK);
        assert_eq!(allowance.records(), 32);
    }
}
