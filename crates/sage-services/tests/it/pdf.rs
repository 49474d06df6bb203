//! PDF files: their text, lines and pages, and files that are broken or meant to break their reader.

use std::io::Write;
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::ZlibEncoder;
use sage_services::{Chunker, DocumentError, DocumentText, Loader};

/// A file of numbered objects. The first is the catalogue, the second the tree of pages, the third a font.
fn file(pages: &[Vec<u8>], more: &[Vec<u8>]) -> Vec<u8> {
    let first = 4;
    let kids: String = (0..pages.len()).map(|page| format!("{} 0 R ", first + 2 * page)).collect();
    let mut objects = vec![
        b"<</Type/Catalog/Pages 2 0 R>>".to_vec(),
        format!("<</Type/Pages/Kids[{kids}]/Count {}>>", pages.len()).into_bytes(),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica/Encoding/WinAnsiEncoding>>".to_vec(),
    ];
    let form = first + 2 * pages.len();
    for (index, content) in pages.iter().enumerate() {
        let resources = format!("<</Font<</F 3 0 R>>/XObject<</X {form} 0 R>>>>");
        let page = format!(
            "<</Type/Page/Parent 2 0 R/MediaBox[0 0 600 800]/Contents {} 0 R/Resources{resources}>>",
            first + 2 * index + 1
        );
        objects.extend([page.into_bytes(), content.clone()]);
    }
    objects.extend(more.iter().cloned());
    let mut bytes = b"%PDF-1.4\n".to_vec();
    let mut table = format!("xref\n0 {}\n0000000000 65535 f \n", objects.len() + 1);
    for (index, object) in objects.iter().enumerate() {
        table.push_str(&format!("{:010} 00000 n \n", bytes.len()));
        bytes.extend(format!("{} 0 obj\n", index + 1).bytes().chain(object.iter().copied()).chain(*b"\nendobj\n"));
    }
    let start = bytes.len();
    let info = "/Info<</Title(\\376\\377\\000G\\000r\\000\\366\\000\\337\\000e)>>";
    let trailer = format!("trailer<</Size {}/Root 1 0 R{info}>>\nstartxref\n{start}\n%%EOF\n", objects.len() + 1);
    bytes.extend(table.bytes().chain(trailer.bytes()));
    bytes
}

fn stream(dictionary: &str, data: impl AsRef<[u8]>) -> Vec<u8> {
    let data = data.as_ref();
    let mut stream = format!("<<{dictionary}/Length {}>>stream\n", data.len()).into_bytes();
    stream.extend(data.iter().chain(b"\nendstream"));
    stream
}

fn text(lines: &str) -> Vec<u8> {
    stream("", format!("BT /F 12 Tf 50 700 Td {lines} ET"))
}

fn packed(bytes: &[u8], times: usize) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    (0..times).for_each(|_| encoder.write_all(bytes).unwrap());
    encoder.finish().unwrap()
}

fn read_by(loader: &Loader, bytes: &[u8]) -> Result<DocumentText, DocumentError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.pdf");
    std::fs::write(&path, bytes).unwrap();
    loader.read(&path)
}

fn read(bytes: &[u8]) -> Result<DocumentText, DocumentError> {
    read_by(&Loader::default(), bytes)
}

#[test]
fn lines_words_and_paragraphs_are_found_by_their_places() {
    let page =
        text("(Services st) Tj (op in reverse) Tj 0 -14 Td [(or) 20 (der.) -300 (Always.)] TJ 0 -40 Td (Tasks) Tj");
    let document = read(&file(&[page], &[])).unwrap();
    assert_eq!(document.text, "Services stop in reverse\norder. Always.\n\nTasks\n");
    assert_eq!((document.title.as_deref(), document.is_utf8), (Some("Größe"), true));
}

