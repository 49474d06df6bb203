//! Event time: watermarks, and windows of every kind.

mod end;
mod late;
mod reference;
mod watermarks;

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use sage::{BoxError, Next, OutOfOrder, Source, SourceContext, Timed, Timestamp, Windowed};

pub(super) use reference::{Kind, kind};

/// A record of the tests: its time, its key, and a number that tells it from others.
pub(super) type Event = (i64, u8, u32);

/// What a window came to: its start and end, its key, and the numbers of its records.
pub(super) type Outcome = (i64, i64, u8, Vec<u32>);

pub(super) const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn time_of(event: &Event) -> Timestamp {
    Timestamp::from_millis(event.0)
}

pub(super) fn outcome(result: Timed<Windowed<u8, Vec<u32>>>) -> Outcome {
    let Timed { time, value: Windowed { key, window, mut value, .. } } = result;
    assert_eq!(time, window.last());
    value.sort_unstable();
    (window.start.millis(), window.end.millis(), key, value)
}

/// A source that does what it is told over a channel, and is idle meanwhile: each record is a batch.
struct Told(Receiver<Option<Event>>);

impl Source for Told {
    type Item = Event;
    fn next(&mut self, cx: &SourceContext) -> Result<Next<Event>, BoxError> {
        match self.0.try_recv() {
            Ok(Some(event)) => Ok(Next::Record(event)),
            Ok(None) => Ok(Next::Idle),
            Err(std::sync::mpsc::TryRecvError::Empty) => {
                cx.wait(Duration::from_micros(200));
                Ok(Next::Idle)
            }
            Err(std::sync::mpsc::TryRecvError::Disconnected) => Ok(Next::End),
        }
    }
}

/// A batch of its own for each record.
fn told(events: &[Event]) -> Told {
    let (sender, receiver) = channel();
    for &event in events {
        sender.send(Some(event)).expect("the receiver is here");
        sender.send(None).expect("the receiver is here");
    }
    Told(receiver)
}

fn one_shot(source: Told) -> impl Fn(usize) -> Told + Send + 'static {
    let source = Mutex::new(Some(source));
    move |_replica| source.lock().expect("no holder panics").take().expect("made once")
}

fn in_order() -> OutOfOrder {
    OutOfOrder::by(Duration::ZERO)
}
