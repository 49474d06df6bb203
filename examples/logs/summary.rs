//! The result of a run, in words and as JSON.

use std::fmt;
use std::fs::Permissions;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use sage::{BoxError, JobReport};
use serde_json::json;

use crate::jobs::Task;
use crate::notes::Notes;

/// A run that is over.
pub struct Summary<'a> {
    /// The task.
    pub task: &'a Task,
    /// The notes taken meanwhile.
    pub notes: &'a Notes,
    /// The report of the job that counts.
    pub counted: &'a JobReport,
    /// The report of the job that tries again; `None` if it did not run.
    pub replayed: Option<&'a JobReport>,
}

fn records(report: &JobReport, operator: &str) -> u64 {
    report.operator(operator).map_or(0, |operator| operator.records_out)
}

impl Summary<'_> {
    /// The signal that ended a job, if one did.
    pub fn signal(&self) -> Option<i32> {
        self.counted.signal().or_else(|| self.replayed?.signal())
    }

    fn read(&self) -> u64 {
        records(self.counted, "read")
    }

    fn malformed(&self) -> u64 {
        self.counted.operator("parse").map_or(0, |operator| operator.failed)
    }

    fn late(&self) -> u64 {
        self.counted.operator("count").map_or(0, |operator| operator.late)
    }

    fn lines_per_second(&self) -> u64 {
        (self.read() as f64 / self.counted.elapsed.as_secs_f64().max(1e-9)) as u64
    }

    /// Writes the numbers and the jobs' reports to a file that appears when it is complete.
    pub fn write(&self, path: &Path) -> Result<(), BoxError> {
        let (passed_over, named) = self.notes.all_passed_over();
        let json = json!({
            "files": self.task.files.len(),
            "passed_over": passed_over,
            "passed_over_named": named,
            "lines": self.read(),
            "parsed": self.read() - self.malformed(),
            "late": self.late(),
            "malformed": self.malformed(),
            "windows": records(self.counted, "print"),
            "recovered": self.replayed.map(|report| records(report, "recovered")),
            "still_bad": self.replayed.map(|report| records(report, "still-bad")),
            "lines_per_second": self.lines_per_second(),
            "job": self.counted,
            "replay": self.replayed,
        });
        let text = serde_json::to_string_pretty(&json)? + "\n";
        self.write_whole(path, text.as_bytes())
            .map_err(|error| format!("the report `{}` cannot be written: {error}", path.display()).into())
    }

    fn write_whole(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        // A device or a pipe is written in place.
        if path.exists() && !path.is_file() {
            return std::fs::write(path, bytes);
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut builder = tempfile::Builder::new();
        let mut file = builder.prefix(".logs-").permissions(Permissions::from_mode(0o666)).tempfile_in(folder)?;
        file.write_all(bytes)?;
        file.persist(path)?;
        Ok(())
    }
}

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (read, malformed, late) = (self.read(), self.malformed(), self.late());
        let file = |name: &str| self.task.out.join(name).display().to_string();
        let (windows, dead) = (records(self.counted, "print"), file("dead-letters.jsonl"));
        let (files, seconds) = (self.task.files.len(), self.counted.elapsed.as_secs_f64());
        writeln!(f, "\n{read} lines of {files} files in {seconds:.2} s, {} lines/s", self.lines_per_second())?;
        writeln!(f, "{:>10} counted, in {windows} windows: {}", read - malformed - late, file("windows.jsonl"))?;
        writeln!(f, "{late:>10} late: {}", file("late.jsonl"))?;
        writeln!(f, "{malformed:>10} malformed: {dead}")?;
        if let Some(replayed) = self.replayed.filter(|_| malformed > 0) {
            let (recovered, bad) = (records(replayed, "recovered"), records(replayed, "still-bad"));
            writeln!(f, "the malformed lines, read again:")?;
            writeln!(f, "{recovered:>10} recovered: {}", file("recovered.jsonl"))?;
            for (how, lines) in self.notes.all_mended().filter(|(_, lines)| *lines > 0) {
                writeln!(f, "{lines:>14} {}", how.words())?;
            }
            writeln!(f, "{bad:>10} still bad: {}", file("still-bad.jsonl"))?;
        }
        let (passed_over, named) = self.notes.all_passed_over();
        if passed_over > 0 {
            writeln!(f, "{passed_over} passed over, or not read to the end:")?;
            named.iter().try_for_each(|what| writeln!(f, "  {what}"))?;
        }
        match passed_over - named.len() as u64 {
            0 => {}
            more => writeln!(f, "  and {more} more; --verbose names them all")?,
        }
        for note in [Some(self.counted), self.replayed].into_iter().flatten().flat_map(|report| &report.notes) {
            writeln!(f, "{note}")?;
        }
        if self.signal().is_some() {
            let which = if self.replayed.is_some() { "those of the second reading" } else { "the files named above" };
            writeln!(f, "stopped by a signal before the end: {which} are as they were before")?;
        }
        Ok(())
    }
}
