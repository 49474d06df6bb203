//! A conversation that is remembered from one run to the next: what `--chat` asks for.
//!
//! A line that is typed is a record. What the user has said before is recalled from the memory, and stands beside the
//! passages of the documents: an answer is quoted from either, or a model answers from both. Then the line and its
//! answer are remembered.

use std::io::{self, BufRead, IsTerminal, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use clap::Args;
use jiff::Timestamp;
use sage::{BoxError, CallError, Environment, Order, ServiceHandle};
use sage_services::memory::{Memory, NewTurn, Recall, Scope, Window};
use sage_services::store::Hit;
use sage_services::{Extractor, rerank};
use tokio::sync::mpsc;

use super::model::Ask;
use super::services::Services;
use super::{Answered, Notes, locked};

#[derive(Args)]
#[command(next_help_heading = "A conversation")]
pub(crate) struct ChatArguments {
    /// Ask for questions, once the documents are read, and remember the conversation: later runs know what was said.
    /// `/forget` erases all that is remembered of the user; the end of the input ends it
    #[arg(long, conflicts_with_all = ["question", "questions"])]
    pub(crate) chat: bool,
    /// The memory's file; `chat.memory` in SAGE_HOME or `~/.sage` unless given
    #[arg(long, value_name = "FILE")]
    memory: Option<PathBuf>,
    /// Whose conversation it is; `you` unless given
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
}

/// Turns of the conversation that a model is told.
const TOLD: usize = 6;
/// Earlier turns that an answer may be from.
const RECALLED: usize = 3;
/// Lines that wait for an answer.
const WAITING: usize = 16;

/// Where lines are typed, until the conversation is over.
#[derive(Clone)]
pub(crate) struct Typed(Arc<Mutex<Option<mpsc::Sender<String>>>>);

impl Typed {
    /// Has lines of standard input go to the conversation, from now on. It may be called by whoever knows that the
    /// documents are read.
    pub(crate) fn begin(&self) {
        let Some(sender) = locked(&self.0).take() else { return };
        prompt();
        // It ends with the input, or with the process: nothing can end its wait for a line.
        std::thread::spawn(move || {
            for line in io::stdin().lock().split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).trim().to_owned();
                if !line.is_empty() && sender.blocking_send(line).is_err() {
                    break;
                }
            }
        });
    }
}

/// A line, and what is known about it.
struct Line {
    text: String,
    /// What was said before, for a model.
    before: String,
    hits: Vec<Hit>,
}

impl ChatArguments {
    /// Fails if there is no conversation that the arguments could be about.
    pub(crate) fn check(&self) -> Result<(), BoxError> {
        if !self.chat && (self.memory.is_some() || self.user.is_some()) {
            return Err("--memory and --user are for --chat".into());
        }
        Ok(())
    }

    /// Declares the memory and the conversation.
    pub(crate) fn declare(
        &self,
        env: &Environment,
        services: &Services,
        passages: usize,
        ask: Option<Ask>,
        notes: Notes,
    ) -> Result<Typed, BoxError> {
        let path = match &self.memory {
            Some(path) => path.clone(),
            None => {
                sage_api::home::Home::find().ok_or("say with --memory where to remember it")?.path().join("chat.memory")
            }
        };
        let user = Scope::tenant("rag").user(self.user.as_deref().unwrap_or("you"));
        user.check()?;
        let session = user.clone().session(Timestamp::now().to_string());
        let memory = env.register_service("memory", move || Memory::at(&path)).build();
        let (sender, lines) = mpsc::channel(WAITING);
        let (recalls, searches) = (memory.clone(), services.clone());
        let (quotes, said_in) = (services.words.clone(), session.clone());
        let found = env
            .from_channel(lines)
            .named("lines")
            .try_map(move |text: String| {
                let hits = found(&searches, &recalls, &user, &text, passages)?;
                let before = before(&recalls, &session, &text)?;
                Ok::<_, CallError>(Line { text, before, hits })
            })
            .named("recall");
        let remember = move |(text, answer): (String, Option<Answered>)| said(&memory, &said_in, &text, answer, &notes);
        if let Some(ask) = ask {
            let answered = found.try_map_async(1, Order::Ordered, move |Line { text, before, hits }| {
                let asked = ask(before.into(), hits);
                async move { Ok::<_, CallError>((text, asked.await?.1)) }
            });
            answered.named("reply").try_sink(remember).named("remember");
        } else {
            let answered = found.try_map(move |Line { text, hits, .. }| {
                let answer = quotes.call(|words| Extractor::default().answer(words, &text, &hits))?;
                Ok::<_, CallError>((text, answer.map(Answered::from)))
            });
            answered.named("reply").try_sink(remember).named("remember");
        }
        Ok(Typed(Arc::new(Mutex::new(Some(sender)))))
    }
}

/// Passages of the documents and earlier turns that a line is about.
fn found(
    services: &Services,
    memory: &ServiceHandle<Memory>,
    user: &Scope,
    text: &str,
    passages: usize,
) -> Result<Vec<Hit>, CallError> {
    let hits = services.search(text)?;
    let mut hits = services.words.call(|words| rerank(words, text, hits, passages))?;
    let recalled = memory.try_call(|memory| memory.recall(user, Recall::new(text).k(4 * RECALLED)))?;
    // What was asked answers nothing.
    let told =
        recalled.into_iter().filter(|recalled| recalled.turn.role == "user" && !is_question(&recalled.turn.text));
    hits.extend(told.take(RECALLED).map(|recalled| {
        let said = recalled.turn.said.strftime("%Y-%m-%d %H:%M UTC");
        Hit::new(format!("what you said on {said}"), recalled.score, recalled.turn.text)
    }));
    Ok(hits)
}

/// A line with the turns before it.
fn before(memory: &ServiceHandle<Memory>, session: &Scope, text: &str) -> Result<String, CallError> {
    let turns = memory.try_call(|memory| memory.window(session, Window::turns(TOLD)))?;
    if turns.is_empty() {
        return Ok(text.to_owned());
    }
    let before: String = turns.iter().map(|turn| format!("{}: {}\n", turn.role, turn.text)).collect();
    Ok(format!("{text}\n\nEarlier in this conversation:\n{before}"))
}

/// Prints an answer, and remembers it with its line.
fn said(
    memory: &ServiceHandle<Memory>,
    session: &Scope,
    text: &str,
    answer: Option<Answered>,
    notes: &Notes,
) -> Result<(), BoxError> {
    let mut out = io::stdout().lock();
    if text == "/forget" {
        let user = Scope::tenant("rag").user(session.user_name().unwrap_or_default());
        let receipt = memory.try_call(|memory| memory.erase(&user))?;
        writeln!(out, "{receipt}")?;
    } else {
        let mut turns = vec![NewTurn::user(text)];
        if is_question(text) || answer.as_ref().is_some_and(|answer| answer.coverage.is_none()) {
            turns.extend(answer.as_ref().map(|answer| NewTurn::assistant(&*answer.text)));
            drop(out);
            notes.answered(text, answer.as_ref())?;
            out = io::stdout().lock();
        } else {
            writeln!(out, "I shall remember that.\n")?;
        }
        memory.try_call(|memory| memory.append(session, turns))?;
    }
    drop(out);
    prompt();
    Ok(())
}

fn is_question(text: &str) -> bool {
    text.trim_end().ends_with('?')
}

fn prompt() {
    if io::stdin().is_terminal() {
        let mut out = io::stdout().lock();
        // With standard output gone there is no one to be asked.
        let _ = write!(out, "> ").and_then(|()| out.flush());
    }
}
