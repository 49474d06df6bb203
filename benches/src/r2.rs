//! R2: word count over a text whose words follow Zipf's law, on one thread (`r2`), with every word sent to one of two
//! counters (`r2_exchange`), and on two processors in whatever way (`r2_parallel`).
//!
//! Lines are UTF-8 and words are what `split_whitespace` finds, for every contender. The time ends when the table of
//! words is complete; its digest is not part of it.

use std::fs::File;
use std::hash::BuildHasher;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use compact_str::CompactString;
use foldhash::{HashMap, HashMapExt, fast::FixedState};
use renoir::prelude::*;
use sage::Environment;

use crate::Options;
use crate::batches::{BATCH_SIZES, Inbox, Outbox, connect};
use crate::hop::renoir_modes;
use crate::inputs::{digest_pairs, share, text_file};
use crate::measure::{Contender, Sample, Side, alternate};
use crate::results::{Goal, Row};

pub(crate) const TEXT_BYTES: u64 = 200_000_000;
const UNIT: &str = "s";

/// Readers, and counters, of `r2_exchange`; readers of `r2_parallel`.
const REPLICAS: usize = 2;

/// Measures the word count on one thread.
pub(crate) fn measure_one_thread(options: &Options) -> Result<Vec<Row>> {
    let text = text_file(&options.scratch_folder(), options.size(TEXT_BYTES))?;
    let mut contenders = vec![
        Contender::new(Side::Hand, "String", || timed(|| hand::<String>(&text))),
        Contender::new(Side::Hand, "CompactString", || timed(|| hand::<CompactString>(&text))),
        Contender::new(Side::HandOwning, "", || timed(|| hand_owning(&text))),
        Contender::new(Side::Ours, "", || timed(|| ours(&text))),
    ];
    for (variant, mode) in renoir_modes() {
        let run = {
            let text = &text;
            move || timed(|| renoir_combining(text, 1, mode))
        };
        contenders.push(Contender::new(Side::RenoirCombining, variant, run));
    }
    let measurement = alternate("r2", UNIT, options.runs(), &mut contenders)?;
    Ok(vec![
        Row::compare("r2_hand", UNIT, &measurement, Side::Hand, Goal::RatioAtMost(1.15))?,
        Row::compare("r2_hand_owning", UNIT, &measurement, Side::HandOwning, Goal::Reported)?,
        Row::compare("r2_renoir", UNIT, &measurement, Side::RenoirCombining, Goal::Reported)?,
    ])
}

/// Measures the word count with an exchange of every word.
pub(crate) fn measure_exchange(options: &Options) -> Result<Vec<Row>> {
    let text = text_file(&options.scratch_folder(), options.size(TEXT_BYTES))?;
    let mut contenders: Vec<Contender<'_>> = Vec::new();
    for batch in BATCH_SIZES {
        let run = {
            let text = &text;
            move || timed(|| hand_exchange(text, batch))
        };
        contenders.push(Contender::new(Side::Hand, format!("batch {batch}"), run));
    }
    contenders.push(Contender::new(Side::Ours, "", || timed(|| ours_exchange(&text))));
    for (variant, mode) in renoir_modes() {
        let run = {
            let text = &text;
            move || timed(|| renoir_exchange(text, mode))
        };
        contenders.push(Contender::new(Side::Renoir, variant.clone(), run));
        let run = {
            let text = &text;
            move || timed(|| renoir_combining(text, REPLICAS as u64, mode))
        };
        contenders.push(Contender::new(Side::RenoirCombining, variant, run));
    }
    let measurement = alternate("r2_exchange", UNIT, options.runs(), &mut contenders)?;
    let row = |name, side, goal| Row::compare(name, UNIT, &measurement, side, goal);
    Ok(vec![
        row("r2_exchange_hand", Side::Hand, Goal::RatioAtMost(1.1))?,
        row("r2_exchange_renoir", Side::Renoir, Goal::TimesFaster(3.0))?,
        row("r2_exchange_renoir_combining", Side::RenoirCombining, Goal::Reported)?,
    ])
}

/// Measures the word count on two processors, where a reader may count before it sends.
pub(crate) fn measure_parallel(options: &Options) -> Result<Vec<Row>> {
    let text = text_file(&options.scratch_folder(), options.size(TEXT_BYTES))?;
    let mut contenders = [
        Contender::new(Side::Hand, "String", || timed(|| hand_parallel::<String>(&text))),
        Contender::new(Side::Hand, "CompactString", || timed(|| hand_parallel::<CompactString>(&text))),
        Contender::new(Side::Ours, "", || timed(|| ours_parallel(&text))),
    ];
    let measurement = alternate("r2_parallel", UNIT, options.runs(), &mut contenders)?;
    Ok(vec![Row::compare("r2_parallel_hand", UNIT, &measurement, Side::Hand, Goal::Reported)?])
}

