use proptest::prelude::*;

use super::*;

/// 2000-10-10T20:55:36Z.
const THEN: i64 = 971_211_336_000;
const UTC: Assumed = Assumed { offset_ms: 0, year: Year::Is(2000) };

#[test]
fn times_at_the_front() {
    for (line, millis, rest) in [
        ("2000-10-10T20:55:36Z up", THEN, " up"),
        ("2000-10-10t20:55:36z", THEN, ""),
        ("2000-10-10T20:55:36.1239Z", THEN + 123, ""),
        ("2000-10-10T22:55:36+02:00 up", THEN, " up"),
        ("2000-10-10T13:55:36.5-0700", THEN + 500, ""),
        ("2000-10-10T13:55:36-07", THEN, ""),
        ("2000-10-10T20:55:36", THEN, ""),
        ("2000-10-10 20:55:36,004 INFO up", THEN + 4, " INFO up"),
        ("2000-10-10 20:55:36.04 up", THEN + 40, " up"),
        ("2000-10-10 20:55:36, up", THEN, ", up"),
        ("2000-10-10 20:55:36 UTC [1] LOG", THEN, " [1] LOG"),
        ("2000-10-10 13:55:36 -0700 up", THEN, " up"),
        ("2000-10-10 20:55:36 -50 items", THEN, " -50 items"),
        ("2000-10-10 20:55:36 - up", THEN, " - up"),
        ("2000-10-10 20:55:36 status installed dpkg", THEN, " status installed dpkg"),
        ("[2000-10-10 20:55:36] up", THEN, "] up"),
        ("2000/10/10 20:55:36 [error] up", THEN, " [error] up"),
        ("Oct 10 20:55:36 host sshd[1]: up", THEN, " host sshd[1]: up"),
        ("<34>Oct 10 20:55:36 host su: up", THEN, " host su: up"),
        ("<165>1 2000-10-10T20:55:36.003Z host su - up", THEN + 3, " host su - up"),
        ("Oct  1 00:00:00 host", 970_358_400_000, " host"),
        ("Oct 1 00:00:00 host", 970_358_400_000, " host"),
        ("[Tue Oct 10 20:55:36.123456 2000] [core:error]", THEN + 123, "] [core:error]"),
        ("Tue, 10 Oct 2000 22:55:36 +0200", THEN, ""),
        ("1.2.3.4 - me [10/Oct/2000:13:55:36 -0700] \"GET /\" 200 1", THEN, "] \"GET /\" 200 1"),
        ("1971211336.25 up", 1_971_211_336_250, " up"),
        ("2000-02-29T00:00:00Z", 951_782_400_000, ""),
        ("1969-12-31T23:59:59.999Z", -1, ""),
        ("0001-01-01T00:00:00Z", -62_135_596_800_000, ""),
        ("2016-12-31T23:59:60Z", 1_483_228_800_000, ""),
    ] {
        let stamp = leading(line, &UTC).unwrap_or_else(|| panic!("no time in {line:?}"));
        assert_eq!((stamp.millis, &line[stamp.end..]), (millis, rest), "{line:?}");
    }
}

#[test]
fn what_is_no_time() {
    for line in [
        "",
        "up",
        "  2000-10-10T20:55:36Z indented",
        "2000-10-10",
        "2000-10-10T20:55",
        "2000-10-10T24:00:00Z",
        "2000-10-10T20:60:00Z",
        "2000-10-10T20:55:61Z",
        "2000-13-10T20:55:36Z",
        "2000-10-32T20:55:36Z",
        "1900-02-29T20:55:36Z",
        "2000-10/10T20:55:36Z",
        "2000-10-10T20:55:36+24:00",
        "2000-10-10T20:55:36+02:60",
        "2000-10-10T20:55:36Zulu",
        "2000-10-10T20:55:3\u{e9}",
        "Oct 32 20:55:36 host",
        "Okt 10 20:55:36 host",
        "Oct",
        "<1234>Oct 10 20:55:36 host",
        "Tue Oct 10 20:55:36 host",
        "[10/Oct/2000:13:55 -0700]",
        "1.2.3.4 - - [10/10/2000:13:55:36 -0700]",
        "971211336",
        "12345678901 up",
        "1971211336000 up",
        "9999999999 up",
        "update-alternatives 2000-10-10 20:55:36: up",
    ] {
        assert_eq!(leading(line, &UTC), None, "{line:?}");
    }
}

