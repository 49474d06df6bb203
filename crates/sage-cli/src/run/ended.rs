//! What has become of a program, as an exit code, in words and as JSON.

use nix::sys::signal::Signal;
use serde::Serialize;

use super::message::{How, Left};

/// What has become of a program.
#[derive(Debug, Default)]
pub(super) struct Ended {
    /// How it has ended; not known if it was ended with its warden.
    pub(super) how: Option<How>,
    /// Why it was not started.
    pub(super) not_started: Option<String>,
    pub(super) left: Left,
    /// Whether its warden was killed.
    pub(super) is_lost: bool,
    /// The number of the third signal, which ended it at once.
    pub(super) at_once: Option<i32>,
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
    /// What it left and had to be ended, and what could not be.
    left: &'a [String],
    there: &'a [String],
}

const FAILED: u8 = 1;
const UNCLEAN: u8 = 3;
/// As shells have it, plus the number of the signal.
const SIGNALLED: u8 = 128;

impl Ended {
    pub(super) fn exit_code(&self) -> u8 {
        if let Some(number) = self.at_once {
            return by_signal(number);
        }
        let is_left = !self.left.there.is_empty() || !self.left.ended.is_empty() && !self.is_lost;
        if is_left {
            return UNCLEAN;
        }
        match self.how {
            Some(How::Exited(code)) => match u8::try_from(code) {
                Ok(code @ (0..=3 | 130 | 143)) => code,
                _ => FAILED,
            },
            Some(How::Signalled(number)) => by_signal(number),
            None => FAILED,
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
        match self.how {
            Some(How::Exited(code)) if !matches!(code, 0..=3 | 130 | 143) => {
                lines.push(format!("{program} ended with exit code {code}"));
            }
            Some(How::Signalled(number)) => {
                let name = Signal::try_from(number).map_or_else(|_| format!("signal {number}"), |it| it.to_string());
                let maybe = if number == Signal::SIGKILL as i32 && self.at_once.is_none() {
                    ", perhaps because the system had no memory left"
                } else {
                    ""
                };
                lines.push(format!("{program} was killed by {name}{maybe}"));
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
        lines
    }

    pub(super) fn json(&self, program: &str) -> String {
        let exit_code = self.exit_code();
        let outcome = match exit_code {
            _ if self.is_lost => "lost",
            0 => "succeeded",
            UNCLEAN => "unclean",
            130 | 143 => "ended_by_signal",
            _ => "failed",
        };
        let (ended, error) = (self.how, self.not_started.as_deref());
        let Left { ended: left, there } = &self.left;
        let told = Told { program, outcome, exit_code, ended, error, left, there };
        serde_json::to_string(&told).unwrap_or_default()
    }
}

/// The exit code after a signal: that of the two which end a job in order, or of a failure.
fn by_signal(number: i32) -> u8 {
    match Signal::try_from(number) {
        Ok(Signal::SIGINT | Signal::SIGTERM) => SIGNALLED + number as u8,
        _ => FAILED,
    }
}
