//! A thousand conversations at once, and one memory for all of them.
//!
//! ```text
//! sessions ─ turns ─ batch ─ remember ─ count ─ ask ─ recall ─ print
//! ```
//!
//! Everybody tells where their locker is, among small talk. When all turns are remembered, everybody asks for theirs:
//! each session recalls its own, and no other. In the end one of them is forgotten, with a receipt.
//!
//! `cargo run --release -p sage-services --example memory` keeps it in memory; with a path behind `--`, in that file.

use std::path::PathBuf;

use sage::{BoxError, CallError, Environment};
use sage_services::LexicalEmbedder;
use sage_services::memory::{Memory, NewTurn, Recall, Scope};

const SESSIONS: usize = 1_000;
/// Turns that are remembered at once.
const BATCH: usize = 100;

fn main() -> Result<(), BoxError> {
    let path = std::env::args_os().nth(1).map(PathBuf::from);
    let env = Environment::local("memory");
    let memory = env
        .register_service("memory", move || {
            let memory = path.as_ref().map_or_else(Memory::in_memory, Memory::at);
            memory.embedder(LexicalEmbedder::default())
        })
        .build();
    let (remembers, recalls, forgets) = (memory.clone(), memory.clone(), memory);

    let told = env
        .from_iter(0..SESSIONS)
        .flat_map(|number| turns(number).map(move |turn| (session(number), turn)))
        .named("turns")
        .batch(BATCH)
        .try_map(move |turns| remembers.try_call(|memory| memory.append_all(turns)))
        .named("remember")
        .flat_map(|ids| ids)
        .count()
        .try_map(move |turns| {
            let right = (0..SESSIONS).map(|number| {
                let asked = Recall::new("In which hall is my locker, and what number does it have?").k(1);
                let recalled = recalls.try_call(|memory| memory.recall(&session(number), asked))?;
                Ok::<_, CallError>(recalled.first().is_some_and(|found| found.turn.text == locker(number)))
            });
            let right = right.collect::<Result<Vec<bool>, _>>()?.into_iter().filter(|is_right| *is_right).count();
            Ok::<_, CallError>((turns, right))
        })
        .named("recall")
        .try_map(move |told| {
            let receipt = forgets.try_call(|memory| memory.erase(&session(7)))?;
            Ok::<_, CallError>((told, receipt))
        })
        .named("forget")
        .collect();
    env.run()?;
    for ((turns, right), receipt) in told.take() {
        println!("sessions: {SESSIONS}");
        println!("turns: {turns}");
        println!("recalled right: {right} of {SESSIONS}");
        println!("erased: {} turns", receipt.turns);
    }
    Ok(())
}

/// Each session is of another user.
fn session(number: usize) -> Scope {
    Scope::tenant("club").user(format!("member {number}")).session("first")
}

/// What is said in a session.
fn turns(number: usize) -> impl Iterator<Item = NewTurn> {
    let said = [
        ("user", "Good morning! The hall is full today.".to_owned()),
        ("assistant", "Good morning. What can I do for you?".to_owned()),
        ("user", locker(number)),
        ("assistant", "I shall keep that in mind.".to_owned()),
        ("user", "Thanks, and see you on Monday.".to_owned()),
    ];
    // With ids of their own, so that a run which is started again remembers nothing twice.
    said.into_iter().enumerate().map(|(at, (role, text))| NewTurn::new(role, text).id(at.to_string()))
}

fn locker(number: usize) -> String {
    format!("My locker has the number {} in hall {}.", 1_000 + number, number % 7)
}
