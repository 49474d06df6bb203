//! The two jobs: one counts, the other tries its dead letters again.

use std::cmp::Reverse;
use std::fmt::Write;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sage::{DeadLetter, Environment, OnSignal, OutOfOrder, Timestamp, Tumbling, Window, Windowed};
use sage_connectors::{JsonlSink, JsonlSource};
use serde::Serialize;

use crate::line::{LogLine, Reading};
use crate::merge::{LogFile, Merged};
use crate::notes::Notes;
use crate::time::to_text;

/// What to count, and how.
pub struct Task {
    /// The files, in the order of their paths.
    pub files: Vec<LogFile>,
    /// How lines are read.
    pub reading: Reading,
    /// The windows' length.
    pub window: Duration,
    /// How far out of order lines may be.
    pub out_of_order: Duration,
    /// Terms to show for each window.
    pub top: usize,
    /// Folder for the results.
    pub out: PathBuf,
}

/// The result of a window.
#[derive(Serialize)]
struct TopTerms {
    start: String,
    end: String,
    lines: u64,
    /// How many different terms there are.
    terms: usize,
    top: Vec<TermCount>,
}

#[derive(Serialize)]
struct TermCount {
    term: String,
    lines: u64,
}

/// Declares the job that counts.
pub fn count(env: &Environment, task: &Task, notes: &Notes) {
    let Task { reading, window, out_of_order, top, .. } = *task;
    let (files, source_notes, print_notes) = (task.files.clone(), notes.clone(), notes.clone());

    let (entries, dead) = env
        .from_source(move |_replica| Merged::new(files.clone(), reading, window, out_of_order, source_notes.clone()))
        .named("read")
        .try_map(move |line: LogLine| reading.strict(line))
        .named("parse")
        .dead_letters();
    dead.sink_to(to_private_file(&task.out, "dead-letters.jsonl")).named("dead-letters");

    let (counts, late) = entries
        .with_timestamps(|entry| Timestamp::from_millis(entry.millis), OutOfOrder::by(out_of_order))
        .named("timestamps")
        .key_by_ref(|entry| &*entry.value.term)
        .window(Tumbling::of(window))
        .on_signal(OnSignal::Emit) // what was read is shown; the files are not made final
        .count()
        .named("count")
        .split_late();
    late.map(|late| late.value).named("untimed").sink_to(to_file(&task.out, "late.jsonl")).named("late");

    // The results of a window are in it as well, so the same windows again bring them together.
    counts
        .key_by(|_count| ())
        .window(Tumbling::of(window))
        .on_signal(OnSignal::Emit)
        .apply(move |(), window, counts: &[Windowed<String, u64>]| TopTerms::new(window, counts, top))
        .named("top")
        .try_map(move |result| {
            let result = result.value.value;
            print_notes.print(&result.line())?;
            Ok::<_, io::Error>(result)
        })
        .named("print")
        .sink_to(to_file(&task.out, "windows.jsonl"))
        .named("windows");
}

/// Declares the job that reads the dead letters back and mends what it can.
pub fn replay(env: &Environment, task: &Task, notes: &Notes) {
    let reading = task.reading;
    let (letters, notes) = (task.out.join("dead-letters.jsonl"), notes.clone());
    let (recovered, dead) = env
        .from_source(move |_replica| JsonlSource::<DeadLetter<LogLine>>::new(letters.clone()))
        .named("read")
        .map(|letter| letter.record)
        .named("unpack")
        .try_map(move |line| reading.lax(line))
        .named("parse-again")
        .dead_letters();
    dead.sink_to(to_private_file(&task.out, "still-bad.jsonl")).named("still-bad");
    recovered
        .inspect(move |recovered| notes.mended(recovered.how))
        .named("tally")
        .sink_to(to_file(&task.out, "recovered.jsonl"))
        .named("recovered");
}

fn to_file<T: Serialize + Send + 'static>(folder: &Path, name: &str) -> impl Fn(usize) -> JsonlSink<T> + use<T> {
    let path = folder.join(name);
    move |_replica| JsonlSink::new(path.clone())
}

/// A file only its owner may read: nobody has checked what is in dead letters.
fn to_private_file<T: Serialize + Send + 'static>(
    folder: &Path,
    name: &str,
) -> impl Fn(usize) -> JsonlSink<T> + use<T> {
    let path = folder.join(name);
    move |_replica| JsonlSink::new(path.clone()).private()
}

impl TopTerms {
    /// The most frequent terms first; equally frequent ones by name.
    fn new(window: Window, counts: &[Windowed<String, u64>], top: usize) -> Self {
        let mut ranked: Vec<_> = counts.iter().map(|count| (Reverse(count.value), count.key.as_str())).collect();
        if top < ranked.len() {
            ranked.select_nth_unstable(top);
            ranked.truncate(top);
        }
        ranked.sort_unstable();
        let top = ranked.into_iter().map(|(Reverse(lines), term)| TermCount { term: term.to_owned(), lines });
        Self {
            start: to_text(window.start.millis()),
            end: to_text(window.end.millis()),
            lines: counts.iter().map(|count| count.value).sum(),
            terms: counts.len(),
            top: top.collect(),
        }
    }

    fn line(&self) -> String {
        let mut line = format!("{} {:>8}  ", self.start, self.lines);
        for TermCount { term, lines } in &self.top {
            // Writing to a text does not fail.
            let _ = write!(line, " {term} {lines}");
        }
        match self.terms - self.top.len() {
            0 => line + "\n",
            more => format!("{line} and {more} more\n"),
        }
    }
}
