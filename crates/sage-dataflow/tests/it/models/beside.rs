//! A task that waits for its input and, in poll(2), for a worker's answers at once: whatever comes, it is not stuck.
//!
//! ```text
//! source ══ task ⇄ worker
//! ```

use std::time::Duration;

use shuttle::sync::atomic::{AtomicBool, Ordering};
use shuttle::sync::mpsc::{Receiver, Sender, channel};
use shuttle::thread;

use super::under_shuttle::bell::{Bell, System};
use super::under_shuttle::control::{Control, JobControl};
use super::under_shuttle::engine::{Inbox, Polled, Pushed, ReaderState, Size, Writer, lane};
use super::under_shuttle::sync::thread::{Thread, current};
use super::under_shuttle::sync::{Arc, Mutex, lock};
use super::under_shuttle::{Numbered, OfJob, Records, TWO, check, steering, stop};

/// What ends the job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    OfInput,
    By(Control),
    /// Nobody wants records of the task any more.
    Enough,
}

/// What a worker sends back, and the descriptor that is readable then.
struct Answers {
    given: Mutex<Vec<Numbered>>,
    ready: Bell,
}

impl Answers {
    fn give(&self, record: Numbered) {
        lock(&self.given).push(record);
        self.ready.ring();
    }

    fn take(&self) -> Vec<Numbered> {
        self.ready.silence();
        std::mem::take(&mut lock(&self.given))
    }
}

struct Task {
    inbox: Inbox<Numbered>,
    bell: Arc<Bell>,
    /// Until the input has ended.
    worker: Option<Sender<Numbered>>,
    answers: Arc<Answers>,
    control: Arc<JobControl>,
    enough: Arc<AtomicBool>,
    thread: Arc<Mutex<Option<Thread>>>,
}

impl Task {
    /// Runs to the end; returns the answers, and whether these are all.
    fn run(mut self) -> (Vec<u32>, bool) {
        self.control.register();
        self.control.hang(self.bell.clone());
        *lock(&self.thread) = Some(current());
        let (mut asked, mut answered) = (0, Vec::new());
        let ended = loop {
            answered.extend(self.answers.take().into_iter().map(|record| record.0));
            let mut records = Vec::new();
            let Ok(polled) = self.inbox.poll(&mut Records(&mut records));
            asked += records.len();
            if let Some(worker) = &self.worker {
                records.into_iter().for_each(|record| worker.send(record).expect("the worker is there"));
            }
            if self.interrupted() {
                break false;
            }
            match polled {
                Polled::Taken | Polled::Between(_) => {}
                Polled::Nothing if asked == answered.len() => {
                    let Self { inbox, control, enough, .. } = &mut self;
                    inbox.wait(|| interrupted(control, enough), None);
                }
                Polled::Nothing => {
                    let Self { inbox, bell, answers, control, enough, .. } = &mut self;
                    let (bell, answers) = (&*bell, &answers.ready);
                    inbox.wait_by(bell, || interrupted(control, enough), None, |limit| bell.wait(answers, limit));
                }
                Polled::Finished if asked == answered.len() => break true,
                Polled::Finished => {
                    self.worker = None;
                    self.bell.wait(&self.answers.ready, None);
                }
                Polled::Aborted => break false,
            }
        };
        self.control.take_down(&self.bell);
        self.inbox.satisfied();
        (answered, ended)
    }

    fn interrupted(&self) -> bool {
        interrupted(&self.control, &self.enough)
    }
}

fn interrupted(control: &JobControl, enough: &AtomicBool) -> bool {
    control.load() == Control::Cancel || enough.load(Ordering::SeqCst)
}

/// Writes so many records, or fewer in a drain. Returns how many.
fn write(
    writer: &mut Writer<Numbered, OfJob>,
    records: u32,
    leave_open: bool,
    kept: &std::sync::Arc<()>,
    control: &JobControl,
) -> u32 {
    control.register();
    writer.open();
    for number in 0..records {
        match control.load() {
            Control::Run | Control::Pause => {}
            Control::Drain => {
                writer.finish().expect("nothing was lost");
                return number;
            }
            Control::Cancel => return number,
        }
        if writer.push((number, kept.clone())) == Pushed::Attend && writer.attend().is_err() {
            return number;
        }
    }
    if !leave_open {
        writer.finish().expect("nothing was lost");
    }
    records
}

/// Answers two records at a time, and the last: so the next record may be what the answer waits for.
fn answer(asked: &Receiver<Numbered>, answers: &Answers) {
    while let Ok(record) = asked.recv() {
        let next = asked.recv();
        answers.give(record);
        next.into_iter().for_each(|record| answers.give(record));
    }
}

