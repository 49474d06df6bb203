//! Turns text into vectors without a model, a download or a network.
//!
//! Invariants:
//! 1. Equal text gives an equal vector, in every process and on every machine: the hash is fixed.
//! 2. A vector has length 1, or is all zeros when the text holds no word at all.
//! 3. The last coordinate belongs to no word: it is 0 except in the vectors of short passages.
//! 4. Document frequencies only grow, and their final value does not depend on the order of the passages, so replicas
//!    may embed passages concurrently.
//!
//! Knows nothing of files, passages or the store.

use std::sync::atomic::{AtomicU32, Ordering};

use sage::Service;

use super::embedder::{EmbedError, Embedder};
use super::id::EmbedderId;
use crate::terms::for_each_term;

/// The number is that of the algorithm: it goes up when a text gets another vector than before.
const NAME: &str = "lexical-1";

/// Slots of the table of document frequencies: 1 MiB in all. Terms that share a slot share their count, which makes
/// both look more frequent than they are; with 50,000 distinct terms that happens to every sixth.
const FREQUENCY_SLOTS: usize = 1 << 18;

/// Passages whose vector would be shorter than this before it is brought to length 1 are short: about 40 words apart
/// from stop words and repetitions. Measured with 4, 6, 8, 10 and 13; headings are found best with 8.
const SHORT_LENGTH: f32 = 8.0;

/// Embeds text by hashing its words.
///
/// The method is feature hashing (Weinberger, Dasgupta, Langford, Smola and Attenberg, "Feature Hashing for Large Scale
/// Multitask Learning", ICML 2009): every term is hashed to one coordinate and to a sign, so that collisions cancel in
/// expectation and the inner product of two hashed vectors estimates that of the unhashed ones. Terms are weighted as
/// in the SMART scheme `lnc.ltc`: logarithmic term frequency on both sides, inverse document frequency on the side of
/// the query only. A passage's vector therefore never changes because another passage arrived.
///
/// Cosine favours short passages, which have little beside the word they share with a question. As in pivoted length
/// normalisation (Singhal, Buckley and Mitra, SIGIR 1996), a passage is therefore never divided by less than a certain
/// length; what its vector lacks to length 1 goes to a coordinate that questions do not use.
///
/// It finds shared words, up to their endings, not shared meaning: a paraphrase without a common word is not found.
///
/// Any number of threads may share it: nothing is locked, and counting a word of a passage is one relaxed atomic
/// addition.
///
/// ```
/// use sage_services::LexicalEmbedder;
///
/// let embedder = LexicalEmbedder::default();
/// let (a, b) = (embedder.embed("Services start in dependency order."), embedder.embed("the order of a dependency"));
/// let cosine: f32 = a.iter().zip(&b).map(|(x, y)| x * y).sum();
/// assert!(cosine > 0.5);
/// ```
#[derive(Debug)]
pub struct LexicalEmbedder {
    id: EmbedderId,
    dimensions: usize,
    passages: AtomicU32,
    frequencies: Box<[AtomicU32]>,
}

impl LexicalEmbedder {
    /// Dimensions of [`LexicalEmbedder::default`].
    pub const DEFAULT_DIMENSIONS: usize = 1024;

    /// Creates an embedder of vectors with `dimensions` coordinates, 16 to 65,536.
    ///
    /// A vector takes 4 bytes per dimension. 512 halves the store and loses a little; see the crate's documentation for
    /// the measured quality.
    ///
    /// # Panics
    ///
    /// When `dimensions` is outside of that range.
    pub fn new(dimensions: usize) -> Self {
        assert!((16..=65_536).contains(&dimensions), "dimensions must be 16 to 65,536, not {dimensions}");
        Self {
            id: EmbedderId::new(NAME, dimensions),
            dimensions,
            passages: AtomicU32::new(0),
            frequencies: (0..FREQUENCY_SLOTS).map(|_| AtomicU32::new(0)).collect(),
        }
    }

    /// Number of coordinates of every vector.
    pub fn dimensions(&self) -> usize {
        self.dimensions
    }

    /// Number of [passages](Self::embed_passage) embedded so far.
    pub fn passages(&self) -> u32 {
        self.passages.load(Ordering::Relaxed)
    }

    /// Embeds a text to be compared with others of its kind: every term by `1 + ln(occurrences)`.
    ///
    /// Returns a vector of length 1, or zeros when `text` holds no word.
    pub fn embed(&self, text: &str) -> Vec<f32> {
        self.normalised(self.hashed(&features(text), |_| 1.0), 0.0)
    }

