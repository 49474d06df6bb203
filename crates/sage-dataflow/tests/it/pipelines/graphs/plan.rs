//! What a graph is: sources, steps of one stream and of two, with and without event time.
//!
//! A [`Plan`] is of records, a [`Clocked`] plan of records with a time, which come with watermarks. Each can be made of
//! the other. In a clocked plan no record is ever late, so that windows are determined, whatever the threads do.

use proptest::prelude::*;
use sage::{Timed, Timestamp};

use super::tree::{Ends, Smaller, Tree, fewer, trees};

/// A key and a value.
pub(super) type Record = (u8, u64);

pub(super) type Plan = Tree<Leaf, Step, Pair>;
pub(super) type Clocked = Tree<Clock, Timely, Meeting>;

/// Where a plan begins.
#[derive(Debug, Clone)]
pub(super) enum Leaf {
    /// So many records, dealt out to the replicas of the source.
    Source { records: u16, replicas: usize },
    /// What becomes of a clocked plan.
    Clocked(Leaving, usize, Box<Clocked>),
}

/// How records leave their times behind.
#[derive(Debug, Clone, Copy)]
pub(super) enum Leaving {
    /// Without them.
    Values,
    /// In windows of so many records: all of them, and how many there were in each.
    Counted(u64),
    /// In windows behind a watermark that is too early, so that some are late: all of them, in a window or apart.
    Apart(Windows, u64),
}

/// Windows of event time; lengths in milliseconds.
#[derive(Debug, Clone, Copy)]
pub(super) enum Windows {
    Tumbling(u64),
    Sliding(u64, u64),
    Session(u64),
}

/// How the records of a window are gathered.
#[derive(Debug, Clone, Copy)]
pub(super) enum Way {
    Apply,
    Fold,
    Reduce,
    Count,
}

/// Which records without a partner a join keeps.
#[derive(Debug, Clone, Copy)]
pub(super) enum Joins {
    Inner,
    Left,
    Full,
}

/// What becomes of one stream.
#[derive(Debug, Clone, Copy)]
pub(super) enum Step {
    Map,
    Filter(u64),
    FlatMap(u64),
    /// Several operators in one chain.
    Chain(u64),
    /// Lets the thread fall behind on every so manieth value.
    Dawdle(u64),
    /// Fails on every so manieth value, and skips within a budget.
    Skip(u64),
    /// Fails on every so manieth value; the dead letters join the rest again.
    DeadLetters(u64),
    /// Fails once on every so manieth value.
    Retry(u64),
    Rebalance,
    Broadcast,
    PartitionBy,
    PartitionByKey,
    Sum,
    Largest,
    Distinct,
    Top(usize),
    /// A state per key that tells how many records it has seen.
    Visits,
    /// The sum of all values.
    Whole,
    /// How many of the first so many records there are.
    Take(u64),
    /// Two branches of one stream, one of them changed, merged again.
    Tee,
    /// Five branches of one stream in one operator.
    Five,
    /// Both ways of a split, one of them changed, merged again.
    Split(u64),
    /// The values and the errors of a stream of results, merged again.
    SplitOk(u64),
    /// A full join of the stream with itself, changed.
    SelfJoin,
    /// Futures that yield to others, some of which fail.
    Async {
        capacity: usize,
        ordered: bool,
        retry: bool,
    },
    /// Each record goes round as often as its value says, less than so often.
    Loop(u64, Inside),
}

/// What a loop leads through.
#[derive(Debug, Clone, Copy)]
pub(super) enum Inside {
    Replicas,
    Partition,
    /// A state per key that tells how many records it has seen.
    Visits,
    Async,
    /// Both the loop and the way out are branches of a tee.
    Tee,
}

/// What becomes of two streams.
#[derive(Debug, Clone, Copy)]
pub(super) enum Pair {
    Union,
    Join(Joins),
    /// One function for each.
    Connect,
    /// A state per key that both share, and that tells how many records it has seen.
    CoProcess,
    /// How many pairs there are.
    Zip,
}

/// Where times come from.
#[derive(Debug, Clone)]
pub(super) enum Clock {
    Events(Events),
    /// The records of a plan, in no order, with a bound that covers all of them.
    Stamped(Box<Plan>),
}

/// A source of so many replicas, whose records come up to `bound` milliseconds late.
#[derive(Debug, Clone, Copy)]
pub(super) struct Events {
    pub(super) records: u16,
    pub(super) replicas: usize,
    pub(super) bound: u64,
    /// The time from one record to the next is less than that.
    pub(super) steps: u64,
    pub(super) seed: u64,
}

/// What becomes of one clocked stream.
#[derive(Debug, Clone, Copy)]
pub(super) enum Timely {
    Map,
    Filter(u64),
    FlatMap(u64),
    Skip(u64),
    DeadLetters(u64),
    Retry(u64),
    OtherThread,
    Rebalance,
    Broadcast,
    PartitionBy,
    PartitionByKey,
    State,
    Distinct,
    Tee,
    Split(u64),
    Async { capacity: usize, ordered: bool },
    Window { windows: Windows, way: Way, lateness: u64 },
}