#[test]
fn letters_are_those_of_the_font() {
    let form = stream(
        "/Type/XObject/Subtype/Form/BBox[0 0 600 800]/Resources<</Font<</F 3 0 R>>>>",
        "BT /F 9 Tf (form) Tj ET",
    );
    let document = read(&file(&[text(r"(caf\351 \223x\224) Tj ET /X Do BT")], &[form])).unwrap();
    assert_eq!(document.text, "café “x”\n\nform\n");
}

#[test]
fn a_form_that_names_pictures_is_no_picture() {
    let resources = "/Resources<</Font<</F 3 0 R>>/ProcSet[/PDF/Text/ImageB/ImageC]>>";
    let form = stream(&format!("/Subtype/Form/BBox[0 0 600 800]{resources}"), "BT /F 9 Tf (form) Tj ET");
    assert_eq!(read(&file(&[text("(page) Tj ET /X Do BT")], &[form])).unwrap().text, "page\n\nform\n");
    let content = stream("/ProcSet[/ImageC]/Other/Subtype /Type/Image", "BT /F 9 Tf (kept) Tj ET");
    assert_eq!(read(&file(&[content], &[])).unwrap().text, "kept\n");
}

#[test]
fn passages_know_their_pages() {
    let pages: Vec<_> = ["One.", "", "Three is here.", "Four."].map(|words| text(&format!("({words}) Tj"))).into();
    let document = read(&file(&pages, &[])).unwrap();
    assert_eq!(document.pages, [0, 5, 5, 20]);
    let pages_of = |chunker: Chunker| -> Vec<_> {
        let passages = chunker.chunk_document("a.pdf", &document);
        passages.into_iter().map(|passage| (passage.text, passage.pages.unwrap())).collect()
    };
    let whole = "One.\nThree is here.\nFour.".to_owned();
    assert_eq!(pages_of(Chunker::default()), [(whole, (1, 4))]);
    let cut = [("One.", (1, 1)), ("Three is here.", (3, 3)), ("Four.", (4, 4))];
    assert_eq!(pages_of(Chunker::new(10, 15, 0)), cut.map(|(text, pages)| (text.to_owned(), pages)));
}

#[test]
fn packed_streams_are_read_and_pictures_are_not_unpacked() {
    let content = packed(b"BT /F 12 Tf 50 700 Td (Packed) Tj ET /X Do", 1);
    let picture = stream(
        "/Subtype/Image/Width 20000/Height 10000/ColorSpace/DeviceGray/BitsPerComponent 8/Filter/FlateDecode",
        packed(&[0; 1 << 20], 200),
    );
    let attached = stream("/Type /EmbeddedFile/Filter/FlateDecode", packed(&[0; 1 << 20], 200));
    let document = read(&file(&[stream("/Filter/FlateDecode", content)], &[picture, attached])).unwrap();
    assert_eq!(document.text, "Packed\n");
}

#[test]
fn a_file_that_unpacks_to_too_much_is_refused() {
    let once = packed(&[b' '; 1 << 20], 100);
    let digits: String = once.iter().map(|byte| format!("{byte:02x}")).collect();
    for content in [
        stream("/Filter/FlateDecode", &once),
        stream("/Filter[/FlateDecode/FlateDecode]", packed(&once, 1)),
        stream("/Filter[/ASCIIHexDecode/FlateDecode]", digits),
        stream("/Filter/LZWDecode", vec![0xff; 600 << 10]),
        stream("/Fil#74er/FlateDecode", &once),
    ] {
        let error = read(&file(&[content], &[])).unwrap_err();
        assert!(matches!(error, DocumentError::TooMuchText { max_text_bytes: 67_108_864, .. }), "{error}");
    }
    // Packed twice and cut off: how much it is cannot be known.
    let cut = stream("/Filter/FlateDecode", &packed(&packed(&[b' '; 4_000], 1), 1)[..20]);
    let error = read_by(&Loader::default().max_text_bytes(2_000), &file(&[cut], &[])).unwrap_err();
    assert!(matches!(error, DocumentError::TooMuchText { .. }), "{error}");
    let page = text(&"(a sentence that is drawn again and again) Tj ".repeat(100));
    let error = read_by(&Loader::default().max_text_bytes(6_000), &file(&vec![page; 2], &[])).unwrap_err();
    assert!(matches!(error, DocumentError::TooMuchText { max_text_bytes: 6_000, .. }), "{error}");
}

