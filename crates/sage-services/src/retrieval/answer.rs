//! Answers a question with the best sentence of the passages retrieved for it, word for word.
//!
//! An extractive answer cannot say what no document says, and it names its lines. It cannot combine, reason or phrase:
//! that takes a language model, which you can call in the place of [`Extractor::answer`].
//!
//! Invariants:
//! 1. An answer's text is found in its passage, but for white space, list marks and a cut that is marked by "…".
//! 2. Equal input gives an equal answer; of two equally good sentences the one from the better passage wins, then the
//!    earlier one.
//!
//! Knows nothing of vectors and stores; asks the embedder only how rare a word is.

use std::fmt;
use std::sync::Arc;

use super::question::{Question, is_copula};
use crate::documents::Passage;
use crate::documents::{Sentence, ends_sentence, sentences};
use crate::embed::LexicalEmbedder;
use crate::store::Hit;
use crate::terms::for_each_term;

/// A quotation that answers a question, and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// One or two neighbouring sentences.
    pub text: String,
    /// Name of the document.
    pub path: Arc<str>,
    /// First line of the quotation, counted from 1.
    pub first_line: usize,
    /// Last line of the quotation, inclusive.
    pub last_line: usize,
    /// First and last page of the passage quoted, counted from 1; `None` in a document without pages.
    pub pages: Option<(usize, usize)>,
    /// Share of the question's words found in the quotation or in the titles above it, weighted by their rarity: 0 to
    /// 1.
    pub coverage: f32,
}

/// The quotation, and on a line of its own where it stands: `path:first-last`.
impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { text, path, first_line, last_line, .. } = self;
        write!(f, "{text}\n  {path}:{first_line}")?;
        if last_line == first_line { Ok(()) } else { write!(f, "-{last_line}") }
    }
}

/// Chooses the sentence that answers a question best, or two neighbours.
///
/// A sentence scores for each of the question's words that it holds, by the word's rarity, and half as much for words
/// in the titles above it. It scores more when the words are neighbours in both, or when a "what is" question finds "…
/// is". It scores less when it is code, a fragment, very long, or only repeats the question.
///
/// ```
/// use sage_services::store::Hit;
/// use sage_services::{Extractor, LexicalEmbedder};
///
/// let hits = [Hit::new("stop.md", 0.5, "Tasks stop first. Services stop in the reverse order of their start.")];
/// let answer = Extractor::default().answer(&LexicalEmbedder::default(), "In what order do services stop?", &hits);
/// assert_eq!(answer.unwrap().text, "Services stop in the reverse order of their start.");
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Extractor {
    min_coverage: f32,
    max_chars: usize,
}

impl Default for Extractor {
    /// A coverage of at least 0.4, at most 480 characters.
    fn default() -> Self {
        Self::new(0.4, 480)
    }
}

/// Worth of a word that stands only in the titles above a sentence.
const TITLE_WORTH: f32 = 0.5;
/// Added for each pair of the question's words that are neighbours in the sentence as well, as a share of their weight.
const PAIR_WORTH: f32 = 0.25;
/// Worth of a sentence that is code rather than prose.
const CODE_WORTH: f32 = 0.7;
/// Worth of words without a full stop at the end, which may be a title or a label.
const FRAGMENT_WORTH: f32 = 0.8;
/// A second sentence must add this much to be quoted, too.
const SECOND_SENTENCE_WORTH: f32 = 0.85;
/// Added where a sentence begins with a word of a "what is" question and goes on with "is", "are" or "means".
const DEFINITION_WORTH: f32 = 0.25;
/// Sentences with fewer terms besides the question's own only repeat it; longer ones than `LONG_TERMS` find words by
/// chance.
const FEW_NEW_TERMS: usize = 2;
const LONG_TERMS: usize = 40;

impl Extractor {
    /// Creates an extractor that gives no answer below `min_coverage` (0 to 1) and cuts answers at `max_chars`.
    ///
    /// # Panics
    ///
    /// When `min_coverage` is not a number from 0 to 1, or `max_chars` is 0.
    pub fn new(min_coverage: f32, max_chars: usize) -> Self {
        assert!((0.0..=1.0).contains(&min_coverage), "a coverage is 0 to 1, not {min_coverage}");
        assert!(max_chars > 0, "an answer needs at least one character");
        Self { min_coverage, max_chars }
    }

