//! The client of language models of `sage_services`, as `python/sage/_llm.py` uses it.
//!
//! Requests and answers are JSON. A call runs on the one thread of its client, detached from the interpreter, and tells
//! a function of Python what has come of it: that function is called once, whatever becomes of the call and its client.

use std::future::Future;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use sage::{ServiceError, chain_of};
use sage_services::llm::{
    ChatAnswer, ChatRequest, ChatStream, Llm, LlmError, LlmOptions, Message, Piece, Price, Prices, TokenUsage, Tool,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::AbortHandle;

use crate::call_policy::wait::wait;
use crate::error::{ServiceError as Refused, verdict_as_told};
use crate::spec::Seconds;
use crate::thread::lock;

/// How long is waited for the end of a client's thread, which may be asking for the address of a name.
const LONGEST_END: Duration = Duration::from_secs(5);

/// What a call has come to: the JSON of an answer, or an error's.
type Ended = Result<String, String>;

/// What Python asks: see `_request` in `python/sage/_llm.py`.
#[derive(Deserialize)]
struct Asked {
    messages: Vec<Message>,
    tools: Vec<Tool>,
    parameters: Map<String, Value>,
    model: Option<String>,
    streamed: bool,
}

impl Asked {
    fn read(text: &str) -> PyResult<Self> {
        serde_json::from_str(text).map_err(|error| PyValueError::new_err(error.to_string()))
    }

    fn request(self) -> ChatRequest {
        let request = ChatRequest::new(self.messages);
        let request = self.tools.into_iter().fold(request, ChatRequest::tool);
        let request = self.parameters.into_iter().fold(request, |request, (name, value)| request.set(name, value));
        let request = self.model.into_iter().fold(request, ChatRequest::model);
        if self.streamed { request.streamed() } else { request }
    }
}

/// A client.
#[pyclass(frozen, module = "sage._sage")]
pub(crate) struct LlmClient {
    llm: Arc<Llm>,
    model: String,
    prices: Prices,
    /// `None` once it is closed.
    runtime: Mutex<Option<Runtime>>,
}

/// A call that is under way.
#[pyclass(frozen, module = "sage._sage")]
pub(crate) struct LlmCall(AbortHandle);

/// An answer that comes in pieces.
#[pyclass(frozen, module = "sage._sage")]
pub(crate) struct LlmStream {
    stream: Arc<tokio::sync::Mutex<ChatStream>>,
    price: Option<Price>,
    runtime: Handle,
}

#[pymethods]
impl LlmClient {
    #[new]
    fn new(
        model: String,
        base_url: Option<String>,
        key: Option<String>,
        connect_timeout: Seconds,
        read_timeout: Seconds,
        prices: Option<PathBuf>,
    ) -> PyResult<Self> {
        let prices = match prices {
            Some(path) => Prices::read(path).map_err(|error| PyValueError::new_err(chain_of(&error)))?,
            None => Prices::known(),
        };
        let options = LlmOptions::new(&model).connect_timeout(connect_timeout.0).read_timeout(read_timeout.0);
        let options = base_url.into_iter().fold(options, LlmOptions::base_url);
        let options = key.into_iter().fold(options, LlmOptions::key);
        let runtime = Builder::new_multi_thread().worker_threads(1).thread_name("sage-llm").enable_all().build()?;
        Ok(Self { llm: Arc::new(Llm::new(options)), model, prices, runtime: Mutex::new(Some(runtime)) })
    }

    /// Asks the model. `told` gets the answer. The provider gets the idempotency key, if there is one.
    fn chat(&self, request: &str, key: Option<String>, told: Py<PyAny>) -> PyResult<LlmCall> {
        Ok(begin(&self.runtime()?, self.asks(self.request(request)?, key), told))
    }

    /// As `chat`, for a thread that waits.
    fn chat_blocking(&self, py: Python<'_>, request: &str, key: Option<String>) -> PyResult<Pair> {
        waits(py, &self.runtime()?, self.asks(self.request(request)?, key))
    }

    /// Makes vectors of texts.
    fn embed(&self, texts: Vec<String>, told: Py<PyAny>) -> PyResult<LlmCall> {
        Ok(begin(&self.runtime()?, self.embeds(texts), told))
    }

    /// As `embed`, for a thread that waits.
    fn embed_blocking(&self, py: Python<'_>, texts: Vec<String>) -> PyResult<Pair> {
        waits(py, &self.runtime()?, self.embeds(texts))
    }

    /// Asks the model, for an answer in pieces. `told` gets the stream.
    fn stream(&self, request: &str, told: Py<PyAny>) -> PyResult<LlmCall> {
        let ((request, price), llm, runtime) = (self.request(request)?, self.llm.clone(), self.runtime()?);
        let (of, told) = (runtime.clone(), Told::new(told));
        let call = async move {
            let opened = llm.stream(&request).await;
            let ended = opened.map_err(|error| error_of(&error)).map(|stream| {
                let stream = Arc::new(tokio::sync::Mutex::new(stream));
                LlmStream { stream, price, runtime: of }
            });
            told.tell(ended);
        };
        Ok(LlmCall(runtime.spawn(call).abort_handle()))
    }

    /// How many tokens a request is likely to take.
    #[staticmethod]
    fn tokens(request: &str) -> PyResult<u64> {
        Ok(Asked::read(request)?.request().estimated_tokens())
    }

    /// What embeddings cost that took so many tokens; `None` if the model's price is not known.
    fn spent_on_embeddings(&self, tokens: u64) -> Option<f64> {
        Some(self.prices.of(&self.model)?.spent(&TokenUsage::new(tokens, 0)))
    }

    /// Ends all calls that are under way, and the thread.
    fn close(&self, py: Python<'_>) {
        // Not under the lock: who holds the interpreter may wait for it.
        let runtime = lock(&self.runtime).take();
        py.detach(|| runtime.into_iter().for_each(|runtime| runtime.shutdown_timeout(LONGEST_END)));
    }
}

impl LlmClient {
    fn runtime(&self) -> PyResult<Handle> {
        let runtime = lock(&self.runtime).as_ref().map(|runtime| runtime.handle().clone());
        runtime.ok_or_else(|| Refused::new_err("the client of the language model is closed"))
    }

    fn asks(
        &self,
        (request, price): (ChatRequest, Option<Price>),
        key: Option<String>,
    ) -> impl Future<Output = Ended> + Send + 'static {
        let llm = self.llm.clone();
        async move {
            let answer = llm.chat_once(&request, key.as_deref()).await.map_err(|error| error_of(&error))?;
            Ok(answer_of(&answer, price))
        }
    }

    /// A request, and what its model costs.
    fn request(&self, text: &str) -> PyResult<(ChatRequest, Option<Price>)> {
        let asked = Asked::read(text)?;
        let price = self.prices.of(asked.model.as_deref().unwrap_or(&self.model));
        Ok((asked.request(), price))
    }

    fn embeds(&self, texts: Vec<String>) -> impl Future<Output = Ended> + Send + 'static {
        let llm = self.llm.clone();
        async move {
            let embeddings = llm.embed(&texts).await.map_err(|error| error_of(&error))?;
            Ok(json_of(&embeddings))
        }
    }
}