/// Runs the job in many schedules.
fn runs(records: u32, capacity: usize, end: End) {
    check(500, move || {
        let (control, system, kept) = (steering(), System::new(), std::sync::Arc::new(()));
        let (running, (ended, has_ended)) = (Arc::new(Mutex::new(None)), channel::<()>());
        let (signal, enough) = (Arc::new(ReaderState::new()), Arc::new(AtomicBool::new(false)));
        let (mut writer, reader) = lane(Size::blocks(capacity, TWO), signal.clone(), OfJob(control.clone()));
        let answers = Arc::new(Answers { given: Mutex::new(Vec::new()), ready: Bell::new(&system) });
        let (worker, asked): (_, Receiver<Numbered>) = channel();
        let task = Task {
            inbox: Inbox::new(vec![reader], signal, Duration::from_millis(1)),
            bell: Arc::new(Bell::new(&system)),
            worker: Some(worker),
            answers: answers.clone(),
            control: control.clone(),
            enough: enough.clone(),
            thread: running.clone(),
        };
        let source = thread::spawn({
            let (kept, control) = (kept.clone(), control.clone());
            let is_open = matches!(end, End::By(Control::Cancel) | End::Enough);
            move || {
                let written = write(&mut writer, records, is_open, &kept, &control);
                // In a user's function, so that its lane stays open.
                if is_open {
                    has_ended.recv().expect_err("nothing is sent");
                }
                written
            }
        });
        let worker = thread::spawn(move || answer(&asked, &answers));
        let task = thread::spawn(move || task.run());
        match end {
            End::OfInput => {}
            End::By(how) => stop(&control, how),
            End::Enough => {
                enough.store(true, Ordering::SeqCst);
                // As the reader that ends does, and then whoever is told of its task's end.
                lock(&running).iter().for_each(Thread::unpark);
                control.ring();
            }
        }
        let (answered, all) = task.join().expect("the task does not panic");
        drop(ended);
        let written = source.join().expect("the source does not panic");
        worker.join().expect("the worker does not panic");
        assert_eq!(std::sync::Arc::strong_count(&kept), 1, "a record was lost");
        let expected: Vec<u32> = (0..written).collect();
        match end {
            End::OfInput | End::By(Control::Drain) => assert_eq!((answered, all), (expected, true)),
            _ => assert!((0..records).collect::<Vec<_>>().starts_with(&answered), "{answered:?}"),
        }
    });
}

#[test]
fn a_task_that_waits_for_both_gets_all_there_is() {
    runs(3, 1, End::OfInput);
    runs(3, 4, End::OfInput);
}

#[test]
fn a_drain_finds_a_task_that_waits_for_both_and_loses_nothing() {
    runs(3, 1, End::By(Control::Drain));
}

#[test]
fn a_cancel_finds_a_task_that_waits_for_both() {
    runs(3, 1, End::By(Control::Cancel));
}

#[test]
fn a_task_that_waits_for_both_learns_that_nobody_wants_more() {
    runs(3, 1, End::Enough);
}

/// The same by memory orders, without a job: the wait is begun before anything has come.
mod orders {
    use std::time::Duration;

    use loom::thread;

    use super::super::under_loom::bell::{Bell, System};
    use super::super::under_loom::engine::{Inbox, Polled, ReaderState, Size, lane};
    use super::super::under_loom::sync::Arc;
    use super::super::under_loom::{All, Counted, Drops, Parking, TWO, model, push};

    #[test]
    fn a_record_or_an_answer_ends_the_wait() {
        model(2, || {
            let (system, signal, dropped) = (System::new(), Arc::new(ReaderState::new()), Drops::default());
            let (bell, answer) = (Arc::new(Bell::new(&system)), Arc::new(Bell::new(&system)));
            let (mut writer, reader) = lane(Size::blocks(2, TWO), signal.clone(), Parking);
            let mut inbox = Inbox::new(vec![reader], signal, Duration::from_millis(1));
            let source = thread::spawn(move || {
                writer.open();
                push(&mut writer, Counted(0, dropped)).expect("the reader is there");
                writer
            });
            let worker = thread::spawn({
                let answer = answer.clone();
                move || answer.ring()
            });
            let (mut read, answers) = (Vec::new(), std::cell::Cell::new(0));
            while read.is_empty() || answers.get() == 0 {
                let Ok(polled) = inbox.poll(&mut All(&mut read));
                if matches!(polled, Polled::Nothing) {
                    inbox.wait_by(
                        &bell,
                        || false,
                        None,
                        |limit| {
                            let came = bell.wait(&answer, limit);
                            if came {
                                answer.silence();
                                answers.set(1);
                            }
                            came
                        },
                    );
                } else if answers.get() == 0 && bell.wait(&answer, None) {
                    answers.set(1);
                }
            }
            let mut writer = source.join().expect("the source does not panic");
            worker.join().expect("the worker does not panic");
            writer.finish().expect("nothing was lost");
        });
    }
}