    /// Returns the best quotation from `hits`, the passages retrieved for `question`, best first.
    ///
    /// `None` when no sentence holds enough of the question's words.
    pub fn answer(&self, embedder: &LexicalEmbedder, question: &str, hits: &[Hit]) -> Option<Answer> {
        let question = Question::new(embedder, question)?;
        let top_score = hits.iter().map(|hit| hit.score).fold(f32::MIN_POSITIVE, f32::max);
        let mut best: Option<(f32, Answer)> = None;
        for hit in hits {
            let closeness = 0.5 + 0.5 * (hit.score / top_score).max(0.0);
            for (score, answer) in self.candidates(&question, &Passage::from(hit)) {
                let score = score * closeness;
                if answer.coverage >= self.min_coverage && best.as_ref().is_none_or(|(highest, _)| score > *highest) {
                    best = Some((score, answer));
                }
            }
        }
        best.map(|(_, answer)| answer)
    }

    /// Every sentence of the passage, and every two neighbours, with their scores.
    fn candidates(&self, question: &Question, passage: &Passage) -> Vec<(f32, Answer)> {
        let titles = Matches::of(question, &passage.heading);
        let sentences: Vec<(Sentence, Matches)> = sentences(&passage.text)
            .into_iter()
            .map(|sentence| {
                let matches = Matches::of(question, &sentence.text);
                (sentence, matches)
            })
            .collect();
        let mut candidates = Vec::new();
        for (at, (sentence, matches)) in sentences.iter().enumerate() {
            let worth = match sentence {
                Sentence { is_code: true, .. } => CODE_WORTH,
                Sentence { text, .. } if ends_sentence(text) => 1.0,
                _ => FRAGMENT_WORTH,
            };
            let quote =
                |last, matches: &Matches| self.quote(passage, sentence, last, matches.coverage(question, &titles));
            candidates.push((matches.worth(question, &titles) * worth, quote(sentence, matches)));
            if let Some((next, next_matches)) = sentences.get(at + 1)
                && next.paragraph == sentence.paragraph
            {
                let both = matches.and(next_matches);
                candidates.push((both.worth(question, &titles) * worth * SECOND_SENTENCE_WORTH, quote(next, &both)));
            }
        }
        candidates
    }

    fn quote(&self, passage: &Passage, first: &Sentence, last: &Sentence, coverage: f32) -> Answer {
        let mut text = first.text.clone();
        if !std::ptr::eq(first, last) {
            text.push(' ');
            text.push_str(&last.text);
        }
        if let Some((limit, _)) = text.char_indices().nth(self.max_chars) {
            text.truncate(text[..limit].rfind(' ').unwrap_or(limit));
            text.push('…');
        }
        Answer {
            text,
            path: Arc::clone(&passage.path),
            // The text of a row may have more lines than the row.
            first_line: (passage.first_line + first.first_line).min(passage.last_line),
            last_line: (passage.first_line + last.last_line).min(passage.last_line),
            pages: passage.pages,
            coverage,
        }
    }
}

/// Which of a question's terms a text holds.
#[derive(Clone)]
struct Matches {
    found: Vec<bool>,
    /// Share of the question's weight in pairs that are neighbours in both, times what a pair is worth.
    pairs: f32,
    terms: usize,
    /// How many of the terms are not the question's.
    new_terms: usize,
    defines: bool,
}

impl Matches {
    fn of(question: &Question, text: &str) -> Self {
        let mut matches =
            Self { found: vec![false; question.weights.len()], pairs: 0.0, terms: 0, new_terms: 0, defines: false };
        let mut previous: Option<usize> = None;
        for_each_term(text, |term, is_stop_word| {
            let position = question.position(term);
            matches.defines |= matches.terms == 1 && previous.is_some() && question.asks_what && is_copula(term);
            matches.terms += usize::from(!is_stop_word);
            matches.new_terms += usize::from(!is_stop_word && position.is_none());
            if let Some(position) = position {
                if previous.is_some_and(|previous| previous + 1 == position) && !matches.found[position] {
                    matches.pairs += PAIR_WORTH * question.weights[position] / question.total;
                }
                matches.found[position] = true;
            }
            if !is_stop_word {
                previous = position;
            }
        });
        matches
    }

    fn coverage(&self, question: &Question, titles: &Self) -> f32 {
        let worth = |(&in_text, &in_titles)| match (in_text, in_titles) {
            (true, _) => 1.0,
            (false, true) => TITLE_WORTH,
            (false, false) => 0.0,
        };
        let found = self.found.iter().zip(&titles.found).map(worth).zip(&question.weights);
        found.map(|(worth, weight)| worth * weight).sum::<f32>() / question.total
    }

