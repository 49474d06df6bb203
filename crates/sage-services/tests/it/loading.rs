//! Files become text, and passages know where in the file they stand.

use std::fs;
use std::path::PathBuf;

use proptest::prelude::*;
use sage_services::{Chunker, DocumentError, DocumentText, Format, Loader, Passage, read_document};
use serde_json::json;
use tempfile::TempDir;

struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, contents).unwrap();
        path
    }

    fn read(&self, name: &str, contents: impl AsRef<[u8]>) -> Result<DocumentText, DocumentError> {
        read_document(&self.path(name, contents))
    }
}

fn passages(document: &DocumentText) -> Vec<Passage> {
    Chunker::default().chunk_document("file", document)
}

fn in_words(error: &DocumentError) -> String {
    let source = std::error::Error::source(error).map(|source| format!(": {source}")).unwrap_or_default();
    format!("{error}{source}")
}

#[test]
fn a_file_is_read_as_its_extension_says() {
    let files = Files::new();
    for (name, format) in [("a.txt", Format::Text), ("a.MD", Format::Markdown), ("a.htm", Format::Html)] {
        let document = files.read(name, "# A <b>title</b>\n").unwrap();
        assert_eq!((&*document.text, document.format), ("# A <b>title</b>\n", format), "{name}");
        assert!(document.is_utf8 && document.rows.is_empty() && document.pages.is_empty());
    }
}

#[test]
fn a_page_has_the_title_that_it_states() {
    let files = Files::new();
    let title = |page: &str| files.read("a.html", page).unwrap().title;
    assert_eq!(title("<html><head>\n<TITLE lang=en>Stops &amp;\n starts</title>").as_deref(), Some("Stops & starts"));
    for page in ["", "<title>", "<title></title>", "<title", "é<titl", "<p>none</p>"] {
        assert_eq!(title(page), None, "{page}");
    }
    assert_eq!(files.read("a.txt", "<title>no</title>").unwrap().title, None);
}

#[test]
fn what_cannot_be_read_is_named() {
    let files = Files::new();
    assert!(matches!(read_document(&files.0.path().join("missing")), Err(DocumentError::Read { .. })));
    for name in ["a.txt", "a.csv", "a.jsonl"] {
        assert!(matches!(files.read(name, b"a\0b"), Err(DocumentError::NotText { .. })), "{name}");
    }
    let latin = files.read("latin.txt", b"caf\xe9").unwrap();
    assert_eq!((&*latin.text, latin.is_utf8), ("caf\u{fffd}", false));
    let latin = files.read("latin.csv", b"drink\ncaf\xe9\n").unwrap();
    assert_eq!((&*latin.text, latin.is_utf8), ("drink: caf\u{fffd}\n", false));
}

#[test]
fn a_file_too_long_is_not_read() {
    let files = Files::new();
    let path = files.path("long.txt", "");
    fs::File::options().write(true).open(&path).unwrap().set_len(200 << 20).unwrap();
    let error = read_document(&path).unwrap_err();
    assert!(error.to_string().ends_with("has 209715200 bytes; documents may have 16777216"), "{error}");
    let path = files.path("short.txt", "12345");
    assert_eq!(Loader::default().max_bytes(5).read(&path).unwrap().text, "12345");
    assert!(matches!(Loader::default().max_bytes(4).read(&path), Err(DocumentError::TooLong { size_bytes: 5, .. })));
}

#[test]
fn a_file_without_a_true_length_is_read_up_to_the_limit() {
    let error = Loader::default().max_bytes(1_000).read("/dev/zero".as_ref()).unwrap_err();
    assert!(matches!(error, DocumentError::TooLong { size_bytes: 1_001, .. }), "{error}");
}

#[test]
fn a_row_of_a_table_is_a_passage_with_its_lines_and_its_number() {
    let table = "\u{feff}name, order ,note\r\nsink,first,\r\n\r\n\"a \"\"b\"\"\",\"two\nlines\",x\r\nlast,,";
    let document = Files::new().read("a.csv", table).unwrap();
    assert_eq!(document.text, "name: sink\norder: first\n\nname: a \"b\"\norder: two\nlines\nnote: x\n\nname: last\n");
    let passages = passages(&document);
    let seen: Vec<_> = passages.iter().map(|p| (p.index, p.first_line, p.last_line, &p.metadata["row"])).collect();
    assert_eq!(seen, [(0, 2, 2, &json!(1)), (1, 4, 5, &json!(2)), (2, 6, 6, &json!(3))]);
    for passage in &passages {
        assert_eq!(passage.text, document.text[passage.bytes.clone()]);
    }
}

#[test]
fn uneven_rows_lose_nothing() {
    let files = Files::new();
    let document = files.read("a.csv", "a,,c\n1\n1,2,3,4\n\n,,\n\"x,y\"\n").unwrap();
    assert_eq!(document.text, "a: 1\n\na: 1\ncolumn 2: 2\nc: 3\ncolumn 4: 4\n\na: x,y\n");
    assert_eq!(files.read("a.tsv", "a\tb\n1,5\t2\n").unwrap().text, "a: 1,5\nb: 2\n");
    for empty in ["", "a,b\n", "\n\n", "\u{feff}"] {
        let document = files.read("a.csv", empty).unwrap();
        assert_eq!((document.text.as_str(), passages(&document)), ("", vec![]), "{empty:?}");
    }
}

