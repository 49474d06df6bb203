//! A report in words, as it is printed at the end of a job.

use std::fmt;
use std::time::Duration;

use super::cause::{CauseKind, LINE_CHARS, Short};
use super::report::{Cleanliness, FunctionReport, JobReport, OperatorReport, WorkerReport};
use crate::service::{PolicyReport, ServiceReport, TallyFigures};

/// A chain that was blocked this long gets the reason in its row.
const TOLD_BLOCKED: Duration = Duration::from_millis(1);

impl fmt::Display for JobReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let clean = match self.cleanliness {
            Cleanliness::Clean => "clean",
            Cleanliness::Unclean => "NOT clean",
        };
        writeln!(
            f,
            "job `{}` {} and is {clean}, after {:.1?} ({})",
            Short(&self.environment, LINE_CHARS),
            self.outcome,
            self.elapsed,
            self.reason
        )?;
        // That the job was stopped from outside is said by its reason.
        if let Some(cause) = self.first_cause.as_ref().filter(|cause| cause.kind != CauseKind::Stopped) {
            writeln!(f, "  cause: {cause}")?;
        }
        for cause in &self.attached {
            writeln!(f, "  also:  {cause}")?;
        }
        for left in &self.left {
            writeln!(f, "  left:  {}: {}", Short(&left.what, LINE_CHARS), left.why)?;
        }
        for note in &self.notes {
            writeln!(f, "  note:  {note}")?;
        }
        self.write_operators(f)?;
        if self.dropped > 0 {
            writeln!(f, "  dropped: {} that had been read", Amount(self.dropped, "record"))?;
        }
        for operator in &self.operators {
            let name = Short(&operator.name, LINE_CHARS);
            if operator.retries > 0 {
                writeln!(f, "  {name}: retried {}", Amount(operator.retries, "time"))?;
            }
            if operator.restarts > 0 {
                write!(f, "  {name}: restarted {}", Amount(operator.restarts, "time"))?;
                if operator.state_lost > 0 {
                    write!(f, ", and lost what {} had changed in its state", Amount(operator.state_lost, "record"))?;
                }
                writeln!(f)?;
            }
            if let Some(error) = &operator.first_error {
                writeln!(f, "  {name}: first error that the policy let pass: {error}")?;
            }
        }
        self.services.iter().try_for_each(|service| write_service(service, f))?;
        self.workers.iter().try_for_each(|worker| write_worker(worker, f))
    }
}

fn write_worker(worker: &WorkerReport, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let WorkerReport { operator, replica, pid, node, guard, cpu, peak_bytes, end } = worker;
    let on = if node.is_empty() { String::new() } else { format!(" on {node}") };
    let mib = peak_bytes.div_ceil(1 << 20);
    let name = Short(operator, LINE_CHARS);
    let used = format_args!("{cpu:.1?} of processor time, {mib} MiB");
    writeln!(f, "  worker {replica} of {name}: process {pid}{on}, guard: {guard}, {used}, {end}")
}

impl JobReport {
    /// The table of the operators.
    fn write_operators(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let length = |operator: &OperatorReport| operator.name.chars().take(TABLE_CHARS).count();
        let width = self.operators.iter().map(length).max().unwrap_or(0).max(8);
        writeln!(
            f,
            "  {:width$}  {:>12} {:>12} {:>7} {:>9} {:>9} {:>9}",
            "operator", "in", "out", "failed", "busy", "blocked", "idle"
        )?;
        let mut chain = 0;
        for operator in &self.operators {
            let OperatorReport { name, records_in, records_out, failed, .. } = operator;
            let name = Short(name, TABLE_CHARS).to_string();
            write!(f, "  {name:width$}  {records_in:>12} {records_out:>12} {failed:>7}")?;
            // The operators of a chain share a thread, and its times.
            if std::mem::replace(&mut chain, operator.chain) != operator.chain {
                for time in [operator.busy, operator.blocked, operator.idle] {
                    write!(f, " {:>9}", format!("{time:.1?}"))?;
                }
                if let Some(bound) = operator.blocked_by.filter(|_| operator.blocked >= TOLD_BLOCKED) {
                    write!(f, "  blocked by {bound}")?;
                }
            }
            if operator.late > 0 {
                write!(f, "  {} late", operator.late)?;
            }
            if operator.dropped_windows > 0 {
                write!(f, "  {} dropped", Amount(operator.dropped_windows, "open window"))?;
            }
            writeln!(f)?;
            for FunctionReport { name, records_in, records_out } in &operator.functions {
                let name = format!("  {}", Short(name, TABLE_CHARS));
                let [taken, given] = [records_in, records_out].map(|count| count.map_or("?".into(), |n| n.to_string()));
                writeln!(f, "  {name:width$}  {taken:>12} {given:>12}")?;
            }
        }
        Ok(())
    }
}