#[test]
fn times_anywhere() {
    for (line, millis) in [
        ("update-alternatives 2000-10-10 20:55:36: up", Some(THEN)),
        (r#"{"level":"info","time":"2000-10-10T20:55:36Z"}"#, Some(THEN)),
        (" -- A. Person <a@example.org>  Tue, 10 Oct 2000 22:55:36 +0200", Some(THEN)),
        ("ts=1971211336250 up", Some(1_971_211_336_250)),
        ("ts=1971211336250999 up", Some(1_971_211_336_250)),
        ("ts=1971211336250999999 up", Some(1_971_211_336_250)),
        ("caf\u{fffd} 2000-10-10 20:55:36 opens", Some(THEN)),
        ("id 11971211336250 is no time, nor is a1971211336", None),
        ("    at Main.run(Main.java:10)", None),
    ] {
        assert_eq!(anywhere(line, &UTC).map(|stamp| stamp.millis), millis, "{line:?}");
    }
}

/// What the file's last change says of the year: December's lines are of the year before a change in January, and a
/// line may be up to a day behind the change, for the clocks differ.
#[test]
fn a_year_that_is_left_out() {
    let at = |text| leading(text, &UTC).unwrap().millis;
    let year = |line, changed| {
        let assumed = Assumed { offset_ms: 0, year: Year::Before(at(changed)) };
        to_text(leading(line, &assumed).unwrap().millis)
    };
    assert_eq!(year("Jan  2 00:00:00 a", "2021-01-02T00:00:00Z"), "2021-01-02T00:00:00Z");
    assert_eq!(year("Dec 31 23:00:00 a", "2021-01-02T00:00:00Z"), "2020-12-31T23:00:00Z");
    assert_eq!(year("Jan  3 00:00:00 a", "2021-01-02T00:00:00Z"), "2021-01-03T00:00:00Z");
    assert_eq!(year("Jan  3 00:00:01 a", "2021-01-02T00:00:00Z"), "2020-01-03T00:00:01Z");
    assert_eq!(year("Jan  1 00:00:00 a", "2020-12-31T12:00:00Z"), "2021-01-01T00:00:00Z");
    assert_eq!(year("Feb 29 00:00:00 a", "2023-06-01T00:00:00Z"), "2020-02-29T00:00:00Z");
    assert_eq!(year("Feb 29 00:00:00 a", "1903-06-01T00:00:00Z"), "1896-02-29T00:00:00Z");
    assert_eq!(leading("Feb 29 00:00:00 a", &Assumed { year: Year::Is(2023), ..UTC }), None);
}

#[test]
fn an_offset_that_is_left_out() {
    let east = Assumed { offset_ms: 2 * 3_600_000, ..UTC };
    for line in ["2000-10-10 22:55:36 up", "Oct 10 22:55:36 host", "2000-10-10T20:55:36Z", "[Tue Oct 10 22:55:36 2000]"]
    {
        assert_eq!(leading(line, &east).map(|stamp| stamp.millis), Some(THEN), "{line:?}");
    }
}

proptest! {
    /// Every moment of the years 0 to 9999, written in each form, is read as what it was.
    #[test]
    fn a_time_that_was_written_is_read(
        millis in -62_167_219_200_000_i64..253_402_300_800_000,
        minutes in -1439_i64..1440,
    ) {
        let read = |text: &str, assumed: &Assumed| {
            leading(text, assumed).map(|stamp| (stamp.millis, stamp.end == text.len()))
        };
        let text = to_text(millis);
        prop_assert_eq!(read(&text, &UTC), Some((millis, true)), "{}", text);

        let (date, clock) = text.trim_end_matches('Z').split_once('T').unwrap();
        let assumed = Assumed { offset_ms: minutes * 60_000, ..UTC };
        let local = format!("{date} {}", clock.replace('.', ","));
        prop_assert_eq!(read(&local, &assumed), Some((millis - assumed.offset_ms, true)), "{}", local);
        let (sign, ahead) = (if minutes < 0 { '-' } else { '+' }, minutes.abs());
        let offset = format!("{date}T{clock}{sign}{:02}:{:02}", ahead / 60, ahead % 60);
        prop_assert_eq!(read(&offset, &UTC), Some((millis - assumed.offset_ms, true)), "{}", offset);

        let seconds = millis - millis.rem_euclid(1000);
        let (year, month, day) = (&date[..4], date[5..7].parse::<usize>().unwrap(), &date[8..]);
        let month = str::from_utf8(MONTHS[month - 1]).unwrap();
        let whole = &clock[..8];
        let syslog = format!("{month} {:>2} {whole}", day.trim_start_matches('0'));
        let of_year = Assumed { year: Year::Is(year.parse().unwrap()), ..UTC };
        prop_assert_eq!(read(&syslog, &of_year), Some((seconds, true)), "{}", syslog);
        let common = format!("host - - [{day}/{month}/{year}:{whole} +0000");
        prop_assert_eq!(read(&common, &UTC), Some((seconds, true)), "{}", common);
    }

    /// No line makes the reader panic, and what it reads ends within the line.
    #[test]
    fn any_line_can_be_read(line in ".{0,40}|[<\\[]{0,2}[0-9:/ TZJanOctMon.,+-]{0,40}") {
        for stamp in [leading(&line, &UTC), anywhere(&line, &UTC)].into_iter().flatten() {
            prop_assert!(line.is_char_boundary(stamp.end));
        }
    }
}
