//! A job that counts, for trying out what `sage run` and the job manager do with jobs.
//!
//! ```text
//! counting                 counts until it is told to end
//!   records=N              counts to N
//!   pace=TIME              waits so many milliseconds between two records
//!   wait=PATH              begins when a line can be read there, for example from a named pipe
//!   fail=N                 fails on record N
//!   outside=PATH           has a service that makes a folder there, and journals how to remove it
//!   steady=PATH            asks a service with a policy, which answers nothing until that file is there
//!   unclean                has a service that cannot be cleaned
//!   tolerant               ends with exit code 0, whatever becomes of the job
//! ```

use std::collections::BTreeMap;
use std::future::ready;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Duration;

use sage::{
    Batch, Batching, BoxError, Breaker, Calling, Cleanliness, Concurrency, Environment, HookContext, Method, Outcome,
    Policy, Rate, Retry, RunError, Service, SignalPolicy, Tally,
};
use sage_api::ExternalCleanup;

/// Counts how often it was asked.
struct Counter {
    is_unclean: bool,
    outside: Option<Outside>,
}

/// A folder that a program which is killed would leave.
struct Outside {
    path: String,
    journalled: Mutex<Option<ExternalCleanup>>,
}

impl Service for Counter {
    fn setup(&self, _: &HookContext) -> Result<(), BoxError> {
        if let Some(Outside { path, journalled }) = &self.outside {
            let cleanup = ExternalCleanup::journal(&format!("folder {path}"), ["rmdir", path])?;
            *journalled.lock().expect("nobody panics under it") = Some(cleanup);
            std::fs::create_dir(path)?;
        }
        Ok(())
    }

    fn cleanup(&self, _: &HookContext) -> Result<(), BoxError> {
        if let Some(Outside { path, journalled }) = &self.outside {
            std::fs::remove_dir(path)?;
            let cleanup = journalled.lock().expect("nobody panics under it").take();
            cleanup.map_or(Ok(()), ExternalCleanup::done)?;
        }
        if self.is_unclean { Err("the counter is stuck".into()) } else { Ok(()) }
    }
}

/// Answers once a file is there.
struct Oracle {
    steady: PathBuf,
}

impl Service for Oracle {}

impl Oracle {
    fn ask(&self, questions: &[u64]) -> Result<Vec<Result<u64, BoxError>>, BoxError> {
        let is_steady = self.steady.exists();
        if is_steady { Ok(questions.iter().map(|n| Ok(*n)).collect()) } else { Err("<b>the oracle sleeps</b>".into()) }
    }
}

/// What asks it.
fn oracle(env: &Environment, steady: PathBuf) -> Method<u64, u64> {
    let (second, milli) = (Duration::from_secs(1), Duration::from_millis(1));
    let policy = Policy::new()
        .retry(Retry::up_to(2).backoff(milli, milli))
        .breaker(Breaker::after_consecutive(5).open_for(100 * milli).probes(1))
        .concurrency(Concurrency::at_most(4))
        .rate(Rate::cost(1_000_000, second));
    let oracle = env.register_service("oracle", move || Oracle { steady: steady.clone() }).policy(policy).build();
    let answer = |oracle: Calling<Oracle>, questions: Batch<u64>| ready(oracle.ask(&questions));
    let ask = oracle.batch_method("ask", Batching::of(2).within(milli), answer).cost(|_| 7);
    ask.tally(|_| Tally::new().add("gen_ai.usage.input_tokens", 4.0).add("cost", 0.5)).build()
}

fn main() -> ExitCode {
    let given: BTreeMap<String, String> = std::env::args()
        .skip(1)
        .map(|word| word.split_once('=').map_or((word.clone(), String::new()), |(name, is)| (name.into(), is.into())))
        .collect();
    let number = |name: &str| given.get(name).map(|text| text.parse::<u64>().expect("it is a number"));
    let (records, fails, pace) = (number("records"), number("fail"), number("pace").map(Duration::from_millis));
    let wait = given.get("wait").cloned();
    let is_unclean = given.contains_key("unclean");

    let env = Environment::local("counting").signals(SignalPolicy::Exit);
    let outside = given.get("outside").cloned();
    let counter = move || {
        let outside = outside.clone().map(|path| Outside { path, journalled: Mutex::default() });
        Counter { is_unclean, outside }
    };
    let counter = env.register_service("counter", counter).build();
    let mut count = 0;
    let counting = env.from_generator(move || -> Result<Option<u64>, BoxError> {
        if count == 0
            && let Some(path) = &wait
        {
            BufReader::new(std::fs::File::open(path)?).read_line(&mut String::new())?;
        } else if let Some(pace) = pace {
            std::thread::sleep(pace);
        }
        count += 1;
        Ok(records.is_none_or(|records| count <= records).then_some(count))
    });
    let oracle = given.get("steady").map(|steady| oracle(&env, steady.into()));
    let checked = counting.try_map(move |count| {
        let _whatever_it_says = oracle.as_ref().map(|ask| ask.call_blocking(count));
        match fails {
            Some(fails) if fails == count => Err(format!("{count} is too many")),
            _ => Ok(count),
        }
    });
    checked.try_sink(move |_| counter.call(|_| ()));

    match sage_api::run(&env) {
        Err(error) if !given.contains_key("tolerant") => {
            eprintln!("{error}");
            ExitCode::from(code_of(&error))
        }
        _ => ExitCode::SUCCESS,
    }
}

fn code_of(error: &RunError) -> u8 {
    match error.report() {
        Some(report) if report.cleanliness == Cleanliness::Unclean => 3,
        Some(report) if report.outcome == Outcome::Cancelled => {
            report.signal().and_then(|number| u8::try_from(128 + number).ok()).unwrap_or(1)
        }
        _ => 1,
    }
}
