//! The labelled dialogues are labelled right, and the baseline finds in them what it was measured to find.

#[path = "../../../../benches/dialogues/labelled.rs"]
mod labelled;
#[path = "../../../../benches/dialogues/ranking.rs"]
mod ranking;

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use labelled::{Dialogue, K, Kind, Question, dialogues, faults, mean, parsed, scores};
use ranking::{Remembered, Turns};
use sage_services::LexicalEmbedder;

fn folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../benches/dialogues"))
}

fn all() -> Vec<Dialogue> {
    dialogues(folder()).unwrap_or_else(|wrong| panic!("{wrong}"))
}

#[test]
fn dialogues_are_long_and_asked_about_in_every_way() {
    let all = all();
    assert_eq!(all.len(), 12);
    for Dialogue { name, turns, questions } in &all {
        assert!((100..150).contains(&turns.len()) && questions.len() >= 30, "{name}");
        let sessions: HashSet<_> = turns.iter().map(|turn| &turn.session).collect();
        let roles: HashSet<_> = turns.iter().map(|turn| &turn.role).collect();
        assert!(sessions.len() >= 9 && roles.len() == 2, "{name}");
        let days = (turns[turns.len() - 1].at.as_second() - turns[0].at.as_second()) / (24 * 60 * 60);
        assert!((60..550).contains(&days), "{name}: {days}");
    }
    let questions: Vec<&Question> = all.iter().flat_map(|dialogue| &dialogue.questions).collect();
    let asked: HashSet<&str> = questions.iter().map(|question| &*question.question).collect();
    assert_eq!(asked.len(), questions.len(), "a question is there twice");
    for kind in Kind::ALL {
        assert!(questions.iter().filter(|question| question.kind == kind).count() >= 20, "{kind:?}");
    }
}

