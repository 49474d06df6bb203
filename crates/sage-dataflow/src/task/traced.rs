//! A signal that exists in unit tests only comes by every operator there is, once in each replica.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::chain::traced;
use crate::{
    Count, Emit, Environment, Fault, In2, Operator, Order, OutOfOrder, Retry, Session, Sliding, Timed, Timestamp,
    Tumbling,
};

/// An operator as users write them.
struct Passes;

impl Operator for Passes {
    type In = u64;
    type Out = u64;

    fn process(&mut self, record: u64, out: &mut impl Emit<u64>) -> Result<(), Fault> {
        out.emit(record)
    }
}

/// Declares about everything there is.
fn declare(env: &Environment) {
    let numbers = || env.from_iter(0..100_u64);
    let timed = || numbers().with_timestamps(|n| Timestamp::from_millis(*n as i64), OutOfOrder::by(Duration::ZERO));
    let ten = Duration::from_millis(10);
    let one = numbers().map(|n| n + 1).filter(|n| n % 2 == 0).inspect(|_| {}).flat_map(|n| [n, n]);
    let one = one.flat_map_into(|n, out| out.push(n)).operator(|| Passes).parallelism(3).take(10_000);
    let (tried, dead) = one.try_map(Ok::<u64, Fault_>).retry(Retry::up_to(2)).dead_letters();
    dead.sink(drop);
    let [first, second, third] = tried.tee();
    let (odd, even) = first.split(|n| n % 2 == 1);
    let (well, ill) = odd.map(Ok::<u64, u64>).split_ok();
    ill.union(even).rebalance(2).broadcast(2).partition_by(2, |n, replicas| *n as usize % replicas).sink(drop);
    well.fold(0, |sum, n| *sum += n).sink(drop);
    second.reduce(|a, b| a + b).sink(drop);
    third.on_another_thread().count().sink(drop);
    let keyed = || numbers().rebalance(2).key_by(|n| n % 3);
    keyed().fold(0, |sum, n| *sum += n).sink(drop);
    keyed().reduce(|a, b| a + b).sink(drop);
    keyed().aggregate(0, |sum, n| *sum += n, |sum| sum).sink(drop);
    keyed().map_with_state(0, |sum, n| *sum + n).sink(drop);
    keyed().flat_map_with_state(0_u64, |sum, n, out| out.push(*sum + n)).sink(drop);
    keyed().expire_after(ten).distinct().sink(drop);
    keyed().top_k(2, |n| *n).sink(drop);
    keyed().process(0_u64, |_, n, key| key.push(n), |_, _, _| {}).sink(drop);
    keyed().window_by_clock(Tumbling::of(ten)).count().sink(drop);
    let (counts, late) = timed().key_by(|n| n.value % 3).window(Tumbling::of(ten)).count().parallelism(2).split_late();
    counts.sink(drop);
    late.sink(drop);
    timed().key_by(|n| n.value % 3).window(Sliding::of(ten, ten / 2)).apply(|_, _, all| all.len()).sink(drop);
    timed().key_by(|n| n.value % 3).window(Session::gap(ten)).fold(0, |sum, n| *sum += n).sink(drop);
    timed().key_by(|n| n.value % 3).window(Count::of(7)).reduce(|a, b| a + b).sink(drop);
    numbers().connect(numbers()).co_map(|n| n, |n| n).parallelism(2).sink(drop);
    let both = keyed().connect(keyed()).co_process((), |(), n, out| out.push(n));
    both.map(|n| match n {
        In2::A(n) | In2::B(n) => n,
    })
    .sink(drop);
    keyed().join(keyed()).full().sink(drop);
    let sides = [timed(), timed()].map(|side| side.key_by(|n: &Timed<u64>| n.value % 3));
    let [left, right] = sides;
    left.join(right).window(Tumbling::of(ten)).inner().sink(drop);
    let (results, dead) = numbers().map_async(4, Order::Unordered, |n| async move { n }).parallelism(2).dead_letters();
    results.map(|n| n).sink(drop);
    dead.sink(drop);
    numbers().collect();
}

type Fault_ = std::io::Error;

#[test]
fn a_signal_comes_by_every_operator_once_in_each_replica() {
    for inline in [false, true] {
        let env = Environment::local("traced");
        let env = if inline { env.inline() } else { env };
        declare(&env);
        traced::take();
        let report = env.run().expect("the job succeeds");
        let mut seen: BTreeMap<(String, usize), usize> = BTreeMap::new();
        for (name, replica, round) in traced::take() {
            assert_eq!(round, 1);
            *seen.entry((name, replica)).or_default() += 1;
        }
        // Where a signal begins, and routers, which have the name of what they do and no operator.
        let is_operator = |name: &str| !["iter-", "partition-", "forward-"].iter().any(|kind| name.starts_with(kind));
        let operators = report.operators.iter().filter(|operator| is_operator(&operator.name));
        let expected: BTreeMap<(String, usize), usize> = operators
            .flat_map(|operator| (0..operator.parallelism).map(|replica| ((operator.name.clone(), replica), 1)))
            .collect();
        assert!(expected.len() > 90, "{}", expected.len());
        assert_eq!(seen, expected);
    }
}
