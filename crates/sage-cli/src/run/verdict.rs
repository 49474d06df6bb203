//! How a program ended, and why: what follows from what is known.
//!
//! A success is what the program says itself, with exit code 0. But a program that was asked to end by a cancel, or
//! whose time was over, has to have succeeded by the reports of its jobs.

use std::time::Duration;

use nix::sys::signal::Signal;
use sage::Outcome;
use sage_api::message::Command;

use super::bounds::amount;
use super::ended::{Ended, name_of};
use super::message::How;
use super::reports::line;

/// The exit codes of programs that were ended by SIGINT and SIGTERM.
const BY_SIGNAL: [i32; 2] = [128 + Signal::SIGINT as i32, 128 + Signal::SIGTERM as i32];

impl Ended {
    /// How it ended.
    pub(super) fn outcome(&self) -> Outcome {
        if self.not_started.is_some() {
            return Outcome::Failed;
        }
        if self.is_lost {
            return Outcome::Lost;
        }
        if self.out_of_time.is_some() && !self.has_succeeded() {
            return Outcome::TimedOut;
        }
        if self.is_killed || self.at_once.is_some() {
            return Outcome::Cancelled;
        }
        if self.has_succeeded() {
            return Outcome::Succeeded;
        }
        match &self.reports.worst {
            Some((outcome @ (Outcome::Cancelled | Outcome::TimedOut), _)) => return *outcome,
            Some(_) => return Outcome::Failed,
            None => {}
        }
        if self.asked == Some(Command::Cancel) || self.is_signalled || self.was_ended_by_signal() {
            return Outcome::Cancelled;
        }
        Outcome::Failed
    }

    /// Why it did not succeed, or what is left, in a line.
    pub(super) fn why(&self) -> Option<String> {
        let why = match self.outcome() {
            Outcome::Succeeded => None,
            Outcome::Lost => Some("the process that watched it was killed, so it was ended".to_owned()),
            Outcome::TimedOut if self.out_of_time.is_some() => {
                let time = self.out_of_time.unwrap_or_default();
                Some(format!("its time of {} was over", humantime::format_duration(time)))
            }
            _ if let Some(number) = self.at_once => {
                Some(format!("ended at once by the third signal, {}", name_of(number)))
            }
            _ if self.is_killed => Some("killed".to_owned()),
            _ if let Some(error) = &self.not_started => Some(format!("it could not be started: {error}")),
            _ if let Some((_, why)) = &self.reports.worst => Some(why.clone()),
            Outcome::Cancelled if self.asked == Some(Command::Cancel) => Some("cancelled".to_owned()),
            _ => self.end_in_words(),
        };
        let left = self.left_in_words();
        match (why, left) {
            (None, left) => left,
            (why, None) => why.map(|why| line(&why)),
            (Some(why), Some(left)) => Some(format!("{}; {left}", line(&why))),
        }
    }

    fn end_in_words(&self) -> Option<String> {
        if let Some(words) = self.bound_in_words() {
            return Some(words);
        }
        Some(match self.how? {
            How::Exited(code) if BY_SIGNAL.contains(&code) => format!("ended by {}", name_of(code - 128)),
            How::Exited(code) => format!("it ended with exit code {code}"),
            How::Signalled(number) => format!("killed by {}", name_of(number)),
        })
    }

    /// The bound that ended it, as far as that is known.
    pub(super) fn bound_in_words(&self) -> Option<String> {
        if self.how == Some(How::Exited(0)) {
            return None;
        }
        if let Some(bytes) = self.out_of_memory {
            return Some(format!("it took more than {} of memory", amount(bytes)));
        }
        let cpu = |time| format!("it used processors for more than {}", humantime::format_duration(time));
        let How::Signalled(number) = self.how? else { return None };
        match Signal::try_from(number).ok()? {
            Signal::SIGXCPU => Some(cpu(self.cpu_of_each?)),
            // It comes to those who do not heed the other.
            Signal::SIGKILL => {
                let was_used = |time: &Duration| u128::from(self.usage.cpu_ms) >= time.as_millis();
                self.cpu_of_each.filter(was_used).map(cpu)
            }
            Signal::SIGABRT => {
                let bytes = amount(self.memory_of_each?);
                Some(format!("killed by SIGABRT, perhaps because its processes may have only {bytes} of memory each"))
            }
            _ => None,
        }
    }