impl Drop for LlmClient {
    fn drop(&mut self) {
        // It may be dropped by its own thread, which cannot wait for itself.
        let runtime = lock(&self.runtime).take();
        runtime.into_iter().for_each(Runtime::shutdown_background);
    }
}

#[pymethods]
impl LlmCall {
    /// Ends it. Nothing is told any more.
    fn cancel(&self) {
        self.0.abort();
    }
}

#[pymethods]
impl LlmStream {
    /// Waits for the next piece. `told` gets it: `null` is the end.
    fn next(&self, told: Py<PyAny>) -> LlmCall {
        let stream = self.stream.clone();
        let next = async move {
            match stream.lock().await.next().await {
                None => Ok("null".to_owned()),
                Some(Ok(piece)) => Ok(piece_of(&piece)),
                Some(Err(error)) => Err(error_of(&error)),
            }
        };
        begin(&self.runtime, next, told)
    }

    /// Tells `told` what has come so far.
    fn so_far(&self, told: Py<PyAny>) -> LlmCall {
        let (stream, price) = (self.stream.clone(), self.price);
        begin(&self.runtime, async move { Ok(answer_of(stream.lock().await.so_far(), price)) }, told)
    }
}

fn begin(runtime: &Handle, call: impl Future<Output = Ended> + Send + 'static, told: Py<PyAny>) -> LlmCall {
    let told = Told::new(told);
    LlmCall(runtime.spawn(async move { told.tell(call.await) }).abort_handle())
}

