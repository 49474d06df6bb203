//! Word files: their text as Markdown, and files that are broken or meant to break their reader.

use std::io::{Cursor, Write};

use sage_services::{Chunker, DocumentError, DocumentText, Loader};
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

const NAMESPACE: &str = "xmlns:w=\"http://schemas.openxmlformats.org/wordprocessingml/2006/main\"";

fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, contents) in files {
        writer.start_file(*name, SimpleFileOptions::default()).unwrap();
        writer.write_all(contents).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

fn document(body: &str) -> String {
    format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?><w:document {NAMESPACE}><w:body>{body}</w:body></w:document>")
}

fn paragraph(text: &str) -> String {
    format!("<w:p><w:r><w:t xml:space=\"preserve\">{text}</w:t></w:r></w:p>")
}

fn read_by(loader: &Loader, bytes: &[u8]) -> Result<DocumentText, DocumentError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.docx");
    std::fs::write(&path, bytes).unwrap();
    loader.read(&path)
}

fn read(bytes: &[u8]) -> Result<DocumentText, DocumentError> {
    read_by(&Loader::default(), bytes)
}

fn text(body: &str) -> String {
    read(&archive(&[("word/document.xml", document(body).as_bytes())])).unwrap().text
}

#[test]
fn paragraphs_headings_and_lists_become_markdown() {
    let styles = format!(
        "<w:styles {NAMESPACE}><w:style w:styleId=\"berschrift1\"><w:name w:val=\"heading 1\"/></w:style>\
         <w:style w:styleId=\"Own\"><w:name w:val=\"Own\"/><w:basedOn w:val=\"berschrift1\"/></w:style></w:styles>"
    );
    let styled =
        |style, text| format!("<w:p><w:pPr><w:pStyle w:val=\"{style}\"/></w:pPr><w:r><w:t>{text}</w:t></w:r></w:p>");
    let item = "<w:p><w:pPr><w:numPr/><w:tabs><w:tab w:pos=\"1\"/></w:tabs></w:pPr><w:r><w:t>item</w:t></w:r></w:p>";
    let body = [
        styled("berschrift1", "Stops"),
        paragraph("Services &amp; tasks &#233; "),
        item.repeat(2),
        styled("Own", "Starts"),
        "<w:p><w:pPr><w:outlineLvl w:val=\"1\"/></w:pPr><w:r><w:t>Inner</w:t></w:r></w:p>".to_owned(),
        "<w:p><w:r><w:t>one</w:t><w:tab/><w:t>two</w:t><w:br/><w:t>three</w:t></w:r></w:p>".to_owned(),
    ];
    let core = "<p xmlns:dc=\"x\"><dc:creator>me</dc:creator><dc:title>On &lt;stops&gt;</dc:title></p>";
    let document = read(&archive(&[
        ("docProps/core.xml", core.as_bytes()),
        ("word/styles.xml", styles.as_bytes()),
        ("word/document.xml", document(&body.concat()).as_bytes()),
    ]))
    .unwrap();
    let expected = "# Stops\n\nServices & tasks é\n\n- item\n- item\n\n# Starts\n\n## Inner\n\none\ttwo\nthree\n";
    assert_eq!((&*document.text, document.title.as_deref()), (expected, Some("On <stops>")));
    let passages = Chunker::default().chunk_document("a.docx", &document);
    assert_eq!((&*passages[1].heading, passages[1].first_line), ("Starts > Inner", 8));
}

#[test]
fn tables_become_rows_and_frames_become_text() {
    let cell = |text: &str| format!("<w:tc>{}</w:tc>", paragraph(text).repeat(2));
    let table = format!("<w:tbl><w:tr>{}{}</w:tr><w:tr>{0}{0}</w:tr></w:tbl>", cell("a"), cell("x|y"));
    assert_eq!(text(&(paragraph("before") + &table)), "before\n\n| a a | x\\|y x\\|y |\n| a a | a a |\n");
    assert_eq!(text(&format!("<w:tbl><w:tr>{}</w:tr></w:tbl>", cell("framed"))), "framed\n\nframed\n");
    let nested = format!("<w:tbl><w:tr><w:tc>{}</w:tc>{}</w:tr></w:tbl>", table, cell("z"));
    assert_eq!(text(&nested), "| a a x\\|y x\\|y a a a a | z z |\n");
}

