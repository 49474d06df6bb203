//! Watermarks get through every shape of pipeline: a window fires while its source is still open.

use std::time::Duration;

use sage::testing::{self, Received};
use sage::{DataStream, Environment, Order, OutOfOrder, Retry, Timed, Timestamp, Tumbling};

use crate::leaks::leak_free;

type Record = Timed<i64>;

/// Feeds five seconds of records, one each 100 ms, and expects four windows of a second before the source ends.
fn fires(shape: &str, through: impl Fn(DataStream<Record>) -> DataStream<Record>) {
    leak_free(|_| {
        let (feed, source) = testing::source::<i64>();
        let (windows, sink): (Received<(i64, u64)>, _) = testing::sink();
        let env = Environment::local(shape);
        let timed = env
            .from_source(move |_| source.clone())
            .with_timestamps(|millis| Timestamp::from_millis(*millis), OutOfOrder::by(Duration::ZERO))
            .on_another_thread();
        through(timed)
            .key_by(|_| ())
            .window(Tumbling::of(Duration::from_secs(1)))
            .count()
            .map(|windowed| (windowed.value.window.start.millis(), windowed.value.value))
            .sink_to(move |_| sink.clone());
        let job = env.submit().expect("nothing is wrong with it");
        (0..=50).for_each(|tenth| feed.send(tenth * 100));
        let mut fired = windows.wait_for(4);
        fired.truncate(4);
        assert_eq!(fired, [(0, 10), (1000, 10), (2000, 10), (3000, 10)], "{shape}");
        feed.end();
        job.wait().expect("it succeeds");
        assert_eq!(windows.take().last(), Some(&(5000, 1)), "{shape}");
    });
}

#[test]
fn watermarks_get_through_every_shape() {
    fires("as it is", |stream| stream);
    fires("on another thread", |stream| stream.map(|timed| timed).on_another_thread());
    fires("two replicas", |stream| stream.map(|timed| timed).parallelism(2).on_another_thread());
    fires("the main way of a split", |stream| {
        let (main, side) = stream.split(|_| true);
        side.sink(|_| {});
        main.on_another_thread()
    });
    fires("the side way of a split", |stream| {
        let (main, side) = stream.split(|_| false);
        main.sink(|_| {});
        side
    });
    fires("dead letters", |stream| {
        let (alive, dead) = stream.try_map(Ok::<_, String>).dead_letters();
        dead.sink(|_| {});
        alive.on_another_thread()
    });
    fires("retries", |stream| stream.try_map(Ok::<_, String>).retry(Retry::up_to(2)).on_another_thread());
    fires("tee and union", |stream| {
        let [one, other] = stream.tee();
        one.union(other.filter(|_| false))
    });
    fires("connect", |stream| {
        let [one, other] = stream.tee();
        one.connect(other.filter(|_| false)).co_map(|timed| timed, |timed| timed).on_another_thread()
    });
    for order in [Order::Ordered, Order::Unordered] {
        fires("async", move |stream| {
            let yielding = |timed: Record| async move {
                tokio::task::yield_now().await;
                timed
            };
            stream.map_async(4, order, yielding).on_another_thread()
        });
    }
    fires("a partition", |stream| stream.partition_by(3, |timed, n| timed.value as usize % n));
    fires("keyed state", |stream| {
        stream.key_by(|timed| timed.value % 3).map_with_state((), |(), timed| timed).parallelism(2).on_another_thread()
    });
}