/// Times one run up to its table of counts.
fn timed<W: AsRef<str>>(run: impl FnOnce() -> Result<Vec<(W, u64)>>) -> Result<Sample> {
    let start = Instant::now();
    let counts = run()?;
    let value = start.elapsed().as_secs_f64();
    let hasher = FixedState::with_seed(7);
    let digest = digest_pairs(counts.iter().map(|(word, count)| (hasher.hash_one(word.as_ref()), *count)));
    Ok(Sample { value, digest })
}

/// Calls `each` with every line that begins within `part` of the file.
fn for_each_line(path: &Path, part: Range<u64>, mut each: impl FnMut(&str)) -> std::io::Result<()> {
    let mut file = File::open(path)?;
    let mut line = String::new();
    let mut position = part.start;
    // A line that begins before the part belongs to the part before, also when it ends right here.
    let skip_first = position > 0;
    file.seek(SeekFrom::Start(position - u64::from(skip_first)))?;
    let mut reader = BufReader::with_capacity(1 << 16, file);
    if skip_first {
        position += reader.skip_until(b'\n')? as u64 - 1;
    }
    while position < part.end {
        line.clear();
        let read = reader.read_line(&mut line)?;
        if read == 0 {
            break;
        }
        position += read as u64;
        each(&line);
    }
    Ok(())
}

/// A word that a table owns and that is looked up by its `&str`.
trait Word: for<'a> From<&'a str> + std::borrow::Borrow<str> + Eq + std::hash::Hash + Send {}

impl<W: for<'a> From<&'a str> + std::borrow::Borrow<str> + Eq + std::hash::Hash + Send> Word for W {}

fn hand<W: Word>(path: &Path) -> Result<Vec<(W, u64)>> {
    Ok(count_part::<W>(path, 0..u64::MAX)?.into_iter().collect())
}

/// Two readers that count half of the file each, and one of them adds the counts of the other to its own.
fn hand_parallel<W: Word>(path: &Path) -> Result<Vec<(W, u64)>> {
    let size = path.metadata()?.len();
    std::thread::scope(|scope| {
        let readers: Vec<_> = (1..REPLICAS)
            .map(|index| scope.spawn(move || count_part::<W>(path, share(size, index, REPLICAS))))
            .collect();
        let mut all = count_part::<W>(path, share(size, 0, REPLICAS))?;
        for reader in readers {
            for (word, count) in reader.join().ok().context("a reader panicked")?? {
                *all.entry(word).or_default() += count;
            }
        }
        Ok(all.into_iter().collect())
    })
}

/// Looks a word up by its `&str` and makes an owned one only for a new word.
fn count_part<W: Word>(path: &Path, part: Range<u64>) -> Result<HashMap<W, u64>> {
    let mut counts: HashMap<W, u64> = HashMap::new();
    for_each_line(path, part, |line| {
        for word in line.split_whitespace() {
            match counts.get_mut(word) {
                Some(count) => *count += 1,
                None => {
                    counts.insert(W::from(word), 1);
                }
            }
        }
    })?;
    Ok(counts)
}

/// Makes an owned word of each, as every record of a stream is, and looks it up by reference.
fn hand_owning(path: &Path) -> Result<Vec<(CompactString, u64)>> {
    let mut counts: HashMap<CompactString, u64> = HashMap::new();
    for_each_line(path, 0..u64::MAX, |line| {
        for word in line.split_whitespace().map(CompactString::new) {
            match counts.get_mut(&word) {
                Some(count) => *count += 1,
                None => {
                    counts.insert(word, 1);
                }
            }
        }
    })?;
    Ok(counts.into_iter().collect())
}

/// Two readers with half of the file each, two counters, and every word sent to the counter its hash names.
fn hand_exchange(path: &Path, batch: usize) -> Result<Vec<(CompactString, u64)>> {
    let size = path.metadata()?.len();
    let (to_even, even) = connect::<_, REPLICAS>(batch);
    let (to_odd, odd) = connect::<_, REPLICAS>(batch);
    std::thread::scope(|scope| {
        let pairs = to_even.into_iter().zip(to_odd).enumerate();
        let readers: Vec<_> = pairs
            .map(|(index, (to_even, to_odd))| {
                let part = share(size, index, REPLICAS);
                scope.spawn(move || send_words(path, part, to_even, to_odd))
            })
            .collect();
        let counters = [even, odd].map(|inbox| scope.spawn(move || count_words(inbox)));
        for reader in readers {
            reader.join().ok().context("a reader panicked")??;
        }
        let mut all = Vec::new();
        for counter in counters {
            all.extend(counter.join().ok().context("a counter panicked")?);
        }
        Ok(all)
    })
}