#[test]
fn wrong_labels_are_told() {
    let turn = |id: &str, session: &str, minute: u32, role: &str| {
        format!(
            r#"{{"id":"{id}","session":"{session}","at":"2024-01-13T10:{minute:02}:00Z","role":"{role}","text":"Hm."}}"#
        )
    };
    let question = |question: &str, kind: &str, evidence: &str| {
        format!(r#"{{"question":"{question}","kind":"{kind}","evidence":[{evidence}]}}"#)
    };
    let said = [turn("1", "a", 1, "user"), turn("2", "a", 2, "guest"), turn("3", "b", 2, "user")];
    let of = |lines: &[String]| parsed("it".to_owned(), &lines.join("\n"));
    let wrong = |more: &[String]| faults(&of(&[&said, more].concat()).unwrap());
    assert_eq!(wrong(&[question("Why?", "several", r#""1","3""#)]), Vec::<String>::new());
    for (more, fault) in [
        (turn("2", "b", 3, "user"), "the turn 2 is there twice"),
        (turn("4", "b", 3, ""), "the turn 4 has no role or no text"),
        (turn("4", "b", 2, "user"), "the turn 4 is earlier than the one before it"),
        (turn("4", "c", 1, "user"), "the turn 4 is earlier than the one before it"),
        (turn("4", "a", 3, "user"), "the turn 4 is in a session that had ended"),
        (question("Why?", "time", ""), "without evidence, or with a turn that is not there: Why?"),
        (question("Why?", "time", r#""4""#), "without evidence, or with a turn that is not there: Why?"),
        (question("Why?", "words", r#""1","1""#), "evidence twice or out of order: Why?"),
        (question("Why?", "words", r#""3","1""#), "evidence twice or out of order: Why?"),
        (question("Why?", "several", r#""1""#), "answered by one turn: Why?"),
    ] {
        assert_eq!(wrong(std::slice::from_ref(&more)), [fault], "{more}");
    }
    let twice = [question("Why?", "time", r#""1""#), question("Why?", "words", r#""2""#)];
    assert_eq!(wrong(&twice), ["asked twice: Why?"]);
    assert_eq!(of(&[twice[0].clone(), said[0].clone()]).unwrap_err(), "line 2: a turn after a question");
    for line in [
        said[0].replace(r#""id""#, r#""name""#),
        said[0].replace("T10:01:00Z", ""),
        question("Why?", "guess", r#""1""#),
        "{}".to_owned(),
    ] {
        assert!(of(std::slice::from_ref(&line)).unwrap_err().starts_with("line 1: "), "{line}");
    }
}

#[test]
fn faults_of_files_name_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let lines = fs::read_to_string(self::folder().join("lab.jsonl")).unwrap();
    fs::write(folder.path().join("lab.jsonl"), &lines).unwrap();
    fs::write(folder.path().join("notes.md"), "is not read").unwrap();
    let read = dialogues(folder.path()).unwrap();
    assert_eq!(read.iter().map(|dialogue| &*dialogue.name).collect::<Vec<_>>(), ["lab"]);
    let first = lines.lines().next().unwrap();
    fs::write(folder.path().join("twice.jsonl"), format!("{first}\n{first}\n")).unwrap();
    let wrong = dialogues(folder.path()).unwrap_err();
    assert!(wrong.contains("twice.jsonl: the turn s01-01 is there twice"), "{wrong}");
}

#[test]
fn measures_are_right_for_known_rankings() {
    let all = all();
    let evidence = |_: &Dialogue, question: &Question| Ok::<_, ()>(question.evidence.clone());
    let (perfect, count) = mean(&scores(&all, evidence).unwrap(), |_| true);
    assert_eq!((perfect.recall, perfect.reciprocal_rank), (1.0, 1.0));
    assert_eq!(count, all.iter().map(|dialogue| dialogue.questions.len()).sum::<usize>());
    // Behind `before` others, only the first turn of the evidence.
    let behind = |before: usize| {
        move |_: &Dialogue, question: &Question| {
            let others = (0..before).map(|other| format!("other {other}"));
            Ok::<_, ()>(others.chain([question.evidence[0].clone()]).collect())
        }
    };
    let second = scores(&all, behind(1)).unwrap();
    assert_eq!(mean(&second, |_| true).0.reciprocal_rank, 0.5);
    let (several, _) = mean(&second, |kind| kind == Kind::Several);
    assert!((0.4..=0.5).contains(&several.recall), "{several:?}");
    let (late, _) = mean(&scores(&all, behind(K)).unwrap(), |_| true);
    assert_eq!((late.recall, late.reciprocal_rank), (0.0, 0.0));
    assert!(mean(&scores(&all, behind(K - 1)).unwrap(), |_| true).0.recall > 0.9);
}

#[test]
fn baselines_find_what_they_were_measured_to_find() {
    let all = all();
    let embedder = LexicalEmbedder::default();
    let turns = Turns::new(&embedder, &all).unwrap();
    let words = scores(&all, |dialogue, asked| turns.by_words(dialogue, &asked.question)).unwrap();
    let vectors = scores(&all, |dialogue, asked| turns.by_vectors(dialogue, &asked.question)).unwrap();
    let fused = scores(&all, |dialogue, asked| turns.fused(dialogue, &asked.question)).unwrap();
    for (name, scores, recall, reciprocal_rank) in
        [("BM25", words, 0.480, 0.289), ("lexical", vectors, 0.505, 0.337), ("fused", fused, 0.507, 0.326)]
    {
        let (found, _) = mean(&scores, |_| true);
        assert!((found.recall - recall).abs() < 0.01, "{name}: {found:?}");
        assert!((found.reciprocal_rank - reciprocal_rank).abs() < 0.01, "{name}: {found:?}");
    }
}

#[test]
fn a_memory_recalls_more_than_plain_bm25() {
    let all = all();
    let embedder = LexicalEmbedder::default();
    let plain = Remembered::new(None, &all).unwrap();
    let plain = scores(&all, |dialogue, asked| plain.recalled(dialogue, &asked.question)).unwrap();
    let lexical = Remembered::new(Some(&embedder), &all).unwrap();
    let lexical = scores(&all, |dialogue, asked| lexical.recalled(dialogue, &asked.question)).unwrap();
    for (name, scores, recall) in [("words", plain, 0.652), ("lexical", lexical, 0.655)] {
        let (found, _) = mean(&scores, |_| true);
        // BM25 finds 0.48.
        assert!((found.recall - recall).abs() < 0.01, "{name}: {found:?}");
    }
}