#[test]
fn text_is_given_once() {
    let moved = format!("<w:moveFrom>{}</w:moveFrom>", paragraph("moved"));
    let twice = format!(
        "<mc:AlternateContent><mc:Choice>{0}</mc:Choice><mc:Fallback>{0}</mc:Fallback></mc:AlternateContent>",
        paragraph("box")
    );
    let deleted = "<w:p><w:del><w:r><w:delText>gone</w:delText></w:r></w:del></w:p>";
    let with_box = format!("<w:p><w:r><w:t>around </w:t>{twice}</w:r><w:r><w:t>it</w:t></w:r></w:p>");
    assert_eq!(text(&format!("{moved}{deleted}{with_box}")), "box\n\naround it\n");
    let notes = format!("<w:footnotes {NAMESPACE}>{}</w:footnotes>", paragraph("A note."));
    let whole = archive(&[
        ("word/footnotes.xml", notes.as_bytes()),
        ("word/document.xml", document(&paragraph("Text.")).as_bytes()),
    ]);
    assert_eq!(read(&whole).unwrap().text, "Text.\n\nA note.\n");
}

#[test]
fn a_bomb_is_refused_while_it_is_unpacked() {
    let bomb = document(&paragraph(&"a".repeat(100 << 20)));
    let mut bytes = archive(&[("word/document.xml", bomb.as_bytes())]);
    let refused =
        |bytes: &[u8]| matches!(read(bytes), Err(DocumentError::TooMuchText { max_text_bytes: 67_108_864, .. }));
    assert!(refused(&bytes));
    // A header that lies about the size changes nothing.
    let size = u32::try_from(bomb.len()).unwrap().to_le_bytes();
    let places: Vec<_> = bytes.windows(4).enumerate().filter(|(_, four)| *four == size).map(|(at, _)| at).collect();
    assert!(!places.is_empty());
    for at in places {
        bytes[at..at + 4].copy_from_slice(&[9, 0, 0, 0]);
    }
    assert!(read(&bytes).is_err());
    let parts = archive(&[
        ("word/styles.xml", format!("<w:styles>{}</w:styles>", " ".repeat(6_000)).as_bytes()),
        ("word/document.xml", document(&paragraph(&"b".repeat(6_000))).as_bytes()),
    ]);
    assert!(read_by(&Loader::default().max_text_bytes(14_000), &parts).is_ok());
    let error = read_by(&Loader::default().max_text_bytes(10_000), &parts).unwrap_err();
    assert!(error.to_string().ends_with("a.docx` unpacks to more than 10000 bytes"), "{error}");
}

#[test]
fn archives_and_pictures_in_the_file_are_left_alone() {
    let inner = archive(&[("word/document.xml", &vec![b' '; 100 << 20])]);
    let picture = vec![0; 100 << 20];
    let outer = archive(&[
        ("word/embeddings/inner.docx", &inner),
        ("word/media/a.png", &picture),
        ("word/document.xml", document(&paragraph("outer")).as_bytes()),
    ]);
    assert_eq!(read(&outer).unwrap().text, "outer\n");
}

#[test]
fn entities_are_not_expanded() {
    let bomb = "<!DOCTYPE d [<!ENTITY a \"ha\"><!ENTITY b \"&a;&a;&a;&a;&a;&a;&a;&a;\"><!ENTITY c \"&b;&b;&b;&b;\">]>";
    let xml = format!("{bomb}<w:document {NAMESPACE}>{}</w:document>", paragraph("x&c;y"));
    assert_eq!(read(&archive(&[("word/document.xml", xml.as_bytes())])).unwrap().text, "xy\n");
}

#[test]
fn what_is_no_word_file_is_named() {
    let damaged = |bytes: &[u8], why: &str| match read(bytes) {
        Err(DocumentError::Damaged { source, .. }) => assert!(source.to_string().contains(why), "{source}"),
        other => panic!("{other:?}"),
    };
    damaged(b"", "");
    damaged(b"plain text", "");
    damaged(&archive(&[("other.xml", b"<a/>")]), "it has no `word/document.xml`");
    damaged(&archive(&[("word/document.xml", b"<w:p><w:r></w:p>")]), "");
    damaged(&archive(&[("word/document.xml", b"<w:p>\xff\xfe</w:p>")]), "");
    let old = [&[0xd0, 0xcf, 0x11, 0xe0][..], &[0; 600]].concat();
    assert!(matches!(read(&old), Err(DocumentError::Encrypted { .. })));
    assert_eq!(text(&"<w:p>".repeat(100_000).replace("<w:p>", "<w:p></w:p>")), "");
}

#[test]
fn a_file_cut_off_anywhere_is_an_error() {
    let body = paragraph("One.") + &paragraph("Two.");
    let whole = archive(&[("word/document.xml", document(&body).as_bytes()), ("word/styles.xml", b"<w:styles/>")]);
    assert_eq!(read(&whole).unwrap().text, "One.\n\nTwo.\n");
    for length in 0..whole.len() {
        let error = read(&whole[..length]).unwrap_err();
        assert!(matches!(error, DocumentError::Damaged { .. }), "{length}: {error}");
    }
}
