//! What the command prints: lines that begin with a mark, tables, times, and JSON.

use std::error::Error;
use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

use jiff::Timestamp;
use jiff::tz::TimeZone;
pub(crate) use sage_api::job::lasting;
use serde::Serialize;

/// Prints a line. Nobody reads what cannot be written.
pub(crate) fn line(text: impl Display) {
    let _ = writeln!(io::stdout(), "{text}");
}

/// Says that something was done.
pub(crate) fn done(text: impl Display) {
    line(format_args!("✅ {text}"));
}

/// Tells something.
pub(crate) fn note(text: impl Display) {
    line(format_args!("ℹ️ {text}"));
}

/// Says what went wrong, with its causes, and returns the exit code for it.
pub(crate) fn failed(error: &dyn Error, json: bool) -> u8 {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !words.contains(&more) {
            words = format!("{words}: {more}");
        }
        cause = error.source();
    }
    if json {
        object(&serde_json::json!({ "error": words }));
    }
    let _ = writeln!(io::stderr(), "❌ {words}");
    1
}

/// Prints JSON, indented.
pub(crate) fn object(value: &impl Serialize) {
    line(serde_json::to_string_pretty(value).unwrap_or_default());
}

/// A moment in milliseconds since 1970, as the clock on the wall shows it.
pub(crate) fn moment(at_ms: u64) -> String {
    let at = i64::try_from(at_ms).ok().and_then(|at| Timestamp::from_millisecond(at).ok());
    at.map_or_else(String::new, |at| at.to_zoned_datetime(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string())
}

/// A table with lines around its cells.
pub(crate) fn grid(head: &[&str], rows: &[Vec<String>]) {
    let wide = |text: &str| text.chars().count();
    let widths: Vec<usize> = (0..head.len())
        .map(|column| rows.iter().map(|row| wide(&row[column])).fold(wide(head[column]), usize::max))
        .collect();
    let rule = |fill: &str| {
        let cells: Vec<_> = widths.iter().map(|width| fill.repeat(width + 2)).collect();
        line(format_args!("+{}+", cells.join("+")));
    };
    let print = |cells: Vec<&str>| {
        let cells: Vec<_> = cells
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!(" {cell}{} ", " ".repeat(width - wide(cell))))
            .collect();
        line(format_args!("|{}|", cells.join("|")));
    };
    rule("-");
    print(head.to_vec());
    rule("=");
    for row in rows {
        print(row.iter().map(String::as_str).collect());
        rule("-");
    }
}

/// Asks whether to go on, if somebody is there who can answer.
pub(crate) fn confirmed(question: &str) -> bool {
    if !io::stdin().is_terminal() {
        return true;
    }
    let _ = write!(io::stderr(), "{question} [y/N]: ");
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).is_ok() && matches!(answer.trim(), "y" | "Y" | "yes")
}

/// How wide the terminal is, in characters.
pub(crate) fn width() -> usize {
    let told = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    told.unwrap_or(if io::stdout().is_terminal() { terminal_width() } else { 80 })
}

fn terminal_width() -> usize {
    let mut size = nix::libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: there is room for the answer.
    let asked = unsafe { nix::libc::ioctl(1, nix::libc::TIOCGWINSZ, &raw mut size) };
    if asked == 0 && size.ws_col > 0 { usize::from(size.ws_col) } else { 80 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_as_people_do() {
        let told = [0, 1499, 9_999, 10_000, 61_000, 3_723_000].map(lasting);
        assert_eq!(told, ["0.0s", "1.5s", "10.0s", "10s", "1m 1s", "1h 2m 3s"]);
    }
}
