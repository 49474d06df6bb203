//! The time of a line of a log: hand-written, one pass, no allocation.
//!
//! [`leading`] reads a time at the place where logs have theirs; [`anywhere`] takes any time in the line. Both know
//! nothing of files and jobs.

/// Assumptions about times that leave something out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Assumed {
    /// Milliseconds that local time is ahead of UTC, for times without an offset.
    pub offset_ms: i64,
    /// For times without a year, as syslog has them.
    pub year: Year,
}

/// Which year a time without one is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Year {
    /// This one.
    Is(i64),
    /// The latest year in which the time is at most a day after this moment, in milliseconds since 1970, at which the
    /// file was last written. So in a file last written in January, December belongs to the year before.
    Before(i64),
}

/// How a time is written, which decides what may follow it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// With a year first, or a weekday, or as a number.
    Plain,
    /// `Oct 11 22:14:15`.
    Syslog,
    /// `10/Oct/2000:13:55:36 -0700`, the access logs of web servers.
    Common,
}

/// A time that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Milliseconds since 1970-01-01 00:00 UTC.
    pub millis: i64,
    /// Where the text behind it begins, in bytes.
    pub end: usize,
    /// How it is written.
    pub form: Form,
}

const DAY_MS: i64 = 86_400_000;
/// The time of an access log begins within so many bytes of a line.
const FRONT_BYTES: usize = 256;
/// Numbers of ten digits count as seconds since 1970 if they are before 2100; they begin in September 2001.
const EPOCH_SECONDS: std::ops::Range<i64> = 1_000_000_000..4_102_444_800;
/// What a time begins with after a weekday, or without one; a table of months in the order of the year.
const MONTHS: [&[u8]; 12] =
    [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];
const WEEKDAYS: [&[u8]; 7] = [b"Mon", b"Tue", b"Wed", b"Thu", b"Fri", b"Sat", b"Sun"];

/// The time a line begins with, perhaps in brackets or behind a syslog priority; or that of an access log, behind the
/// client's address and name.
pub fn leading(line: &str, assumed: &Assumed) -> Option<Stamp> {
    let mut scan = Scan { bytes: line.as_bytes(), at: 0 };
    scan.priority();
    if matches!(scan.peek(), Some(b'[' | b'(')) {
        scan.at += 1;
    }
    if let Some(stamp) = scan.stamp(assumed, false) {
        return Some(stamp);
    }
    let front = &scan.bytes[..scan.bytes.len().min(FRONT_BYTES)];
    let bracket = front.windows(4).position(|four| four[0] == b'[' && four[1].is_ascii_digit() && four[3] == b'/')?;
    Scan { bytes: scan.bytes, at: bracket + 1 }.stamp(assumed, false).filter(|stamp| stamp.form == Form::Common)
}

/// The first time in a line, wherever it is; also seconds, milliseconds, microseconds or nanoseconds since 1970.
pub fn anywhere(line: &str, assumed: &Assumed) -> Option<Stamp> {
    let bytes = line.as_bytes();
    (0..bytes.len())
        .filter(|&at| bytes[at].is_ascii_alphanumeric() && (at == 0 || !bytes[at - 1].is_ascii_alphanumeric()))
        .find_map(|at| Scan { bytes, at }.stamp(assumed, true))
}

/// A moment as RFC 3339 has it, in UTC, with milliseconds where there are any.
pub fn to_text(millis: i64) -> String {
    let (days, in_day) = (millis.div_euclid(DAY_MS), millis.rem_euclid(DAY_MS));
    let (year, month, day) = civil(days);
    let (seconds, part) = (in_day / 1000, in_day % 1000);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let whole = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
    if part == 0 { whole + "Z" } else { format!("{whole}.{part:03}Z") }
}

