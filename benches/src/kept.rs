//! What it costs to keep answers, for arguments and answers of 100 bytes: a call that is answered from memory (`cache`)
//! or from a file (`cache_disk`), one whose answer is put into the journal of a run (`journal`), and the first call of
//! a run whose journal has 100,000 answers (`journal_open`). Each is a whole call through a method.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use sage::{BoxError, Cache, Codec, Environment, Journal, Keep, Method, Order, Policy, Service};

use crate::Options;
use crate::inputs::stir;
use crate::measure::{Contender, Sample, Side, alternate, nanos_per};
use crate::results::Row;

struct Oracle;

impl Service for Oracle {}

/// The number, filled up to 100 bytes.
struct Padded;

const LENGTH: usize = 100;

impl Codec<u64> for Padded {
    fn encode(&self, value: &u64, into: &mut Vec<u8>) -> Result<(), BoxError> {
        into.extend_from_slice(&padded(*value));
        Ok(())
    }

    fn decode(&self, bytes: &[u8]) -> Result<u64, BoxError> {
        Ok(u64::from_le_bytes(*bytes.first_chunk().ok_or("an answer is too short")?))
    }
}

fn padded(number: u64) -> [u8; LENGTH] {
    let mut bytes = [0; LENGTH];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    bytes
}

const HITS: u64 = 1_000_000;
const HITS_ON_DISK: u64 = 100_000;
const PUTS: u64 = 100_000;
const KEYS: u64 = 1_000;

/// Measures hits in memory and on disk.
pub(crate) fn measure_caches(options: &Options) -> Result<Vec<Row>> {
    let folder = scratch(options)?;
    let on_disk = || Cache::new().disk(&folder, 1 << 30);
    let in_memory = || Cache::new().memory(KEYS as usize, 1 << 20);
    Ok(vec![
        hits("cache", options, options.size(HITS), 2_000.0, in_memory)?,
        hits("cache_disk", options, options.size(HITS_ON_DISK), 50_000.0, on_disk)?,
    ])
}

/// One future makes all calls in turn, over keys that are all kept.
fn hits(name: &str, options: &Options, calls: u64, limit: f64, cache: impl Fn() -> Cache) -> Result<Row> {
    let run = || {
        let env = Environment::local("kept");
        let answer = method(&env, Policy::new(), Keep::new(|n| Some(padded(*n).to_vec()), Padded).cache(cache()));
        timed(&env, answer, KEYS, calls)
    };
    let measurement = alternate(name, "ns/hit", options.runs(), &mut [Contender::new(Side::Ours, "", run)])?;
    Ok(Row::against_limit(name, "ns/hit", measurement.best(Side::Ours)?, limit))
}

/// Measures puts into a journal, and the opening of a full one.
pub(crate) fn measure_journal(options: &Options) -> Result<Vec<Row>> {
    let folder = scratch(options)?;
    let puts = options.size(PUTS);
    let runs = Cell::new(0_u32);
    let with = |folder: &Path, first: u64, calls: u64| {
        let env = Environment::local("journal");
        let keep = Keep::new(|n| Some(padded(*n).to_vec()), Padded).journal();
        let answer = method(&env, Policy::new().journal(Journal::run(folder)), keep);
        timed(&env, answer, first, calls)
    };
    let latest = || folder.join(runs.get().to_string());
    let put = || {
        runs.set(runs.get() + 1);
        with(&latest(), 0, puts)
    };
    let measurement = alternate("journal", "ns/put", options.runs(), &mut [Contender::new(Side::Ours, "", put)])?;
    let puts_row = Row::against_limit("journal", "ns/put", measurement.best(Side::Ours)?, 10_000.0);
    let open = || {
        let start = Instant::now();
        let answered = with(&latest(), 0, 1)?;
        Ok(Sample { value: start.elapsed().as_secs_f64() * 1e3, ..answered })
    };
    let measurement = alternate("journal_open", "ms", options.runs(), &mut [Contender::new(Side::Ours, "", open)])?;
    let open_row = Row::against_limit("journal_open", "ms", measurement.best(Side::Ours)?, 1_000.0);
    fs::remove_dir_all(&folder)?;
    Ok(vec![puts_row, open_row])
}

fn method(env: &Environment, policy: Policy, keep: Keep<u64, u64>) -> Method<u64, u64> {
    let oracle = env.register_service("oracle", || Oracle).policy(policy.version("1")).build();
    oracle.method("answer", |_, n: u64| async move { Ok::<_, BoxError>(stir(n)) }).keep(keep).build()
}

/// Makes calls in turn, for the numbers below `keys` over and over, and times them once each of those was made. With no
/// keys, each call has a number of its own, and all are timed.
fn timed(env: &Environment, answer: Method<u64, u64>, keys: u64, calls: u64) -> Result<Sample> {
    let all = move |keys: u64| {
        let answer = answer.clone();
        async move {
            for n in 0..keys {
                answer.call(n).await?;
            }
            let start = Instant::now();
            let mut digest = 0_u64;
            for n in 0..calls {
                digest = digest.wrapping_add(answer.call(n.checked_rem(keys).unwrap_or(n)).await?);
            }
            Ok::<_, BoxError>((start.elapsed(), digest))
        }
    };
    let ended = env.from_iter([keys]).try_map_async(1, Order::Ordered, all).collect();
    env.run()?;
    let (took, digest): (Duration, u64) = ended.take()[0];
    Ok(Sample { value: nanos_per(took, calls), digest })
}

/// An empty folder.
fn scratch(options: &Options) -> Result<PathBuf> {
    let folder = options.scratch_folder().join("kept");
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    Ok(folder)
}
