//! Erasure: nothing of what was erased is left, in memory or in any file.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sage::{BoxError, Codec, Environment, Journal, Keep, Policy, Retry, ServiceError, Verdict};
use sage_services::LexicalEmbedder;
use sage_services::memory::{Memory, MemoryError, NewTurn, Recall, Scope, Weights, Window};

use crate::shared::{assert_nowhere, contains, in_memory, opened, session, texts, turn};

/// The bytes that a vector of a text has in a file.
fn vector_bytes(text: &str) -> Vec<u8> {
    let vector = LexicalEmbedder::default().embed_passage(&format!("user: {text}"));
    vector.iter().flat_map(|x| x.to_le_bytes()).collect()
}

#[test]
fn nothing_of_a_scope_is_left_anywhere() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("memory");
    let at = || Memory::at(&path).embedder(LexicalEmbedder::default());
    let memory = at();
    memory.open().unwrap();
    let (gone, stays) = (Scope::tenant("t").user("grace-4711"), Scope::tenant("t").user("ada"));
    let first = "My number is 555-0100.";
    let ids =
        memory.append(&gone.clone().session("s1"), vec![NewTurn::user(first).with("where", "kitchen-4711")]).unwrap();
    memory.update(&gone.clone().session("s1"), &ids[0], "My number is 555-0199.").unwrap();
    memory
        .append(&gone.clone().agent("helper-4711"), vec![turn("deleted-4711", "I am allergic to penicillin.")])
        .unwrap();
    memory.delete(&gone.clone().agent("helper-4711"), "deleted-4711").unwrap();
    memory.append(&stays, vec![turn("a", "I like tea.")]).unwrap();
    let mut traces: Vec<Vec<u8>> =
        ["4711", "555-0100", "555-0199", "penicillin"].iter().map(|trace| trace.as_bytes().to_vec()).collect();
    traces.extend([first, "My number is 555-0199.", "I am allergic to penicillin."].map(vector_bytes));
    let file = std::fs::read(&path).unwrap();
    assert!(traces.iter().all(|trace| contains(&file, trace)), "they are looked for as they are written");
    memory.recall(&gone, Recall::new("number")).unwrap();
    let receipt = memory.erase(&gone).unwrap();
    assert_eq!((receipt.turns, receipt.versions), (2, 4));
    assert!(receipt.bytes > 3 * 4 * 1_024 && receipt.to_string().contains("out of reach"), "{receipt}");
    assert_nowhere(folder.path(), &traces);
    let nothing = |memory: &Memory| {
        assert_eq!(memory.window(&gone, 9).unwrap(), []);
        assert_eq!(memory.window(&gone, Window::turns(9).at(memory.moment().unwrap())).unwrap(), []);
        assert_eq!(memory.recall(&gone, Recall::new("number")).unwrap(), []);
        assert_eq!(memory.history(&gone.clone().agent("helper-4711"), "deleted-4711").unwrap(), []);
        assert_eq!(memory.scopes(&gone).unwrap(), []);
        assert_eq!(texts(&memory.window(&stays, 9).unwrap()), ["I like tea."]);
    };
    nothing(&memory);
    // Once more is no error, and a file that is opened again has it neither.
    assert_eq!(memory.erase(&gone).unwrap().turns, 0);
    drop(memory);
    let memory = at();
    memory.open().unwrap();
    nothing(&memory);
    assert_nowhere(folder.path(), &traces);
    // Its ids can be used again.
    memory.append(&gone.clone().agent("helper-4711"), vec![turn("deleted-4711", "Who am I?")]).unwrap();
}

#[test]
fn one_turn_is_erased_with_its_history() {
    let folder = tempfile::tempdir().unwrap();
    let memory = opened(&folder.path().join("memory"));
    let scope = session("s");
    memory.append(&scope, vec![turn("a", "secret one"), turn("b", "plain two")]).unwrap();
    memory.update(&scope, "a", "secret three").unwrap();
    let receipt = memory.erase_turn(&scope, "a").unwrap();
    assert_eq!((receipt.turns, receipt.versions, receipt.id.as_deref()), (1, 2, Some("a")));
    assert_nowhere(folder.path(), &[b"secret".to_vec()]);
    assert_eq!(texts(&memory.window(&scope, 9).unwrap()), ["plain two"]);
}

#[test]
fn a_file_that_is_mostly_blank_is_written_anew() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("memory");
    let memory = opened(&path);
    let long = "long text ".repeat(1_000);
    for number in 0..400 {
        let scope = session(if number % 10 == 0 { "stays" } else { "goes" });
        memory.append(&scope, vec![turn(&number.to_string(), &format!("{number} {long}"))]).unwrap();
    }
    memory.update(&session("stays"), "0", "changed").unwrap();
    let before = std::fs::metadata(&path).unwrap().len();
    memory.erase(&session("goes")).unwrap();
    let after = std::fs::metadata(&path).unwrap().len();
    assert!(after < before / 5, "{before} bytes, then {after}");
    // Frames are found where they are now.
    memory.erase_turn(&session("stays"), "10").unwrap();
    drop(memory);
    let memory = opened(&path);
    assert_eq!(memory.count(&Scope::tenant("t")).unwrap(), 39);
    assert_eq!(memory.history(&session("stays"), "0").unwrap().len(), 2);
    memory.erase(&session("stays")).unwrap();
    assert_nowhere(folder.path(), &[b"long text".to_vec(), b"changed".to_vec()]);
}

