//! How many calls may be under way, and who is next.

use std::cell::RefCell;

use proptest::prelude::*;

use super::super::concurrency::{Concurrency, Entered, Permit, QueueFull, Slots};
use super::super::time::tests::ManualTime;
use super::Callers;
use crate::sync::Arc;

type Calls<'a> = Callers<'a, Result<Permit, QueueFull>>;

/// Adds a caller, and returns its number.
fn call(callers: &mut Calls<'_>, slots: &Arc<Slots>) -> usize {
    let slots = slots.clone();
    callers.call(async move { slots.permit().await })
}

/// Those that got a permit, in order; the permits go to `held`.
fn got(callers: &mut Calls<'_>, held: &mut Vec<(usize, Permit)>) -> Vec<usize> {
    let ended = callers.run();
    let numbers = ended.iter().map(|(number, _)| *number).collect();
    held.extend(ended.into_iter().filter_map(|(number, permit)| Some((number, permit.ok()?))));
    numbers
}

#[test]
fn callers_go_first_in_first_out_and_no_more_at_once_than_the_limit() {
    let slots = Slots::new(Concurrency::at_most(2));
    let (mut callers, mut held) = (Calls::new(&ManualTime::new()), Vec::new());
    (0..5).for_each(|_| _ = call(&mut callers, &slots));
    assert_eq!(got(&mut callers, &mut held), [0, 1]);
    assert_eq!((slots.figures().in_flight, slots.figures().waiting), (2, 3));
    held.remove(0);
    let late = call(&mut callers, &slots);
    assert_eq!(got(&mut callers, &mut held), [2], "not the one that came last");
    held.clear();
    assert_eq!(got(&mut callers, &mut held), [3, 4]);
    held.clear();
    assert_eq!(got(&mut callers, &mut held), [late]);
    held.clear();
    let figures = slots.figures();
    assert_eq!((figures.in_flight, figures.waiting, figures.waited, figures.limit), (0, 0, 4, 2));
}

#[test]
fn a_full_queue_refuses_at_once_and_a_caller_that_left_takes_no_place_in_it() {
    let slots = Slots::new(Concurrency::at_most(1).queue(2));
    let (mut callers, mut held) = (Calls::new(&ManualTime::new()), Vec::new());
    (0..4).for_each(|_| _ = call(&mut callers, &slots));
    assert_eq!(got(&mut callers, &mut held), [0, 3]);
    callers.leaves(1);
    let next = call(&mut callers, &slots);
    assert_eq!(got(&mut callers, &mut held), []);
    assert_eq!((slots.figures().waiting, slots.figures().refused), (2, 1));
    held.clear();
    assert_eq!(got(&mut callers, &mut held), [2]);
    held.clear();
    assert_eq!(got(&mut callers, &mut held), [next]);

    let slots = Slots::new(Concurrency::at_most(1).queue(0));
    let _only = call(&mut callers, &slots);
    let refused = call(&mut callers, &slots);
    let ended = callers.run();
    let refusals: Vec<_> =
        ended.iter().filter_map(|(number, permit)| Some((*number, *permit.as_ref().err()?))).collect();
    assert_eq!(refusals, [(refused, QueueFull { waiting: 0 })]);
}

#[test]
fn a_caller_with_an_older_ticket_goes_first_and_is_not_one_too_many() {
    let slots = Slots::new(Concurrency::at_most(1).queue(1));
    let Ok(Entered::Passed(permit)) = slots.enter(5) else { panic!("there is room") };
    let mut callers: Callers<'_, (u64, Permit)> = Callers::new(&ManualTime::new());
    for ticket in [6, 3] {
        let Ok(Entered::Waits(waiting)) = slots.enter(ticket) else { panic!("it may wait") };
        callers.call(async move { (ticket, waiting.granted().await) });
    }
    assert!(matches!(slots.enter(7), Err(QueueFull { waiting: 2 })));
    drop(permit);
    for ticket in [3, 6] {
        let [(_, (first, _permit))] = <[_; 1]>::try_from(callers.run()).ok().expect("one goes");
        assert_eq!(first, ticket);
    }
}

#[test]
fn a_permit_that_was_given_to_a_caller_that_leaves_goes_to_the_next() {
    let slots = Slots::new(Concurrency::at_most(1));
    let (mut callers, mut held) = (Calls::new(&ManualTime::new()), Vec::new());
    (0..3).for_each(|_| _ = call(&mut callers, &slots));
    assert_eq!(got(&mut callers, &mut held), [0]);
    held.clear();
    callers.leaves(1);
    assert_eq!(got(&mut callers, &mut held), [2]);
}

