//! Splits text into the terms that the embedder hashes and the answerer compares.
//!
//! One tokeniser serves both, so that a word which retrieves a passage is also recognised inside its sentences.
//!
//! Invariants:
//! 1. The terms of a text depend on nothing but the text: no locale, no random state, no configuration.
//! 2. A term is never empty and never contains an upper-case ASCII letter.
//! 3. `DataStream`, `data_stream` and "data stream" share the terms of their parts.
//!
//! Knows nothing of vectors, files or Markdown.

/// Words too frequent in English to tell one passage from another.
const STOP_WORDS: &[&str] = &[
    "a", "about", "after", "all", "also", "am", "an", "and", "any", "are", "as", "at", "be", "because", "been",
    "being", "but", "by", "can", "cannot", "could", "did", "do", "does", "doing", "done", "each", "for", "from", "get",
    "had", "happen", "happens", "has", "have", "he", "her", "his", "how", "i", "if", "in", "into", "is", "it", "its",
    "just", "may", "me", "might", "must", "my", "no", "not", "of", "on", "or", "our", "shall", "she", "should", "so",
    "some", "such", "than", "that", "the", "their", "them", "then", "there", "these", "they", "this", "those", "to",
    "too", "us", "very", "was", "we", "were", "what", "when", "where", "which", "while", "who", "whom", "whose", "why",
    "will", "with", "would", "you", "your",
];

/// Calls `emit(term, is_stop_word)` for every term of `text`, in order.
///
/// A term is a run of letters and digits, lower-cased and stemmed ([`stem`]). A compound identifier yields its parts
/// and then itself as one term, without the underscores. An ideograph or kana is a term of its own, because those
/// scripts do not separate words.
pub(crate) fn for_each_term(text: &str, emit: impl FnMut(&str, bool)) {
    read_words::<true>(text, emit);
}

/// Reads plain words at once if `PLAIN`, else all of them character by character; the terms are the same.
fn read_words<const PLAIN: bool>(text: &str, mut emit: impl FnMut(&str, bool)) {
    let mut word = Word::default();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if PLAIN && word.text.is_empty() {
            let length = plain_word(rest.as_bytes());
            if length > 0 {
                word.text.push_str(&rest[..length]);
                word.text.make_ascii_lowercase();
                word.finish(&mut emit);
                rest = &rest[length..];
                continue;
            }
        }
        rest = &rest[c.len_utf8()..];
        if stands_alone(c) {
            word.finish(&mut emit);
            let mut buffer = [0; 4];
            emit(c.encode_utf8(&mut buffer), false);
        } else if c.is_alphanumeric() {
            word.push(c, rest.starts_with(char::is_lowercase));
        } else if c == '_' && !word.text.is_empty() {
            word.split();
        } else if matches!(c, '\'' | '\u{2019}') && !word.text.is_empty() {
            // "don't" stays one word; the possessive "engine's" loses its ending in `Word::finish`.
            word.apostrophe = Some(word.text.len());
        } else {
            word.finish(&mut emit);
        }
    }
    word.finish(&mut emit);
}

/// Bytes of a word at the beginning that is whole and has no parts: ASCII letters and digits, of which only the first
/// is upper case. 0 if there is none.
fn plain_word(bytes: &[u8]) -> usize {
    let Some(length) = bytes
        .first()
        .filter(|first| first.is_ascii_alphanumeric())
        .map(|_| 1 + bytes[1..].iter().take_while(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()).count())
    else {
        return 0;
    };
    let goes_on = |next: &u8| !next.is_ascii() || next.is_ascii_alphanumeric() || matches!(next, b'_' | b'\'');
    if bytes.get(length).is_some_and(goes_on) { 0 } else { length }
}

/// Whether `c` belongs to a script written without spaces between words.
fn stands_alone(c: char) -> bool {
    matches!(c, '\u{3040}'..='\u{30ff}' | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{f900}'..='\u{faff}'
        | '\u{20000}'..='\u{323af}')
}

/// The word being read: lower-cased text, and where its parts begin.
#[derive(Default)]
struct Word {
    text: String,
    /// Byte offsets in `text` at which a part after the first begins; strictly increasing.
    splits: Vec<usize>,
    /// Byte offset in `text` of the last apostrophe, which itself is not kept.
    apostrophe: Option<usize>,
    previous_was_lowercase: bool,
    stemmed: String,
}

