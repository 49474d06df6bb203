//! The queue of calls, step by step.

use std::task::Waker;

use super::queue::{Figures, Phase, Queue, Taken};

fn open(at_once: usize) -> Queue<&'static str> {
    let queue = Queue::new(at_once);
    queue.open();
    queue
}

#[test]
fn requests_are_taken_in_their_order_and_no_more_than_may_be_inside() {
    let queue = open(2);
    for request in ["a", "b", "c"] {
        queue.push(request).unwrap();
    }
    let taken: Vec<_> = (0..3).map(|_| queue.take(Waker::noop())).collect();
    assert_eq!(taken, [Taken::Request("a"), Taken::Request("b"), Taken::Nothing]);
    queue.release(true);
    assert_eq!((queue.take(Waker::noop()), queue.take(Waker::noop())), (Taken::Request("c"), Taken::Nothing));
    assert_eq!(queue.figures(), Figures { waiting: 0, inside: 2, answered_again: 0, unanswered: 0 });
}

#[test]
fn it_ends_when_nothing_waits_and_lets_nothing_in_from_the_end_on() {
    let queue = open(1);
    queue.push("a").unwrap();
    queue.push("b").unwrap();
    queue.end();
    assert_eq!(queue.push("late"), Err(("late", Phase::Ending)));
    // The limit does not hold up the end.
    let taken: Vec<_> = (0..3).map(|_| queue.take(Waker::noop())).collect();
    assert_eq!(taken, [Taken::Request("a"), Taken::Request("b"), Taken::End]);
    assert_eq!(queue.push("late"), Err(("late", Phase::Over)));
}

#[test]
fn a_request_that_waits_can_be_taken_back_and_one_that_was_taken_cannot() {
    let queue = open(1);
    let numbers = ["a", "b", "c"].map(|request| queue.push(request).unwrap());
    assert_eq!(queue.take_back(numbers[1]), Some("b"));
    assert_eq!(queue.take(Waker::noop()), Taken::Request("a"));
    assert_eq!((queue.take_back(numbers[0]), queue.take_back(numbers[1])), (None, None));
    assert_eq!(queue.close().into_iter().map(|(_, request)| request).collect::<Vec<_>>(), ["c"]);
}

#[test]
fn nothing_is_let_in_before_the_tasks_start() {
    let queue = Queue::new(1);
    assert_eq!(queue.push("early"), Err(("early", Phase::Starting)));
    queue.open();
    assert_eq!(queue.push("in time"), Ok(1));
}
