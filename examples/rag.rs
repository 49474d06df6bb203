//! Answers questions about a folder of documents, each with the file and the lines the answer comes from.
//!
//! One job does all of it:
//!
//! ```text
//! walk ─ read ─ chunk ─ plan ─┬─ embed ─┬─ upsert ─ sweep ─ ask ─ retrieve ─ rerank ─ answer ─ print
//!                             └─ embed ─┘
//! ```
//!
//! Services stand beside the stream: `embedder`, `store` and, where a model makes the vectors, `words`
//! (`rag/services.rs`); and `llm`, where a model is to answer (`rag/model.rs`). `plan` looks up what the store has of a
//! document already, so that only what changed is embedded, and `sweep` deletes what is gone. The questions are asked
//! exactly when the last passage is stored, because `count` gives its one record at the end of its input. A signal in
//! the middle of indexing ends the walk; what was read is stored, nothing is deleted, and no question is asked of half
//! an index.
//!
//! Documents are read one at a time, so only the store grows with the folder. A file that cannot be read, or that is
//! not text, is counted, named in the summary and skipped. A file that is not UTF-8 is read with U+FFFD for the bytes
//! that are not. Hidden folders, `target` and `node_modules` are left out, and links are not followed.

#[path = "rag/chat.rs"]
mod chat;
#[path = "rag/model.rs"]
mod model;
#[path = "rag/services.rs"]
mod services;

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chat::{ChatArguments, Typed};
use clap::Parser;
use indicatif::ProgressBar;
use model::{Ask, ModelArguments};
use sage::{BoxError, CallError, Environment, JobHandle, JobReport, Order, RunError, SignalPolicy};
use sage_services::{
    Answer, Chunker, DocumentError, DocumentText, Extractor, Ingest, Passage, Plan, documents, read_document, rerank,
};
use serde_json::json;
use services::ServiceArguments;

/// Answers questions about a folder of documents, each with the file and the lines the answer comes from.
///
/// Without arguments it reads this repository's own documents and asks a few questions about them. Answers are quoted
/// word for word; no model is used and nothing is downloaded. With `--llm`, a language model answers from the passages
/// that were found: at a provider whose key is in a variable, or on a server of one's own.
///
/// Ctrl-C ends the reading, stores what was read and cleans up; a second one drops what is in flight. The exit code is
/// 0 when the job succeeded and left nothing behind, 130 after SIGINT, 143 after SIGTERM, else 1.
#[derive(Parser)]
#[command(name = "rag", after_help = EXAMPLES)]
struct Arguments {
    /// Folder to read; this repository's documents unless given
    folder: Option<PathBuf>,
    /// A question; may be given several times
    #[arg(short, long = "question", value_name = "TEXT")]
    question: Vec<String>,
    /// A file of questions, one a line; `-` is standard input
    #[arg(long, value_name = "FILE")]
    questions: Option<PathBuf>,
    /// Extensions of the files to read, such as `--ext md,rs,py`; unless given, md, markdown, txt, rst, html, htm, csv
    /// and jsonl, and pdf and docx where this was built with them; in this repository md alone
    #[arg(long, value_delimiter = ',')]
    ext: Vec<String>,
    /// Threads that embed and store, 1 to 64
    #[arg(long, default_value_t = 2, value_parser = number::<1, 64>)]
    parallelism: usize,
    /// Passages an answer is chosen from, 1 to 50
    #[arg(long, default_value_t = 5, value_parser = number::<1, RETRIEVED>)]
    passages: usize,
    /// Write the answers and the job's report to this file, as JSON
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Log each document on standard error; twice: also the engine's log
    #[arg(short, long, action = clap::ArgAction::Count)]
    verbose: u8,
    #[command(flatten)]
    services: ServiceArguments,
    #[command(flatten)]
    model: ModelArguments,
    #[command(flatten)]
    chat: ChatArguments,
}

/// Shown below the arguments.
const EXAMPLES: &str = "Examples:
  rag docs --question 'What stops first?' --report run.json
  rag docs --questions questions.txt --llm openai --model gpt-4o-mini --rpm 300 --journal runs/monday
  rag docs --questions questions.txt --llm openai --base-url http://localhost:8080/v1 --model smollm2
  rag docs --chat                                               # asks for questions, and remembers what is said
  rag docs --question 'What stops first?' --at docs.sage        # embeds only what changed since the last time
  rag docs --question 'What stops first?' --store chroma --embedder static --weights models/potion";