#[test]
fn a_limit_that_adapts_is_halved_once_for_all_calls_that_began_before_and_grows_by_one() {
    let slots = Slots::new(Concurrency::at_most(8).adaptive(2));
    let (mut callers, mut held) = (Calls::new(&ManualTime::new()), Vec::new());
    let limit = || slots.figures().limit;
    let mut rounds = |ends: fn(&mut Permit), calls: usize| {
        for _ in 0..calls {
            call(&mut callers, &slots);
            got(&mut callers, &mut held);
            held.drain(..).for_each(|(_, mut permit)| ends(&mut permit));
        }
    };
    let mut storm = Calls::new(&ManualTime::new());
    let mut of_storm = Vec::new();
    (0..8).for_each(|_| _ = call(&mut storm, &slots));
    assert_eq!(got(&mut storm, &mut of_storm).len(), 8);
    for (number, mut permit) in of_storm {
        if number < 6 { permit.throttled() } else { permit.succeeded() }
    }
    assert_eq!((limit(), slots.figures().cuts), (4, 1), "once");
    rounds(Permit::succeeded, 3);
    assert_eq!(limit(), 4);
    rounds(Permit::succeeded, 1);
    assert_eq!(limit(), 5, "as many as the limit, and none of the storm");
    rounds(Permit::throttled, 1);
    assert_eq!(limit(), 2);
    rounds(Permit::throttled, 5);
    assert_eq!(limit(), 2, "never below the least");
    rounds(|_| {}, 100);
    assert_eq!(limit(), 2, "what failed otherwise tells nothing");
    rounds(Permit::succeeded, 1_000);
    assert_eq!(limit(), 8, "never above the most");
}

#[test]
fn a_lowered_limit_lets_calls_end_and_none_begin_until_there_is_room() {
    let slots = Slots::new(Concurrency::at_most(4).adaptive(1));
    let (mut callers, mut held) = (Calls::new(&ManualTime::new()), Vec::new());
    (0..6).for_each(|_| _ = call(&mut callers, &slots));
    assert_eq!(got(&mut callers, &mut held), [0, 1, 2, 3]);
    held.remove(0).1.throttled();
    assert_eq!((slots.figures().limit, got(&mut callers, &mut held)), (2, vec![]));
    held.pop();
    assert_eq!(got(&mut callers, &mut held), []);
    held.pop();
    assert_eq!(got(&mut callers, &mut held), [4], "one is under way");
}

#[test]
fn a_slot_whose_code_cannot_be_stopped_is_replaced_up_to_a_limit_and_taken_back() {
    let slots = Slots::new(Concurrency::at_most(2).replacements(1));
    let (mut callers, mut held) = (Calls::new(&ManualTime::new()), Vec::new());
    (0..5).for_each(|_| _ = call(&mut callers, &slots));
    assert_eq!(got(&mut callers, &mut held), [0, 1]);
    assert!(held[0].1.replace());
    assert!(!held[0].1.replace(), "it is replaced");
    assert!(!held[1].1.replace(), "no more than one");
    assert_eq!(got(&mut callers, &mut held), [2]);
    let figures = slots.figures();
    assert_eq!((figures.in_flight, figures.stuck, figures.replaced), (3, 1, 1));
    held.remove(0);
    assert_eq!((slots.figures().in_flight, slots.figures().stuck), (2, 0));
    assert_eq!(got(&mut callers, &mut held), [], "the extra one is taken back");
    assert!(held[0].1.replace());
    assert_eq!(got(&mut callers, &mut held), [3]);
    assert!(!Slots::new(Concurrency::at_most(1)).figures().replaced > 0, "none is by default");
}

#[test]
fn settings_of_zero_are_mistakes_and_of_one_and_infinity_are_not() {
    let mistake = |concurrency: Concurrency| concurrency.mistake().unwrap_or_default();
    assert_eq!(mistake(Concurrency::at_most(0)), "a concurrency of 0 lets no call pass");
    for least in [0, 9] {
        assert!(mistake(Concurrency::at_most(8).adaptive(least)).ends_with(&format!("its limit of 8: not {least}")));
    }
    let all = |n| Concurrency::at_most(n).adaptive(n).queue(n).replacements(n);
    assert_eq!((mistake(all(1)), mistake(all(usize::MAX))), (String::new(), String::new()));
    let slots = Slots::new(all(usize::MAX));
    let (mut callers, mut held) = (Calls::new(&ManualTime::new()), Vec::new());
    (0..100).for_each(|_| _ = call(&mut callers, &slots));
    assert_eq!(got(&mut callers, &mut held).len(), 100);
    assert!(held[0].1.replace());
    held[1].1.throttled();
    held.clear();
    assert_eq!(slots.figures().limit, usize::MAX);
}

