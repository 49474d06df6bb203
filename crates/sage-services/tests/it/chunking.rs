//! Passages by tokens and by sentences, against a simple reference and against what holds for any text.

use std::ops::Range;

use proptest::prelude::*;
use sage_services::{Chunker, Format, Passage};

fn texts(chunker: &Chunker, format: Format, text: &str) -> Vec<String> {
    chunker.chunks("a", format, text).into_iter().map(|passage| passage.text).collect()
}

#[test]
fn tokens_are_cut_and_overlap_anywhere() {
    let text = "one two\nthree four five six seven ";
    let passages = Chunker::by_tokens(3, 1).chunks("a", Format::Text, text);
    let seen: Vec<_> = passages.iter().map(|p| (&*p.text, p.first_line, p.last_line)).collect();
    assert_eq!(seen, [("one two\nthree", 1, 2), ("three four five", 2, 2), ("five six seven", 2, 2)]);
    assert_eq!(texts(&Chunker::by_tokens(9, 8), Format::Text, text), [text.trim()]);
    assert_eq!(texts(&Chunker::by_tokens(9, 8), Format::Text, " \n\t"), Vec::<String>::new());
}

#[test]
fn sentences_stay_whole_where_they_fit() {
    let text =
        "It stops. It starts now.\n\n- An item\n  goes on.\n\nThis sentence is longer than a passage may be. End.";
    assert_eq!(
        texts(&Chunker::by_sentences(5, 0), Format::Markdown, text),
        ["It stops. It starts now.", "- An item\n  goes on.", "This sentence is longer than", "a passage may be. End.",]
    );
    let overlapping = texts(&Chunker::by_sentences(6, 3), Format::Text, "A b. C d e. F g h. I j k l m n. O.");
    assert_eq!(overlapping, ["A b. C d e.", "C d e. F g h.", "I j k l m n.", "O."]);
}

#[test]
fn passages_know_the_headings_above_them() {
    let text = "# Guide\n\nFirst one.\n\n## Stop\n\nLast one. Very last.";
    let passages = Chunker::by_sentences(4, 0).chunks("a.md", Format::Markdown, text);
    let seen: Vec<_> = passages.iter().map(|p| (&*p.heading, &*p.text)).collect();
    let expected =
        [("Guide", "# Guide\n\nFirst one."), ("Guide > Stop", "## Stop\n\nLast one."), ("Guide > Stop", "Very last.")];
    assert_eq!(seen, expected);
    let page = "<h1>Guide</h1>\n<p>One.\n<h1>Stop</h1>\n<p>Two <b>words</b>.";
    let passages = Chunker::by_sentences(2, 0).chunks("a.html", Format::Html, page);
    let last = passages.last().unwrap();
    assert_eq!((&*last.heading, last.first_line, &page[last.bytes.clone()]), ("Stop", 4, "<p>Two <b>words</b>."));
}

/// Every letter a token, in pairs where two are equal; what is no letter is none.
fn letters(text: &str) -> Vec<Range<usize>> {
    let letters = text.char_indices().filter(|(_, c)| c.is_alphabetic());
    letters.map(|(at, c)| at..at + c.len_utf8()).collect()
}

#[test]
fn a_tokenizer_says_what_is_counted() {
    let chunker = Chunker::by_tokens(3, 1).tokenizer("letters", letters);
    assert_eq!(texts(&chunker, Format::Text, "ab, cé! (d"), ["ab, c", "cé! (d"]);
    // What is no token is in a passage all the same.
    assert_eq!(texts(&chunker, Format::Text, "123"), ["123"]);
    assert_eq!(texts(&chunker, Format::Text, "12 ab 34"), ["12 ab 34"]);
    assert_eq!(chunker.id(), "tokens of up to 3 letters, 1 again");
    assert_ne!(chunker.id(), Chunker::by_tokens(3, 1).id());
    assert_ne!(Chunker::by_sentences(3, 1).id(), Chunker::by_tokens(3, 1).id());
    assert_eq!(format!("{:?}", Chunker::default()), "Chunker(\"sections of 700 to 1000, 120 again\")");
    // Two tokens of one character, as byte-level tokenizers have them.
    let twice = |text: &str| letters(text).into_iter().flat_map(|span| [span.clone(), span]).collect();
    assert_eq!(texts(&Chunker::by_tokens(3, 0).tokenizer("twice", twice), Format::Text, "abcd"), ["a", "bc", "d"]);
}