/// Asked when no folder is given.
const QUESTIONS: &[&str] = &[
    "In which order do services start and stop?",
    "What happens on the first SIGINT?",
    "What does clean mean?",
    "What happens when a cleanup hangs?",
    "How does the engine know that the input has ended?",
];
/// Read in a folder that is given.
const EXTENSIONS: &[&str] = &[
    "md",
    "markdown",
    "txt",
    "rst",
    "html",
    "htm",
    "csv",
    "jsonl",
    #[cfg(feature = "pdf")]
    "pdf",
    #[cfg(feature = "docx")]
    "docx",
];
/// The most passages an answer is chosen from.
const RETRIEVED: usize = 50;
/// Problems to keep by name; the rest is only counted.
const MAX_NAMED: usize = 10;

/// Documents whose passages are looked up, embedded and stored at once.
const BATCH: usize = 16;

/// The questions, and the files to read.
struct Task {
    folder: PathBuf,
    extensions: Vec<String>,
    questions: Vec<Arc<str>>,
}

/// A file's path below the folder, and its text.
struct Document {
    path: String,
    text: DocumentText,
}

/// What a question is answered with, and where that stands, or the best passage of those that a model was shown.
pub(crate) struct Answered {
    text: String,
    path: Arc<str>,
    first_line: usize,
    last_line: usize,
    /// What else a model cites.
    notes: Vec<String>,
    /// That of a quotation.
    coverage: Option<f32>,
}

