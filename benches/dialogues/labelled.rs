//! Dialogues, questions about them, and the turns that hold the answers.
//!
//! Each `.jsonl` file beside this one is a dialogue of some months, in several sessions. A line is a turn or a
//! question; all turns come first, in the order in which they were said:
//!
//! ```json
//! {"id": "s01-03", "session": "s01", "at": "2024-01-13T10:06:00+01:00", "role": "user", "text": "His daughter …"}
//! {"question": "Why did the landlord want his flat back?", "kind": "words", "evidence": ["s01-03"]}
//! ```
//!
//! - `id` is unique in its dialogue. `at` never decreases, and increases within a session. Speakers have roles only.
//! - A question is asked after the last turn, by a speaker or about one. `evidence` lists the turns that together
//!   answer it, in their order. What merely repeats or confirms the answer is not evidence.
//! - `kind` says how a question is asked: see [`Kind`].

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use sage_services::evaluate::{recall_at, reciprocal_rank};
use serde::{Deserialize, Deserializer, de};

/// Turns that are looked at.
pub(crate) const K: usize = 10;

/// How a question is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// With words of the dialogue, as one who remembers it would.
    Words,
    /// In other words than the dialogue's.
    Paraphrase,
    /// In other words; the evidence replies to the turn before it, which says what it is about.
    Answer,
    /// About what was corrected later: the evidence has the correction.
    Corrected,
    /// For a date, a duration or an order.
    Time,
    /// Answered by several turns together.
    Several,
}

impl Kind {
    pub(crate) const ALL: [Self; 6] =
        [Self::Words, Self::Paraphrase, Self::Answer, Self::Corrected, Self::Time, Self::Several];
}

/// A conversation, and questions about it.
#[derive(Debug)]
pub(crate) struct Dialogue {
    /// That of the file, without its ending.
    pub(crate) name: String,
    pub(crate) turns: Vec<Turn>,
    pub(crate) questions: Vec<Question>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Turn {
    pub(crate) id: String,
    pub(crate) session: String,
    #[serde(deserialize_with = "time")]
    pub(crate) at: Timestamp,
    pub(crate) role: String,
    pub(crate) text: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Question {
    pub(crate) question: String,
    pub(crate) kind: Kind,
    pub(crate) evidence: Vec<String>,
}

/// A time as RFC 3339 writes it.
fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
}

/// Reads the dialogues in `folder`, by name. Fails with everything that is wrong with them.
pub(crate) fn dialogues(folder: &Path) -> Result<Vec<Dialogue>, String> {
    let entries = fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let paths = entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>();
    let mut paths: Vec<PathBuf> = paths.map_err(|error| format!("{}: {error}", folder.display()))?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
    paths.sort();
    let mut dialogues = Vec::new();
    let mut wrong = Vec::new();
    for path in paths {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        match fs::read_to_string(&path).map_err(|error| error.to_string()).and_then(|lines| parsed(name, &lines)) {
            Ok(dialogue) => {
                wrong.extend(faults(&dialogue).into_iter().map(|fault| format!("{}: {fault}", path.display())));
                dialogues.push(dialogue);
            }
            Err(error) => wrong.push(format!("{}: {error}", path.display())),
        }
    }
    if wrong.is_empty() { Ok(dialogues) } else { Err(wrong.join("\n")) }
}

/// The dialogue that `lines` tell; its labels are not checked.
pub(crate) fn parsed(name: String, lines: &str) -> Result<Dialogue, String> {
    let mut dialogue = Dialogue { name, turns: Vec::new(), questions: Vec::new() };
    for (line, number) in lines.lines().zip(1..) {
        let at_line = |error: serde_json::Error| format!("line {number}: {error}");
        if line.starts_with("{\"question\"") {
            dialogue.questions.push(serde_json::from_str(line).map_err(at_line)?);
        } else if dialogue.questions.is_empty() {
            dialogue.turns.push(serde_json::from_str(line).map_err(at_line)?);
        } else {
            return Err(format!("line {number}: a turn after a question"));
        }
    }
    Ok(dialogue)
}

/// What is wrong with a dialogue, a sentence each.
pub(crate) fn faults(Dialogue { turns, questions, .. }: &Dialogue) -> Vec<String> {
    let mut faults = Vec::new();
    let mut ids = HashSet::new();
    for Turn { id, role, text, .. } in turns {
        if !ids.insert(id) {
            faults.push(format!("the turn {id} is there twice"));
        }
        if role.is_empty() || text.trim().is_empty() {
            faults.push(format!("the turn {id} has no role or no text"));
        }
    }
    let mut ended = HashSet::new();
    for pair in turns.windows(2) {
        let (before, turn) = (&pair[0], &pair[1]);
        let in_order = if before.session == turn.session {
            before.at < turn.at
        } else {
            ended.insert(&before.session);
            before.at <= turn.at
        };
        if !in_order {
            faults.push(format!("the turn {} is earlier than the one before it", turn.id));
        }
        if ended.contains(&turn.session) {
            faults.push(format!("the turn {} is in a session that had ended", turn.id));
        }
    }
    let mut asked = HashSet::new();
    for Question { question, kind, evidence } in questions {
        if !asked.insert(question) {
            faults.push(format!("asked twice: {question}"));
        }
        let positions: Vec<_> = evidence.iter().map(|id| turns.iter().position(|turn| turn.id == *id)).collect();
        if evidence.is_empty() || positions.contains(&None) {
            faults.push(format!("without evidence, or with a turn that is not there: {question}"));
        }
        if !positions.is_sorted_by(|before, after| before < after) {
            faults.push(format!("evidence twice or out of order: {question}"));
        }
        if *kind == Kind::Several && evidence.len() < 2 {
            faults.push(format!("answered by one turn: {question}"));
        }
    }
    faults
}

/// How well a ranking finds the evidence of a question, or of several on average.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Score {
    /// The share of a question's evidence that is among the first [`K`] turns.
    pub(crate) recall: f64,
    /// One divided by the place of the first turn that is evidence, 0 if none is among the first [`K`].
    pub(crate) reciprocal_rank: f64,
}

/// Asks `rank` all questions, and scores each. `rank` returns ids of turns, best first; those after the first [`K`]
/// count for neither measure.
pub(crate) fn scores<E>(
    dialogues: &[Dialogue],
    mut rank: impl FnMut(&Dialogue, &Question) -> Result<Vec<String>, E>,
) -> Result<Vec<(Kind, Score)>, E> {
    let mut scores = Vec::new();
    for dialogue in dialogues {
        for question in &dialogue.questions {
            let mut found = rank(dialogue, question)?;
            found.truncate(K);
            let relevant: HashSet<String> = question.evidence.iter().cloned().collect();
            let score =
                Score { recall: recall_at(&found, &relevant, K), reciprocal_rank: reciprocal_rank(&found, &relevant) };
            scores.push((question.kind, score));
        }
    }
    Ok(scores)
}

/// The mean of the scores of some kinds, and how many questions that are.
pub(crate) fn mean(scores: &[(Kind, Score)], which: impl Fn(Kind) -> bool) -> (Score, usize) {
    let chosen: Vec<Score> = scores.iter().filter(|(kind, _)| which(*kind)).map(|(_, score)| *score).collect();
    let of = |measure: fn(&Score) -> f64| chosen.iter().map(measure).sum::<f64>() / chosen.len().max(1) as f64;
    (Score { recall: of(|score| score.recall), reciprocal_rank: of(|score| score.reciprocal_rank) }, chosen.len())
}
