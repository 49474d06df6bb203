use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
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

/// A call that is not the probe meets the outage.
fn meets(outage: &Arc<Outage>, time: &ManualTime) {
    assert!(outage.met(None, time.now()).is_none());
}

/// What a job is asked, in order: true for a pause.
fn asked(outage: &Arc<Outage>) -> Receiver<bool> {
    let (tell, told) = std::sync::mpsc::channel();
    outage.reset(Some(Arc::new(move |pause| tell.send(pause).unwrap())));
    told
}

fn is_over(released: &Poll<Released>) -> bool {
    matches!(released, Poll::Ready(Released::Over))
}

#[test]
fn the_first_held_call_probes_after_waits_that_double_and_its_success_releases_all() {
    let (time, outage) = (ManualTime::new(), Outage::new());
    assert!(!outage.is_on());
    meets(&outage, &time);
    meets(&outage, &time);
    assert!(outage.is_on());
    let mut first = Box::pin(outage.hold(None, &time, DAY));
    let mut others = [(); 2].map(|()| Box::pin(outage.hold(None, &time, DAY)));
    assert!(poll(first.as_mut()).is_pending());
    assert!(others.iter_mut().all(|other| poll(other.as_mut()).is_pending()));
    time.advance(SECOND);
    assert!(others.iter_mut().all(|other| poll(other.as_mut()).is_pending()));
    let first = probe(poll(first.as_mut()));
    assert!(outage.met(Some(first), time.now()).is_none());
    // The next in turn probes, two seconds later.
    let [second, third] = &mut others;
    assert!(poll(second.as_mut()).is_pending());
    time.advance(SECOND);
    assert!(poll(second.as_mut()).is_pending() && poll(third.as_mut()).is_pending());
    time.advance(SECOND);
    assert!(poll(third.as_mut()).is_pending());
    probe(poll(second.as_mut())).ends_it();
    assert!(is_over(&poll(third.as_mut())) && !outage.is_on());
    assert_eq!((outage.figures().outages, outage.figures().held), (1, 3));
}

#[test]
fn a_probe_that_leaves_hands_it_on_whenever_it_leaves() {
    for polls in 0..=1 {
        let (time, outage) = (ManualTime::new(), Outage::new());
        meets(&outage, &time);
        let mut calls: Vec<_> = (0..3).map(|_| Box::pin(outage.hold(None, &time, DAY))).collect();
        calls.iter_mut().for_each(|call| assert!(poll(call.as_mut()).is_pending()));
        let mut last = calls.pop().unwrap();
        // The probe leaves; then the one that it was handed on to, before or after it noticed.
        drop(calls.remove(0));
        (0..polls).for_each(|_| assert!(poll(calls[0].as_mut()).is_pending()));
        drop(calls);
        time.advance(SECOND);
        // It may have to notice first that it is the probe.
        probe(poll(last.as_mut())).ends_it();
        assert!(!outage.is_on());
    }
}

#[test]
fn an_outage_that_lasts_too_long_is_given_up_for_all_that_are_held() {
    let (time, outage) = (ManualTime::new(), Outage::new());
    meets(&outage, &time);
    let mut calls: Vec<_> = (0..3).map(|_| Box::pin(outage.hold(None, &time, SECOND / 2))).collect();
    calls.iter_mut().for_each(|call| assert!(poll(call.as_mut()).is_pending()));
    time.advance(SECOND / 2);
    for call in &mut calls {
        assert!(matches!(poll(call.as_mut()), Poll::Ready(Released::TooLong)));
    }
    // What meets it again begins another one.
    assert!(!outage.is_on());
    meets(&outage, &time);
    assert_eq!(outage.figures().outages, 2);
}

#[test]
fn nobody_is_held_where_there_is_no_outage() {
    let (time, outage) = (ManualTime::new(), Outage::new());
    assert!(is_over(&poll(Box::pin(outage.hold(None, &time, DAY)).as_mut())));
}

#[test]
fn the_job_pauses_while_a_call_is_held_and_is_asked_once() {
    let (time, outage) = (ManualTime::new(), Outage::new());
    let told = asked(&outage);
    meets(&outage, &time);
    let mut calls: Vec<_> = (0..3).map(|_| Box::pin(outage.hold(None, &time, DAY))).collect();
    calls.iter_mut().for_each(|call| assert!(poll(call.as_mut()).is_pending()));
    assert_eq!(told.try_iter().collect::<Vec<_>>(), [true]);
    // It goes on when all have left, though the outage lasts.
    drop(calls);
    assert!(outage.is_on());
    assert_eq!(told.try_iter().collect::<Vec<_>>(), [false]);
    // The next call is the probe, and stays it while no other is held.
    let mut only = Box::pin(outage.hold(None, &time, DAY));
    assert!(poll(only.as_mut()).is_pending());
    for wait in [1, 2, 4] {
        time.advance(wait * SECOND);
        let tried = probe(poll(only.as_mut()));
        let still = outage.met(Some(tried), time.now());
        assert!(still.is_some());
        only = Box::pin(outage.hold(still, &time, DAY));
        assert!(poll(only.as_mut()).is_pending());
    }
    assert_eq!(told.try_iter().collect::<Vec<_>>(), [true]);
    time.advance(8 * SECOND);
    probe(poll(only.as_mut())).ends_it();
    assert_eq!(told.try_iter().collect::<Vec<_>>(), [false]);
}

#[test]
fn an_outage_that_is_given_up_is_told_once() {
    let (time, outage) = (ManualTime::new(), Outage::new());
    let told = asked(&outage);
    meets(&outage, &time);
    let mut calls: Vec<_> = (0..3).map(|_| Box::pin(outage.hold(None, &time, SECOND))).collect();
    calls.iter_mut().for_each(|call| assert!(poll(call.as_mut()).is_pending()));
    time.advance(SECOND);
    calls.iter_mut().for_each(|call| assert!(poll(call.as_mut()).is_ready()));
    drop(calls);
    assert_eq!(told.try_iter().collect::<Vec<_>>(), [true, false]);
}
