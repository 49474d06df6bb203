//! [`DocumentIndex`]: documents that can be asked, as one service.
//!
//! It only puts the parts together; whoever wants other steps between them takes the parts.

use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use sage::{AsyncService, BoxError, HookContext};

use super::{Answer, Extractor, Ingest, Plan, rerank};
use crate::documents::{Chunker, DocumentError, Loader};
use crate::embed::{EmbedError, Embedder, LexicalEmbedder};
use crate::store::{Driver, Hit, Schema, Search, StoreError, VectorStore};

/// Passages that an answer's are chosen from.
const RETRIEVED: usize = 50;
/// Passages that an answer is quoted from.
const KEPT: usize = 5;

/// A service that keeps the passages of documents, finds those that a question is about, and quotes an answer: an
/// [embedder](Embedder), a [store](VectorStore), a [loader](Loader) and a [chunker](Chunker) in one.
///
/// What is stored stays between runs, where the store does. A document that is [added](Self::add) again is only
/// embedded where it changed, and [`sweep`](Self::sweep) deletes what is gone. An index has the collection to itself.
///
/// ```
/// use sage::{BoxError, Environment};
/// use sage_services::store::Embedded;
/// use sage_services::{DocumentIndex, documents};
///
/// # fn main() -> Result<(), BoxError> {
/// # let folder = tempfile::tempdir()?;
/// # std::fs::write(folder.path().join("stop.md"), "Services stop in reverse order.")?;
/// # let folder = folder.path();
/// let env = Environment::local("index");
/// let index = env.register_async_service("index", DocumentIndex::constructor(Embedded::in_memory)?).build();
/// let asked = index.clone();
/// let answers = env
///     .from_iter(documents(folder, &["md".into()]))
///     .try_map(move |path| index.try_call_blocking(async |index| index.add(path?).await))
///     .count()
///     .try_map(move |_| asked.try_call_blocking(async |index| index.answer("In what order do services stop?").await))
///     .collect();
/// env.run()?;
/// assert_eq!(answers.take()[0].as_ref().unwrap().text, "Services stop in reverse order.");
/// # Ok(())
/// # }
/// ```
///
/// Its methods read files and embed texts before they return a future's first result, so they are for
/// [`try_call_blocking`](sage::ServiceHandle::try_call_blocking), as above.
pub struct DocumentIndex {
    store: VectorStore,
    /// Makes the vectors; `None` where `words` does.
    model: Option<Box<dyn Embedder>>,
    /// Knows how rare words are, by which passages are ordered and answers chosen.
    words: LexicalEmbedder,
    loader: Loader,
    chunker: Chunker,
    ingest: Ingest,
    has_added: AtomicBool,
}