impl From<Answer> for Answered {
    fn from(Answer { text, path, first_line, last_line, coverage, .. }: Answer) -> Self {
        Self { text, path, first_line, last_line, notes: Vec::new(), coverage: Some(coverage) }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let level = match arguments.verbose {
        0 => tracing::Level::WARN,
        1 => tracing::Level::INFO,
        _ => tracing::Level::DEBUG,
    };
    tracing_subscriber::fmt().with_max_level(level).with_writer(io::stderr).without_time().init();
    run(&arguments).unwrap_or_else(|error| {
        tell(&*error);
        ExitCode::FAILURE
    })
}

fn run(arguments: &Arguments) -> Result<ExitCode, BoxError> {
    arguments.chat.check()?;
    let task = Task::new(arguments)?;
    let notes = Notes::new(arguments);
    let env = Environment::local("rag").signals(SignalPolicy::Exit);
    let ask = arguments.model.declare(&env)?;
    declare(&env, arguments, &task, &notes, ask)?;
    // The job manager shows it, if one runs this.
    let job = sage_api::submit(&env)?;
    let ended = watch(&job, &notes.bar);
    drop(job);

    let report = match &ended {
        Ok(report) => report,
        Err(RunError::Job(error)) => &error.report,
        Err(_) => return Err(ended.map_or_else(Into::into, |_| "the job gave no report".into())),
    };
    summarise(report, &notes)?;
    if let Some(path) = &arguments.report {
        write_report(path, report, &notes)?;
    }
    if let Some(signal) = report.signal() {
        return Ok(ExitCode::from(u8::try_from(128 + signal).unwrap_or(u8::MAX)));
    }
    if records(report, "read") == 0 && ended.is_ok() {
        let (folder, extensions) = (task.folder.display(), task.extensions.join(", "));
        return Err(format!("no document in `{folder}` ends in one of: {extensions}; see --ext").into());
    }
    ended?;
    Ok(ExitCode::SUCCESS)
}

/// Declares the services and the stream.
fn declare(
    env: &Environment,
    arguments: &Arguments,
    task: &Task,
    notes: &Notes,
    ask: Option<Ask>,
) -> Result<(), BoxError> {
    let services = arguments.services.declare(env)?;
    let mut typed: Option<Typed> = None;
    if arguments.chat.chat {
        typed = Some(arguments.chat.declare(env, &services, arguments.passages, ask.clone(), notes.clone())?);
    }
    let ingest = Arc::new(Ingest::new(&services.id));
    let walked = Arc::<Walked>::default();
    let walk = walk(task, notes.clone(), Arc::clone(&walked));
    let (folder, questions) = (task.folder.clone(), task.questions.clone());
    let (read_notes, embed_notes, sweep_notes, print_notes) =
        (notes.clone(), notes.clone(), notes.clone(), notes.clone());
    let (read_ingest, plan_ingest) = (Arc::clone(&ingest), Arc::clone(&ingest));
    let (plan, upsert, sweep) = (services.store.clone(), services.store.clone(), services.store.clone());
    let (rank, quote) = (services.words.clone(), services.words.clone());
    let (embed, retrieve) = (services.clone(), services);
    let keep = arguments.passages;

    let ranked = env
        .from_iter(walk)
        .named("walk")
        .flat_map(move |path: PathBuf| read(&folder, &path, &read_notes, &read_ingest))
        .named("read")
        .map(chunk)
        .named("chunk")
        .batch(BATCH)
        .try_map(move |documents| {
            let ingest = Arc::clone(&plan_ingest);
            plan.try_call_blocking(async move |store| ingest.plan(&store, documents).await)
        })
        .named("plan")
        .try_map(move |plan: Plan| {
            let vectors = embed.embed(&plan)?;
            embed_notes.told.embedded.fetch_add(vectors.len() as u64, Ordering::Relaxed);
            // A passage without a single word has no vector, and cannot be found.
            let found = vectors.iter().filter(|vector| vector.iter().any(|x| *x != 0.0)).count();
            Ok::<_, CallError>((plan.unchanged().len() + found, plan.into_records(vectors)))
        })
        .named("embed")
        .parallelism(arguments.parallelism)
        .try_map(move |(there, records)| {
            upsert.try_call_blocking(async move |store| store.upsert(records).await)?;
            Ok::<_, CallError>(there)
        })
        .named("store")
        .flat_map(|there| std::iter::repeat_n((), there))
        .named("upsert")
        .count()
        .named("count")
        .try_map(move |there| {
            if let Some(typed) = &typed {
                sweep_notes.bar.finish_and_clear();
                typed.begin();
            }
            let is_whole = walked.to_its_end.load(Ordering::Acquire);
            if is_whole && there > 0 && !walked.has_gaps.load(Ordering::Relaxed) {
                let ingest = Arc::clone(&ingest);
                let deleted = sweep.try_call_blocking(async move |store| ingest.sweep(&store).await)?;
                sweep_notes.told.deleted.fetch_add(deleted as u64, Ordering::Relaxed);
            }
            Ok::<_, CallError>(is_whole && there > 0)
        })
        .named("sweep")
        .flat_map(move |is_whole| if is_whole { questions.clone() } else { Vec::new() })
        .named("ask")
        .try_map(move |question| {
            let hits = retrieve.search(&question)?;
            Ok::<_, CallError>((question, hits))
        })
        .named("retrieve")
        .try_map(move |(question, hits)| {
            let hits = rank.call(|words| rerank(words, &question, hits, keep))?;
            Ok::<_, CallError>((question, hits))
        })
        .named("rerank");
    let print =
        move |(question, answer): (Arc<str>, Option<Answered>)| print_notes.answered(&question, answer.as_ref());
    if let Some(ask) = ask {
        let answered = ranked.try_map_async(arguments.model.in_flight, Order::Ordered, move |(q, hits)| ask(q, hits));
        answered.named("answer").try_sink(print).named("print");
    } else {
        let answered = ranked.try_map(move |(question, hits)| {
            let answer = quote.call(|words| Extractor::default().answer(words, &question, &hits))?;
            Ok::<_, CallError>((question, answer.map(Answered::from)))
        });
        answered.named("answer").try_sink(print).named("print");
    }
    Ok(())
}

/// The paths of the documents, one after the other; tells behind the last, which a drain does not reach, how it went.
fn walk(task: &Task, notes: Notes, walked: Arc<Walked>) -> impl Iterator<Item = PathBuf> + Send + use<> {
    let at_end = Arc::clone(&walked);
    documents(&task.folder, &task.extensions)
        .filter_map(move |path| {
            path.map_err(|error| {
                // Documents in a folder that cannot be read are not gone.
                walked.has_gaps.store(true, Ordering::Relaxed);
                notes.passed_over(&error);
            })
            .ok()
        })
        .chain(std::iter::from_fn(move || {
            at_end.to_its_end.store(true, Ordering::Release);
            None
        }))
}

/// How the walk over the documents went.
#[derive(Default)]
struct Walked {
    to_its_end: AtomicBool,
    has_gaps: AtomicBool,
}

/// Reads a file as text, or notes why it cannot be.
fn read(folder: &Path, path: &Path, notes: &Notes, ingest: &Ingest) -> Option<Document> {
    let name = path.strip_prefix(folder).unwrap_or(path).to_string_lossy().into_owned();
    match read_document(path) {
        Ok(text) => {
            if !text.is_utf8 {
                notes.not_utf8(&name);
            }
            Some(Document { path: name, text })
        }
        Err(error) => {
            notes.passed_over(&error);
            ingest.keep(name);
            None
        }
    }
}

fn chunk(document: Document) -> Vec<Passage> {
    let passages = Chunker::default().chunk_document(document.path.as_str(), &document.text);
    tracing::info!(path = document.path, passages = passages.len(), "read");
    passages
}

/// What the operators tell beside their records.
#[derive(Clone)]
struct Notes {
    told: Arc<Told>,
    /// The answers for the report; `None` when none is written.
    answers: Option<Arc<Mutex<Vec<serde_json::Value>>>>,
    bar: ProgressBar,
}

#[derive(Default)]
struct Told {
    embedded: AtomicU64,
    deleted: AtomicU64,
    passed_over: AtomicU64,
    not_utf8: AtomicU64,
    /// The first of them, in words.
    named: Mutex<Vec<String>>,
}

impl Notes {
    /// The bar is drawn only where standard error is a terminal and nothing else is written there.
    fn new(arguments: &Arguments) -> Self {
        let drawn = io::stderr().is_terminal() && arguments.verbose == 0;
        Self {
            told: Arc::default(),
            answers: arguments.report.is_some().then(Arc::default),
            bar: if drawn { ProgressBar::new_spinner() } else { ProgressBar::hidden() },
        }
    }