#[test]
fn a_file_that_draws_for_ever_ends_in_time() {
    let form = |number: usize| {
        let inner = format!("<</XObject<</X {number} 0 R>>>>");
        stream(&format!("/Type/XObject/Subtype/Form/BBox[0 0 600 800]/Resources{inner}"), "/X Do ".repeat(10))
    };
    let forms: Vec<_> = (7..30).map(form).collect();
    let loader = Loader::default().max_time(Duration::from_millis(300));
    let started = Instant::now();
    let error = read_by(&loader, &file(&[text("ET /X Do BT")], &forms)).unwrap_err();
    assert!(matches!(error, DocumentError::TooSlow { .. }), "{error}");
    assert!(error.to_string().ends_with("was not read within 300ms"), "{error}");
    assert!(started.elapsed() < Duration::from_secs(30));
    let endless = Loader::default().max_time(Duration::MAX);
    assert_eq!(read_by(&endless, &file(&[text("(quick) Tj")], &[])).unwrap().text, "quick\n");
}

#[test]
fn what_goes_round_in_circles_ends() {
    let itself = stream("/Type/XObject/Subtype/Form/BBox[0 0 9 9]/Resources<</XObject<</X 6 0 R>>>>", "/X Do");
    assert_eq!(read(&file(&[text("(before) Tj ET /X Do BT")], &[itself])).unwrap().text, "before\n");
    let mut pages = file(&[text("(x) Tj")], &[]);
    let kids = pages.windows(8).position(|bytes| bytes == b"[4 0 R ]").unwrap();
    pages[kids + 1] = b'2';
    assert!(matches!(read(&pages), Err(DocumentError::NoText { .. })));
    let deep = file(&[text(&"[".repeat(1 << 20))], &["[".repeat(1 << 20).into_bytes()]);
    assert!(matches!(read(&deep), Err(DocumentError::NoText { .. })));
}

#[test]
fn what_is_no_pdf_is_named() {
    for bytes in [&b""[..], b"%PDF-1.4", b"plain text\0"] {
        let error = read(bytes).unwrap_err();
        assert!(matches!(error, DocumentError::Damaged { .. }), "{error}");
    }
    let open: Vec<u8> = (1..2_000).flat_map(|n| format!("{n} 0 obj<</Length 9>>stream\nx\n").into_bytes()).collect();
    assert!(matches!(read(&open), Err(DocumentError::Damaged { .. })));
}

#[test]
fn an_encrypted_file_is_named() {
    let mut bytes = file(&[text("(secret) Tj")], &[]);
    let at = bytes.windows(5).rposition(|bytes| bytes == b"/Root").unwrap();
    let key = "00".repeat(32);
    let encrypt = format!("/Encrypt<</Filter/Standard/V 2/R 3/Length 128/P -1/O<{key}>/U<{key}>>>/ID[<00><00>]");
    bytes.splice(at..at, encrypt.into_bytes());
    let error = read(&bytes).unwrap_err();
    assert!(matches!(error, DocumentError::Encrypted { .. }), "{error}");
}

#[test]
fn a_file_cut_off_anywhere_gives_a_document_or_an_error() {
    let whole = file(&[text("(One) Tj"), stream("/Filter/FlateDecode", packed(b"BT /F 9 Tf (Two) Tj ET", 1))], &[]);
    for length in 0..whole.len() {
        match read(&whole[..length]) {
            Ok(document) => assert!(document.text.contains("One") || document.text.contains("Two"), "{length}"),
            Err(DocumentError::Damaged { .. } | DocumentError::NoText { .. }) => {}
            Err(error) => panic!("{length}: {error}"),
        }
    }
    assert_eq!(read(&whole).unwrap().text, "One\nTwo\n");
}
