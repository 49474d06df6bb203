use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::super::outage::{Outage, Probe, Released};
use super::super::time::Time;
use super::super::time::tests::ManualTime;

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);

fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

fn probe(released: Poll<Released>) -> Probe {
    match released {
        Poll::Ready(Released::Probe(probe)) => probe,
        Poll::Ready(_) => panic!("it is no probe"),
        Poll::Pending => panic!("it waits"),
    }
}

fn is_over(released: &Poll<Released>) -> bool {
    matches!(released, Poll::Ready(Released::Over))
}

#[test]
fn the_first_held_call_probes_after_waits_that_double_and_its_success_releases_all() {
    let (time, outage) = (ManualTime::new(), Outage::new());
    assert!(!outage.is_on() && outage.met(time.now()) && !outage.met(time.now()) && outage.is_on());
    let mut first = Box::pin(outage.hold(&time, DAY));
    let mut others = [(); 2].map(|()| Box::pin(outage.hold(&time, DAY)));
    assert!(poll(first.as_mut()).is_pending());
    assert!(others.iter_mut().all(|other| poll(other.as_mut()).is_pending()));
    time.advance(SECOND);
    assert!(others.iter_mut().all(|other| poll(other.as_mut()).is_pending()));
    probe(poll(first.as_mut())).meets_it_again(time.now());
    // The next in turn probes, two seconds later.
    let [second, third] = &mut others;
    assert!(poll(second.as_mut()).is_pending());
    time.advance(SECOND);
    assert!(poll(second.as_mut()).is_pending() && poll(third.as_mut()).is_pending());
    time.advance(SECOND);
    assert!(poll(third.as_mut()).is_pending());
    assert!(probe(poll(second.as_mut())).ends_it());
    assert!(is_over(&poll(third.as_mut())) && !outage.is_on());
    assert_eq!((outage.figures().outages, outage.figures().held), (1, 3));
}

#[test]
fn a_probe_that_leaves_hands_it_on_whenever_it_leaves() {
    for polls in 0..=1 {
        let (time, outage) = (ManualTime::new(), Outage::new());
        outage.met(time.now());
        let mut calls: Vec<_> = (0..3).map(|_| Box::pin(outage.hold(&time, DAY))).collect();
        calls.iter_mut().for_each(|call| assert!(poll(call.as_mut()).is_pending()));
        let mut last = calls.pop().unwrap();
        // The probe leaves; then the one that it was handed on to, before or after it noticed.
        drop(calls.remove(0));
        (0..polls).for_each(|_| assert!(poll(calls[0].as_mut()).is_pending()));
        drop(calls);
        time.advance(SECOND);
        // It may have to notice first that it is the probe.
        assert!(probe(poll(last.as_mut())).ends_it());
    }
}

#[test]
fn an_outage_that_lasts_too_long_is_given_up_for_all_that_are_held() {
    let (time, outage) = (ManualTime::new(), Outage::new());
    outage.met(time.now());
    let mut calls: Vec<_> = (0..3).map(|_| Box::pin(outage.hold(&time, SECOND / 2))).collect();
    calls.iter_mut().for_each(|call| assert!(poll(call.as_mut()).is_pending()));
    time.advance(SECOND / 2);
    for call in &mut calls {
        assert!(matches!(poll(call.as_mut()), Poll::Ready(Released::TooLong)));
    }
    // What meets it again begins another one.
    assert!(!outage.is_on() && outage.met(time.now()));
}

#[test]
fn nobody_is_held_where_there_is_no_outage() {
    let (time, outage) = (ManualTime::new(), Outage::new());
    assert!(is_over(&poll(Box::pin(outage.hold(&time, DAY)).as_mut())));
}