/// A function of Python that is told once what a call has come to: an error or `None`, and an answer or `None`. It is
/// also told of a call that was dropped, as its client was closed: somebody may wait for it.
struct Told(Option<Py<PyAny>>);

impl Told {
    fn new(told: Py<PyAny>) -> Self {
        Self(Some(told))
    }

    fn tell<T: for<'py> IntoPyObject<'py>>(mut self, ended: Result<T, String>) {
        self.tell_once(ended);
    }

    fn tell_once<T: for<'py> IntoPyObject<'py>>(&mut self, ended: Result<T, String>) {
        let Some(told) = self.0.take() else { return };
        // There is nobody to tell when the interpreter is gone.
        let _is_told = Python::try_attach(move |py| {
            let (error, answer) = match ended {
                Ok(answer) => (None, Some(answer)),
                Err(error) => (Some(error), None),
            };
            if let Err(error) = told.call1(py, (error, answer)) {
                error.write_unraisable(py, Some(told.bind(py)));
            }
        });
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        self.tell_once::<String>(Err(closed()));
    }
}

/// The error of a call whose client was closed meanwhile.
fn closed() -> String {
    json!({
        "text": "the client of the language model was closed meanwhile", "verdict": "bad",
        "retry_after": null, "status": null, "code": null,
    })
    .to_string()
}

/// What [`Told`] is told, as a pair.
type Pair = (Option<String>, Option<String>);

/// Waits for a call on this thread, which looks for signals meanwhile.
fn waits(py: Python<'_>, runtime: &Handle, call: impl Future<Output = Ended> + Send + 'static) -> PyResult<Pair> {
    let task = runtime.spawn(call);
    let abort = task.abort_handle();
    match wait(py, task, None, true).inspect_err(|_| abort.abort())? {
        Ok(Ok(answer)) => Ok((None, Some(answer))),
        Ok(Err(error)) => Ok((Some(error), None)),
        // The client's thread has ended.
        Err(_) => Ok((Some(closed()), None)),
    }
}

fn answer_of(answer: &ChatAnswer, price: Option<Price>) -> String {
    let spent = answer.usage.as_ref().and_then(|usage| Some(price?.spent(usage)));
    let finish = answer.finish.as_ref().map(|finish| finish.as_str());
    json!({"answer": answer, "finish": finish, "spent": spent}).to_string()
}

fn piece_of(piece: &Piece) -> String {
    let value = match piece {
        Piece::Text(text) => json!({"text": text}),
        Piece::Reasoning(text) => json!({"reasoning": text}),
        Piece::ToolCall { index, name, arguments } => json!({"index": index, "name": name, "arguments": arguments}),
        _ => json!({}),
    };
    value.to_string()
}

fn json_of(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("its keys are texts, and its numbers finite")
}

/// What an error says, and what it means to a policy.
fn error_of(error: &ServiceError) -> String {
    let (verdict, after) = verdict_as_told(error.verdict());
    let (status, code) = match LlmError::of(error) {
        Some(LlmError::Status { status, code, .. }) => (Some(*status), code.as_deref()),
        _ => (None, None),
    };
    let (text, after) = (chain_of(error), after.map(|after| after.as_secs_f64()));
    json!({"text": text, "verdict": verdict, "retry_after": after, "status": status, "code": code}).to_string()
}