    fn passed_over(&self, error: &DocumentError) {
        self.trouble(&self.told.passed_over, format!("passed over: {}", in_words(error)));
    }

    fn not_utf8(&self, path: &str) {
        self.trouble(&self.told.not_utf8, format!("read with U+FFFD in the place of what is not UTF-8: `{path}`"));
    }

    fn trouble(&self, counter: &AtomicU64, what: String) {
        tracing::info!("{what}");
        counter.fetch_add(1, Ordering::Relaxed);
        let mut named = locked(&self.told.named);
        if named.len() < MAX_NAMED {
            named.push(what);
        }
    }

    /// Prints an answer, and keeps it for the report.
    fn answered(&self, question: &str, answer: Option<&Answered>) -> io::Result<()> {
        if let Some(answers) = &self.answers {
            locked(answers).push(json!({
                "question": question,
                "answer": answer.map(|answer| &answer.text),
                "path": answer.map(|answer| &*answer.path),
                "first_line": answer.map(|answer| answer.first_line),
                "last_line": answer.map(|answer| answer.last_line),
                "coverage": answer.and_then(|answer| answer.coverage),
            }));
        }
        self.bar.suspend(|| {
            let mut out = io::stdout().lock();
            writeln!(out, "Q: {question}")?;
            match answer {
                Some(Answered { text, path, first_line, last_line, .. }) if first_line == last_line => {
                    writeln!(out, "A: {text}\n   {path}:{first_line}")
                }
                Some(Answered { text, path, first_line, last_line, .. }) => {
                    writeln!(out, "A: {text}\n   {path}:{first_line}-{last_line}")
                }
                None => writeln!(out, "A: no document answers this"),
            }?;
            answer.iter().flat_map(|answer| &answer.notes).try_for_each(|note| writeln!(out, "   {note}"))?;
            writeln!(out)
        })
    }
}

/// Waits for the job, showing how far it is.
fn watch(job: &JobHandle, bar: &ProgressBar) -> Result<JobReport, RunError> {
    let ended = loop {
        if let Some(ended) = job.wait_timeout(Duration::from_millis(100)) {
            break ended;
        }
        let metrics = job.metrics();
        let done = |name| metrics.operator(name).map_or(0, |operator| operator.records_out);
        let (read, stored, answered) = (done("read"), done("upsert"), done("print"));
        bar.set_message(format!("{read} documents read, {stored} passages stored, {answered} questions answered"));
        bar.tick();
    };
    bar.finish_and_clear();
    ended
}

fn records(report: &JobReport, operator: &str) -> u64 {
    report.operator(operator).map_or(0, |operator| operator.records_out)
}

fn summarise(report: &JobReport, notes: &Notes) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let (read, stored, asked) = (records(report, "read"), records(report, "upsert"), records(report, "ask"));
    let told = &notes.told;
    let (embedded, deleted) = (told.embedded.load(Ordering::Relaxed), told.deleted.load(Ordering::Relaxed));
    write!(out, "{read} documents read, {stored} passages stored")?;
    if embedded < stored || deleted > 0 {
        write!(out, " ({embedded} embedded, the others as they were; {deleted} deleted)")?;
    }
    writeln!(out, ", {asked} questions asked")?;
    let named = locked(&told.named);
    let all = told.passed_over.load(Ordering::Relaxed) + told.not_utf8.load(Ordering::Relaxed);
    named.iter().try_for_each(|trouble| writeln!(out, "  {trouble}"))?;
    match all - named.len() as u64 {
        0 => {}
        more => writeln!(out, "  and {more} more; --verbose names them all")?,
    }
    if report.signal().is_some() && asked == 0 {
        writeln!(out, "stopped before all documents were read, so no question was asked")?;
    }
    for name in begun_not_ended(report) {
        writeln!(out, "call {name} was out when an earlier run was killed; it may have been made twice")?;
    }
    writeln!(out, "\n{report}")?;
    report.services.iter().try_for_each(|service| writeln!(out, "{} {}", service.name, service.state))
}