/// What becomes of two clocked streams.
#[derive(Debug, Clone, Copy)]
pub(super) enum Meeting {
    Union,
    Connect,
    Join { size: u64, every: u64, joins: Joins },
}

/// How far apart the times of stamped records may be, in milliseconds.
pub(super) const SPAN: u64 = 500;
/// The time of the last record of each replica of a source that stays open, after all others.
pub(super) const FAR: i64 = 1_000_000;

pub(super) fn stamp(record: &Record) -> Timestamp {
    Timestamp::from_millis((record.1 % SPAN) as i64)
}

pub(super) fn source(records: u16) -> impl Iterator<Item = Record> + Clone + Send {
    (0..records).map(|n| ((n % 7) as u8, u64::from(n) * 13 % 101))
}

impl Events {
    /// The records of a replica, in the order in which they come.
    pub(super) fn of(&self, replica: usize) -> Vec<Timed<Record>> {
        let mut random = self.seed ^ (replica as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mut draw = move |below: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % below
        };
        let mut time = draw(100) as i64 - 50;
        let mut arriving = Vec::new();
        for _ in 0..self.records as usize / self.replicas {
            time += draw(self.steps) as i64;
            let record = Timed::new(Timestamp::from_millis(time), (draw(5) as u8, draw(101)));
            arriving.push((time + draw(self.bound + 1) as i64, record));
        }
        arriving.sort_by_key(|(arrival, _)| *arrival);
        arriving.into_iter().map(|(_, record)| record).collect()
    }
}

impl Ends<Step, Pair> for Leaf {
    fn smaller(&self) -> Vec<Plan> {
        match self {
            Self::Source { records, replicas } => {
                let shorter = less(*records).map(|records| (records, *replicas));
                let all = shorter.chain(fewer(*replicas).map(|replicas| (*records, replicas)));
                all.map(|(records, replicas)| Tree::Leaf(Self::Source { records, replicas })).collect()
            }
            Self::Clocked(leaving, replicas, clocked) => {
                let mut all = Vec::new();
                if let Tree::Leaf(Clock::Stamped(plan)) = &**clocked {
                    all.push((**plan).clone());
                }
                let inner = clocked.smaller().into_iter().map(|clocked| (*replicas, Box::new(clocked)));
                let inner = inner.chain(fewer(*replicas).map(|replicas| (replicas, clocked.clone())));
                all.extend(inner.map(|(replicas, clocked)| Tree::Leaf(Self::Clocked(*leaving, replicas, clocked))));
                all
            }
        }
    }
}

impl Ends<Timely, Meeting> for Clock {
    fn smaller(&self) -> Vec<Clocked> {
        match self {
            Self::Stamped(plan) => {
                let events = Events { records: 20, replicas: 1, bound: 0, steps: 8, seed: 1 };
                let mut all = vec![Tree::Leaf(Self::Events(events))];
                if let Tree::Leaf(Leaf::Clocked(_, _, clocked)) = &**plan {
                    all.push((**clocked).clone());
                }
                all.extend(plan.smaller().into_iter().map(|plan| Tree::Leaf(Self::Stamped(Box::new(plan)))));
                all
            }
            Self::Events(events) => {
                let records = less(events.records).map(|records| Events { records, ..*events });
                let replicas = fewer(events.replicas).map(|replicas| Events { replicas, ..*events });
                let bound = (events.bound > 0).then_some(Events { bound: 0, ..*events });
                records.chain(replicas).chain(bound).map(|events| Tree::Leaf(Self::Events(events))).collect()
            }
        }
    }
}

/// Fewer of something of which there may be none.
fn less(count: u16) -> impl Iterator<Item = u16> {
    [0, count / 2, count.saturating_sub(count / 8), count.saturating_sub(1)]
        .into_iter()
        .filter(move |&less| less < count)
}

pub(super) fn windows() -> impl Strategy<Value = Windows> + Clone {
    prop_oneof![
        (1..40_u64).prop_map(Windows::Tumbling),
        (1..30_u64, 1..12_u64).prop_map(|(size, every)| Windows::Sliding(size.max(every), every)),
        (1..20_u64).prop_map(Windows::Session),
    ]
}

fn joins() -> impl Strategy<Value = Joins> {
    prop_oneof![Just(Joins::Inner), Just(Joins::Left), Just(Joins::Full)]
}

