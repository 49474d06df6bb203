//! The labelled questions fit the documents that they are about.

#[path = "../../../../benches/retrieval/labelled.rs"]
mod questions;

use std::collections::HashSet;
use std::path::Path;

use questions::{Kind, Labelled, Place, labelled, place_of};
use sage_services::{Chunker, read_document};

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

fn all() -> Vec<Labelled> {
    labelled(root()).unwrap_or_else(|wrong| panic!("change questions.json with its documents:\n{wrong}"))
}

#[test]
fn every_question_is_answered_somewhere() {
    let all = all();
    assert!(all.len() >= 60);
    let texts: HashSet<&str> = all.iter().map(|one| &*one.question).collect();
    assert_eq!(texts.len(), all.len(), "a question is there twice");
    for Labelled { question, places, .. } in &all {
        assert!(!places.is_empty(), "{question}");
        let places: Vec<_> = places.iter().map(|place| (&place.path, place.first_line)).collect();
        assert_eq!(places.iter().collect::<HashSet<_>>().len(), places.len(), "{question}");
    }
}

/// Words of five letters and more, without the end of their forms.
fn long_words(text: &str) -> HashSet<String> {
    let words = text.split(|c: char| !c.is_alphabetic()).map(str::to_lowercase);
    words.filter(|word| word.len() >= 5).map(|word| word.chars().take(6).collect()).collect()
}

#[test]
fn paraphrases_share_few_words_with_their_answers() {
    let mut shares = Vec::new();
    for Labelled { question, places, .. } in all().iter().filter(|one| one.kind == Kind::Paraphrase) {
        let asked = long_words(question);
        let answered: HashSet<String> = places.iter().flat_map(|place| long_words(&place.quote)).collect();
        shares.push(asked.intersection(&answered).count() as f64 / asked.len().max(1) as f64);
    }
    assert!(shares.len() >= 60);
    let mean = shares.iter().sum::<f64>() / shares.len() as f64;
    assert!(mean < 0.15, "paraphrases share {mean} of their words with the answers");
}

#[test]
fn every_place_is_covered_by_a_passage() {
    for place in all().iter().flat_map(|one| &one.places) {
        let document = read_document(&root().join(&place.path)).unwrap();
        let passages = Chunker::default().chunk_document(&*place.path, &document);
        let covers =
            |places: &[Place]| passages.iter().any(|p| place_of(places, &p.path, p.first_line, p.last_line).is_some());
        assert!(covers(std::slice::from_ref(place)), "{place:?}");
    }
}