/// What a test does next.
#[derive(Debug, Clone)]
enum Step {
    Calls,
    /// An earlier caller leaves, or ends if it is under way: well, throttled, or neither.
    Ends(prop::sample::Index, u8),
    Replaces(prop::sample::Index),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => Just(Step::Calls),
        4 => (any::<prop::sample::Index>(), 0_u8..3).prop_map(|(which, how)| Step::Ends(which, how)),
        1 => any::<prop::sample::Index>().prop_map(Step::Replaces),
    ]
}

/// The same by the plainest means.
struct Plain {
    limit: usize,
    /// Those under way: their numbers, the cuts when they began, and whether they are replaced.
    out: Vec<(usize, u64, bool)>,
    line: Vec<usize>,
    cuts: u64,
    successes: usize,
}

impl Plain {
    fn serve(&mut self) {
        let replaced = self.out.iter().filter(|(_, _, is_replaced)| *is_replaced).count();
        while self.out.len() < self.limit + replaced && !self.line.is_empty() {
            self.out.push((self.line.remove(0), self.cuts, false));
        }
    }
}

proptest! {
    #[test]
    fn permits_go_to_whom_they_would_by_the_plainest_means(
        most in 1_usize..6,
        least in 1_usize..6,
        queue in 0_usize..6,
        replacements in 0_usize..3,
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let least = least.min(most);
        let settings = Concurrency::at_most(most).adaptive(least).queue(queue).replacements(replacements);
        let slots = Slots::new(settings);
        let mut plain = Plain { limit: most, out: Vec::new(), line: Vec::new(), cuts: 0, successes: 0 };
        let held = RefCell::new(Vec::new());
        let mut callers = Calls::new(&ManualTime::new());
        let mut calls = 0;
        for step in steps {
            match step {
                Step::Calls => {
                    call(&mut callers, &slots);
                    let replaced = plain.out.iter().filter(|out| out.2).count();
                    if plain.out.len() < plain.limit + replaced || plain.line.len() < queue {
                        plain.line.push(calls);
                    }
                    calls += 1;
                }
                Step::Ends(which, how) if calls > 0 => {
                    let caller = which.index(calls);
                    callers.leaves(caller);
                    plain.line.retain(|waits| *waits != caller);
                    if let Some(place) = plain.out.iter().position(|out| out.0 == caller) {
                        let (_, cuts, _) = plain.out.remove(place);
                        if cuts == plain.cuts && how == 1 {
                            (plain.limit, plain.successes) = ((plain.limit / 2).max(least), 0);
                            plain.cuts += 1;
                        } else if cuts == plain.cuts && how == 0 && plain.limit < most {
                            plain.successes += 1;
                            if plain.successes >= plain.limit {
                                (plain.limit, plain.successes) = (plain.limit + 1, 0);
                            }
                        }
                        let place = held.borrow().iter().position(|(number, _)| *number == caller).expect("it is out");
                        let (_, mut permit): (usize, Permit) = held.borrow_mut().swap_remove(place);
                        match how {
                            0 => permit.succeeded(),
                            1 => permit.throttled(),
                            _ => {}
                        }
                    }
                }
                Step::Replaces(which) if !plain.out.is_empty() => {
                    let place = which.index(plain.out.len());
                    let may = !plain.out[place].2 && plain.out.iter().filter(|out| out.2).count() < replacements;
                    plain.out[place].2 |= may;
                    let held = held.borrow();
                    let (_, permit) = held.iter().find(|(number, _)| *number == plain.out[place].0).expect("it is out");
                    prop_assert_eq!(permit.replace(), may);
                }
                Step::Ends(..) | Step::Replaces(_) => {}
            }
            plain.serve();
            got(&mut callers, &mut held.borrow_mut());
            let mut out: Vec<_> = held.borrow().iter().map(|(number, _)| *number).collect();
            let mut plainly: Vec<_> = plain.out.iter().map(|out| out.0).collect();
            out.sort_unstable();
            plainly.sort_unstable();
            prop_assert_eq!(out, plainly);
            let figures = slots.figures();
            prop_assert_eq!((figures.limit, figures.waiting), (plain.limit, plain.line.len()));
        }
    }
}
