//! Describes the machine a table was measured on and who else used it, and reads what Linux knows of a process's
//! memory.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use anyhow::{Context, Result};

/// One line: processors, memory, kernel and compiler, as far as the system tells.
pub(crate) fn describe() -> String {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let mut parts = processors(&read("/proc/cpuinfo"));
    if let Some(kib) = field(&read("/proc/meminfo"), "MemTotal") {
        parts.push(format!("{} GiB of memory", (kib + (1 << 19)) >> 20));
    }
    let kernel = read("/proc/sys/kernel/osrelease");
    if !kernel.trim().is_empty() {
        parts.push(format!("Linux {}", kernel.trim()));
    }
    let compiler = std::process::Command::new("rustc").arg("--version").output();
    if let Ok(output) = compiler {
        parts.push(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    parts.retain(|part| !part.is_empty());
    parts.join(", ")
}

/// Counts the processors by model, for instance `2 × Intel(R) Xeon(R) Processor`.
fn processors(cpuinfo: &str) -> Vec<String> {
    let mut models: BTreeMap<&str, usize> = BTreeMap::new();
    for line in cpuinfo.lines() {
        if let Some((key, model)) = line.split_once(':')
            && key.trim() == "model name"
        {
            *models.entry(model.trim()).or_default() += 1;
        }
    }
    models.into_iter().map(|(model, count)| format!("{count} × {model}")).collect()
}

/// What the processors have done up to one moment, in the system's clock ticks.
#[derive(Clone, Copy)]
struct Ticks {
    all: u64,
    busy: u64,
    own: u64,
}

impl Ticks {
    fn now() -> Option<Self> {
        let (all, busy) = processor_ticks(&std::fs::read_to_string("/proc/stat").ok()?)?;
        let own = own_ticks(&std::fs::read_to_string("/proc/self/stat").ok()?)?;
        Some(Self { all, busy, own })
    }
}

/// Tells how much of the processors other programs took while this one measured.
pub(crate) struct Neighbours {
    start: Option<Ticks>,
}

impl Neighbours {
    /// Begins to watch.
    pub(crate) fn watch() -> Self {
        Self { start: Ticks::now() }
    }

    /// The share of all processors, 0 to 1, that others took since; `None` where the system does not tell.
    pub(crate) fn share(&self) -> Option<f64> {
        let (start, end) = (self.start?, Ticks::now()?);
        let all = end.all.checked_sub(start.all).filter(|&all| all > 0)?;
        let others = (end.busy - start.busy).saturating_sub(end.own - start.own);
        Some(others as f64 / all as f64)
    }
}

/// How long a cache line takes from one thread to another and back, in nanoseconds: the shortest and the longest time
/// that was found. Processors that share a cache take a quarter of what others take, and a virtual machine may get now
/// these and now those.
#[derive(Default)]
pub(crate) struct RoundTrips {
    found: Option<(f64, f64)>,
}

impl RoundTrips {
    /// Measures once more. Does nothing where there is one processor only.
    pub(crate) fn measure(&mut self) {
        if std::thread::available_parallelism().map_or(1, usize::from) < 2 {
            return;
        }
        let nanos = round_trip_nanos();
        let (least, most) = self.found.unwrap_or((nanos, nanos));
        self.found = Some((least.min(nanos), most.max(nanos)));
    }

    /// A sentence about them, if any were measured.
    pub(crate) fn describe(&self) -> Option<String> {
        let (least, most) = self.found?;
        Some(format!("A cache line took {least:.0} to {most:.0} ns from one thread to another and back."))
    }
}

/// So many times in a row, of which the quickest counts: at first two threads may have one processor between them.
const TIMES: u32 = 20;
const ROUND_TRIPS: u32 = 2000;

/// The time of one round trip between two threads.
fn round_trip_nanos() -> f64 {
    let turn = AtomicU32::new(0);
    let wait_for = |awaited| {
        let mut looks = 0_u32;
        while turn.load(Ordering::Acquire) != awaited {
            looks += 1;
            if looks.is_multiple_of(1000) { std::thread::yield_now() } else { std::hint::spin_loop() }
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for trip in 0..TIMES * ROUND_TRIPS {
                wait_for(2 * trip + 1);
                turn.store(2 * trip + 2, Ordering::Release);
            }
        });
        let timed = |time: u32| {
            let start = Instant::now();
            for trip in time * ROUND_TRIPS..(time + 1) * ROUND_TRIPS {
                turn.store(2 * trip + 1, Ordering::Release);
                wait_for(2 * trip + 2);
            }
            start.elapsed().as_nanos() as f64 / f64::from(ROUND_TRIPS)
        };
        (0..TIMES).map(timed).fold(f64::INFINITY, f64::min)
    })
}

/// All ticks and those that were not idle, from the first line of `/proc/stat`: user, nice, system, idle, iowait, irq,
/// softirq, steal. What follows (guests) is counted in user already.
fn processor_ticks(stat: &str) -> Option<(u64, u64)> {
    let ticks = stat.lines().next()?.split_whitespace().skip(1).take(8);
    let ticks = ticks.map(|field| field.parse().ok()).collect::<Option<Vec<u64>>>()?;
    let all = ticks.iter().sum::<u64>();
    Some((all, all - ticks.get(3)? - ticks.get(4)?))
}

/// The ticks of this process and of its children that have ended: fields 14 to 17 of `/proc/self/stat`.
fn own_ticks(stat: &str) -> Option<u64> {
    let (_, behind_name) = stat.rsplit_once(')')?;
    behind_name.split_whitespace().skip(11).take(4).map(|field| field.parse::<u64>().ok()).sum()
}

/// The most memory that was resident in this process so far, in bytes.
///
/// # Errors
/// The system has no `/proc/self/status`, or it lacks the field.
pub(crate) fn peak_resident_bytes() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status").context("cannot read /proc/self/status")?;
    let kib = field(&status, "VmHWM").context("/proc/self/status has no VmHWM")?;
    Ok(kib * 1024)
}

/// The number behind `name:` in a file of `/proc`.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.split(':').next() == Some(name))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_found() {
        assert_eq!(processor_ticks("cpu  1 2 3 40 50 6 7 8 100 100\ncpu0 1\n"), Some((117, 27)));
        assert_eq!(processor_ticks("cpu  1 x 3\n"), None);
        assert_eq!(own_ticks("1 (a ) b) S 1 1 1 0 -1 0 0 0 0 0 3 4 5 6 20 0"), Some(18));
    }

    #[test]
    fn round_trips_have_a_least_and_a_most() {
        let mut trips = RoundTrips { found: Some((1.0, 2.0)) };
        trips.measure();
        let (least, most) = trips.found.expect("they were found before");
        assert!(least <= 1.0, "{least}");
        let several = std::thread::available_parallelism().is_ok_and(|processors| processors.get() > 1);
        assert!(most > 2.0 || !several, "no line is so quick: {most}");
        trips.found = Some((99.6, 470.2));
        let described = trips.describe().expect("as above");
        assert_eq!(described, "A cache line took 100 to 470 ns from one thread to another and back.");
    }

    #[test]
    fn fields_and_models_are_found() {
        assert_eq!(field("VmPeak:\t 7 kB\nVmHWM:\t  12 kB\n", "VmHWM"), Some(12));
        assert_eq!(field("VmPeak:\t 7 kB\n", "VmHWM"), None);
        let cpuinfo = "processor\t: 0\nmodel name\t: A\nprocessor\t: 1\nmodel name\t: A\n";
        assert_eq!(processors(cpuinfo), ["2 × A"]);
    }
}
