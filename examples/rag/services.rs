//! Where passages are kept, and what makes vectors of them: what `--store` and `--embedder` ask for.

use std::path::PathBuf;

use super::{RETRIEVED, number};
use clap::{Args, ValueEnum};
use sage::{BoxError, CallError, Environment, ServiceHandle};
use sage_services::store::{Driver, Embedded, Hit, Schema, Search, VectorStore};
use sage_services::{Embedder, EmbedderId, LexicalEmbedder, Plan};

#[derive(Args, Clone)]
#[command(next_help_heading = "Where passages are kept, and what makes vectors of them")]
pub(crate) struct ServiceArguments {
    /// The store: in this process, or a server that runs
    #[arg(long, value_name = "STORE", default_value = "embedded")]
    store: StoreKind,
    /// The embedded store's file, which a second run goes on with; in memory unless given. Or the server's address: on
    /// this machine, at its usual port, unless given
    #[arg(long, value_name = "FILE|URL")]
    at: Option<String>,
    /// Name of the collection, which belongs to one folder of documents
    #[arg(long, value_name = "NAME", default_value = "passages")]
    collection: String,
    /// What makes vectors: of words, which needs no model; a static model; a transformer; a provider that speaks
    /// OpenAI's protocol, whose key is in OPENAI_API_KEY if it needs one
    #[arg(long, value_name = "EMBEDDER", default_value = "lexical")]
    embedder: EmbedderKind,
    /// Folder of the model's files, for `static` and `minilm`
    #[arg(long, value_name = "FOLDER", required_if_eq_any = [("embedder", "static"), ("embedder", "minilm")])]
    weights: Option<PathBuf>,
    /// Address of the provider of vectors
    #[arg(long, value_name = "URL", default_value = "https://api.openai.com/v1")]
    embedder_url: String,
    /// The provider's name for the model that makes vectors
    #[arg(long, value_name = "NAME", default_value = "text-embedding-3-small")]
    embedder_model: String,
    /// Dimensions of the provider's vectors, 1 to 65,536
    #[arg(long, value_name = "NUMBER", default_value_t = 1536, value_parser = number::<1, 65_536>)]
    dimensions: usize,
}

#[derive(Clone, Copy, ValueEnum)]
enum StoreKind {
    Embedded,
    Chroma,
    Milvus,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum EmbedderKind {
    Lexical,
    Static,
    Minilm,
    Openai,
}

/// The services.
#[derive(Clone)]
pub(crate) struct Services {
    /// Knows how rare words are, which reranking and quoting go by; makes vectors, unless there is a model.
    pub(crate) words: ServiceHandle<LexicalEmbedder>,
    model: Option<ServiceHandle<Box<dyn Embedder>>>,
    pub(crate) store: ServiceHandle<VectorStore>,
    pub(crate) id: EmbedderId,
}

impl ServiceArguments {
    /// Declares the services.
    pub(crate) fn declare(&self, env: &Environment) -> Result<Services, BoxError> {
        let (words, model, id) = match self.embedder {
            EmbedderKind::Lexical => {
                let words = env.register_service("embedder", LexicalEmbedder::default).build();
                (words, None, LexicalEmbedder::default().id().clone())
            }
            _ => {
                // Opened here as well, so that what is wrong with it is told before anything starts.
                let id = self.model()?.id().clone();
                let words = env.register_service("words", LexicalEmbedder::default).build();
                let arguments = self.clone();
                let model = env.register_service_with("embedder", move |_cx| arguments.model()).build();
                (words, Some(model), id)
            }
        };
        let schema = Schema::made_by(&self.collection, &id);
        let at = self.at.clone();
        let store = match self.store {
            StoreKind::Embedded => self.registered(env, schema, move || match &at {
                Some(file) => Embedded::at(file),
                None => Embedded::in_memory(),
            }),
            #[cfg(feature = "chroma")]
            StoreKind::Chroma => {
                let address = at.unwrap_or_else(|| "http://127.0.0.1:8000".to_owned());
                self.registered(env, schema, move || sage_services::store::Chroma::at(&address))
            }
            #[cfg(feature = "milvus")]
            StoreKind::Milvus => {
                let address = at.unwrap_or_else(|| "http://127.0.0.1:19530".to_owned());
                self.registered(env, schema, move || sage_services::store::Milvus::at(&address))
            }
            #[cfg(not(all(feature = "chroma", feature = "milvus")))]
            kind => Err(built_without(kind)),
        }?;
        Ok(Services { words, model, store, id })
    }

    fn model(&self) -> Result<Box<dyn Embedder>, BoxError> {
        let _folder = || self.weights.as_ref().ok_or("say with --weights where the model's files are");
        match self.embedder {
            EmbedderKind::Lexical => Ok(Box::new(LexicalEmbedder::default())),
            #[cfg(feature = "static")]
            EmbedderKind::Static => Ok(Box::new(sage_services::StaticEmbedder::open(_folder()?)?)),
            #[cfg(feature = "minilm")]
            EmbedderKind::Minilm => Ok(Box::new(sage_services::MiniLmEmbedder::open(_folder()?)?)),
            #[cfg(feature = "llm")]
            EmbedderKind::Openai => {
                let mut options =
                    sage_services::llm::LlmOptions::new(&self.embedder_model).base_url(&self.embedder_url);
                if std::env::var_os("OPENAI_API_KEY").is_some() {
                    options = options.key_from_env("OPENAI_API_KEY")?;
                }
                Ok(Box::new(sage_services::LlmEmbedder::new(options, self.dimensions)))
            }
            #[cfg(not(all(feature = "llm", feature = "minilm")))]
            kind => Err(built_without(kind)),
        }
    }

    fn registered<D: Driver>(
        &self,
        env: &Environment,
        schema: Schema,
        driver: impl Fn() -> D + Send + Sync + 'static,
    ) -> Result<ServiceHandle<VectorStore>, BoxError> {
        let made = VectorStore::constructor(schema, driver)?;
        Ok(env.register_async_service("store", made).build())
    }
}

#[cfg_attr(all(feature = "chroma", feature = "llm", feature = "milvus", feature = "minilm"), expect(dead_code))]
fn built_without(what: impl ValueEnum) -> BoxError {
    let name = what.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned());
    // The client of models is that of providers.
    let name = if name == "openai" { "llm".to_owned() } else { name };
    format!("this program was built without `{name}`; build it with `--features {name}`").into()
}

impl Services {
    /// Embeds the passages that changed, and has their words counted, as well as those of all others.
    pub(crate) fn embed(&self, plan: &Plan) -> Result<Vec<Vec<f32>>, CallError> {
        let texts = plan.texts();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        self.words.call(|words| {
            plan.unchanged().iter().for_each(|passage| words.learn(&passage.text_with_heading()));
            if self.model.is_some() {
                texts.iter().for_each(|text| words.learn(text));
            }
        })?;
        match &self.model {
            None => self.words.try_call(|words| words.embed_passages(&texts)),
            Some(model) => model.try_call(|model| model.embed_passages(&texts)),
        }
    }

    /// Searches the store; a question without a known word has no vector and finds nothing.
    pub(crate) fn search(&self, question: &str) -> Result<Vec<Hit>, CallError> {
        let vector = match &self.model {
            None => self.words.call(|words| words.embed_query(question))?,
            Some(model) => model.try_call(|model| model.embed_queries(&[question]))?.remove(0),
        };
        if vector.iter().all(|x| *x == 0.0) {
            return Ok(Vec::new());
        }
        self.store.try_call_blocking(async move |store| store.search(Search::vector(vector, RETRIEVED)).await)
    }
}
