//! Records that are not what they should be, in both ways of treating them.

use std::time::Duration;
use std::{fs, io};

use sage::{Cause, Environment, Retry, Source};
use sage_connectors::{BadLine, CsvSource, Encoding, Files, InputError, JsonlSink, JsonlSource, TextSource};
use serde::{Deserialize, Serialize};

use crate::{failure, folder, gzip, input_error, put, read, read_and_fail};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Price {
    fruit: String,
    price: u32,
}

/// What a lenient source gives, the bad ones as line, message and text.
fn told<T: Send + 'static>(records: Vec<Result<T, BadLine>>) -> Vec<Result<T, (u64, String, String)>> {
    records.into_iter().map(|record| record.map_err(|bad| (bad.line, bad.message, bad.text))).collect()
}

fn bad<T>(line: u64, message: &str, text: &str) -> Result<T, (u64, String, String)> {
    Err((line, message.to_owned(), text.to_owned()))
}

#[test]
fn a_line_that_is_no_json_fails_the_job_with_its_place() {
    let dir = folder();
    let path = put(&dir, "a.jsonl", "1\n\n  \n{\"a\": \n5\n");
    let (records, cause) = read_and_fail({
        let path = path.clone();
        move || JsonlSource::<u32>::new(path.clone())
    });
    assert_eq!(records, [1]);
    assert!(matches!(input_error(&cause), InputError::Malformed(BadLine { line: 4, .. })));
    assert!(cause.message.starts_with(&format!("{}:4: ", path.display())), "{}", cause.message);
}

#[test]
fn json_that_is_bad_comes_among_the_good() {
    let dir = folder();
    let text = b"1\r\n\"x\xFF\"\n300\n{\"a\":[1,2\n \n7 8\n9".to_vec();
    let path = put(&dir, "a.jsonl", text);
    let records = told(read(move || JsonlSource::<u8>::new(path.clone()).lenient()));
    let expected = [
        Ok(1),
        bad(2, "not valid UTF-8 after byte 2", "\"x\u{FFFD}\""),
        bad(3, "invalid value: integer `300`, expected u8 at column 3", "300"),
        bad(4, "invalid type: map, expected u8 at column 0", "{\"a\":[1,2"),
        bad(6, "trailing characters at column 3", "7 8"),
        Ok(9),
    ];
    assert_eq!(records, expected);
}

#[test]
fn json_nested_too_deep_is_bad_and_no_overflow() {
    let dir = folder();
    let path = put(&dir, "deep.jsonl", "[".repeat(1 << 20));
    let records = read(move || JsonlSource::<serde_json::Value>::new(path.clone()).lenient());
    assert!(records[0].as_ref().is_err_and(|bad| bad.message.contains("recursion")));
}

#[test]
fn text_that_is_not_utf8_fails_or_comes_among_the_good() {
    let dir = folder();
    let path = put(&dir, "a.txt", b"one\n\xC3(\nthree\n");
    let (lines, cause) = read_and_fail({
        let path = path.clone();
        move || TextSource::new(path.clone())
    });
    assert_eq!(lines.len(), 1);
    assert!(cause.message.ends_with("a.txt:2: not valid UTF-8 after byte 0"), "{}", cause.message);
    let lines = told(read(move || TextSource::new(path.clone()).lenient()));
    assert_eq!(lines[1], bad(2, "not valid UTF-8 after byte 0", "\u{FFFD}("));
    assert!(lines[2].as_ref().is_ok_and(|line| line.text == "three" && line.number == 3));
}

#[test]
fn csv_that_is_bad_comes_among_the_good() {
    let dir = folder();
    let text = b"fruit,price\r\n\
        pear,45\r\n\
        \r\n\
        plum,a lot\r\n\
        \"app\r\nle\",\"3\"\r\n\
        fig,1,2\r\n\
        fig\r\n\
        \"k\xFF\",4\r\n\
        lime,5\r\n\
        \"date, 6\n"
        .to_vec();
    let path = put(&dir, "a.csv", text);
    let price = |fruit: &str, price| Ok(Price { fruit: fruit.to_owned(), price });
    let records = told(read({
        let path = path.clone();
        move || CsvSource::<Price>::new(path.clone()).lenient()
    }));
    let expected = [
        price("pear", 45),
        bad(4, "field 2 (`price`): invalid digit found in string", "plum,a lot"),
        price("app\r\nle", 3),
        bad(7, "3 fields, where the first record of the file has 2", "fig,1,2"),
        bad(8, "1 fields, where the first record of the file has 2", "fig"),
        bad(9, "field 1 is not valid UTF-8", "\"k\u{FFFD}\",4"),
        price("lime", 5),
        bad(11, "a quoted field is open at the end of the file", "\"date, 6"),
    ];
    assert_eq!(records, expected);

    let (records, cause) = read_and_fail(move || CsvSource::<Price>::new(path.clone()));
    assert_eq!(records.len(), 1);
    assert!(cause.message.contains("a.csv:4: field 2 (`price`)"), "{}", cause.message);
}

