//! What the reports of a program's jobs come to.

use sage::{Cleanliness, JobReport, Outcome};

/// The most of what is left that is named.
const MOST_NAMED: usize = 20;
/// The most characters of a name or a reason.
const MOST_CHARACTERS: usize = 300;

/// What is kept of the reports.
#[derive(Debug, Default)]
pub(super) struct Reports {
    /// How many jobs are over.
    count: u64,
    /// How many of those reported that they succeeded.
    succeeded: u64,
    /// How the latest job ended that did not succeed, and why.
    pub(super) worst: Option<(Outcome, String)>,
    /// What they name as left.
    left: Vec<String>,
    left_count: usize,
}

impl Reports {
    pub(super) fn add(&mut self, report: &JobReport) {
        self.count += 1;
        if report.outcome == Outcome::Succeeded {
            self.succeeded += 1;
        } else {
            let cause = report.first_cause.as_ref().map(ToString::to_string);
            self.worst = Some((report.outcome, line(&cause.unwrap_or_else(|| report.reason.to_string()))));
        }
        if report.cleanliness == Cleanliness::Unclean {
            let named = report.left.iter().map(|left| line(&format!("{}: {}", left.what, left.why)));
            let room = MOST_NAMED.saturating_sub(self.left.len());
            self.left.extend(named.take(room));
            self.left_count += report.left.len().max(1);
        }
    }

    /// A job is gone without a report.
    pub(super) fn miss(&mut self) {
        self.count += 1;
    }

    /// Whether there were jobs, and all reported that they succeeded.
    pub(super) fn all_succeeded(&self) -> bool {
        self.count > 0 && self.succeeded == self.count
    }

    /// Whether a job has left something.
    pub(super) fn is_unclean(&self) -> bool {
        self.left_count > 0
    }

    /// What the jobs have left, by name.
    pub(super) fn left(&self) -> Vec<String> {
        let mut left = self.left.clone();
        if self.left_count > 0 && left.is_empty() {
            left.push("something that its job does not name".to_owned());
        } else if self.left_count > left.len() {
            left.push(format!("and {} more", self.left_count - left.len()));
        }
        left
    }
}

/// A text as one line that is not too long.
pub(super) fn line(text: &str) -> String {
    let mut line: String =
        text.chars().take(MOST_CHARACTERS).map(|it| if it.is_control() { ' ' } else { it }).collect();
    if line.len() < text.len() {
        line.push('…');
    }
    line.trim().to_owned()
}
