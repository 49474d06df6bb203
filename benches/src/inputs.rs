//! What the workloads compute and read: the three functions of R1, the records of R3 and the text of R2.
//!
//! The functions mix bits, so that no compiler finds a closed form for the loop around them, and every contender
//! calls these very functions.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use foldhash::HashSet;

/// The first map of R1: a folded multiplication, which is one instruction everywhere and which no compiler spreads
/// over vector lanes. A plain one it turns into an addition in one contender's loop and into slow emulated vectors in
/// another's, and that lottery is not what we measure.
#[inline(always)]
pub(crate) fn scramble(x: u64) -> u64 {
    let product = u128::from(x) * 0x9E37_79B9_7F4A_7C15;
    (product >> 64) as u64 ^ product as u64
}

/// The filter of R1: a bit that is zero for half of the records, in runs that a branch predictor learns. A bit it
/// cannot guess would cost every contender the same few nanoseconds and hide what their own code costs.
#[inline(always)]
pub(crate) fn keep(x: u64) -> bool {
    x & 1 == 0
}

/// The second map of R1: a xorshift step.
#[inline(always)]
pub(crate) fn stir(x: u64) -> u64 {
    let x = x ^ (x << 13);
    let x = x ^ (x >> 7);
    x ^ (x << 17)
}

/// Distinct keys of R3: their table has two to four megabytes, the size of a second-level cache.
const KEYS: u64 = 1 << 16;

/// The `n`th record of R3: a key without a pattern, and a value.
#[inline(always)]
pub(crate) fn keyed_record(n: u64) -> (u64, u64) {
    let mixed = scramble(n);
    ((mixed >> 40) % KEYS, n)
}

/// The part of `0..records` that replica `replica` of `replicas` has to itself.
pub(crate) fn share(records: u64, replica: usize, replicas: usize) -> Range<u64> {
    let bound = |replica: usize| {
        let bound = u128::from(records) * replica as u128 / replicas as u128;
        u64::try_from(bound).expect("a part of a u64 is a u64")
    };
    bound(replica)..bound(replica + 1)
}

/// A digest of a set of (hash, amount) pairs in any order.
pub(crate) fn digest_pairs(pairs: impl IntoIterator<Item = (u64, u64)>) -> u64 {
    pairs
        .into_iter()
        .fold(0, |digest, (key, amount)| digest.wrapping_add(stir(scramble(key.wrapping_add(1)).wrapping_add(amount))))
}

/// SplitMix64: small, and the same numbers on every machine.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        x ^ (x >> 31)
    }

    /// A number below `bound`, which is far below 2⁶⁴ everywhere here.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).expect("below a usize")
    }

    /// 0 to 1, without 1.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

const VOCABULARY_WORDS: usize = 100_000;
const WORDS_PER_LINE: usize = 12;

/// The vocabulary: distinct words of three to nine letters.
fn vocabulary(random: &mut Random) -> Vec<String> {
    let mut seen = HashSet::default();
    let mut words = Vec::with_capacity(VOCABULARY_WORDS);
    while words.len() < VOCABULARY_WORDS {
        let letters = 3 + random.below(7);
        let word: String = (0..letters).map(|_| char::from(b'a' + random.below(26) as u8)).collect();
        if seen.insert(word.clone()) {
            words.push(word);
        }
    }
    words
}

/// Draws ranks by Zipf's law (the word of rank r has weight 1/r) with an alias table, in constant time.
struct Zipf {
    cut: Vec<f64>,
    alias: Vec<usize>,
}

impl Zipf {
    fn new(ranks: usize) -> Self {
        let total: f64 = (1..=ranks).map(|rank| 1.0 / rank as f64).sum();
        let mut cut: Vec<f64> = (1..=ranks).map(|rank| ranks as f64 / (rank as f64 * total)).collect();
        let mut alias: Vec<usize> = (0..ranks).collect();
        let (mut small, mut large): (Vec<usize>, Vec<usize>) = (0..ranks).partition(|&rank| cut[rank] < 1.0);
        while let (Some(poor), Some(rich)) = (small.pop(), large.pop()) {
            alias[poor] = rich;
            cut[rich] -= 1.0 - cut[poor];
            if cut[rich] < 1.0 {
                small.push(rich);
            } else {
                large.push(rich);
            }
        }
        // What is left differs from one by rounding only.
        for rank in small.into_iter().chain(large) {
            cut[rank] = 1.0;
        }
        Self { cut, alias }
    }

    fn draw(&self, random: &mut Random) -> usize {
        let rank = random.below(self.cut.len());
        if random.unit() < self.cut[rank] { rank } else { self.alias[rank] }
    }
}

/// Makes a text of at least `size_bytes` under `folder`, or finds the one made before.
///
/// # Errors
/// The folder or the file cannot be written.
pub(crate) fn text_file(folder: &Path, size_bytes: u64) -> Result<PathBuf> {
    once(folder, &format!("words-{}mb.txt", size_bytes / 1_000_000), |out| write_text(out, size_bytes))
}

/// Writes a file under `folder`, or finds the one written before.
///
/// # Errors
/// The folder or the file cannot be written.
pub(crate) fn once(
    folder: &Path,
    name: &str,
    write: impl FnOnce(&mut BufWriter<File>) -> std::io::Result<()>,
) -> Result<PathBuf> {
    let path = folder.join(name);
    if path.exists() {
        return Ok(path);
    }
    eprintln!("making {}", path.display());
    std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    // A finished file only ever appears under its final name.
    let unfinished = path.with_extension("unfinished");
    let make = || -> std::io::Result<()> {
        let mut out = BufWriter::with_capacity(1 << 20, File::create(&unfinished)?);
        write(&mut out)?;
        out.into_inner()?.sync_all()?;
        std::fs::rename(&unfinished, &path)
    };
    make().with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

fn write_text(out: &mut impl Write, size_bytes: u64) -> std::io::Result<()> {
    let mut random = Random(42);
    let words = vocabulary(&mut random);
    let zipf = Zipf::new(words.len());
    let mut line = String::new();
    let mut written = 0;
    while written < size_bytes {
        line.clear();
        for _ in 0..WORDS_PER_LINE {
            line.push_str(&words[zipf.draw(&mut random)]);
            line.push(' ');
        }
        line.pop();
        line.push('\n');
        out.write_all(line.as_bytes())?;
        written += line.len() as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_cover_everything_once() {
        let total: u64 = (0..3).map(|index| share(100, index, 3)).map(|r| r.end - r.start).sum();
        assert_eq!(total, 100);
        assert_eq!(share(100, 2, 3).end, 100);
    }

    #[test]
    fn the_text_is_the_same_every_time() {
        let make = || {
            let mut out = Vec::new();
            write_text(&mut out, 10_000).expect("a Vec takes every write");
            out
        };
        let text = make();
        assert!(text.len() >= 10_000);
        assert_eq!(text, make());
    }

    #[test]
    fn the_first_rank_is_drawn_as_often_as_zipf_says() {
        let zipf = Zipf::new(100);
        let mut random = Random(1);
        let first = (0..100_000).filter(|_| zipf.draw(&mut random) == 0).count();
        // 1 / H(100) is 0.1928.
        assert!((18_500..20_100).contains(&first), "{first}");
    }

    #[test]
    fn a_digest_ignores_order_and_sees_change() {
        assert_eq!(digest_pairs([(1, 2), (3, 4)]), digest_pairs([(3, 4), (1, 2)]));
        assert_ne!(digest_pairs([(1, 2), (3, 4)]), digest_pairs([(1, 4), (3, 2)]));
    }
}
