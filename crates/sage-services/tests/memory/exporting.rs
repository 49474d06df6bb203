//! Export and import.

use std::time::Duration;

use proptest::prelude::*;
use sage_services::LexicalEmbedder;
use sage_services::memory::{Memory, MemoryError, Recall, Scope, Window};
use sage_services::store::Value;

use crate::shared::{Clock, in_memory, session, texts, turn};

fn tenant() -> Scope {
    Scope::tenant("t")
}

#[test]
fn what_is_exported_is_imported_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::new();
    let new = || {
        let memory = clock.of(Memory::in_memory().embedder(LexicalEmbedder::default()));
        memory.open().unwrap();
        memory
    };
    let memory = new();
    let metadata = turn("a", "I live in Basel.\nSince \"May\".")
        .with("n", 1_i64)
        .with("x", 1.0)
        .with("yes", true)
        .with("when", clock.now())
        .with("tags", Value::List(vec!["p".into(), "q".into()]));
    memory.append(&session("one"), vec![metadata, turn("b", "gone").importance(0.25)]).unwrap();
    memory.append(&tenant().agent("helper"), vec![turn("a", "short").ttl(Duration::from_secs(60))]).unwrap();
    memory.append(&Scope::tenant("other"), vec![turn("a", "not exported")]).unwrap();
    let between = memory.moment().unwrap();
    clock.forward(1.0);
    memory.update(&session("one"), "a", "I live in Bern.").unwrap();
    memory.delete(&session("one"), "b").unwrap();
    let (first, second) = (folder.path().join("first"), folder.path().join("second"));
    assert_eq!(memory.export(&tenant(), &first).unwrap(), 3);
    assert_eq!(std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&first).unwrap()) & 0o777, 0o600);
    let copy = new();
    let imported = copy.import(&first).unwrap();
    assert_eq!((imported.turns, imported.known, imported.expired), (3, 0, 0));
    copy.export(&tenant(), &second).unwrap();
    assert_eq!(std::fs::read_to_string(&first).unwrap(), std::fs::read_to_string(&second).unwrap());
    for window in [Window::turns(9), Window::turns(9).at(between)] {
        assert_eq!(copy.window(&tenant(), window.clone()).unwrap(), memory.window(&tenant(), window).unwrap());
    }
    for recall in [Recall::new("where do I live?"), Recall::new("where do I live?").at(between)] {
        assert_eq!(copy.recall(&tenant(), recall.clone()).unwrap(), memory.recall(&tenant(), recall).unwrap());
    }
    // Once more changes nothing, and what expired meanwhile is not brought back.
    let again = copy.import(&first).unwrap();
    assert_eq!((again.turns, again.known, again.expired), (0, 3, 0));
    clock.forward(60.0);
    let late = new();
    let imported = late.import(&first).unwrap();
    assert_eq!((imported.turns, imported.known, imported.expired), (2, 0, 1));
    // Whoever has another embedder makes the vectors anew; whoever has none is told.
    let other = Memory::in_memory().embedder(LexicalEmbedder::new(64));
    other.open().unwrap();
    other.import(&first).unwrap();
    assert!(other.recall(&tenant(), Recall::new("live")).unwrap()[0].parts.similarity > 0.1);
    assert!(matches!(in_memory().import(&first), Err(MemoryError::OtherEmbedder { .. })));
    // A file that is there is not written over.
    let error = memory.export(&tenant(), &first).unwrap_err();
    assert!(matches!(error, MemoryError::File { done: "written", .. }), "{error}");
    let error = memory.export(&Scope::tenant("nobody"), folder.path().join("third")).unwrap_err();
    assert!(matches!(error, MemoryError::UnknownScope { .. }), "{error}");
}

#[test]
fn a_line_that_is_none_is_told_and_nothing_is_imported() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("export");
    let head = r#"{"sage_memory":1,"embedder":null,"dimensions":0}"#;
    let good = concat!(
        r#"{"tenant":"t","id":"a","role":"user","said":"2026-11-28T12:00:00Z","#,
        r#""versions":[{"recorded":"2026-11-28T12:00:00Z","text":"Tea."}]}"#
    );
    let line = |from: &str, to: &str| good.replace(from, to).into_bytes();
    let memory = in_memory();
    for (second, why) in [
        (b"\xff\xfe".to_vec(), "line 3 of"),
        (b"{\"tenant\": \"caf\xe9\"}".to_vec(), "it is not UTF-8 from byte 15 on"),
        (b"nonsense".to_vec(), "expected"),
        (line(r#""id":"a""#, r#""id":"""#), "its id has 0 bytes"),
        (line(r#""tenant":"t""#, r#""tenant":"""#), "tenant"),
        (line("Tea.", ""), "it says nothing"),
        (line(r#""text":"Tea.""#, r#""text":null"#), "its first version has no text"),
        (line("28T12:00:00Z\",\"text", "nonsense\",\"text"), "as day"),
        (line(r#""Tea.""#, r#""Tea.","importance":7"#), "its importance is 7"),
        (line(r#""Tea.""#, r#""Tea.","metadata":{"a":null}"#), "a value that is none"),
        (good.as_bytes().to_vec(), "line 2 has the id \"a\", too"),
    ] {
        std::fs::write(&path, [head.as_bytes(), b"\n", good.as_bytes(), b"\n", &second, b"\n"].concat()).unwrap();
        let error = memory.import(&path).unwrap_err().to_string();
        assert!(error.contains(why) && error.contains("nothing is imported"), "{error}");
        assert_eq!(memory.count(&tenant()).unwrap(), 0);
    }
    for (text, why) in
        [("", "the file is empty"), ("a\n", "not the first line"), (&*head.replace(":1,", ":2,"), "of version 2")]
    {
        std::fs::write(&path, text).unwrap();
        let error = memory.import(&path).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
    assert!(matches!(memory.import(folder.path().join("nobody")), Err(MemoryError::File { done: "read", .. })));
    // The same id with another text is told before anything is written.
    memory.append(&tenant(), vec![turn("a", "Coffee.")]).unwrap();
    let other = line(r#""id":"a""#, r#""id":"b""#);
    std::fs::write(&path, [head.as_bytes(), b"\n", &other, b"\n", good.as_bytes()].concat()).unwrap();
    assert!(matches!(memory.import(&path), Err(MemoryError::OtherText { .. })));
    assert_eq!(texts(&memory.window(&tenant(), 9).unwrap()), ["Coffee."]);
}

proptest! {
    #[test]
    fn any_text_and_name_comes_back(
        text in "\\PC{1,40}[a-z]",
        name in "[^\\p{Cc}]{1,20}",
        id in ".{1,20}",
        number: i64,
        float in -1e300..1e300,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let memory = in_memory();
        let scope = Scope::tenant(&*name).session("s");
        memory.append(&scope, vec![turn(&id, &text).with("n", number).with("x", float)]).unwrap();
        let path = folder.path().join("export");
        memory.export(&scope, &path).unwrap();
        let copy = in_memory();
        copy.import(&path).unwrap();
        prop_assert_eq!(copy.window(&scope, 1).unwrap(), memory.window(&scope, 1).unwrap());
    }
}
