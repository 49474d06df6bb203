//! What has become of a program: what is known of it, its exit code, and how it is told in words and as JSON.
//!
//! How it ended and why follows from that: see `verdict.rs`.

use std::time::Duration;

use nix::sys::signal::Signal;
use sage::{Cleanliness, Outcome};
use sage_api::message::Command;
use sage_api::outcome::ProgramEnd;
use serde::Serialize;

use super::bounds::Bounds;
use super::events::now_ms;
use super::message::{How, Left, Usage};
use super::reports::Reports;

/// What has become of a program.
#[derive(Debug, Default)]
pub(super) struct Ended {
    /// How it has ended; not known if it was ended with its warden.
    pub(super) how: Option<How>,
    /// Why it was not started.
    pub(super) not_started: Option<String>,
    /// Whether that was found before anything was started.
    pub(super) is_refused: bool,
    pub(super) left: Left,
    /// Whether its warden was killed, or what watched that.
    pub(super) is_lost: bool,
    /// The number of the third signal, which ended it at once.
    pub(super) at_once: Option<i32>,
    /// Whether it was killed because somebody asked for it.
    pub(super) is_killed: bool,
    /// Whether it was sent a signal that ends it.
    pub(super) is_signalled: bool,
    /// What its jobs were asked to end by.
    pub(super) asked: Option<Command>,
    /// Its time, if that was over.
    pub(super) out_of_time: Option<Duration>,
    /// What its jobs reported.
    pub(super) reports: Reports,
    /// What it has made outside of itself, and could not be removed, in words.
    pub(super) not_cleaned: Vec<String>,
    pub(super) usage: Usage,
    /// The memory that it may have, if it was killed because it took more.
    pub(super) out_of_memory: Option<u64>,
    /// The memory that each of its processes may have.
    pub(super) memory_of_each: Option<u64>,
    /// The time that each of its processes may use processors.
    pub(super) cpu_of_each: Option<Duration>,
}

#[derive(Serialize)]
struct Told<'a> {
    program: &'a str,
    outcome: &'static str,
    exit_code: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended: Option<How>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    /// The processes that it left and had to be ended, and what could not be.
    left: &'a [String],
    there: &'a [String],
    /// What its jobs left.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    jobs_left: Vec<String>,
}

const FAILED: u8 = 1;
/// What the command line has wrong, or a job's folder.
pub(super) const USAGE: u8 = 2;
const UNCLEAN: u8 = 3;
/// As shells have it, plus the number of the signal.
const SIGNALLED: u8 = 128;

impl Ended {
    /// Nothing was started.
    pub(super) fn refused(error: String) -> Self {
        Self { not_started: Some(error), is_refused: true, ..Self::default() }
    }

    /// Notes what its bounds had to do with its end.
    pub(super) fn take_note_of(&mut self, bounds: &Bounds) {
        self.out_of_memory = bounds.memory_exceeded();
        (self.memory_of_each, self.cpu_of_each) = (bounds.memory_of_each(), bounds.cpu());
    }

    pub(super) fn exit_code(&self) -> u8 {
        if let Some(number) = self.at_once {
            return by_signal(number);
        }
        if self.is_refused {
            return USAGE;
        }
        if self.is_left() || self.how == Some(How::Exited(UNCLEAN.into())) {
            return UNCLEAN;
        }
        match self.how {
            _ if self.outcome() == Outcome::Succeeded => 0,
            Some(How::Exited(code @ (1 | 2 | 130 | 143))) => u8::try_from(code).unwrap_or(FAILED),
            Some(How::Signalled(number)) if !self.is_killed => by_signal(number),
            _ => FAILED,
        }
    }

    /// Whether something was left, which may have been ended since.
    fn is_left(&self) -> bool {
        let had_to_be_ended = !self.left.ended.is_empty() && !self.is_lost && !self.is_killed;
        !self.left.there.is_empty() || !self.not_cleaned.is_empty() || had_to_be_ended || self.reports.is_unclean()
    }

    /// What is told to the job manager.
    pub(super) fn program_end(&self) -> ProgramEnd {
        let is_clean = !self.is_left() && self.how != Some(How::Exited(UNCLEAN.into()));
        let cleanliness = if is_clean { Cleanliness::Clean } else { Cleanliness::Unclean };
        let left = self.left.there.iter().chain(&self.not_cleaned).cloned().chain(self.reports.left()).collect();
        ProgramEnd {
            outcome: self.outcome(),
            cleanliness,
            exit_code: self.exit_code(),
            why: self.why(),
            ended: self.left.ended.clone(),
            left,
            at_ms: now_ms(),
            peak_bytes: self.usage.peak_bytes,
            cpu_ms: self.usage.cpu_ms,
        }
    }

    /// The lines that say what a user does not see otherwise.
    pub(super) fn lines(&self, program: &str) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(error) = &self.not_started {
            lines.push(format!("{program} could not be started: {error}"));
        } else if self.is_lost {
            lines.push(format!("the process that watched {program} was killed, so it was ended"));
        }
        if let Some(time) = self.out_of_time {
            lines.push(format!("{program} was ended: its time of {} was over", humantime::format_duration(time)));
        }
        match self.how {
            _ if let Some(words) = self.bound_in_words() => lines.push(format!("{program} was ended: {words}")),
            Some(How::Exited(code)) if !matches!(code, 0..=3 | 130 | 143) => {
                lines.push(format!("{program} ended with exit code {code}"));
            }
            Some(How::Signalled(number)) => {
                let expected = self.at_once.is_some() || self.is_killed;
                let maybe = if number == Signal::SIGKILL as i32 && !expected {
                    ", perhaps because the system had no memory left"
                } else {
                    ""
                };
                lines.push(format!("{program} was killed by {}{maybe}", name_of(number)));
            }
            _ => {}
        }
        if !self.left.ended.is_empty() && !self.is_lost {
            lines.push(format!("{program} left processes, which were ended: {}", self.left.ended.join(", ")));
        }
        if !self.left.there.is_empty() {
            let there = self.left.there.join(", ");
            lines.push(format!("{program} left processes that could not be killed, and are there: {there}"));
        }
        for left in &self.not_cleaned {
            lines.push(format!("{program} left {left}"));
        }
        for left in self.reports.left() {
            lines.push(format!("{program} is not clean: {left}"));
        }
        lines
    }

    pub(super) fn json(&self, program: &str) -> String {
        let exit_code = self.exit_code();
        let outcome = match exit_code {
            _ if self.is_lost => "lost",
            0 => "succeeded",
            UNCLEAN => "unclean",
            130 | 143 => "ended_by_signal",
            _ if self.out_of_time.is_some() => "timed_out",
            _ => "failed",
        };
        let (ended, error) = (self.how, self.not_started.as_deref());
        let Left { ended: left, there } = &self.left;
        let (why, mut jobs_left) = (self.why(), self.reports.left());
        jobs_left.extend(self.not_cleaned.iter().cloned());
        let told = Told { program, outcome, exit_code, ended, error, why, left, there, jobs_left };
        serde_json::to_string(&told).unwrap_or_default()
    }
}

/// The name of a signal, if it has one.
pub(super) fn name_of(number: i32) -> String {
    Signal::try_from(number).map_or_else(|_| format!("signal {number}"), |it| it.to_string())
}

/// The exit code after a signal: that of the two which end a job in order, or of a failure.
fn by_signal(number: i32) -> u8 {
    match Signal::try_from(number) {
        Ok(Signal::SIGINT | Signal::SIGTERM) => SIGNALLED + number as u8,
        _ => FAILED,
    }
}