#[test]
fn a_table_cannot_repeat_its_header_without_limit() {
    let table = format!("{}\n{}", "n".repeat(1_000), "1\n".repeat(100));
    let files = Files::new();
    let path = files.path("a.csv", &table);
    assert_eq!(Loader::default().read(&path).unwrap().rows.len(), 100);
    let error = Loader::default().max_text_bytes(50_000).read(&path).unwrap_err();
    assert!(error.to_string().ends_with("a.csv` unpacks to more than 50000 bytes"), "{error}");
}

#[test]
fn a_line_of_json_is_text_and_metadata() {
    let lines = "{\"id\": 7, \"text\": \"Sinks stop.\\n\\nFirst.\", \"tags\": [\"a\"]}\n\n\"Services stop.\"\r\n\
                 {\"text\": \"\"}\n{\"text\": \"End.\"}";
    let files = Files::new();
    let document = files.read("a.jsonl", lines).unwrap();
    assert_eq!(document.text, "Sinks stop.\n\nFirst.\n\nServices stop.\n\nEnd.\n");
    let passages = passages(&document);
    let seen: Vec<_> = passages.iter().map(|p| (&*p.text, p.first_line, p.last_line)).collect();
    assert_eq!(seen, [("Sinks stop.\n\nFirst.", 1, 1), ("Services stop.", 3, 3), ("End.", 5, 5)]);
    assert_eq!(serde_json::to_value(&*passages[0].metadata).unwrap(), json!({"id": 7, "tags": ["a"]}));
    let path = files.path("b.ndjson", r#"{"body": "Stops.", "text": 1}"#);
    let document = Loader::default().text_field("body").read(&path).unwrap();
    assert_eq!((&*document.text, &document.rows[0].metadata["text"]), ("Stops.\n", &json!(1)));
}

#[test]
fn a_bad_line_of_json_is_named_by_its_number() {
    let files = Files::new();
    for (line, why) in [
        ("{\"text\": \"cut", "EOF while parsing a string at line 1 column 13"),
        ("{\"body\": \"x\"}", "it has no field `text`, which is to be its text"),
        ("{\"text\": 5}", "its field `text` is not a string"),
        ("[1]", "it is neither an object nor a string"),
        ("\"\\u0000\"", "its text holds a zero character"),
        (&"[".repeat(100_000), "recursion limit exceeded at line 1 column 128"),
    ] {
        let error = files.read("a.jsonl", format!("\n\"good\"\n{line}\n\"good\"\n")).unwrap_err();
        let words = in_words(&error);
        assert!(words.starts_with("line 3 of `") && words.ends_with(&format!("cannot be read: {why}")), "{words}");
    }
}

#[test]
fn bytes_of_a_passage_are_where_it_stands_in_the_text() {
    let files = Files::new();
    let document = files.read("a.md", "# É\n\nOne.\n\n# Two\n\nThree.\n").unwrap();
    for passage in passages(&document) {
        assert_eq!(passage.text, document.text[passage.bytes]);
    }
    let page = files.read("a.html", "<html>\n<h1>É</h1>\n<p>One\n<b>two</b>.</p>\n</html>").unwrap();
    let passages = passages(&page);
    assert_eq!(&page.text[passages[0].bytes.clone()], "<h1>É</h1>\n<p>One\n<b>two</b>.</p>");
}

proptest! {
    #[test]
    fn any_fields_are_found_in_their_row(
        rows in prop::collection::vec(prop::collection::vec("[a-z\",\n é]{0,9}", 1..5), 1..12),
    ) {
        let quoted = |field: &String| format!("\"{}\"", field.replace('"', "\"\""));
        let lines = rows.iter().map(|row| row.iter().map(quoted).collect::<Vec<_>>().join(",") + "\n");
        let (files, table) = (Files::new(), format!("one,two,three\n{}", lines.collect::<String>()));
        let document = files.read("a.csv", &table).unwrap();
        let mut line = 2;
        let mut found = document.rows.iter();
        for (number, row) in (1..).zip(&rows) {
            let fields: Vec<&str> = row.iter().map(|field| field.trim()).filter(|field| !field.is_empty()).collect();
            let last_line = line + row.iter().map(|field| field.matches('\n').count()).sum::<usize>();
            if !fields.is_empty() {
                let one = found.next().unwrap();
                let seen = (one.first_line, one.last_line, &one.metadata["row"]);
                prop_assert_eq!(seen, (line, last_line, &json!(number)));
                let text = &document.text[one.bytes.clone()];
                prop_assert!(fields.iter().all(|field| text.contains(&format!(": {field}\n"))), "{text:?} {fields:?}");
            }
            line = last_line + 1;
        }
        prop_assert!(found.next().is_none());
    }

    #[test]
    fn any_bytes_give_a_document_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300), name in 0_usize..4) {
        let name = ["a.csv", "a.tsv", "a.jsonl", "a.html"][name];
        if let Ok(document) = Files::new().read(name, bytes) {
            passages(&document);
        }
    }
}

#[test]
#[cfg(not(any(feature = "pdf", feature = "docx")))]
fn a_format_that_was_not_built_is_named() {
    for (name, feature) in [("a.pdf", "pdf"), ("a.DOCX", "docx")] {
        let error = Files::new().read(name, b"\0").unwrap_err();
        let end = format!("needs the feature `{feature}` of sage-services, which was built without");
        assert!(error.to_string().ends_with(&end), "{error}");
    }
}
