//! The vectors of turns and of what is asked. The embedder is never called under a lock.

use super::contents::with_role;
use super::error::MemoryError;
use super::inner::Inner;
use super::recall::Recall;
use super::scope::Scope;
use super::turn::NewTurn;

impl Inner {
    /// A recall that is checked, and has its vector.
    pub(super) fn prepared(&self, mut recall: Recall) -> Result<Recall, MemoryError> {
        recall.check()?;
        self.check_vector("the query", recall.vector.as_deref())?;
        if recall.vector.is_none()
            && recall.weights.similarity > 0.0
            && let Some(embedder) = &self.embedder
        {
            let vectors = self.checked(embedder.embed_queries(&[&recall.text])?, 1)?;
            recall.vector = vectors.into_iter().next();
        }
        Ok(recall)
    }

    /// As many vectors as texts, which are as long as the embedder's id says.
    fn checked(&self, vectors: Vec<Vec<f32>>, texts: usize) -> Result<Vec<Vec<f32>>, MemoryError> {
        if vectors.len() != texts {
            let why = format!("{} were made of {texts} texts", vectors.len());
            return Err(MemoryError::BadVector { of: "the embedder".to_owned(), why });
        }
        vectors.iter().try_for_each(|vector| self.check_vector("the embedder", Some(vector)))?;
        Ok(vectors)
    }

    pub(super) fn check_vector(&self, of: &str, vector: Option<&[f32]>) -> Result<(), MemoryError> {
        let Some(vector) = vector else { return Ok(()) };
        let refused = |why| Err(MemoryError::BadVector { of: of.to_owned(), why });
        let Some(made_by) = &self.made_by else {
            return refused("the memory was made without an embedder".to_owned());
        };
        if vector.len() != made_by.dimensions() {
            return refused(format!("it has {} numbers, not those of {made_by}", vector.len()));
        }
        match vector.iter().position(|x| !x.is_finite()) {
            Some(at) => refused(format!("number {at} is not finite")),
            None => Ok(()),
        }
    }

    /// Has turns without a vector embedded, if they are not there already.
    pub(super) fn with_vectors(&self, mut turns: Vec<(Scope, NewTurn)>) -> Result<Vec<(Scope, NewTurn)>, MemoryError> {
        if self.embedder.is_none() {
            return Ok(turns);
        }
        let is_there = {
            let contents = self.reading()?;
            let known = |(scope, turn): &(Scope, NewTurn)| {
                turn.id.as_deref().is_some_and(|id| contents.find(scope, id).is_some())
            };
            turns.iter().map(known).collect::<Vec<_>>()
        };
        let lacks = |(at, (_, turn)): &(usize, &mut (Scope, NewTurn))| turn.vector.is_none() && !is_there[*at];
        let mut lacking: Vec<&mut NewTurn> =
            turns.iter_mut().enumerate().filter(lacks).map(|(_, (_, turn))| turn).collect();
        let texts: Vec<String> = lacking.iter().map(|turn| with_role(&turn.role, &turn.text)).collect();
        let vectors = self.embed(&texts)?.unwrap_or_default();
        lacking.iter_mut().zip(vectors).for_each(|(turn, vector)| turn.vector = Some(vector));
        Ok(turns)
    }

    /// The vectors of turns, with their roles.
    pub(super) fn embed(&self, texts: &[String]) -> Result<Option<Vec<Vec<f32>>>, MemoryError> {
        match &self.embedder {
            Some(embedder) if !texts.is_empty() => {
                let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
                Ok(Some(self.checked(embedder.embed_passages(&texts)?, texts.len())?))
            }
            _ => Ok(None),
        }
    }
}