    fn and(&self, other: &Self) -> Self {
        Self {
            found: self.found.iter().zip(&other.found).map(|(a, b)| *a || *b).collect(),
            pairs: self.pairs.max(other.pairs),
            terms: self.terms + other.terms,
            new_terms: self.new_terms + other.new_terms,
            defines: self.defines,
        }
    }

    /// The worth of the words that are not the question's.
    fn information(&self) -> f32 {
        if self.new_terms < FEW_NEW_TERMS {
            0.5
        } else {
            1.0 / (1.0 + (self.terms.max(LONG_TERMS) as f32 / LONG_TERMS as f32).ln())
        }
    }

    fn worth(&self, question: &Question, titles: &Self) -> f32 {
        let definition = if self.defines { DEFINITION_WORTH } else { 0.0 };
        (self.coverage(question, titles) + self.pairs + definition) * self.information()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::documents::Chunker;
    use crate::documents::Format;

    fn passages(documents: &[(&str, &str)]) -> Vec<Passage> {
        documents.iter().flat_map(|(path, text)| Chunker::default().chunks(*path, Format::Markdown, text)).collect()
    }

    fn found(passages: &[Passage]) -> Vec<Hit> {
        let hit = |passage: &Passage| {
            let record = passage.record(vec![1.0]);
            let mut hit = Hit::new(record.id, 0.5, record.text);
            hit.metadata = record.metadata;
            hit
        };
        passages.iter().map(hit).collect()
    }

    fn answer(question: &str, documents: &[(&str, &str)]) -> Option<Answer> {
        let embedder = LexicalEmbedder::default();
        let passages = passages(documents);
        passages.iter().for_each(|passage| drop(embedder.embed_passage(&passage.text_with_heading())));
        Extractor::default().answer(&embedder, question, &found(&passages))
    }

    const STOPS: &str = "# Lifecycle\n\n## Stopping\n\nTasks stop before services do, whatever the reason.\n\
                         A drain ends within ten seconds unless an\noption says otherwise. Cleanup follows.\n";

    #[test]
    fn the_best_sentence_is_quoted_with_its_lines() {
        let found = answer("How many seconds may a drain take?", &[("other.md", "A sink writes."), ("stop.md", STOPS)])
            .unwrap();
        assert_eq!(found.text, "A drain ends within ten seconds unless an option says otherwise.");
        assert_eq!((&*found.path, found.first_line, found.last_line), ("stop.md", 6, 7));
        assert!(found.coverage > 0.3 && found.coverage < 1.0, "{found:?}");
    }

    #[test]
    fn words_in_the_titles_count_towards_the_sentence() {
        let sentence = "It happens in the reverse order of the start, one by one.";
        let (stopping, starting) =
            (format!("# Stopping services\n\n{sentence}"), format!("# Listing names\n\n{sentence}"));
        let found =
            answer("In which order does stopping happen?", &[("list.md", &starting), ("stop.md", &stopping)]).unwrap();
        assert_eq!(&*found.path, "stop.md");
    }

    #[test]
    fn two_sentences_are_quoted_when_the_second_adds_enough() {
        let text =
            "The embedder hashes every word it reads to one coordinate. The coordinate is given a sign at random.";
        assert_eq!(answer("What sign does the embedder hash with, at random?", &[("a.md", text)]).unwrap().text, text);
    }

    #[test]
    fn nothing_is_answered_without_shared_words() {
        assert_eq!(answer("Where do elephants sleep?", &[("stop.md", STOPS)]), None);
        assert_eq!(answer("?", &[("stop.md", STOPS)]), None);
        assert_eq!(answer("drain", &[]), None);
    }

    #[test]
    fn long_quotations_are_cut_at_a_word() {
        let text = format!("The drain {}ends.", "goes on and on ".repeat(80));
        let found = answer("drain", &[("a.md", &text)]).unwrap();
        assert!(found.text.ends_with('…') && found.text.chars().count() <= 481, "{}", found.text.len());
    }

    #[test]
    fn of_equal_sentences_the_first_wins() {
        let found =
            answer("drain the job", &[("b.md", "Drain the job now please."), ("a.md", "Drain the job now please.")]);
        assert_eq!(&*found.unwrap().path, "b.md");
    }
}
