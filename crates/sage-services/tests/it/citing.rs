//! The numbers that a model cites lead back to files and lines, and those it has made up are told.

use proptest::prelude::*;
use sage_services::store::Hit;
use sage_services::{Chunker, Citations, Format, Passage, Sources};

const TEXT: &str = "# Stopping\n\nServices stop\nlast.\n\n# Starting\n\nThey start first.";

fn sources() -> Sources {
    let mut passages = Chunker::default().chunks("guide.md", Format::Markdown, TEXT);
    passages.push(Passage { pages: Some((2, 2)), ..Passage::new("b.pdf", "A page.") });
    passages.push(Passage { pages: Some((2, 3)), ..Passage::new("c.pdf", "Two pages.") });
    Sources::new(passages)
}

fn cited(answer: &str) -> (Vec<usize>, Vec<u64>) {
    let Citations { known, unknown } = sources().cited_in(answer);
    (known.iter().map(|citation| citation.number).collect(), unknown)
}

#[test]
fn a_prompt_has_numbers_places_and_titles() {
    let expected = "[1] guide.md:1-4 Stopping\n# Stopping\n\nServices stop\nlast.\n\n\
                    [2] guide.md:6-8 Starting\n# Starting\n\nThey start first.\n\n\
                    [3] b.pdf:1 (page 2)\nA page.\n\n[4] c.pdf:1 (pages 2-3)\nTwo pages.\n\n";
    assert_eq!(sources().prompt(), expected);
    assert_eq!(Sources::new([]).prompt(), "");
}

#[test]
fn numbers_in_brackets_lead_back_to_lines() {
    let Citations { known, unknown } = sources().cited_in("They stop last [1], and start first [2][1].");
    let places: Vec<_> = known.iter().map(ToString::to_string).collect();
    assert_eq!((places, unknown), (vec!["guide.md:1-4".to_owned(), "guide.md:6-8".to_owned()], vec![]));
    for (answer, numbers) in [
        ("so[2, 1].", vec![2, 1]),
        ("so [1-3; 2].", vec![1, 2, 3]),
        ("so [^1] 【2】 [Source 3] [passages 3, 4]", vec![1, 2, 3, 4]),
        ("[[4]]", vec![4]),
        ("[1 ], [ 2", vec![1, 2]),
    ] {
        assert_eq!(cited(answer), (numbers, vec![]), "{answer}");
    }
}

#[test]
fn numbers_without_a_source_are_told() {
    assert_eq!(cited("as said [7] and [0], [1][7]"), (vec![1], vec![7, 0]));
    assert_eq!(cited("[3-9]"), (vec![3, 4], vec![9]));
    assert_eq!(cited("[1-18446744073709551615] [99999999999999999999]"), (vec![1, 2, 3, 4], vec![u64::MAX]));
    assert_eq!(Sources::new([]).cited_in("[1]").unknown, [1]);
}

#[test]
fn what_is_no_number_is_no_citation() {
    for answer in ["[a] [see 1] [text](1) [] [1.5] [-1] (1) 1] array[i]", "no brackets", "[1\n]"] {
        let found = cited(answer);
        assert!(found.1.is_empty() && (found.0.is_empty() || answer == "[1\n]"), "{answer} {found:?}");
    }
}

#[test]
fn hits_are_numbered_as_they_were_found() {
    let hits: Vec<Hit> = Chunker::default()
        .chunks("guide.md", Format::Markdown, TEXT)
        .iter()
        .map(|passage| {
            let record = passage.record(vec![1.0]);
            let mut hit = Hit::new(record.id, 0.5, record.text);
            hit.metadata = record.metadata;
            hit
        })
        .collect();
    let citations = Sources::of_hits(&hits).cited_in("First [2].");
    assert_eq!(citations.known[0].to_string(), "guide.md:6-8");
}

proptest! {
    #[test]
    fn every_number_is_known_or_told(
        numbers in prop::collection::vec(0_u64..9, 0..9),
        text in r"[a-z0-9 \[\]】^,-]{0,20}",
    ) {
        let answer: String = numbers.iter().map(|number| format!("so [{number}] ")).collect();
        let (known, unknown) = cited(&answer);
        for number in numbers {
            let is_known = known.contains(&(number as usize));
            prop_assert!(is_known == (1..=4).contains(&number) && is_known != unknown.contains(&number));
        }
        cited(&text);
    }
}