    /// Embeds a passage to be found by [questions](Self::embed_query), and counts its terms, so that they know the rare
    /// ones.
    ///
    /// The counts are 32 bits wide, which is more passages than a store of this crate holds. Returns a vector of length
    /// 1, or zeros when `text` holds no word.
    pub fn embed_passage(&self, text: &str) -> Vec<f32> {
        let features = features(text);
        self.count(&features);
        self.normalised(self.hashed(&features, |_| 1.0), SHORT_LENGTH)
    }

    /// Counts the terms of a passage that was embedded before, perhaps by another process, so that questions know the
    /// rare ones.
    pub fn learn(&self, text: &str) {
        self.count(&features(text));
    }

    fn count(&self, features: &[Feature]) {
        self.passages.fetch_add(1, Ordering::Relaxed);
        for feature in features {
            self.frequency(feature.hash).fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Embeds a question: like [`embed`](Self::embed), with every term also weighted by its [`rarity`](Self::rarity).
    ///
    /// Before the first passage all terms count the same. Terms that no passage holds are left out, as they can only
    /// match by a collision; when that leaves nothing, the vector is all zeros.
    pub fn embed_query(&self, text: &str) -> Vec<f32> {
        self.normalised(self.hashed(&features(text), |hash| self.rarity_of_hash(hash)), 0.0)
    }

    /// Inverse document frequency of one word, as the natural logarithm: 0 when no passage holds the word, small when
    /// most do, 1 for every word before the first passage.
    pub fn rarity(&self, word: &str) -> f32 {
        let mut rarity: f32 = 0.0;
        for_each_term(word, |term, _| rarity = rarity.max(self.rarity_of_hash(term_hash(term))));
        rarity
    }

    /// Weight of one term (see `for_each_term`) of a question: its rarity; an unknown term counts as the rarest.
    pub(crate) fn term_weight(&self, term: &str) -> f32 {
        match self.rarity_of_hash(term_hash(term)) {
            0.0 => (1.0 + 2.0 * self.passages() as f32).ln(),
            known => known,
        }
    }

    fn frequency(&self, hash: u64) -> &AtomicU32 {
        &self.frequencies[(hash & (FREQUENCY_SLOTS as u64 - 1)) as usize]
    }

    fn rarity_of_hash(&self, hash: u64) -> f32 {
        let passages = self.passages();
        let frequency = self.frequency(hash).load(Ordering::Relaxed);
        match (passages, frequency) {
            (0, _) => 1.0,
            (_, 0) => 0.0,
            // The 1 keeps a word that every passage holds above nothing, which matters while passages are few.
            _ => (1.0 + passages as f32 / frequency as f32).ln(),
        }
    }

    fn hashed(&self, features: &[Feature], weight: impl Fn(u64) -> f32) -> Vec<f32> {
        let mut vector = vec![0.0_f32; self.dimensions];
        for feature in features {
            let value = (1.0 + (feature.occurrences as f32).ln()) * weight(feature.hash);
            // The high half chooses the coordinate, by multiplication instead of a division; the top bit of the low
            // half, which the coordinate does not depend on, chooses the sign.
            let index = ((feature.hash >> 32) * (self.dimensions as u64 - 1)) >> 32;
            let sign = if feature.hash & (1 << 31) == 0 { 1.0 } else { -1.0 };
            vector[index as usize] += sign * value;
        }
        vector
    }

    /// Brings a vector to length 1, filling up in the last coordinate what it lacks to `min_length`.
    fn normalised(&self, mut vector: Vec<f32>, min_length: f32) -> Vec<f32> {
        let squares: f32 = vector.iter().map(|x| x * x).sum();
        if squares == 0.0 {
            return vector;
        }
        vector[self.dimensions - 1] = (min_length * min_length - squares).max(0.0).sqrt();
        let length = squares.sqrt().max(min_length);
        vector.iter_mut().for_each(|x| *x /= length);
        vector
    }
}

impl Default for LexicalEmbedder {
    fn default() -> Self {
        Self::new(Self::DEFAULT_DIMENSIONS)
    }
}

/// Nothing to set up or release: its table is freed with its value.
impl Service for LexicalEmbedder {}

/// Passages are counted, as [`embed_passage`](LexicalEmbedder::embed_passage) does.
impl Embedder for LexicalEmbedder {
    fn id(&self) -> &EmbedderId {
        &self.id
    }

    fn embed_passages(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, EmbedError> {
        Ok(texts.iter().map(|text| self.embed_passage(text)).collect())
    }

    fn embed_queries(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, EmbedError> {
        Ok(texts.iter().map(|text| self.embed_query(text)).collect())
    }
}

/// A distinct term of a text.
struct Feature {
    hash: u64,
    occurrences: u32,
}

/// Returns the distinct terms of `text`, sorted by hash so that sums are taken in the same order every time.
fn features(text: &str) -> Vec<Feature> {
    let mut words = Vec::new();
    let mut stop_words = Vec::new();
    for_each_term(text, |term, is_stop_word| {
        let into = if is_stop_word { &mut stop_words } else { &mut words };
        into.push(term_hash(term));
    });
    // "To be or not to be" is made of nothing else: better those words than none.
    let mut hashes = if words.is_empty() { stop_words } else { words };
    hashes.sort_unstable();
    hashes
        .chunk_by(|a, b| a == b)
        .map(|run| Feature { hash: run[0], occurrences: u32::try_from(run.len()).unwrap_or(u32::MAX) })
        .collect()
}

/// FNV-1a over the bytes of a term, finished with MurmurHash3's mixer so that every output bit depends on every input
/// byte.
fn term_hash(term: &str) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325;
    for byte in term.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cosine(a: &[f32], b: &[f32]) -> f32 {
        a.iter().zip(b).map(|(x, y)| x * y).sum()
    }

    #[test]
    fn the_hash_is_the_same_on_every_machine() {
        assert_eq!(term_hash(""), 0xefd0_1f60_ba99_2926);
        assert_eq!(term_hash("pipelin"), 0x8f77_668e_ea7c_619a);
        assert_ne!(term_hash("ab"), term_hash("ba"));
    }

    #[test]
    fn the_name_changes_with_the_vectors() {
        let vector = LexicalEmbedder::new(16).embed_passage("the drains of a pipeline, and a pipeline");
        let shown: Vec<String> = vector.iter().filter(|x| **x != 0.0).map(|x| format!("{x:.3}")).collect();
        assert_eq!((NAME, &*shown.join(" ")), ("lexical-1", "0.125 -0.212 0.969"), "new vectors need a new name");
    }

    #[test]
    fn text_without_a_word_has_no_direction() {
        let embedder = LexicalEmbedder::new(64);
        assert!(embedder.embed(" -- !? ").iter().all(|&x| x == 0.0));
        assert!(embedder.embed("").iter().all(|&x| x == 0.0));
    }

    #[test]
    fn a_question_of_stop_words_still_has_a_direction() {
        assert!(cosine(&LexicalEmbedder::default().embed("to be"), &LexicalEmbedder::default().embed("be to")) > 0.99);
    }

    #[test]
    fn rare_words_decide_a_query() {
        let embedder = LexicalEmbedder::default();
        let passages = ["the service is a service of the engine", "the service drains", "a service of the service"];
        let vectors: Vec<_> = passages.iter().map(|text| embedder.embed_passage(text)).collect();
        assert!(embedder.rarity("drain") > embedder.rarity("services"));
        assert_eq!(embedder.rarity("elephant"), 0.0);
        let query = embedder.embed_query("which service is drained by an elephant");
        let best = (0..3).max_by(|&a, &b| cosine(&query, &vectors[a]).total_cmp(&cosine(&query, &vectors[b])));
        assert_eq!(best, Some(1));
    }

    #[test]
    fn a_short_passage_does_not_win_by_being_short() {
        let embedder = LexicalEmbedder::default();
        let short = embedder.embed_passage("drain");
        let long =
            embedder.embed_passage("the job drains until its deadline, and then the drain becomes a cancel of the job");
        let query = embedder.embed_query("when does the drain reach its deadline");
        assert!(cosine(&query, &long) > 2.0 * cosine(&query, &short));
        assert!((cosine(&short, &short) - 1.0).abs() < 1e-5);
    }

    #[test]
    fn replicas_may_embed_concurrently() {
        let embedder = LexicalEmbedder::new(64);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..100).for_each(|_| drop(embedder.embed_passage("drain the pipeline"))));
            }
        });
        assert_eq!(embedder.passages(), 400);
        assert!((embedder.rarity("pipeline") - 2.0_f32.ln()).abs() < 1e-6);
    }

    #[test]
    #[should_panic(expected = "dimensions must be 16 to 65,536")]
    fn too_few_dimensions_are_refused() {
        LexicalEmbedder::new(0);
    }

    proptest! {
        #[test]
        fn vectors_are_stable_and_of_length_one_or_zero(text in "\\PC{0,200}", dimensions in 16_usize..300) {
            let vector = LexicalEmbedder::new(dimensions).embed(&text);
            prop_assert_eq!(vector.len(), dimensions);
            prop_assert_eq!(&vector, &LexicalEmbedder::new(dimensions).embed(&text));
            let length = cosine(&vector, &vector).sqrt();
            prop_assert!(length == 0.0 || (length - 1.0).abs() < 1e-4, "length {}", length);
            let passage = LexicalEmbedder::new(dimensions).embed_passage(&text);
            prop_assert_eq!(vector[dimensions - 1], 0.0);
            prop_assert!((cosine(&passage, &passage).sqrt() - length).abs() < 1e-4);
        }
    }
}
