//! Recall: what is found, in which order, and why.

use std::time::Duration;

use proptest::prelude::*;
use sage_services::LexicalEmbedder;
use sage_services::memory::{Change, Memory, MemoryError, NewTurn, Recall, Scope, Weights};
use sage_services::{Embedder, EmbedderId};

use crate::shared::{Clock, in_memory, opened, session, turn};

fn ids(memory: &Memory, scope: &Scope, recall: Recall) -> Vec<String> {
    memory.recall(scope, recall).unwrap().into_iter().map(|recalled| recalled.turn.id).collect()
}

const NOTHING: Weights = Weights { similarity: 0.0, words: 0.0, context: 0.0, recency: 0.0, importance: 0.0 };

#[test]
fn each_part_is_told_and_weighs_what_it_is_given() {
    let clock = Clock::new();
    let memory = clock.of(Memory::in_memory().embedder(LexicalEmbedder::default()));
    memory.open().unwrap();
    let scope = session("s");
    memory.append(&scope, vec![turn("old", "the boiler is broken").importance(1.0)]).unwrap();
    clock.forward(30.0 * 86_400.0);
    memory.append(&scope, vec![turn("new", "the boiler is repaired"), turn("other", "a cello")]).unwrap();
    let recalled = memory.recall(&scope, Recall::new("what about the boiler?")).unwrap();
    let alone = Recall::new("what about the boiler?").weights(Weights { context: 0.0, ..Weights::default() });
    assert_eq!(ids(&memory, &scope, alone).len(), 2, "what shares nothing with the question is not recalled");
    let fits = |at: usize| 0.3 * recalled[at].parts.similarity + recalled[at].parts.words;
    let [first, second, other] = [0, 1, 2].map(|at| &*recalled[at].turn.id);
    assert_eq!((first, second, other), ("new", "old", "other"));
    for (at, context) in [(0, 0.5 * fits(1)), (1, 0.3 * fits(0)), (2, 0.5 * fits(0) + 0.25 * fits(1))] {
        assert!((recalled[at].parts.context - context).abs() < 1e-6, "{:?}", recalled[at]);
    }
    let of = |id: &str| recalled.iter().find(|recalled| recalled.turn.id == id).unwrap();
    let (old, new) = (of("old"), of("new"));
    assert_eq!((old.parts.importance, new.parts.importance), (1.0, 0.0));
    assert!((old.parts.recency - 0.5).abs() < 1e-6 && new.parts.recency == 1.0, "{:?}", old.parts);
    assert!(old.parts.words > 0.0 && (old.parts.words - new.parts.words).abs() < 1e-6);
    assert!(old.parts.similarity > 0.0);
    for recalled in &recalled {
        let (parts, weights) = (recalled.parts, Weights::default());
        let sum = weights.similarity * parts.similarity
            + weights.words * parts.words
            + weights.context * parts.context
            + weights.recency * parts.recency
            + weights.importance * parts.importance;
        assert!((recalled.score - sum).abs() < 1e-6);
    }
    let recall = || Recall::new("what about the boiler?").k(1);
    assert_eq!(ids(&memory, &scope, recall().weights(Weights { words: 1.0, recency: 0.1, ..NOTHING })), ["new"]);
    assert_eq!(ids(&memory, &scope, recall().weights(Weights { words: 1.0, importance: 0.1, ..NOTHING })), ["old"]);
    let quick = recall().weights(Weights { words: 1.0, recency: 1.0, ..NOTHING }).half_life(Duration::from_secs(1));
    let recency = memory.recall(&scope, quick.k(2)).unwrap()[1].parts.recency;
    assert!(recency < 1e-6, "{recency}");
}

#[test]
fn nothing_is_recalled_that_scores_too_low() {
    let memory = in_memory();
    memory
        .append(&session("s"), vec![turn("a", "boiler boiler"), turn("b", "a boiler in a long text of words")])
        .unwrap();
    let all = memory.recall(&session("s"), Recall::new("boiler")).unwrap();
    let between = f32::midpoint(all[0].score, all[1].score);
    assert_eq!(ids(&memory, &session("s"), Recall::new("boiler").min_score(between)), ["a"]);
    assert_eq!(ids(&memory, &session("s"), Recall::new("boiler").min_score(9.0)), [""; 0]);
    assert_eq!(ids(&memory, &session("s"), Recall::new("the of and")), [""; 0]);
}