fn count_words(inbox: Inbox<CompactString>) -> HashMap<CompactString, u64> {
    let mut counts: HashMap<CompactString, u64> = HashMap::new();
    inbox.drain(|words| {
        for word in words.drain(..) {
            *counts.entry(word).or_default() += 1;
        }
    });
    counts
}

fn send_words(
    path: &Path,
    part: Range<u64>,
    mut to_even: Outbox<CompactString>,
    mut to_odd: Outbox<CompactString>,
) -> Result<()> {
    let hasher = FixedState::with_seed(0);
    for_each_line(path, part, |line| {
        for word in line.split_whitespace() {
            let outbox = if hasher.hash_one(word) & 1 == 0 { &mut to_even } else { &mut to_odd };
            outbox.push(CompactString::new(word));
        }
    })?;
    to_even.flush();
    to_odd.flush();
    Ok(())
}

fn ours(path: &Path) -> Result<Vec<(CompactString, u64)>> {
    let env = Environment::local("r2");
    let counts = env
        .read_lines(path.display().to_string())
        .flat_map_into(|line, words| words.extend(line.text.split_whitespace().map(CompactString::new)))
        .key_by_ref(|word: &CompactString| word)
        .count()
        .collect();
    env.run()?;
    Ok(counts.take())
}

/// Every word goes to the replica that counts it: a fold cannot count before that.
fn ours_exchange(path: &Path) -> Result<Vec<(CompactString, u64)>> {
    let env = Environment::local("r2-exchange");
    let counts = env
        .read_lines(path.display().to_string())
        .parallelism(REPLICAS)
        .flat_map_into(|line, words| words.extend(line.text.split_whitespace().map(CompactString::new)))
        .key_by_ref(|word: &CompactString| word)
        .fold(0u64, |count, _| *count += 1)
        .parallelism(REPLICAS)
        .collect();
    env.run()?;
    Ok(counts.take())
}

/// Each reader counts what it can before it sends.
pub(crate) fn ours_parallel(path: &Path) -> Result<Vec<(CompactString, u64)>> {
    let env = Environment::local("r2-parallel");
    let counts = env
        .read_lines(path.display().to_string())
        .parallelism(REPLICAS)
        .flat_map_into(|line, words| words.extend(line.text.split_whitespace().map(CompactString::new)))
        .key_by_ref(|word: &CompactString| word)
        .count()
        .parallelism(REPLICAS)
        .collect();
    env.run()?;
    Ok(counts.take())
}

/// Counts in each replica first and sends one partial count per word.
fn renoir_combining(path: &Path, parallelism: u64, mode: BatchMode) -> Result<Vec<(CompactString, u64)>> {
    let env = StreamContext::new(RuntimeConfig::local(parallelism)?);
    let counts = env
        .stream_file(path)
        .batch_mode(mode)
        .flat_map(|line| line.split_whitespace().map(CompactString::new).collect::<Vec<_>>())
        .group_by_count(|word| word.clone())
        .collect_vec();
    env.execute_blocking();
    let counts = counts.get().context("Renoir gave no result")?;
    Ok(counts.into_iter().map(|(word, count)| (word, count as u64)).collect())
}

/// Sends every word to the replica that counts it.
fn renoir_exchange(path: &Path, mode: BatchMode) -> Result<Vec<(CompactString, u64)>> {
    let env = StreamContext::new(RuntimeConfig::local(REPLICAS as u64)?);
    let counts = env
        .stream_file(path)
        .batch_mode(mode)
        .flat_map(|line| line.split_whitespace().map(CompactString::new).collect::<Vec<_>>())
        .group_by(|word| word.clone())
        .fold(0u64, |count, _| *count += 1)
        .collect_vec();
    env.execute_blocking();
    counts.get().context("Renoir gave no result")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Wherever the file is cut, every line is read once.
    #[test]
    fn parts_of_a_file_cover_every_line_once() {
        let folder = std::env::temp_dir().join(format!("sage-benches-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a writable temporary folder");
        let path = folder.join("lines.txt");
        let text = "ab\nc\n\ndefg\nh";
        std::fs::write(&path, text).expect("a writable temporary folder");
        for cut in 0..=text.len() as u64 {
            let mut seen = String::new();
            for part in [0..cut, cut..text.len() as u64] {
                for_each_line(&path, part, |line| seen.push_str(line)).expect("the file exists");
            }
            assert_eq!(seen, text, "cut at {cut}");
        }
        std::fs::remove_dir_all(&folder).expect("the folder is ours");
    }
}
