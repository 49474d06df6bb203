//! The queue of a pipeline's calls under shuttle: the source misses no call, no room that is given back and no end, and
//! every call that was let in comes out once.

use super::under_shuttle::{check, sync};

#[path = "../../../src/service/policy/pipeline/queue.rs"]
#[expect(dead_code, reason = "the engine's file is compiled whole; a model uses a part of it")]
mod engine;

use std::task::{Wake, Waker};

use engine::{Queue, Taken};
use shuttle::sync::mpsc;
use shuttle::thread;
use sync::Arc;
use sync::thread::{Thread, current, park};

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: std::sync::Arc<Self>) {
        self.0.unpark();
    }
}

/// Takes what comes until the end, and gives it to `work`.
fn source(queue: &Queue<u32>, mut work: impl FnMut(u32)) -> Vec<u32> {
    let (waker, mut taken) = (Waker::from(std::sync::Arc::new(Unpark(current()))), Vec::new());
    loop {
        match queue.take(&waker) {
            Taken::Request(request) => {
                taken.push(request);
                work(request);
            }
            Taken::Nothing => park(),
            Taken::End => return taken,
        }
    }
}

/// Makes two calls, and leaves the first one at once.
fn caller(queue: &Queue<u32>, calls: [u32; 2]) -> Vec<u32> {
    let numbers = calls.map(|call| queue.push(call).ok());
    let left = numbers[0].and_then(|number| queue.take_back(number));
    let let_in = calls.into_iter().zip(numbers).filter(|(call, number)| number.is_some() && left != Some(*call));
    let_in.map(|(call, _)| call).collect()
}

#[test]
fn every_call_that_was_let_in_is_taken_before_the_end_however_few_may_be_records_at_once() {
    check(3000, || {
        let queue = Arc::new(Queue::new(1));
        queue.open();
        let (give, given) = mpsc::channel();
        let of_source = queue.clone();
        let source = thread::spawn(move || source(&of_source, |call| give.send(call).unwrap()));
        let of_worker = queue.clone();
        let worker = thread::spawn(move || {
            while given.recv().is_ok() {
                of_worker.release(true)
            }
        });
        let callers = [[1, 2], [3, 4]].map(|calls| {
            let queue = queue.clone();
            thread::spawn(move || caller(&queue, calls))
        });
        let mut expected: Vec<_> = callers.into_iter().flat_map(|caller| caller.join().unwrap()).collect();
        queue.end();
        let mut taken = source.join().unwrap();
        worker.join().unwrap();
        taken.sort_unstable();
        expected.sort_unstable();
        assert_eq!(taken, expected);
        assert_eq!(queue.figures().inside, 0);
    });
}

#[test]
fn a_call_is_taken_or_taken_back_or_given_out_when_the_source_is_closed() {
    check(3000, || {
        let queue = Arc::new(Queue::new(2));
        queue.open();
        let callers = [[1, 2], [3, 4]].map(|calls| {
            let queue = queue.clone();
            thread::spawn(move || caller(&queue, calls))
        });
        let mut out = Vec::new();
        if let Taken::Request(call) = queue.take(Waker::noop()) {
            out.push(call);
        }
        out.extend(queue.close().into_iter().map(|(_, call)| call));
        let mut expected: Vec<_> = callers.into_iter().flat_map(|caller| caller.join().unwrap()).collect();
        out.sort_unstable();
        expected.sort_unstable();
        assert_eq!(out, expected);
        assert!(queue.push(5).is_err());
    });
}