impl Word {
    fn push(&mut self, c: char, next_is_lowercase: bool) {
        let upper = c.is_uppercase();
        // "DataStream" splits before the S; "HTTPServer" before the S because a lower-case letter follows.
        if upper && (self.previous_was_lowercase || next_is_lowercase) {
            self.split();
        }
        self.previous_was_lowercase = c.is_lowercase();
        self.text.extend(c.to_lowercase().filter(|lower| lower.is_alphanumeric()));
    }

    fn split(&mut self) {
        let end = self.text.len();
        if end > 0 && self.splits.last() != Some(&end) {
            self.splits.push(end);
        }
        self.previous_was_lowercase = false;
    }

    fn finish(&mut self, emit: &mut impl FnMut(&str, bool)) {
        if self.apostrophe.is_some_and(|at| at + 1 == self.text.len() && self.text.ends_with('s')) {
            self.text.pop();
        }
        let end = self.text.len();
        self.splits.retain(|&at| at < end);
        let mut start = 0;
        for index in 0..=self.splits.len() {
            let part_end = self.splits.get(index).copied().unwrap_or(end);
            emit_stemmed(&self.text[start..part_end], &mut self.stemmed, emit);
            start = part_end;
        }
        if !self.splits.is_empty() {
            emit_stemmed(&self.text, &mut self.stemmed, emit);
        }
        self.text.clear();
        self.splits.clear();
        self.apostrophe = None;
        self.previous_was_lowercase = false;
    }
}

fn emit_stemmed(word: &str, buffer: &mut String, emit: &mut impl FnMut(&str, bool)) {
    if word.is_empty() {
        return;
    }
    if is_stop_word(word) {
        emit(word, true);
    } else {
        buffer.clear();
        buffer.push_str(word);
        stem(buffer);
        emit(buffer, false);
    }
}

/// Where the stop words begin that have this first letter, `a` to `z`, and where those of `z` end.
const FIRST_LETTERS: [usize; 27] = {
    let mut begins = [STOP_WORDS.len(); 27];
    let mut word = STOP_WORDS.len();
    let mut letter = 26;
    while letter > 0 {
        letter -= 1;
        while word > 0 && STOP_WORDS[word - 1].as_bytes()[0] >= b'a' + letter as u8 {
            word -= 1;
        }
        begins[letter] = word;
    }
    begins
};

fn is_stop_word(word: &str) -> bool {
    match word.as_bytes()[0] {
        first @ b'a'..=b'z' => {
            let letter = usize::from(first - b'a');
            STOP_WORDS[FIRST_LETTERS[letter]..FIRST_LETTERS[letter + 1]].contains(&word)
        }
        _ => false,
    }
}

/// Shortest stem a suffix may leave behind, in bytes.
const SHORTEST_STEM: usize = 3;

/// Removes the commonest English endings in place, so that "pipelines", "draining" and "stopped" meet "pipeline",
/// "drain" and "stop".
///
/// The result is a key for comparing words and not always a word itself ("stable" and "stability" stay apart,
/// "services" and "service" both become "servic"). Words that are short or not plain ASCII letters stay as they are.
fn stem(word: &mut String) {
    if word.len() <= SHORTEST_STEM || !word.bytes().all(|b| b.is_ascii_lowercase()) {
        return;
    }
    strip_plural(word);
    // British and American spelling, before the endings below hide the difference.
    if let Some(at) = word.as_bytes().windows(2).rposition(|pair| pair == b"iz").filter(|&at| at >= SHORTEST_STEM) {
        word.replace_range(at..at + 2, "is");
    }
    let verb_ending = ["ing", "ed"].into_iter().find(|&ending| {
        word.strip_suffix(ending).is_some_and(|rest| rest.len() >= SHORTEST_STEM && rest.contains(is_vowel))
    });
    if let Some(ending) = verb_ending {
        word.truncate(word.len() - ending.len());
        undouble(word);
    } else if let Some(ending) = ["ation", "ment", "ly"]
        .into_iter()
        .find(|&ending| word.strip_suffix(ending).is_some_and(|rest| rest.len() > SHORTEST_STEM))
    {
        word.truncate(word.len() - ending.len());
    }
    if word.len() > SHORTEST_STEM && word.ends_with('e') {
        word.pop();
    }
    if word.len() > SHORTEST_STEM && word.ends_with('y') {
        word.pop();
        word.push('i');
    }
}