/// The calls that were out when an earlier run with this journal was killed.
fn begun_not_ended(report: &JobReport) -> impl Iterator<Item = &str> {
    let policies = report.services.iter().filter_map(|service| service.policy.as_ref());
    let journals = policies.filter_map(|policy| policy.journal.as_ref());
    journals.flat_map(|journal| journal.begun_not_ended.iter().map(String::as_str))
}

fn write_report(path: &Path, report: &JobReport, notes: &Notes) -> Result<(), BoxError> {
    let json = json!({
        "answers": notes.answers.as_ref().map(|answers| std::mem::take(&mut *locked(answers))),
        "documents": records(report, "read"),
        "passages": records(report, "upsert"),
        "embedded": notes.told.embedded.load(Ordering::Relaxed),
        "deleted": notes.told.deleted.load(Ordering::Relaxed),
        "passed_over": notes.told.passed_over.load(Ordering::Relaxed),
        "not_utf8": notes.told.not_utf8.load(Ordering::Relaxed),
        "job": report,
    });
    std::fs::write(path, serde_json::to_string_pretty(&json)? + "\n")
        .map_err(|error| format!("the report `{}` cannot be written: {error}", path.display()).into())
}

impl Task {
    /// Fails with what to do when there is nothing to read or nothing to ask.
    fn new(arguments: &Arguments) -> Result<Self, BoxError> {
        let own = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let folder = arguments.folder.clone().unwrap_or_else(own);
        let problem = match std::fs::metadata(&folder) {
            Ok(metadata) if metadata.is_dir() => None,
            Ok(_) => Some("is not a folder".to_owned()),
            Err(error) => Some(format!("cannot be read: {error}")),
        };
        if let Some(problem) = problem {
            let hint = "give a folder of documents, as in `rag docs --question 'What is it?'`";
            return Err(format!("`{}` {problem}; {hint}", folder.display()).into());
        }
        let extensions = match (&arguments.folder, arguments.ext.as_slice()) {
            (Some(_), []) => EXTENSIONS.iter().map(|&extension| extension.to_owned()).collect(),
            (None, []) => vec!["md".to_owned()],
            (_, given) => given.to_vec(),
        };
        Ok(Self { folder, extensions, questions: questions(arguments)? })
    }
}

/// The questions to ask, in the order in which they were given.
fn questions(arguments: &Arguments) -> Result<Vec<Arc<str>>, BoxError> {
    let mut questions: Vec<Arc<str>> = arguments.question.iter().map(|question| question.as_str().into()).collect();
    if let Some(path) = &arguments.questions {
        let text =
            if path.as_os_str() == "-" { io::read_to_string(io::stdin()) } else { std::fs::read_to_string(path) };
        let text = text.map_err(|error| format!("the questions in `{}` cannot be read: {error}", path.display()))?;
        questions.extend(text.lines().map(str::trim).filter(|line| !line.is_empty()).map(Arc::from));
    }
    match (questions.is_empty(), &arguments.folder) {
        (false, _) => Ok(questions),
        _ if arguments.chat.chat => Ok(questions),
        (true, None) => Ok(QUESTIONS.iter().copied().map(Arc::from).collect()),
        (true, Some(_)) => {
            Err("nothing to ask; give a question with --question, or a file of them with --questions".into())
        }
    }
}

/// Reads a number between two others.
fn number<const MIN: usize, const MAX: usize>(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| (MIN..=MAX).contains(number));
    number.ok_or_else(|| format!("not a number from {MIN} to {MAX}"))
}

fn tell(error: &dyn std::error::Error) {
    // With standard error gone there is no one left to tell.
    drop(writeln!(io::stderr(), "error: {}", in_words(error)));
}

/// An error and what caused it.
fn in_words(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        words.push_str(&format!(": {source}"));
        cause = source.source();
    }
    words
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