fn write_service(service: &ServiceReport, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let ServiceReport { name, state, calls, errors, p50, p99, setup, cleanup, pipeline, .. } = service;
    write!(f, "  service {}: {state}, {}", Short(name, LINE_CHARS), Amount(*calls, "call"))?;
    if *errors > 0 {
        write!(f, ", {}", Amount(*errors, "error"))?;
    }
    if let Some(pipeline) = pipeline {
        for (count, what) in [(pipeline.unanswered, "unanswered"), (pipeline.answered_again, "answered again")] {
            if count > 0 {
                write!(f, ", {count} {what}")?;
            }
        }
    }
    for (what, time) in [("p50", p50), ("p99", p99), ("setup", setup), ("cleanup", cleanup)] {
        if let Some(time) = time {
            write!(f, ", {what} {time:.1?}")?;
        }
    }
    writeln!(f)?;
    service
        .lost
        .iter()
        .try_for_each(|how| writeln!(f, "    lost, another took its place: {}", Short(how, LINE_CHARS)))?;
    service.policy.iter().try_for_each(|policy| {
        write_policy(policy, f)?;
        policy.tallies.iter().try_for_each(|tally| write_tally(tally, f))
    })
}

/// What was read from a service's answers of one kind.
fn write_tally(tally: &TallyFigures, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let kind: Vec<_> = tally.of.values().map(String::as_str).collect();
    let kind = if kind.is_empty() { "tally".to_owned() } else { kind.join(" ") };
    write!(f, "    {}:", Short(&kind, LINE_CHARS))?;
    for (number, (name, sum)) in tally.sums.iter().enumerate() {
        write!(f, "{} {name} {}", if number > 0 { "," } else { "" }, (sum * 1e6).round() / 1e6)?;
    }
    writeln!(f)
}

/// What a service's policy did, if it did more than let calls through.
fn write_policy(policy: &PolicyReport, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let caches = || policy.kept.iter().map(|kept| &kept.cache);
    let in_caches: u64 = caches().map(|cache| cache.memory_hits + cache.disk_hits).sum();
    let [hits, uncached, begun] = policy
        .journal
        .as_ref()
        .map_or([0; 3], |journal| [journal.hits, journal.uncached, journal.begun_not_ended.len() as u64]);
    let uncached = uncached + caches().map(|cache| cache.uncached).sum::<u64>();
    let counts = [
        (policy.retries.scheduled, "retry", "retries"),
        (policy.timed_out, "timeout", "timeouts"),
        (policy.refused, "refused", "refused"),
        (policy.failed, "failed", "failed"),
        (policy.fallbacks, "fallback", "fallbacks"),
        (policy.batches, "batch", "batches"),
        (in_caches + hits, "kept answer used", "kept answers used"),
        (uncached, "answer not kept", "answers not kept"),
        (begun, "call perhaps made twice", "calls perhaps made twice"),
        (policy.outages, "outage", "outages"),
        (policy.held, "held", "held"),
        (policy.made_again, "made again", "made again"),
        (policy.concurrency.as_ref().map_or(0, |it| it.replaced), "slot replaced", "slots replaced"),
    ];
    if counts.iter().all(|(count, ..)| *count == 0) {
        return Ok(());
    }
    write!(f, "    policy: {}, {}", Amount(policy.calls, "call"), Amount(policy.attempts, "attempt"))?;
    for (count, one, several) in counts.into_iter().filter(|(count, ..)| *count > 0) {
        write!(f, ", {count} {}", if count == 1 { one } else { several })?;
    }
    for (what, time) in [("p50", policy.p50), ("p99", policy.p99)] {
        if let Some(time) = time {
            write!(f, ", {what} {time:.1?}")?;
        }
    }
    writeln!(f)
}

/// How much of a name a table shows. A longer one makes the table no wider; the report's data has all of it.
const TABLE_CHARS: usize = 60;

/// A number of things, in words.
struct Amount(u64, &'static str);

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}{}", self.0, self.1, if self.0 == 1 { "" } else { "s" })
    }
}
