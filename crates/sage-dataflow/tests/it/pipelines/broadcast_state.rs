//! Broadcast state: rules that reach every replica.

use std::sync::mpsc;
use std::thread;

use sage::Environment;

use crate::leaks::leak_free;
use crate::probes::{Journal, sorted};

/// A record that cannot be copied.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Reading(u32);

#[test]
fn every_replica_has_every_rule_that_came() {
    leak_free(|_| {
        for parallelism in [1, 3] {
            let env = Environment::local("rules");
            let (data, receiver) = crossbeam_channel::unbounded();
            let (journal, on_thread) = (Journal::new(), mpsc::channel());
            let (seen, threads) = (journal.clone(), on_thread.0.clone());
            let out = env
                .from_channel(receiver)
                .with_broadcast(env.from_iter([10, 20, 30]), Vec::new(), move |rules: &mut Vec<u32>, rule| {
                    rules.push(rule);
                    seen.note(format_args!("{} rules", rules.len()));
                })
                .map(move |rules, Reading(reading)| {
                    threads.send(thread::current().id()).expect("the test listens");
                    (reading, rules.clone())
                })
                .parallelism(parallelism)
                .collect();
            let job = env.submit().unwrap();
            journal.await_events("3 rules", parallelism);
            (0..300).for_each(|n| data.send(Reading(n)).unwrap());
            drop(data);
            job.wait().unwrap();
            let expected: Vec<_> = (0..300).map(|n| (n, vec![10, 20, 30])).collect();
            assert_eq!(sorted(out.take()), expected);
            let mut replicas: Vec<_> = on_thread.1.try_iter().map(|id| format!("{id:?}")).collect();
            replicas.sort();
            replicas.dedup();
            assert_eq!(replicas.len(), parallelism);
        }
    });
}

#[test]
fn records_that_came_before_a_rule_do_not_see_it() {
    leak_free(|_| {
        let env = Environment::local("before");
        let (data, receiver) = crossbeam_channel::unbounded();
        let (rules, rule_receiver) = crossbeam_channel::unbounded();
        let journal = Journal::new();
        let (updated, read) = (journal.clone(), journal.clone());
        let out = env
            .from_channel(receiver)
            .with_broadcast(env.from_channel(rule_receiver), 0, move |limit, new| {
                *limit = new;
                updated.note(format_args!("limit {new}"));
            })
            .filter(move |limit, n| {
                read.note(format_args!("read {n}"));
                n > limit
            })
            .collect();
        let job = env.submit().unwrap();
        data.send(5).unwrap();
        journal.await_events("read 5", 1);
        rules.send(10).unwrap();
        journal.await_events("limit 10", 1);
        [6, 11].iter().for_each(|n| data.send(*n).unwrap());
        drop((data, rules));
        job.wait().unwrap();
        assert_eq!(out.take(), [5, 11]);
    });
}

#[test]
fn a_keyed_step_has_the_state_of_its_key_besides() {
    leak_free(|_| {
        for parallelism in [1, 4] {
            let env = Environment::local("keyed");
            let (data, receiver) = crossbeam_channel::unbounded();
            let journal = Journal::new();
            let seen = journal.clone();
            let out = env
                .from_channel(receiver)
                .key_by(|(user, _): &(u32, u64)| *user)
                .with_broadcast(env.from_iter([3_u64]), 1, move |factor, new| {
                    *factor = new;
                    seen.note("factor");
                })
                .flat_map_with_state(0, |factor, sum, (user, n), out| {
                    *sum += n * factor;
                    out.push((user, *sum));
                })
                .parallelism(parallelism)
                .collect();
            let job = env.submit().unwrap();
            journal.await_events("factor", parallelism);
            (0..100).for_each(|n| data.send((n % 7, u64::from(n))).unwrap());
            drop(data);
            job.wait().unwrap();
            let mut sums = [0; 7];
            let expected = (0..100_u32).map(|n| {
                let sum = &mut sums[n as usize % 7];
                *sum += u64::from(n) * 3;
                (n % 7, *sum)
            });
            assert_eq!(sorted(out.take()), sorted(expected.collect()));
        }
    });
}

#[test]
fn both_streams_are_read_to_their_ends() {
    leak_free(|_| {
        let env = Environment::local("ends");
        let rules = env.from_iter(0..1000_u32);
        let out = env
            .from_iter(0..1000_u32)
            .with_broadcast(rules, 0, |sum, rule| *sum += rule)
            .map(|_, n| n)
            .parallelism(2)
            .collect();
        let report = env.run().unwrap();
        assert_eq!(sorted(out.take()), (0..1000).collect::<Vec<_>>());
        // Each rule is counted in each replica.
        assert_eq!(report.operator("with-broadcast-1").unwrap().records_in, 3000, "{report}");
    });
}