/// "policies" → "policy", "classes" → "class", "records" → "record"; "class", "status" and "this" stay.
fn strip_plural(word: &mut String) {
    if word.ends_with("ies") && word.len() > SHORTEST_STEM + 1 {
        word.truncate(word.len() - 3);
        word.push('y');
    } else if ["sses", "ches", "shes", "xes", "zes"].iter().any(|ending| word.ends_with(ending)) {
        word.truncate(word.len() - 2);
    } else if word.ends_with('s') && !["ss", "us", "is"].iter().any(|ending| word.ends_with(ending)) {
        word.pop();
    }
}

/// "stopp" → "stop", "batchh" never occurs; "ll", "ss" and "zz" may belong to the stem ("call", "pass") and stay.
fn undouble(word: &mut String) {
    let bytes = word.as_bytes();
    if let [.., a, b] = bytes
        && a == b
        && word.len() > SHORTEST_STEM
        && !matches!(b, b'l' | b's' | b'z' | b'a' | b'e' | b'i' | b'o' | b'u')
    {
        word.pop();
    }
}

fn is_vowel(c: char) -> bool {
    matches!(c, 'a' | 'e' | 'i' | 'o' | 'u' | 'y')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn terms(text: &str) -> Vec<String> {
        let mut all = Vec::new();
        for_each_term(text, |term, stop| {
            if !stop {
                all.push(term.to_owned());
            }
        });
        all
    }

    #[test]
    fn the_stop_words_are_sorted() {
        assert!(STOP_WORDS.is_sorted(), "they are looked up by their first letters");
        assert!(STOP_WORDS.iter().all(|word| is_stop_word(word)));
        assert!(!["", "z", "zoo", "1", "abouts"].iter().any(|word| !word.is_empty() && is_stop_word(word)));
    }

    #[test]
    fn forms_of_a_word_meet() {
        for forms in [
            &["pipeline", "pipelines"][..],
            &["drain", "drains", "drained", "draining"],
            &["stop", "stops", "stopped", "stopping"],
            &["parse", "parses", "parsed", "parsing"],
            &["policy", "policies"],
            &["class", "classes"],
            &["retry", "retries", "retried", "retrying"],
            &["call", "calls", "called", "calling"],
            &["initialise", "initialising", "initialize", "initialisation", "initialization"],
            &["service", "services"],
            &["batch", "batches", "batched"],
        ] {
            for form in forms {
                assert_eq!(terms(form), terms(forms[0]), "{form} and {}", forms[0]);
            }
        }
    }

    #[test]
    fn different_words_stay_apart() {
        for (a, b) in [("string", "str"), ("status", "stat"), ("bed", "bing"), ("process", "proc"), ("thing", "the")] {
            assert_ne!(terms(a), terms(b), "{a} and {b}");
        }
    }

    #[test]
    fn stop_words_are_marked_and_possessives_dropped() {
        assert_eq!(terms("What is the engine's order?"), ["engin", "order"]);
        assert_eq!(terms("don\u{2019}t"), ["dont"]);
    }

    #[test]
    fn identifiers_yield_their_parts_and_themselves() {
        assert_eq!(terms("DataStream"), ["data", "stream", "datastream"]);
        assert_eq!(terms("data_stream"), ["data", "stream", "datastream"]);
        assert_eq!(terms("HTTPServer2"), ["http", "server2", "httpserver2"]);
        assert_eq!(terms("__init__"), ["init"]);
        assert_eq!(terms("SIGINT"), ["sigint"]);
    }

    #[test]
    fn scripts_without_spaces_yield_one_term_per_character() {
        assert_eq!(terms("流水线 job"), ["流", "水", "线", "job"]);
    }

    proptest! {
        #[test]
        fn plain_words_are_read_like_all_others(
            text in "([a-zA-Z0-9_' .é]|\\PC){0,40}|([A-Z]?[a-z]{1,9}[ ._'\u{2019}A]?){1,9}",
        ) {
            let (mut plain, mut each) = (Vec::new(), Vec::new());
            read_words::<true>(&text, |term, stop| plain.push((term.to_owned(), stop)));
            read_words::<false>(&text, |term, stop| each.push((term.to_owned(), stop)));
            prop_assert_eq!(plain, each);
        }

        #[test]
        fn any_text_gives_clean_terms(text in "\\PC{0,80}") {
            for_each_term(&text, |term, _| {
                assert!(!term.is_empty());
                assert!(!term.contains(|c: char| c.is_ascii_uppercase() || c.is_whitespace()));
            });
        }
    }
}
