//! The term of a line: the one word that lines are counted by.

use std::borrow::Cow;

use clap::ValueEnum;

use crate::time::{Form, Stamp};

/// What lines are counted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum By {
    /// The first of these that the line has: HTTP status of an access log, level, program, word
    Auto,
    /// The level: ERROR, WARN, INFO ... ; WARNING, ERR and the like count as one of these
    Level,
    /// The HTTP status of an access log
    Status,
    /// The program of a syslog line, without its process number
    Program,
    /// The first word behind the time
    Word,
    /// The file, below the folder
    File,
}

/// The term of a line that has none.
pub const NONE: &str = "-";
/// How many bytes behind the time to search for a level.
const LEVEL_BYTES: usize = 160;
const WORD_CHARS: usize = 40;

/// The term of a line whose time is known; `stamp` says where the text behind it begins.
pub fn term(by: By, text: &str, stamp: &Stamp, path: &str) -> Cow<'static, str> {
    // A time that a mended line was given lies in no line, and one may end inside of what was mended.
    let rest = text.get(stamp.end..).unwrap_or(text);
    let rest = rest.trim_start_matches(|c: char| c.is_whitespace() || matches!(c, ']' | ')' | ':' | '-' | '|' | ','));
    let found = match by {
        By::File => Some(path.to_owned().into()),
        By::Status => status(rest, stamp.form),
        By::Level => level(rest),
        By::Program => program(rest),
        By::Word => word(rest),
        By::Auto => status(rest, stamp.form).or_else(|| level(rest)).or_else(|| program(rest)).or_else(|| word(rest)),
    };
    found.unwrap_or(NONE.into())
}

/// `"GET / HTTP/1.1" 200 1234`: the three digits behind the request.
fn status(rest: &str, form: Form) -> Option<Cow<'static, str>> {
    if form != Form::Common {
        return None;
    }
    let request = rest.strip_prefix('"')?;
    request.match_indices("\" ").find_map(|(at, _)| {
        let behind = &request[at + 2..];
        let status = behind.get(..3).filter(|status| status.bytes().all(|byte| byte.is_ascii_digit()))?;
        let ends = behind.as_bytes().get(3).is_none_or(|&byte| byte == b' ');
        ends.then(|| status.to_owned().into())
    })
}

/// The first word that is a level. One in capitals counts wherever it stands; others where something marks them:
/// `[error]`, `level=warn`, `"level":"info"`, `error: ...`.
fn level(rest: &str) -> Option<Cow<'static, str>> {
    let bytes = &rest.as_bytes()[..rest.len().min(LEVEL_BYTES)];
    let mut at = 0;
    while at < bytes.len() {
        let length = bytes[at..].iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_').count();
        let word = &bytes[at..at + length];
        if let Some(level) = known(word) {
            let before = at.checked_sub(1).map(|before| bytes[before]);
            let behind = bytes.get(at + length);
            let marked =
                matches!(before, Some(b'[' | b'<' | b'=' | b'"' | b':')) || matches!(behind, Some(b']' | b':'));
            if marked || word.iter().all(u8::is_ascii_uppercase) {
                return Some(level.into());
            }
        }
        at += length.max(1);
    }
    None
}

fn known(word: &[u8]) -> Option<&'static str> {
    const LEVELS: [(&[u8], &str); 18] = [
        (b"ERROR", "ERROR"),
        (b"INFO", "INFO"),
        (b"WARN", "WARN"),
        (b"DEBUG", "DEBUG"),
        (b"TRACE", "TRACE"),
        (b"WARNING", "WARN"),
        (b"NOTICE", "NOTICE"),
        (b"FATAL", "FATAL"),
        (b"CRITICAL", "CRITICAL"),
        (b"ERR", "ERROR"),
        (b"CRIT", "CRITICAL"),
        (b"SEVERE", "ERROR"),
        (b"PANIC", "FATAL"),
        (b"ALERT", "ALERT"),
        (b"EMERG", "EMERGENCY"),
        (b"EMERGENCY", "EMERGENCY"),
        (b"LOG", "LOG"),
        (b"STATEMENT", "STATEMENT"),
    ];
    if !(3..=9).contains(&word.len()) {
        return None;
    }
    LEVELS.iter().find(|(name, _)| word.eq_ignore_ascii_case(name)).map(|(_, level)| *level)
}

/// `host sshd[12]: ...` or `sshd[12]: ...`: the word that ends in a colon, of the first two, unless it is a level.
fn program(rest: &str) -> Option<Cow<'static, str>> {
    let token = rest.split_ascii_whitespace().take(2).find_map(|token| token.strip_suffix(':'))?;
    let name = token.split_once('[').map_or(token, |(name, _)| name);
    let plain = !name.is_empty()
        && known(name.as_bytes()).is_none()
        && name.chars().all(|c| c.is_alphanumeric() || "-_./()@".contains(c));
    plain.then(|| name.to_owned().into())
}

fn word(rest: &str) -> Option<Cow<'static, str>> {
    let word = rest.split_whitespace().next()?.trim_matches(|c: char| !c.is_alphanumeric());
    (!word.is_empty()).then(|| word.chars().take(WORD_CHARS).collect::<String>().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::{Assumed, Year, leading};

    #[test]
    fn terms_of_real_lines() {
        let assumed = Assumed { offset_ms: 0, year: Year::Is(2000) };
        for (line, auto, level, program, word) in [
            ("2000-10-10 20:55:36,004 WARNING disk is full", "WARN", "WARN", "-", "WARNING"),
            ("2000-10-10T20:55:36Z  err=none level=error msg=x", "ERROR", "ERROR", "-", "err=none"),
            ("2000-10-10T20:55:36Z an error was seen", "an", "-", "-", "an"),
            ("2000-10-10T20:55:36Z ERRORS 3", "ERRORS", "-", "-", "ERRORS"),
            ("2000/10/10 20:55:36 [crit] 7#7: *1 connect() failed", "CRITICAL", "CRITICAL", "-", "crit"),
            ("[Tue Oct 10 20:55:36.1 2000] [core:error] [pid 1] x", "ERROR", "ERROR", "-", "core:error"),
            ("Oct 10 20:55:36 host sshd[12]: session opened", "sshd", "-", "sshd", "host"),
            ("Oct 10 20:55:36 host kernel: error: oops", "ERROR", "ERROR", "kernel", "host"),
            ("2000-10-10 20:55:36 status installed dpkg:amd64 1.22", "status", "-", "-", "status"),
            ("2000-10-10 20:55:36 UTC [7] LOG:  ready", "LOG", "LOG", "-", "7"),
            ("1.2.3.4 - - [10/Oct/2000:13:55:36 -0700] \"GET /ERROR\\\" 1\" 404 1", "404", "ERROR", "-", "GET"),
            ("2000-10-10 20:55:36", "-", "-", "-", "-"),
        ] {
            let stamp = leading(line, &assumed).unwrap();
            let of = |by| term(by, line, &stamp, "a/b.log").into_owned();
            assert_eq!(
                (of(By::Auto).as_str(), of(By::Level).as_str(), of(By::Program).as_str(), of(By::Word).as_str()),
                (auto, level, program, word),
                "{line:?}"
            );
            assert_eq!(of(By::File), "a/b.log");
            assert_eq!(of(By::Status), if auto == "404" { "404" } else { "-" }, "{line:?}");
        }
    }
}