/// Why a document is not in an index, or a question has no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IndexError {
    /// The document cannot be read.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// A text has no vector.
    #[error(transparent)]
    Embed(#[from] EmbedError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl DocumentIndex {
    /// An index in the collection `documents`, whose vectors the [`LexicalEmbedder`] makes.
    ///
    /// # Errors
    /// What the driver does not have.
    pub fn new(driver: impl Driver) -> Result<Self, StoreError> {
        let words = LexicalEmbedder::default();
        let store = VectorStore::new(Schema::made_by("documents", words.id()), driver)?;
        Ok(Self::made_of(store, None, words))
    }

    /// An index in the collection `documents`, whose vectors a model makes. The index starts and ends the embedder.
    ///
    /// # Errors
    /// As those of [`new`](Self::new), and [`StoreError::BadDimensions`].
    pub fn with_embedder(driver: impl Driver, embedder: impl Embedder) -> Result<Self, StoreError> {
        let store = VectorStore::new(Schema::made_by("documents", embedder.id()), driver)?;
        Ok(Self::made_of(store, Some(Box::new(embedder)), LexicalEmbedder::default()))
    }

    /// A constructor for [`register_async_service`](sage::Environment::register_async_service), of an index as
    /// [`new`](Self::new) makes it.
    ///
    /// # Errors
    /// As those of [`new`](Self::new).
    pub fn constructor<D: Driver>(
        driver: impl Fn() -> D + Send + Sync + 'static,
    ) -> Result<impl Fn() -> Self + Send + Sync + 'static, StoreError> {
        let new = move || Self::new(driver());
        new()?;
        Ok(move || new().expect("it was made like this before"))
    }

    fn made_of(store: VectorStore, model: Option<Box<dyn Embedder>>, words: LexicalEmbedder) -> Self {
        let ingest = Ingest::new(model.as_ref().map_or(words.id(), |model| model.id()));
        let (loader, chunker, has_added) = (Loader::default(), Chunker::default(), AtomicBool::new(false));
        Self { store, model, words, loader, chunker, ingest, has_added }
    }

    /// Has documents read by another loader.
    pub fn loader(self, loader: Loader) -> Self {
        Self { loader, ..self }
    }

    /// Has documents cut by another chunker.
    pub fn chunker(self, chunker: Chunker) -> Self {
        Self { chunker, ..self }
    }

    /// The store, for what an index does not do itself.
    pub fn store(&self) -> &VectorStore {
        &self.store
    }

    /// Reads a document, stores the passages that changed since it was stored last, and says how many these are. It
    /// is called what its path is.
    ///
    /// # Errors
    /// An [`IndexError`]. What is stored of a document that cannot be read stays as it is.
    pub async fn add(&self, path: impl AsRef<Path>) -> Result<usize, IndexError> {
        self.has_added.store(true, Ordering::Relaxed);
        let path = path.as_ref();
        let name = path.to_string_lossy();
        let text = self.loader.read(path).inspect_err(|_| self.ingest.keep(&*name))?;
        let passages = self.chunker.chunk_document(&*name, &text);
        let plan = self.ingest.plan(&self.store, vec![passages]).await?;
        let vectors = self.embed(&plan)?;
        let changed = vectors.len();
        let records = plan.into_records(vectors);
        if !records.is_empty() {
            self.store.upsert(records).await?;
        }
        Ok(changed)
    }

    /// Deletes the passages of all documents that were not [added](Self::add) since the index was opened, and says how
    /// many there were. It is for the end of a run that has added all there are. One that has added none, as after a
    /// mistake in the name of a folder, deletes nothing.
    ///
    /// # Errors
    /// An [`IndexError::Store`].
    pub async fn sweep(&self) -> Result<usize, IndexError> {
        Ok(if self.has_added.load(Ordering::Relaxed) { self.ingest.sweep(&self.store).await? } else { 0 })
    }

    /// The `k` passages that a question is closest to, best first. A question without a known word finds none.
    ///
    /// # Errors
    /// An [`IndexError`], for a `k` of 0 too.
    pub async fn search(&self, question: &str, k: usize) -> Result<Vec<Hit>, IndexError> {
        let vector = match &self.model {
            None => self.words.embed_query(question),
            Some(model) => model.embed_queries(&[question])?.remove(0),
        };
        if vector.iter().all(|x| *x == 0.0) {
            return Ok(Vec::new());
        }
        Ok(self.store.search(Search::vector(vector, k)).await?)
    }

    /// The sentence that answers a question best, out of the five passages that share most words with it among the
    /// fifty closest; `None` if none does.
    ///
    /// # Errors
    /// An [`IndexError`].
    pub async fn answer(&self, question: &str) -> Result<Option<Answer>, IndexError> {
        let hits = self.search(question, RETRIEVED).await?;
        let best = rerank(&self.words, question, hits, KEPT);
        Ok(Extractor::default().answer(&self.words, question, &best))
    }

    fn embed(&self, plan: &Plan) -> Result<Vec<Vec<f32>>, EmbedError> {
        let texts = plan.texts();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        plan.unchanged().iter().for_each(|passage| self.words.learn(&passage.text_with_heading()));
        match &self.model {
            None => self.words.embed_passages(&texts),
            Some(model) => {
                texts.iter().for_each(|text| self.words.learn(text));
                model.embed_passages(&texts)
            }
        }
    }
}

impl AsyncService for DocumentIndex {
    async fn setup(&self, cx: &HookContext) -> Result<(), BoxError> {
        if let Some(model) = &self.model {
            model.setup(cx)?;
        }
        Ok(self.store.open().await?)
    }

    async fn health(&self) -> Result<(), BoxError> {
        if let Some(model) = &self.model {
            model.health()?;
        }
        AsyncService::health(&self.store).await
    }

    async fn stop(&self, cx: &HookContext) -> Result<(), BoxError> {
        self.model.as_ref().map_or(Ok(()), |model| model.stop(cx))
    }

    /// Both are ended, whatever becomes of the other, and both errors are told.
    async fn cleanup(&self, cx: &HookContext) -> Result<(), BoxError> {
        let closed = self.store.close().await;
        let ended = self.model.as_ref().map_or(Ok(()), |model| model.cleanup(cx));
        match (closed, ended) {
            (Err(closed), Err(ended)) => Err(format!("{closed}; the embedder: {ended}").into()),
            (closed, ended) => ended.and(closed.map_err(Into::into)),
        }
    }
}

impl fmt::Debug for DocumentIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DocumentIndex").field("schema", self.store.schema()).finish_non_exhaustive()
    }
}