#[test]
fn what_cannot_be_asked_is_refused() {
    let memory = in_memory();
    let recall = || Recall::new("x");
    for (recall, why) in [
        (recall().k(0), "0 turns; 1 to 16384"),
        (recall().k(20_000), "20000 turns"),
        (recall().weights(NOTHING), "not all 0"),
        (recall().weights(Weights { recency: 1.0, ..NOTHING }), "a window gives the latest turns"),
        (recall().weights(Weights { words: -1.0, ..NOTHING }), "0 or more"),
        (recall().weights(Weights { words: f32::NAN, ..NOTHING }), "0 or more"),
        (recall().half_life(Duration::ZERO), "half-life"),
        (recall().min_score(f32::NAN), "not a number"),
        (recall().vector(vec![1.0]), "made without an embedder"),
    ] {
        let error = memory.recall(&session("s"), recall).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
}

#[test]
fn vectors_may_come_from_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("memory");
    let made = |path: &std::path::Path| Memory::at(path).vectors_made_by(EmbedderId::new("ours", 2));
    let memory = made(&path);
    memory.open().unwrap();
    let scope = session("s");
    let east = turn("east", "to the right").vector(vec![2.0, 0.0]);
    memory.append(&scope, vec![east, turn("north", "up").vector(vec![0.0, 3.0]), turn("none", "nowhere")]).unwrap();
    let alone = Weights { similarity: 1.0, ..NOTHING };
    let recall = |x, y| Recall::new("whither").vector(vec![x, y]).weights(alone);
    assert_eq!(ids(&memory, &scope, recall(1.0, 0.1)), ["east", "north"]);
    assert_eq!(ids(&memory, &scope, recall(0.1, 1.0)), ["north", "east"]);
    // A new text without a vector has none.
    memory.update(&scope, "east", "to the left").unwrap();
    assert_eq!(ids(&memory, &scope, recall(1.0, 0.1)), ["north"]);
    drop(memory);
    let memory = made(&path);
    memory.open().unwrap();
    assert_eq!(ids(&memory, &scope, recall(1.0, 0.1)), ["north"]);
    for (vector, why) in
        [(vec![1.0], "it has 1 numbers, not those of ours (2 dimensions)"), (vec![1.0, f32::NAN], "number 1")]
    {
        let error = memory.append(&scope, vec![turn("bad", "x").vector(vector.clone())]).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
        let error = memory.recall(&scope, Recall::new("x").vector(vector)).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
    drop(memory);
    let error = Memory::at(&path).open().unwrap_err();
    assert!(matches!(&error, MemoryError::OtherEmbedder { found, .. } if found.starts_with("ours")), "{error}");
    Memory::at(&path).embedder(LexicalEmbedder::default()).open().unwrap_err();
}

fn vector() -> impl Strategy<Value = Vec<f32>> {
    prop::collection::vec((-3_i8..4).prop_map(f32::from), 3)
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let product = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f32>();
    let lengths = (product(a, a) * product(b, b)).sqrt();
    if lengths > 0.0 { product(a, b) / lengths } else { 0.0 }
}

proptest! {
    #[test]
    fn the_closest_are_those_of_a_simple_loop(
        vectors in prop::collection::vec(vector(), 1..300),
        query in vector(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), prop::option::of(vector())), 0..20),
        k in 1..20_usize,
    ) {
        let memory = Memory::in_memory().vectors_made_by(EmbedderId::new("ours", 3));
        memory.open().unwrap();
        let scope = session("s");
        let turns = vectors.iter().enumerate().map(|(at, vector)| turn(&at.to_string(), "x").vector(vector.clone()));
        memory.append(&scope, turns.collect()).unwrap();
        let mut vectors: Vec<Option<Vec<f32>>> = vectors.into_iter().map(Some).collect();
        for (at, vector) in changes {
            let at = at.index(vectors.len());
            let done = match &vector {
                Some(vector) => memory.update(&scope, &at.to_string(), Change::from("y").vector(vector.clone())),
                None => memory.delete(&scope, &at.to_string()),
            };
            prop_assert_eq!(done.is_ok(), vectors[at].is_some());
            if done.is_ok() {
                vectors[at] = vector;
            }
        }
        let recall = Recall::new("?").vector(query.clone()).weights(Weights { similarity: 1.0, ..NOTHING }).k(k);
        let recalled = memory.recall(&scope, recall).unwrap();
        let mut expected: Vec<f32> = vectors.iter().flatten().map(|vector| cosine(vector, &query)).collect();
        expected.retain(|score| *score > 1e-6);
        expected.sort_by(|a, b| b.total_cmp(a));
        expected.truncate(k);
        prop_assert_eq!(recalled.len(), expected.len());
        for (recalled, expected) in recalled.iter().zip(expected) {
            let of: usize = recalled.turn.id.parse().unwrap();
            prop_assert!((recalled.score - expected).abs() < 1e-5);
            prop_assert!((recalled.score - cosine(vectors[of].as_ref().unwrap(), &query)).abs() < 1e-5);
        }
    }
}