#[test]
fn answers_of_services_go_with_the_scope_they_are_about() {
    let folder = tempfile::tempdir().unwrap();
    let answers = folder.path().join("answers");
    let path = folder.path().join("memory");
    let env = Environment::local("answers");
    let memory_at = path.clone();
    let memory = env.register_service("memory", move || Memory::at(&memory_at)).build();
    let policy = Policy::new().version("1").journal(Journal::run(&answers));
    let model = env.register_service("model", || Model).policy(policy).build();
    let keep = Keep::new(|(_, text): &(String, String)| Some(text.as_bytes().to_vec()), Text);
    let keep = keep.tag(|(tag, _)| Some(tag.clone()));
    let ask = model
        .method("ask", |_model, (_, text): (String, String)| async move { Ok::<_, BoxError>(format!("about {text}")) })
        .keep(keep.journal())
        .build();
    let (asks, erases) = (memory.clone(), memory);
    let erase = ask.clone();
    let receipts = env
        .from_iter([("s1", "penicillin"), ("s2", "tea")])
        .try_map(move |(name, text)| {
            asks.try_call(|memory| memory.append(&session(name), vec![NewTurn::user(text)]))?;
            ask.call_blocking((session(name).tag(), text.to_owned())).map_err(BoxError::from)
        })
        .count()
        .try_map(move |_| {
            erases.try_call(|memory| {
                let user = Scope::tenant("t").user("u");
                let one = memory.erase_with(&user.clone().session("s1"), |tag| Ok(erase.erase(tag)?))?;
                Ok::<_, MemoryError>((one, memory.erase_with(&user, |tag| Ok(erase.erase(tag)?))?))
            })
        })
        .collect();
    env.run().unwrap();
    let (one, rest) = receipts.take().remove(0);
    assert_eq!((one.turns, one.answers), (1, 1));
    assert_eq!((rest.turns, rest.answers, rest.tags.len()), (1, 1, 2));
    assert_nowhere(folder.path(), &[b"penicillin".to_vec(), b"about tea".to_vec()]);
}

struct Model;
impl sage::Service for Model {}

struct Text;
impl Codec<String> for Text {
    fn encode(&self, value: &String, into: &mut Vec<u8>) -> Result<(), BoxError> {
        into.extend_from_slice(value.as_bytes());
        Ok(())
    }

    fn decode(&self, bytes: &[u8]) -> Result<String, BoxError> {
        Ok(std::str::from_utf8(bytes)?.to_owned())
    }
}

#[test]
fn if_answers_are_left_nothing_is_erased() {
    let memory = in_memory();
    memory.append(&session("s"), vec![turn("a", "x")]).unwrap();
    let error = memory.erase_with(&session("s"), |_| Err("the disk is away".into())).unwrap_err();
    assert!(matches!(&error, MemoryError::AnswersLeft { tag, .. } if *tag == session("s").tag()), "{error}");
    assert_eq!(memory.count(&session("s")).unwrap(), 1);
}

/// The answers of a session that begins meanwhile are erased, too.
#[test]
fn a_session_that_begins_while_answers_are_erased_is_erased() {
    let memory = in_memory();
    let user = Scope::tenant("t").user("u");
    memory.append(&session("first"), vec![turn("a", "x")]).unwrap();
    let seen = Mutex::new(Vec::new());
    let receipt = memory.erase_with(&user, |tag| {
        if seen.lock().unwrap().is_empty() {
            memory.append(&session("second"), vec![turn("a", "x")])?;
        }
        seen.lock().unwrap().push(tag.to_owned());
        Ok(1)
    });
    let mut seen = seen.into_inner().unwrap();
    seen.sort();
    let mut expected = vec![user.tag(), session("first").tag(), session("second").tag()];
    expected.sort();
    assert_eq!(seen, expected);
    assert_eq!(receipt.unwrap().turns, 2);
    assert_eq!(memory.count(&user).unwrap(), 0);
}

