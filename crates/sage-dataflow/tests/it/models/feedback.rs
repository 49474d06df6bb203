//! A loop under shuttle: over the engine's own lanes and inboxes, it ends in every schedule, and not before every
//! record has left it.
//!
//! ```text
//! source ══ joint ══ worker (×1 or ×2) ══ head ══ joint
//! ```

#[path = "../../../src/exchange/rounds.rs"]
mod rounds;

use std::time::Duration;

use rounds::{Returned, Rounds};
use shuttle::sync::atomic::{AtomicUsize, Ordering};
use shuttle::thread;

use super::under_shuttle::between::{Between, Numbered};
use super::under_shuttle::engine::{Depth, Inbox, Polled, Pushed, Reader, ReaderState, Size, Wait, Writer, lane};
use super::under_shuttle::sync::Arc;
use super::under_shuttle::{Records, TWO};

struct Parking;

impl Wait for Parking {
    fn interrupted(&self) -> bool {
        false
    }
    fn park_blocked(&mut self) {
        super::under_shuttle::sync::thread::park();
    }
}

type Out = Writer<u32, Parking>;

fn push(to: &mut Out, record: u32) {
    if to.push(record) == Pushed::Attend {
        to.attend().unwrap_or_else(|_| panic!("no reader ends before its writers"));
    }
}

/// Runs a task until its input ends, or until `probed` ends it.
fn run(
    mut inbox: Inbox<u32>,
    mut outs: Vec<Out>,
    mut take: impl FnMut(u32, &mut [Out]),
    mut probed: impl FnMut(u64) -> Option<u64>,
    first: Option<u64>,
) {
    let probe = |outs: &mut Vec<Out>, round| {
        for out in outs {
            out.put(Between::Numbered(Numbered::Probe, round))
                .unwrap_or_else(|_| panic!("no reader ends before its writers"));
        }
    };
    outs.iter_mut().for_each(Writer::open);
    first.into_iter().for_each(|round| probe(&mut outs, round));
    loop {
        let mut records = Vec::new();
        let Ok(polled) = inbox.poll(&mut Records(&mut records));
        records.into_iter().for_each(|record| take(record, &mut outs));
        match polled {
            Polled::Taken | Polled::Between(Between::Watermark(_)) => {}
            Polled::Between(Between::Numbered(_, round)) => match probed(round) {
                Some(round) => probe(&mut outs, round),
                None => break,
            },
            Polled::Nothing => inbox.wait(|| false, None),
            Polled::Finished => break,
            Polled::Aborted => panic!("a writer ended without finishing"),
        }
    }
    outs.iter_mut().for_each(|out| out.finish().expect("nothing was lost"));
    inbox.satisfied();
}

fn inbox(lanes: Vec<Reader<u32>>, signal: &Arc<ReaderState>) -> Inbox<u32> {
    Inbox::new(lanes, signal.clone(), Duration::from_millis(1))
}

/// Sends `records` into a loop of `workers` replicas that counts each down to 0, and checks that each got there.
fn check(records: &'static [u32], workers: usize, schedules: usize) {
    let job = move || {
        let steps = Arc::new(AtomicUsize::new(0));
        let signals: Vec<_> = (0..workers + 2).map(|_| Arc::new(ReaderState::new())).collect();
        let (joint, head) = (&signals[workers], &signals[workers + 1]);
        let (mut source, from_source) = lane(Size::blocks(1, TWO), joint.clone(), Parking);
        let (to_joint, from_head) = lane(Size::blocks(1, TWO), joint.clone(), Parking);
        let (mut to_workers, mut to_head, mut fed_back, mut threads) = (vec![], vec![], vec![], vec![]);
        let mut inboxes = Vec::new();
        for signal in &signals[..workers] {
            let (writer, reader) = lane(Size::blocks(1, TWO), signal.clone(), Parking);
            to_workers.push(writer);
            inboxes.push(inbox(vec![reader.in_loop(true, false)], signal));
            let (writer, reader) = lane(Size::blocks(1, Depth::UNBOUNDED), head.clone(), Parking);
            to_head.push(writer);
            fed_back.push(reader.in_loop(true, false));
        }
        threads.push(thread::spawn(move || {
            source.open();
            records.iter().for_each(|&record| push(&mut source, record));
            source.finish().expect("nothing was lost");
        }));
        let joint_inbox = inbox(vec![from_source, from_head.in_loop(true, true)], joint);
        threads.push(thread::spawn(move || {
            let mut next = 0;
            let deal = |record, outs: &mut [Out]| {
                next = (next + 1) % outs.len();
                push(&mut outs[next], record);
            };
            run(joint_inbox, to_workers, deal, Some, None);
        }));
        for (inbox, out) in inboxes.into_iter().zip(to_head) {
            let steps = steps.clone();
            threads.push(thread::spawn(move || {
                let work = |record: u32, outs: &mut [Out]| {
                    steps.fetch_add(1, Ordering::SeqCst);
                    if record > 0 {
                        push(&mut outs[0], record - 1);
                    }
                };
                run(inbox, vec![out], work, Some, None);
            }));
        }
        let taken = std::cell::Cell::new(0);
        let pass = |record, outs: &mut [Out]| {
            taken.set(taken.get() + 1);
            push(&mut outs[0], record);
        };
        let mut rounds = Rounds::new();
        let returned = |round| match rounds.returned(round, taken.get()) {
            Returned::Again(round) => Some(round),
            Returned::Ended => None,
        };
        run(inbox(fed_back, head), vec![to_joint], pass, returned, Some(Rounds::FIRST));
        threads.into_iter().for_each(|thread| thread.join().expect("no task of the model panics"));
        let expected: usize = records.iter().map(|&record| record as usize + 1).sum();
        assert_eq!(steps.load(Ordering::SeqCst), expected, "a record was lost when the loop ended");
    };
    shuttle::check_random(job, schedules);
    shuttle::check_pct(job, schedules, 3);
}

#[test]
fn a_loop_without_records_ends() {
    check(&[], 1, 1_000);
}

#[test]
fn a_loop_ends_when_its_last_record_has_left_it() {
    check(&[0, 2], 1, 1_000);
}

#[test]
fn a_loop_through_two_replicas_ends_when_its_last_record_has_left_it() {
    check(&[3, 0, 1], 2, 1_000);
}