pub(super) fn steps() -> impl Strategy<Value = Step> {
    let inside = prop_oneof![
        Just(Inside::Replicas),
        Just(Inside::Partition),
        Just(Inside::Visits),
        Just(Inside::Async),
        Just(Inside::Tee)
    ];
    let nth = || 1..5_u64;
    let flat = prop_oneof![
        Just(Step::Map),
        nth().prop_map(Step::Filter),
        (0..4_u64).prop_map(Step::FlatMap),
        nth().prop_map(Step::Chain),
        nth().prop_map(Step::Dawdle),
        nth().prop_map(Step::Skip),
        nth().prop_map(Step::DeadLetters),
        nth().prop_map(Step::Retry),
    ];
    let spread =
        prop_oneof![Just(Step::Rebalance), Just(Step::Broadcast), Just(Step::PartitionBy), Just(Step::PartitionByKey)];
    let gathered = prop_oneof![
        Just(Step::Sum),
        Just(Step::Largest),
        Just(Step::Distinct),
        (1..4_usize).prop_map(Step::Top),
        Just(Step::Visits),
        Just(Step::Whole),
        (0..150_u64).prop_map(Step::Take),
    ];
    let apart = prop_oneof![
        Just(Step::Tee),
        Just(Step::Five),
        nth().prop_map(Step::Split),
        nth().prop_map(Step::SplitOk),
        Just(Step::SelfJoin),
    ];
    let asynchronous = (1..9_usize, any::<bool>(), any::<bool>()).prop_map(|(capacity, ordered, retry)| Step::Async {
        capacity,
        ordered,
        retry,
    });
    let rounds = (1..6_u64, inside).prop_map(|(rounds, inside)| Step::Loop(rounds, inside));
    prop_oneof![7 => flat, 4 => spread, 6 => gathered, 5 => apart, 2 => asynchronous, 3 => rounds]
}

fn pairs() -> impl Strategy<Value = Pair> {
    prop_oneof![
        Just(Pair::Union),
        joins().prop_map(Pair::Join),
        Just(Pair::Connect),
        Just(Pair::CoProcess),
        Just(Pair::Zip)
    ]
}

fn timely() -> impl Strategy<Value = Timely> {
    let nth = || 1..5_u64;
    let way = prop_oneof![Just(Way::Apply), Just(Way::Fold), Just(Way::Reduce), Just(Way::Count)];
    let flat = prop_oneof![
        Just(Timely::Map),
        nth().prop_map(Timely::Filter),
        (0..4_u64).prop_map(Timely::FlatMap),
        nth().prop_map(Timely::Skip),
        nth().prop_map(Timely::DeadLetters),
        nth().prop_map(Timely::Retry),
    ];
    let spread = prop_oneof![
        Just(Timely::OtherThread),
        Just(Timely::Rebalance),
        Just(Timely::Broadcast),
        Just(Timely::PartitionBy),
        Just(Timely::PartitionByKey),
    ];
    let other = prop_oneof![
        Just(Timely::State),
        Just(Timely::Distinct),
        Just(Timely::Tee),
        nth().prop_map(Timely::Split),
        (1..9_usize, any::<bool>()).prop_map(|(capacity, ordered)| Timely::Async { capacity, ordered }),
    ];
    let window = (windows(), way, prop_oneof![Just(0), 1..50_u64])
        .prop_map(|(windows, way, lateness)| Timely::Window { windows, way, lateness });
    prop_oneof![3 => flat, 3 => spread, 3 => other, 5 => window]
}

fn meetings() -> impl Strategy<Value = Meeting> {
    let join = (1..30_u64, 1..12_u64, any::<bool>(), joins()).prop_map(|(size, every, tumbling, joins)| {
        let size = size.max(every);
        Meeting::Join { size, every: if tumbling { size } else { every }, joins }
    });
    prop_oneof![1 => Just(Meeting::Union), 1 => Just(Meeting::Connect), 3 => join]
}

/// Plans, of clocked plans in turn, so many times.
pub(super) fn plans(turns: u32) -> BoxedStrategy<Plan> {
    let source = (0..120_u16, 1..4_usize).prop_map(|(records, replicas)| Leaf::Source { records, replicas }).boxed();
    let leaf = if turns == 0 {
        source
    } else {
        // Windows that have each record once.
        let apart = prop_oneof![(1..40_u64).prop_map(Windows::Tumbling), (1..20_u64).prop_map(Windows::Session)];
        let leaving = prop_oneof![
            2 => Just(Leaving::Values),
            1 => (1..9_u64).prop_map(Leaving::Counted),
            1 => (apart, 0..10_u64).prop_map(|(windows, bound)| Leaving::Apart(windows, bound)),
        ];
        let clocked = (leaving, 1..6_usize, clocked(turns - 1).prop_map(Box::new))
            .prop_map(|(leaving, replicas, clocked)| Leaf::Clocked(leaving, replicas, clocked));
        prop_oneof![1 => source, 1 => clocked].boxed()
    };
    trees(4, leaf, steps().boxed(), pairs().boxed())
}

/// Clocked plans, of plans in turn, so many times.
pub(super) fn clocked(turns: u32) -> BoxedStrategy<Clocked> {
    let events = (0..120_u16, 1..4_usize, 0..30_u64, 1..12_u64, any::<u64>())
        .prop_map(|(records, replicas, bound, steps, seed)| Events { records, replicas, bound, steps, seed })
        .prop_map(Clock::Events);
    let leaf = if turns == 0 {
        events.boxed()
    } else {
        let stamped = plans(turns - 1).prop_map(|plan| Clock::Stamped(Box::new(plan)));
        prop_oneof![2 => events, 1 => stamped].boxed()
    };
    trees(3, leaf, timely().boxed(), meetings().boxed())
}