#[test]
fn csv_errors_have_their_line_in_a_long_file_too() {
    let dir = folder();
    let mut text: String = (0..50_000).map(|number| format!("\"two\nlines\",{number}\n")).collect();
    text.push_str("bad,x\n");
    let path = put(&dir, "a.csv", text);
    let (records, cause) = read_and_fail(move || CsvSource::<(String, u32)>::new(path.clone()).headers(false));
    assert_eq!(records.len(), 50_000);
    let InputError::Malformed(told) = input_error(&cause) else { panic!("{}", cause.message) };
    assert_eq!((told.line, told.text.as_str()), (100_001, "bad,x"));
}

#[test]
fn csv_field_names_must_be_text_and_there() {
    let dir = folder();
    let path = put(&dir, "a.csv", b"fr\xFFuit,price\npear,45\n");
    let (_, cause) = read_and_fail(move || CsvSource::<Price>::new(path.clone()).lenient());
    assert!(matches!(input_error(&cause), InputError::Malformed(BadLine { line: 1, .. })), "{}", cause.message);
    let path = put(&dir, "b.csv", "fruit,cost\npear,45\n");
    let (_, cause) = read_and_fail(move || CsvSource::<Price>::new(path.clone()));
    assert!(cause.message.contains("b.csv:2: missing field `price`"), "{}", cause.message);
}

#[test]
fn a_delimiter_that_cannot_be_one_is_refused() {
    let dir = folder();
    let path = put(&dir, "a.csv", "1\n");
    for delimiter in [b'"', b'\n', b'\r', 0xE9] {
        let path = path.clone();
        let (_, cause) = read_and_fail(move || CsvSource::<(u8,)>::new(path.clone()).delimiter(delimiter));
        assert!(matches!(input_error(&cause), InputError::Option { option: "delimiter", .. }));
    }
}

#[test]
fn bad_lines_can_be_written_and_read_again() {
    let dir = folder();
    let path = put(&dir, "a.jsonl", "1\nzwei\n\"drei\"\n");
    let kept = dir.path().join("bad.jsonl");
    let into = kept.clone();
    let env = Environment::local("keep");
    let [good, rest] = env.from_source(move |_| JsonlSource::<u32>::new(path.clone()).lenient()).tee();
    let good = good.flat_map(Result::ok).collect();
    let [rest, also] = rest.flat_map(Result::err).tee();
    rest.sink_to(move |_| JsonlSink::new(into.clone()));
    let bad = also.collect();
    env.run().unwrap();
    assert_eq!(good.take(), [1]);
    let bad = bad.take();
    assert_eq!(bad.len(), 2);
    assert_eq!(read(move || JsonlSource::<BadLine>::new(kept.clone())), bad);
}