/// A place in a line. Each method reads what it is named after and moves on, or gives `None`, after which the place is
/// of no use.
#[derive(Clone, Copy)]
struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Scan<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn byte(&mut self, wanted: u8) -> Option<()> {
        (self.peek()? == wanted).then(|| self.at += 1)
    }

    /// A number of exactly so many digits.
    fn digits(&mut self, count: usize) -> Option<i64> {
        let digits = self.bytes.get(self.at..self.at + count)?;
        self.at += count;
        digits.iter().try_fold(0, |n, byte| byte.is_ascii_digit().then(|| n * 10 + i64::from(byte - b'0')))
    }

    /// How many digits there are from here on.
    fn run(&self) -> usize {
        self.bytes[self.at..].iter().take_while(|byte| byte.is_ascii_digit()).count()
    }

    /// A day of the month: two digits, a blank and a digit, or, before something else, one digit.
    fn day(&mut self) -> Option<i64> {
        if self.peek()? == b' ' {
            self.at += 1;
        }
        let count = self.run();
        self.digits(count.clamp(1, 2))
    }

    fn name(&mut self, names: &[&[u8]]) -> Option<i64> {
        let name = self.bytes.get(self.at..self.at + 3)?;
        self.at += 3;
        (1..).zip(names).find(|(_, known)| **known == name).map(|(number, _)| number)
    }

    /// `<34>` or `<34>1 `, if it is there.
    fn priority(&mut self) {
        let mut ahead = *self;
        let read = ahead.byte(b'<').is_some() && (1..=3).contains(&ahead.run()) && {
            ahead.at += ahead.run();
            ahead.byte(b'>').is_some()
        };
        if read {
            *self = ahead;
            if self.bytes[self.at..].starts_with(b"1 ") {
                self.at += 2;
            }
        }
    }

    /// A time in any form. `lax` takes finer numbers than seconds since 1970 as well.
    fn stamp(&mut self, assumed: &Assumed, lax: bool) -> Option<Stamp> {
        let (millis, form) = match self.peek()? {
            b'0'..=b'9' => match (self.run(), self.bytes.get(self.at + self.run())) {
                (4, Some(b'-' | b'/')) => (self.year_first(assumed)?, Form::Plain),
                (2, Some(b'/')) => (self.common(assumed)?, Form::Common),
                (1 | 2, Some(b' ')) => (self.mail(assumed)?, Form::Plain),
                (10, _) => (self.epoch(1)?, Form::Plain),
                (digits @ (13 | 16 | 19), _) if lax => (self.epoch(10_i64.pow(digits as u32 - 10))?, Form::Plain),
                _ => return None,
            },
            b'A'..=b'Z' => {
                let mut weekday = *self;
                if weekday.name(&WEEKDAYS).is_some() {
                    *self = weekday;
                    let comma = self.byte(b',').is_some();
                    self.byte(b' ')?;
                    (if comma { self.mail(assumed)? } else { self.year_last(assumed)? }, Form::Plain)
                } else {
                    (self.syslog(assumed)?, Form::Syslog)
                }
            }
            _ => return None,
        };
        let ends = !self.peek().is_some_and(|byte| byte.is_ascii_alphanumeric());
        ends.then_some(Stamp { millis, end: self.at, form })
    }

    /// `2000-10-11T22:14:15.003Z`, `2000-10-11 22:14:15,003`, `2000/10/11 22:14:15`.
    fn year_first(&mut self, assumed: &Assumed) -> Option<i64> {
        let year = self.digits(4)?;
        let between = self.peek()?;
        self.byte(between)?;
        let month = self.digits(2)?;
        self.byte(between)?;
        let day = self.digits(2)?;
        matches!(self.peek()?, b'T' | b't' | b' ' | b'_').then(|| self.at += 1)?;
        let time = self.clock()?;
        Some(days(year, month, day)? * DAY_MS + time - self.offset(assumed)?)
    }

    /// `10/Oct/2000:13:55:36 -0700`.
    fn common(&mut self, assumed: &Assumed) -> Option<i64> {
        let day = self.digits(2)?;
        self.byte(b'/')?;
        let month = self.name(&MONTHS)?;
        self.byte(b'/')?;
        let year = self.digits(4)?;
        self.byte(b':')?;
        let time = self.clock()?;
        Some(days(year, month, day)? * DAY_MS + time - self.offset(assumed)?)
    }

    /// `11 Oct 2000 22:14:15 +0200`, as in mail and changelogs.
    fn mail(&mut self, assumed: &Assumed) -> Option<i64> {
        let day = self.day()?;
        self.byte(b' ')?;
        let month = self.name(&MONTHS)?;
        self.byte(b' ')?;
        let year = self.digits(4)?;
        self.byte(b' ')?;
        let time = self.clock()?;
        Some(days(year, month, day)? * DAY_MS + time - self.offset(assumed)?)
    }

    /// `Oct 11 22:14:15.003 2000`, behind a weekday.
    fn year_last(&mut self, assumed: &Assumed) -> Option<i64> {
        let (month, day, time) = self.month_day_time()?;
        self.byte(b' ')?;
        Some(days(self.digits(4)?, month, day)? * DAY_MS + time - assumed.offset_ms)
    }

    /// `Oct 11 22:14:15`.
    fn syslog(&mut self, assumed: &Assumed) -> Option<i64> {
        let (month, day, time) = self.month_day_time()?;
        let of = |year| Some(days(year, month, day)? * DAY_MS + time - assumed.offset_ms);
        match assumed.year {
            Year::Is(year) => of(year),
            Year::Before(latest) => {
                let latest = latest.saturating_add(DAY_MS);
                let (year, ..) = civil((latest + assumed.offset_ms).div_euclid(DAY_MS));
                // The 29th of February is in one year of four, or of eight.
                (0..=8).find_map(|back| of(year - back).filter(|&millis| millis <= latest))
            }
        }
    }

    fn month_day_time(&mut self) -> Option<(i64, i64, i64)> {
        let month = self.name(&MONTHS)?;
        self.byte(b' ')?;
        let day = self.day()?;
        self.byte(b' ')?;
        Some((month, day, self.clock()?))
    }

    /// `22:14:15`, perhaps with a fraction: milliseconds of the day. Second 60 is a leap second, the first of the next
    /// minute.
    fn clock(&mut self) -> Option<i64> {
        let hour = self.digits(2).filter(|&hour| hour < 24)?;
        self.byte(b':')?;
        let minute = self.digits(2).filter(|&minute| minute < 60)?;
        self.byte(b':')?;
        let second = self.digits(2).filter(|&second| second <= 60)?;
        Some(((hour * 60 + minute) * 60 + second) * 1000 + self.fraction())
    }

    /// `.5` or `,003`, if it is there: milliseconds, the rest cut off.
    fn fraction(&mut self) -> i64 {
        let mut ahead = *self;
        if !matches!(ahead.peek(), Some(b'.' | b',')) {
            return 0;
        }
        ahead.at += 1;
        let digits = ahead.run();
        if digits == 0 {
            return 0;
        }
        let millis = (0..3).fold(0, |n, place| {
            let digit = if place < digits { i64::from(ahead.bytes[ahead.at + place] - b'0') } else { 0 };
            n * 10 + digit
        });
        self.at = ahead.at + digits;
        millis
    }

    /// `Z`, `+02:00`, `+0200`, `+02`, perhaps behind a blank, ` UTC` or ` GMT`; or nothing, and what is assumed then.
    /// `None` if it is impossible.
    fn offset(&mut self, assumed: &Assumed) -> Option<i64> {
        let mut ahead = *self;
        let blank = ahead.byte(b' ').is_some();
        let rest = &ahead.bytes[ahead.at..];
        let sign = match rest.first() {
            Some(b'Z' | b'z') if !blank => {
                self.at += 1;
                return Some(0);
            }
            Some(b'+') => 1,
            Some(b'-') => -1,
            _ if blank && (rest.starts_with(b"UTC") || rest.starts_with(b"GMT")) => {
                self.at += 4;
                return Some(0);
            }
            _ => return Some(assumed.offset_ms),
        };
        ahead.at += 1;
        let (run, then) = (ahead.run(), ahead.bytes.get(ahead.at + 2));
        let minutes = match (run, then) {
            (4, _) => ahead.digits(2)? * 60 + below_60(ahead.digits(2)?)?,
            (2, Some(b':')) => {
                let hours = ahead.digits(2)? * 60;
                ahead.at += 1;
                hours + below_60(ahead.digits(2)?)?
            }
            (2, _) if !blank => ahead.digits(2)? * 60,
            _ => return Some(assumed.offset_ms),
        };
        *self = ahead;
        (minutes < 24 * 60).then_some(sign * minutes * 60_000)
    }

    /// A number since 1970 of ten digits or more, of which the first ten are seconds, with or without a fraction.
    fn epoch(&mut self, per_second: i64) -> Option<i64> {
        let seconds = self.digits(10)?;
        let rest = match per_second {
            1 => self.fraction(),
            _ => self.digits(per_second.ilog10() as usize)? * 1000 / per_second,
        };
        EPOCH_SECONDS.contains(&seconds).then_some(seconds * 1000 + rest)
    }
}

fn below_60(minutes: i64) -> Option<i64> {
    (minutes < 60).then_some(minutes)
}

/// Days since 1970 of a date; `None` if there is no such date. Years are counted from March, so that a leap day is the
/// last day of its year, and in eras of 400 years, which are all equally long.
fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=length).contains(&day) {
        return None;
    }
    let year = year - i64::from(month <= 2);
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    Some(era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468)
}

/// The date of a day since 1970: year, month, day.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let (month, day) = (if shifted < 10 { shifted + 3 } else { shifted - 9 }, of_year - (153 * shifted + 2) / 5 + 1);
    (era * 400 + year + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests;