#[test]
#[should_panic(expected = "`backwards` does not")]
fn tokens_out_of_order_are_refused() {
    let backwards = |text: &str| letters(text).into_iter().rev().collect();
    Chunker::by_tokens(3, 1).tokenizer("backwards", backwards).chunks("a", Format::Text, "abc");
}

#[test]
#[should_panic(expected = "passages must overlap by less than they have")]
fn an_overlap_of_all_is_refused() {
    let _ = Chunker::by_sentences(3, 3);
}

fn covers(passages: &[Passage], text: &str) -> bool {
    text.char_indices()
        .filter(|(_, c)| !c.is_whitespace())
        .all(|(at, _)| passages.iter().any(|p| p.bytes.contains(&at)))
}

proptest! {
    #[test]
    fn words_are_cut_as_a_list_would_be(
        words in prop::collection::vec("[a-zé.]{1,6}", 0..40),
        gaps in prop::collection::vec(prop::sample::select(vec![" ", "\n", " \n\n ", "\t"]), 40),
        max in 1_usize..9,
        overlap in 0_usize..8,
    ) {
        let overlap = overlap.min(max - 1);
        let text: String = words.iter().zip(&gaps).flat_map(|(word, gap)| [word.as_str(), gap]).collect();
        let mut expected = Vec::new();
        let mut start = 0;
        while start < words.len() {
            let end = (start + max).min(words.len());
            expected.push(&words[start..end]);
            if end == words.len() {
                break;
            }
            start = end - overlap;
        }
        let passages = Chunker::by_tokens(max, overlap).chunks("a", Format::Text, &text);
        let seen: Vec<Vec<&str>> = passages.iter().map(|passage| passage.text.split_whitespace().collect()).collect();
        prop_assert_eq!(seen, expected);
    }

    #[test]
    fn all_text_is_in_passages_that_keep_their_limits(
        text in "([a-zé#`|-]{1,7}|[ ]|\n|\n\n|[.!?] |- |# |```\n){0,60}",
        max in 1_usize..12,
        overlap in 0_usize..11,
        by_tokens: bool,
        markdown: bool,
    ) {
        let overlap = overlap.min(max - 1);
        let chunker = if by_tokens { Chunker::by_tokens(max, overlap) } else { Chunker::by_sentences(max, overlap) };
        let passages = chunker.chunks("a", if markdown { Format::Markdown } else { Format::Text }, &text);
        prop_assert!(covers(&passages, &text), "{passages:#?}");
        for (index, passage) in passages.iter().enumerate() {
            prop_assert_eq!(passage.index, index);
            prop_assert_eq!(&passage.text, &text[passage.bytes.clone()]);
            prop_assert_eq!(passage.text.trim(), &passage.text);
            prop_assert!((1..=max).contains(&passage.text.split_whitespace().count()), "{passage:?}");
            let line = |byte: usize| text[..byte].matches('\n').count() + 1;
            let lines = (line(passage.bytes.start), line(passage.bytes.end));
            prop_assert_eq!((passage.first_line, passage.last_line), lines);
        }
        for pair in passages.windows(2) {
            let shared = pair[0].bytes.end.saturating_sub(pair[1].bytes.start);
            let again = &text[pair[1].bytes.start..pair[1].bytes.start + shared];
            prop_assert!(again.split_whitespace().count() <= overlap, "{pair:#?}");
            prop_assert!(pair[0].bytes.start < pair[1].bytes.start && pair[0].bytes.end < pair[1].bytes.end);
        }
    }
}