#[test]
fn equal_turns_come_the_latest_first() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("memory");
    let memory = opened(&path);
    memory.append(&session("s"), (0..30).map(|n| turn(&n.to_string(), "the same words")).collect()).unwrap();
    let recall = || Recall::new("same words").k(3).weights(Weights { words: 1.0, ..NOTHING });
    assert_eq!(ids(&memory, &session("s"), recall()), ["29", "28", "27"]);
    memory.erase_turn(&session("s"), "28").unwrap();
    drop(memory);
    assert_eq!(ids(&opened(&path), &session("s"), recall()), ["29", "27", "26"]);
}

#[test]
fn an_embedder_that_fails_fails_the_call_and_nothing_else() {
    struct Fails(EmbedderId);
    impl sage::Service for Fails {}
    impl Embedder for Fails {
        fn id(&self) -> &EmbedderId {
            &self.0
        }

        fn embed_passages(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, sage_services::EmbedError> {
            if texts.iter().any(|text| text.contains("fail")) {
                let source = "the model is away".into();
                return Err(sage_services::EmbedError::Failed { name: "fails".to_owned(), source });
            }
            Ok(texts.iter().map(|_| vec![1.0]).collect())
        }
    }
    let memory = Memory::in_memory().embedder(Fails(EmbedderId::new("fails", 1)));
    memory.open().unwrap();
    memory.append(&session("s"), vec![turn("a", "fine")]).unwrap();
    memory.append(&session("s"), vec![turn("b", "fine"), turn("c", "it fails")]).unwrap_err();
    memory.update(&session("s"), "a", "it fails").unwrap_err();
    assert!(memory.recall(&session("s"), Recall::new("fail")).is_err());
    // By words alone it is not asked.
    let by_words = Recall::new("fine, or does it fail?").weights(Weights { words: 1.0, ..NOTHING });
    assert_eq!(ids(&memory, &session("s"), by_words), ["a"]);
}

#[test]
fn a_thousand_sessions_are_written_and_recalled_at_once() {
    let memory = std::sync::Arc::new(in_memory());
    std::thread::scope(|threads| {
        for thread in 0..8 {
            let memory = &memory;
            threads.spawn(move || {
                for number in (thread..1_000).step_by(8) {
                    let scope = session(&number.to_string());
                    for round in 0..3 {
                        let text = format!("number {number} in round {round}");
                        memory.append(&scope, vec![NewTurn::user(text)]).unwrap();
                        let recalled = memory.recall(&scope, Recall::new(format!("number {number}"))).unwrap();
                        assert_eq!(recalled.len(), round + 1);
                        assert!(recalled.iter().all(|recalled| recalled.turn.scope == scope));
                    }
                }
            });
        }
    });
    assert_eq!(memory.scopes(&Scope::tenant("t")).unwrap().len(), 1_000);
    assert_eq!(memory.count(&Scope::tenant("t")).unwrap(), 3_000);
}

#[test]
fn an_answer_is_recalled_by_its_question_within_its_scope() {
    let memory = in_memory();
    let of = |id: &str, text: &str| turn(id, text);
    memory
        .append(&session("one"), vec![of("a", "Which plumber repaired the boiler?"), of("b", "My neighbour did.")])
        .unwrap();
    memory.append(&session("two"), vec![of("c", "Nothing of that kind.")]).unwrap();
    let found = ids(&memory, &Scope::tenant("t"), Recall::new("the boiler's plumber"));
    assert_eq!(found, ["a", "b"]);
    // Deleted turns are not between others.
    memory.append(&session("one"), (0..9).map(|n| turn(&n.to_string(), "Hm.")).collect()).unwrap();
    memory.append(&session("one"), vec![of("last", "By the way.")]).unwrap();
    (0..9).for_each(|n| memory.delete(&session("one"), &n.to_string()).unwrap());
    assert_eq!(ids(&memory, &Scope::tenant("t"), Recall::new("the boiler's plumber")), ["a", "b", "last"]);
}