    fn left_in_words(&self) -> Option<String> {
        let named = |words: &str, names: &[String]| (!names.is_empty()).then(|| format!("{words}{}", names.join(", ")));
        let ended = if self.is_lost || self.is_killed { &[][..] } else { &self.left.ended };
        let left = [
            named("could not be killed: ", &self.left.there),
            named("left ", &self.not_cleaned),
            named("not clean: ", &self.reports.left()),
            named("left processes, which were ended: ", ended),
        ];
        let left: Vec<_> = left.into_iter().flatten().collect();
        (!left.is_empty()).then(|| line(&left.join("; ")))
    }

    fn has_succeeded(&self) -> bool {
        let was_to_end_early = self.asked == Some(Command::Cancel) || self.out_of_time.is_some();
        self.how == Some(How::Exited(0)) && (!was_to_end_early || self.reports.all_succeeded())
    }

    fn was_ended_by_signal(&self) -> bool {
        match self.how {
            Some(How::Exited(code)) => BY_SIGNAL.contains(&code),
            Some(How::Signalled(number)) => [Signal::SIGINT, Signal::SIGTERM].iter().any(|it| *it as i32 == number),
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::{Left, Usage};
    use super::*;

    fn is(ended: &Ended) -> (Outcome, u8, String) {
        (ended.outcome(), ended.exit_code(), ended.why().unwrap_or_default())
    }

    fn exited(code: i32) -> Ended {
        Ended { how: Some(How::Exited(code)), ..Ended::default() }
    }

    fn killed(number: i32) -> Ended {
        Ended { how: Some(How::Signalled(number)), ..Ended::default() }
    }

    #[test]
    fn a_bound_that_was_exceeded_is_the_reason() {
        let ended = Ended { out_of_memory: Some(64 << 20), ..killed(9) };
        assert_eq!(is(&ended), (Outcome::Failed, 1, "it took more than 64 MiB of memory".into()));
        assert_eq!(ended.lines("app"), ["app was ended: it took more than 64 MiB of memory"]);
        // A process of it was killed, and the program went on.
        assert_eq!(is(&Ended { out_of_memory: Some(1), ..exited(0) }), (Outcome::Succeeded, 0, String::new()));
        let ended = Ended { memory_of_each: Some(1536), ..killed(6) };
        let why = "killed by SIGABRT, perhaps because its processes may have only 1536 bytes of memory each";
        assert_eq!(is(&ended), (Outcome::Failed, 1, why.into()));
        let time = Some(Duration::from_secs(90));
        let ended = Ended { cpu_of_each: time, ..killed(Signal::SIGXCPU as i32) };
        assert_eq!(is(&ended), (Outcome::Failed, 1, "it used processors for more than 1m 30s".into()));
        let late = Ended { cpu_of_each: time, usage: Usage { peak_bytes: 0, cpu_ms: 95_000 }, ..killed(9) };
        assert_eq!(is(&late).2, "it used processors for more than 1m 30s");
        let early = Ended { usage: Usage::default(), ..late };
        assert_eq!(is(&early).2, "killed by SIGKILL");
    }

    #[test]
    fn what_was_asked_for_is_no_failure_and_no_success() {
        let asked = |asked, ended| Ended { asked: Some(asked), ..ended };
        assert_eq!(is(&asked(Command::Drain, exited(0))), (Outcome::Succeeded, 0, String::new()));
        assert_eq!(is(&asked(Command::Cancel, exited(0))), (Outcome::Cancelled, 1, "cancelled".into()));
        assert_eq!(is(&asked(Command::Cancel, exited(1))), (Outcome::Cancelled, 1, "cancelled".into()));
        assert_eq!(is(&asked(Command::Drain, exited(1))).0, Outcome::Failed);
        let timed = Ended { out_of_time: Some(Duration::from_secs(300)), ..killed(9) };
        assert_eq!(is(&timed), (Outcome::TimedOut, 1, "its time of 5m was over".into()));
        let at_once = Ended { at_once: Some(15), is_killed: true, ..Ended::default() };
        assert_eq!(is(&at_once), (Outcome::Cancelled, 143, "ended at once by the third signal, SIGTERM".into()));
    }

    #[test]
    fn what_cannot_be_killed_is_named_whatever_else() {
        let left = Left { ended: vec!["a (process 1)".into()], there: vec!["b (process 2)".into()] };
        let killed = Ended { is_killed: true, left: left.clone(), ..Ended::default() };
        assert_eq!(is(&killed), (Outcome::Cancelled, 3, "killed; could not be killed: b (process 2)".into()));
        let lost = Ended { is_lost: true, left, ..Ended::default() };
        assert_eq!((lost.outcome(), lost.exit_code()), (Outcome::Lost, 3));
        assert_eq!(lost.program_end().left, ["b (process 2)"]);
    }
}
