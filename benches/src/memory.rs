//! Memory over the number of records: the same jobs in a process of its own, once over ten and once over a hundred
//! million records.
//!
//! The jobs are R1, R1 with a hop before and behind the operators, and R3: sources, hops, an exchange and keyed state.

use anyhow::{Context, Result, ensure};

use crate::Options;
use crate::machine::peak_resident_bytes;
use crate::measure::{Side, summarise};
use crate::results::{Goal, Row};
use crate::{hop, r1, r3};

const FEW_RECORDS: u64 = 10_000_000;
const MANY_RECORDS: u64 = 100_000_000;
const UNIT: &str = "MB of growth";
const LIMIT_MEGABYTES: f64 = 2.0;

/// Measures the growth of the peak.
pub(crate) fn measure(options: &Options) -> Result<Vec<Row>> {
    let (mut few, mut many) = (Vec::new(), Vec::new());
    for run in 1..=options.runs() {
        for (records, peaks) in [(FEW_RECORDS, &mut few), (MANY_RECORDS, &mut many)] {
            let peak = peak_of_child(options.size(records))?;
            eprintln!("{:<22} run {run:>2}/{:<2}  {records:>9} records {peak:>12.3} MB", "memory", options.runs());
            peaks.push(peak);
        }
    }
    let few = summarise(Side::Ours, String::new(), few);
    let many = summarise(Side::Ours, String::new(), many);
    let growth = many.median - few.median;
    let versus = ("peak MB over a tenth of the records; ratio of the two peaks", few.median);
    let ratio = many.median / few.median;
    let row = Row::derived("memory_flat", UNIT, growth, versus, ratio, Goal::AtMost(LIMIT_MEGABYTES));
    Ok(vec![row.with_spreads(many.spread, few.spread)])
}

/// Runs this program again and reads the peak it prints, in megabytes.
fn peak_of_child(records: u64) -> Result<f64> {
    let program = std::env::current_exe().context("cannot find this program")?;
    let output = std::process::Command::new(program)
        .arg("--memory-child")
        .arg(records.to_string())
        .output()
        .context("cannot start this program again")?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "the child failed: {}", String::from_utf8_lossy(&output.stderr));
    let bytes: f64 = said.trim().parse().with_context(|| format!("the child printed {said:?}"))?;
    Ok(bytes / 1e6)
}

/// Runs the jobs over `records` records and prints the peak of this process in bytes.
pub(crate) fn child(records: u64) -> Result<()> {
    // Huge pages make a peak jump in steps of 2 MiB, wherever an allocation happens to lie.
    // SAFETY: the call sets a flag of this process.
    let set = unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) };
    ensure!(set == 0, "cannot turn huge pages off: {}", std::io::Error::last_os_error());
    r1::ours(records)?;
    hop::ours_in_source(records)?;
    hop::ours_in_sink(records)?;
    r3::ours(records, r3::REPLICAS)?;
    println!("{}", peak_resident_bytes()?);
    Ok(())
}