/// Texts in an encoding, read as lines, as JSON and as CSV; a line that is no text is an error with its place.
#[test]
fn text_in_other_encodings_is_read_and_what_is_none_is_malformed_with_its_line() {
    let dir = folder();
    let utf16 = |text: &str, unit: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(unit).collect::<Vec<u8>>();
    let text = "\"näh\"\r\n\"𝄞\"\n";
    let cases = [
        ("utf8", text.as_bytes().to_vec(), Encoding::Utf8, "\"𝄞\""),
        ("marked", format!("\u{FEFF}{text}").into_bytes(), Encoding::Utf8, "\"𝄞\""),
        ("lossy", b"\"n\xC3\xA4h\"\n\"\xFF\"".to_vec(), Encoding::Utf8Lossy, "\"\u{FFFD}\""),
        ("latin1", b"\"n\xE4h\"\n\"\xA4\"\n".to_vec(), Encoding::Latin1, "\"¤\""),
        ("utf16", utf16(&format!("\u{FEFF}{text}"), u16::to_be_bytes), Encoding::Utf16, "\"𝄞\""),
        ("utf16le", utf16(text, u16::to_le_bytes), Encoding::Utf16Le, "\"𝄞\""),
        ("utf16be", utf16(text, u16::to_be_bytes), Encoding::Utf16Be, "\"𝄞\""),
    ];
    for (name, bytes, encoding, second) in cases {
        for packed in [false, true] {
            let name = if packed { format!("{name}.gz") } else { name.to_owned() };
            let path = put(&dir, &name, if packed { gzip(&bytes) } else { bytes.clone() });
            let files = Files::path(path).encoding(encoding);
            let (text, json, csv) = (files.clone(), files.clone(), files);
            let lines = read(move || TextSource::new(text.clone()));
            assert_eq!(lines.into_iter().map(|line| line.text).collect::<Vec<_>>(), ["\"näh\"", second], "{name}");
            let inner = second.trim_matches('"').to_owned();
            assert_eq!(read(move || JsonlSource::<String>::new(json.clone())), ["näh".to_owned(), inner.clone()]);
            let records = read(move || CsvSource::<(String,)>::new(csv.clone()).headers(false));
            assert_eq!(records, [("näh".to_owned(),), (inner,)]);
        }
    }

    let mut half = utf16("ab\ncd\n", u16::to_le_bytes);
    half.splice(6..6, [0x00, 0xD8]);
    let path = put(&dir, "half", half);
    let files = Files::path(path.clone()).encoding(Encoding::Utf16);
    let (_, cause) = read_and_fail(move || TextSource::new(files.clone()));
    assert_eq!(cause.message, format!("{}:2: not valid UTF-16", path.display()));

    let path = put(&dir, "told", utf16("\u{FEFF}ab\n", u16::to_le_bytes));
    let (_, cause) = read_and_fail(move || TextSource::new(path.clone()));
    assert!(cause.message.contains("see `Files::encoding`"), "{}", cause.message);
}

#[test]
fn lone_carriage_returns_and_line_ends_of_unicode_end_no_line() {
    let dir = folder();
    let path = put(&dir, "ends", "one\rtwo\u{85}\u{2028}\u{2029}\u{b}\u{c}three\r\n\rfour");
    let lines = read(move || TextSource::new(path.clone()));
    let texts: Vec<_> = lines.into_iter().map(|line| line.text).collect();
    assert_eq!(texts, ["one\rtwo\u{85}\u{2028}\u{2029}\u{b}\u{c}three", "\rfour"]);
}

/// Retries, and what comes of them.
fn retried<S: Source>(source: impl Fn() -> S + Send + 'static) -> (Vec<S::Item>, Cause) {
    let env = Environment::local("retry").inline();
    let at_once = Retry::up_to(3).backoff(Duration::ZERO, Duration::ZERO);
    let records = env.from_source(move |_| source()).retry(at_once).collect();
    let cause = failure(&env);
    (records.take(), cause)
}

#[test]
fn what_could_not_be_read_is_not_passed_over_when_a_source_is_asked_again() {
    let dir = folder();
    let path = put(&dir, "bad.jsonl", "1\nx\n3\n");
    let (records, cause) = retried(move || JsonlSource::<u32>::new(path.clone()));
    assert_eq!(records, [1]);
    assert!(cause.message.contains("bad.jsonl:2: expected value"), "{}", cause.message);

    let packed = gzip("1\n".repeat(100_000));
    let path = put(&dir, "cut.jsonl.gz", &packed[..packed.len() / 2]);
    let (records, cause) = retried(move || JsonlSource::<u32>::new(path.clone()));
    assert!(records.len() < 100_000 && cause.message.contains("ends early"), "{}", cause.message);
}

#[test]
fn a_file_that_is_not_there_yet_is_read_once_it_is_and_else_is_no_record() {
    let dir = folder();
    let path = dir.path().join("later.txt");
    let (made, from) = (path.clone(), path.clone());
    let env = Environment::local("later").inline();
    let again = Retry::up_to(3).backoff(Duration::ZERO, Duration::ZERO).when(move |error| {
        fs::write(&made, "here\n").unwrap();
        matches!(error.downcast_ref(), Some(InputError::Open { .. }))
    });
    let lines = env.from_source(move |_| TextSource::new(from.clone())).retry(again).collect();
    env.run().unwrap();
    assert_eq!(lines.take().len(), 1);

    for path in [dir.path().join("missing.txt"), dir.path().to_owned()] {
        let (from, folder) = (path.clone(), path.is_dir());
        let env = Environment::local("open").inline();
        env.from_source(move |_| TextSource::new(from.clone())).named("text").sink(|_| {});
        let cause = failure(&env);
        assert_eq!(cause.place().to_string(), "operator `text`, while opening");
        let InputError::Open { path: told, source } = input_error(&cause) else { panic!("{}", cause.message) };
        let expected = if folder { io::ErrorKind::IsADirectory } else { io::ErrorKind::NotFound };
        assert_eq!((told, source.kind()), (&path, expected));
    }
}