#[test]
fn a_summary_stands_in_the_place_of_what_it_sums_up() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("memory");
    let memory = opened(&path);
    let scope = session("s");
    let of = |n: usize| turn(&n.to_string(), &format!("detail {n}")).importance(n as f32 / 100.0);
    memory.append(&scope, (0..6).map(of).collect()).unwrap();
    memory.append(&session("other"), vec![turn("0", "another")]).unwrap();
    let summary = memory.compact(&scope, 2, |turns| {
        // Nothing is locked meanwhile.
        memory.append(&scope, vec![turn("6", "while it is made")])?;
        Ok(format!("{} details", turns.len()))
    });
    let summary = summary.unwrap().unwrap();
    assert_eq!((&*summary.role, &*summary.text, summary.importance), ("summary", "4 details", 0.03));
    let check = |memory: &Memory| {
        let window = memory.window(&scope, 9).unwrap();
        assert_eq!(texts(&window), ["4 details", "detail 4", "detail 5", "while it is made"]);
        let alone = Weights { context: 0.0, ..Weights::default() };
        assert_eq!(memory.recall(&scope, Recall::new("details").weights(alone)).unwrap().len(), 3);
    };
    check(&memory);
    assert_nowhere(folder.path(), &(0..4).map(|n| format!("detail {n}").into_bytes()).collect::<Vec<_>>());
    drop(memory);
    let memory = opened(&path);
    check(&memory);
    // Once more: the summary is summed up itself.
    memory.compact(&scope, 1, |turns| Ok(format!("{}, and {} more", turns[0].text, turns.len() - 1))).unwrap();
    assert_eq!(texts(&memory.window(&scope, 9).unwrap()), ["4 details, and 2 more", "while it is made"]);
    assert_eq!(memory.compact(&scope, 2, |_| unreachable!("there is nothing to sum up")).unwrap(), None);
    assert_eq!(memory.keep_latest(&scope, 1).unwrap(), 1);
    memory.append(&session("long"), (0..50).map(of).collect()).unwrap();
    assert_eq!(memory.keep_latest(&session("long"), 2).unwrap(), 48);
    assert_eq!(memory.keep_latest(&session("long"), 2).unwrap(), 0);
    assert_eq!(texts(&memory.window(&session("long"), 9).unwrap()), ["detail 48", "detail 49"]);
    assert_nowhere(folder.path(), &(6..48).map(|n| format!("detail {n}").into_bytes()).collect::<Vec<_>>());
    assert_eq!(texts(&memory.window(&scope, 9).unwrap()), ["while it is made"]);
    assert_eq!(texts(&memory.window(&session("other"), 9).unwrap()), ["another"]);
}

/// The summariser is a service with a policy, which is called from within a call of the memory.
#[test]
fn a_service_with_a_policy_makes_the_summary() {
    let env = Environment::local("summaries");
    let memory = env.register_service("memory", Memory::in_memory).build();
    let policy = Policy::new().retry(Retry::up_to(3).backoff(Duration::from_millis(1), Duration::from_millis(1)));
    let model = env.register_service("model", || Model).policy(policy).build();
    let tries = Arc::new(AtomicUsize::new(0));
    let summarise = model
        .method("summarise", move |_model, texts: Vec<String>| {
            let is_first = tries.fetch_add(1, Ordering::Relaxed) == 0;
            async move {
                let away = || ServiceError::new(Verdict::Passing(None), BoxError::from("away"));
                if is_first { Err(away()) } else { Ok(texts.join(" and ")) }
            }
        })
        .build();
    let windows = env
        .from_iter([session("s")])
        .try_map(move |scope| {
            let turns = vec![turn("a", "one"), turn("b", "two"), turn("c", "three")];
            memory.try_call(|memory| {
                memory.append(&scope, turns)?;
                memory.compact(&scope, 1, |turns| {
                    let texts = turns.iter().map(|turn| turn.text.clone()).collect();
                    Ok(summarise.call_blocking(texts)?)
                })?;
                memory.window(&scope, 9)
            })
        })
        .collect();
    let report = env.run().unwrap();
    assert_eq!(texts(&windows.take()[0]), ["one and two", "three"]);
    let policies: Vec<_> = report.services.iter().filter_map(|service| service.policy.as_ref()).collect();
    assert_eq!(policies[0].attempts, 2);
}

#[test]
fn a_summary_that_fails_or_comes_too_late_changes_nothing() {
    let memory = in_memory();
    let scope = session("s");
    memory.append(&scope, vec![turn("a", "one"), turn("b", "two"), turn("c", "three")]).unwrap();
    let error = memory.compact(&scope, 1, |_| Err("the model is away".into())).unwrap_err();
    assert!(matches!(error, MemoryError::NoSummary(_)), "{error}");
    let error = memory.compact(&scope, 1, |_| Ok(" ".to_owned())).unwrap_err();
    assert!(matches!(error, MemoryError::BadTurn { .. }), "{error}");
    let error = memory.compact(&scope, 1, |_| {
        // Its summary would have it for ever.
        memory.erase_turn(&scope, "a")?;
        Ok("one and two".to_owned())
    });
    assert!(matches!(error, Err(MemoryError::Changed { .. })), "{error:?}");
    assert_eq!(texts(&memory.window(&scope, 9).unwrap()), ["two", "three"]);
}
