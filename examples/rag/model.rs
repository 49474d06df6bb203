//! Answers by a language model, from the passages that were found: what `--llm` asks for.
//!
//! The model is a service with a policy. Its calls are tried again, kept to a rate, held while it is not there, and
//! kept in a journal, if one is named: a run that is started again makes no call again whose answer it had.

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use sage::{BoxError, CallError, Environment};
use sage_services::store::Hit;
#[cfg(feature = "llm")]
use sage_services::{Citations, Sources};

use super::{Answered, number};

#[derive(Args)]
#[command(next_help_heading = "Answers by a language model")]
pub(crate) struct ModelArguments {
    /// Have a model answer from the passages, instead of quoting them; by OpenAI's protocol, which most providers and
    /// servers of one's own speak
    #[arg(long, value_name = "PROTOCOL")]
    llm: Option<Protocol>,
    /// Address of the provider
    #[arg(long, value_name = "URL", requires = "llm", default_value = "https://api.openai.com/v1")]
    base_url: String,
    /// The provider's name for the model
    #[arg(long, value_name = "NAME", requires = "llm", default_value = "gpt-4o-mini")]
    model: String,
    /// The variable that has the key; if it is not set, none is sent
    #[arg(long, value_name = "VARIABLE", requires = "llm", default_value = "OPENAI_API_KEY")]
    key_from: String,
    /// Keep answers in this folder: the same run, started again, makes no call again whose answer it had
    #[arg(long, value_name = "FOLDER", requires = "llm")]
    journal: Option<PathBuf>,
    /// Calls at once, 1 to 256; fewer while the provider has too much to do
    #[arg(long, value_name = "CALLS", requires = "llm", default_value_t = 8, value_parser = number::<1, 256>)]
    pub(crate) in_flight: usize,
    /// Calls a minute, 1 to 1,000,000; no limit unless given
    #[arg(long, value_name = "CALLS", requires = "llm", value_parser = number::<1, 1_000_000>)]
    rpm: Option<usize>,
    /// Seconds that an attempt may take, 1 to 3,600
    #[arg(long, value_name = "SECONDS", requires = "llm", default_value_t = 60, value_parser = number::<1, 3_600>)]
    timeout: usize,
}

#[derive(Clone, Copy, ValueEnum)]
enum Protocol {
    Openai,
}

/// Has a question answered from passages.
pub(crate) type Ask = Arc<dyn Fn(Arc<str>, Vec<Hit>) -> Asking + Send + Sync>;

/// The answer to come.
pub(crate) type Asking = Pin<Box<dyn Future<Output = Result<(Arc<str>, Option<Answered>), CallError>> + Send>>;

impl ModelArguments {
    /// Declares the model, if one is to answer.
    pub(crate) fn declare(&self, env: &Environment) -> Result<Option<Ask>, BoxError> {
        self.llm.map(|Protocol::Openai| declare(self, env)).transpose()
    }
}

#[cfg(not(feature = "llm"))]
fn declare(_arguments: &ModelArguments, _env: &Environment) -> Result<Ask, BoxError> {
    Err("this program was built without language models; build it with `--features llm`".into())
}

#[cfg(feature = "llm")]
fn declare(arguments: &ModelArguments, env: &Environment) -> Result<Ask, BoxError> {
    use std::time::Duration;

    use sage::{Concurrency, Journal, Policy, Rate, Retry};
    use sage_services::llm::{Llm, LlmOptions, Prices};

    const MINUTE: Duration = Duration::from_secs(60);
    let ModelArguments { base_url, model, key_from, journal, in_flight, rpm, timeout, .. } = arguments;
    let mut options = LlmOptions::new(model).base_url(base_url);
    if std::env::var_os(key_from).is_some() {
        options = options.key_from_env(key_from)?;
    }
    if Prices::known().of(model).is_none() {
        options = options.prices(Prices::none());
    }
    let mut policy = Policy::new()
        .timeout(Duration::from_secs(*timeout as u64))
        .retry(Retry::up_to(8).backoff(Duration::from_millis(500), Duration::from_secs(8)))
        .concurrency(Concurrency::at_most(*in_flight).adaptive(1))
        .pause_on_outage(10 * MINUTE)
        .version(format!("{model}, {PROMPT}{}", Sources::INSTRUCTION));
    if let Some(rpm) = rpm {
        policy = policy.rate(Rate::calls(*rpm as u64, MINUTE));
    }
    if let Some(folder) = journal {
        policy = policy.journal(Journal::run(folder));
    }
    let service = options.clone();
    let llm = env.register_async_service("llm", move || Llm::new(service.clone())).policy(policy).build();
    let mut chat = options.chat_method(&llm);
    if journal.is_some() {
        chat = chat.keep(options.keep_chat().journal());
    }
    let chat = chat.build();
    Ok(Arc::new(move |question: Arc<str>, hits: Vec<Hit>| {
        let chat = chat.clone();
        Box::pin(async move {
            let sources = Sources::of_hits(&hits);
            let Some(best) = sources.passages().first() else { return Ok((question, None)) };
            let text = chat.call(request(&question, &sources)).await?.text;
            let Citations { known, unknown } = sources.cited_in(&text);
            // One that cites nothing is taken to be from the best.
            let (path, first_line, last_line) = match known.first() {
                Some(first) => (Arc::clone(&first.path), first.first_line, first.last_line),
                None => (Arc::clone(&best.path), best.first_line, best.last_line),
            };
            let others = known.iter().skip(1).map(ToString::to_string);
            let made_up = unknown.iter().map(|number| format!("[{number}] stands for none of the passages"));
            let notes = others.chain(made_up).collect();
            Ok((question, Some(Answered { text, path, first_line, last_line, notes, coverage: None })))
        })
    }))
}

/// What the model is told; answers that are kept belong to it.
#[cfg(feature = "llm")]
const PROMPT: &str = "Answer the question in one or two sentences, from the passages alone. If they do not answer it, \
                      say that you do not know. ";

#[cfg(feature = "llm")]
fn request(question: &str, sources: &Sources) -> sage_services::llm::ChatRequest {
    use sage_services::llm::{ChatRequest, Message};

    let asked = format!("{}Question: {question}", sources.prompt());
    let told = format!("{PROMPT}{}", Sources::INSTRUCTION);
    ChatRequest::new([Message::system(told), Message::user(asked)]).temperature(0.0).max_tokens(200)
}
