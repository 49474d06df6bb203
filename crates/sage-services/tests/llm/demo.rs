//! Real input: a thousand questions to the demo, through limits, faults, an outage and a kill.

use std::collections::{HashMap, HashSet};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use sage_services::llm::{Prices, TokenUsage};
use serde_json::{Value, json};

use crate::llmock::Llmock;
use crate::proxy::Proxy;

const QUESTIONS: usize = 1_000;
const IN_FLIGHT: usize = 8;

/// The built example: beside the folder of this test's own executable.
fn rag() -> Command {
    let test = std::env::current_exe().unwrap();
    let built: PathBuf = test.parent().and_then(Path::parent).unwrap().join("examples/rag");
    assert!(built.exists(), "`{}` is not built: it comes with `make test-llm`", built.display());
    Command::new(built)
}

fn question(number: usize) -> String {
    format!("What is the name of ship {number} of the harbour?")
}

/// The demo, asked all of them, at so many calls a minute.
fn asked(folder: &Path, port: u16, report: &Path, rpm: &str) -> Child {
    let mut command = rag();
    command.arg(folder.join("documents")).arg("--questions").arg(folder.join("questions"));
    command.args(["--llm", "openai", "--base-url", &format!("http://127.0.0.1:{port}/v1"), "--rpm", rpm]);
    command.args(["--in-flight", &IN_FLIGHT.to_string(), "--timeout", "20", "--key-from", "NO_KEY_OF_THE_TEST"]);
    command.arg("--journal").arg(folder.join("journal")).arg("--report").arg(report);
    command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap()
}

/// The question that a request of the demo was about.
fn question_of(request: &Value) -> String {
    let asked = request["body"]["messages"][1]["content"].as_str().unwrap();
    asked.rsplit_once("Question: ").unwrap().1.to_owned()
}

/// Reads questions with their answers, until so many have come or there are no more.
fn answered(lines: &mut impl Iterator<Item = String>, most: usize) -> Vec<String> {
    let mut answered = Vec::new();
    let mut asked = None;
    while answered.len() < most {
        let Some(line) = lines.next() else { break };
        if let Some(question) = line.strip_prefix("Q: ") {
            asked = Some(question.to_owned());
        } else if line.starts_with("A: ") {
            answered.push(asked.take().unwrap());
        }
    }
    answered
}

/// The answers of llmock have no line feed in them, so that each is one line.
#[test]
fn a_thousand_questions_are_answered_once_through_faults_an_outage_and_a_kill() {
    let faults = ["--error-rate", "500=0.02", "--error-rate", "502=0.02"];
    let throttles = ["--error-rate", "429=0.005", "--error-rate", "503=0.005"];
    let served = Llmock::serve(&[&["--rpm", "900"][..], &faults, &throttles].concat());
    let mut proxy = Proxy::to(served.port());
    let folder = tempfile::tempdir().unwrap();
    let document = "# Ships\n\nEvery ship of the harbour has a number and a name.\n";
    std::fs::create_dir(folder.path().join("documents")).unwrap();
    std::fs::write(folder.path().join("documents/ships.md"), document).unwrap();
    let questions: Vec<String> = (0..QUESTIONS).map(question).collect();
    std::fs::write(folder.path().join("questions"), questions.join("\n")).unwrap();

    // The first run meets an outage, and is killed half-way. What the provider allows at once is enough for it.
    let report = folder.path().join("report.json");
    let mut first = asked(folder.path(), proxy.port(), &report, "6000");
    let mut lines = BufReader::new(first.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut handed_on = answered(&mut lines, QUESTIONS / 4);
    proxy.close();
    thread::sleep(Duration::from_secs(2));
    proxy.open();
    handed_on.extend(answered(&mut lines, QUESTIONS / 4));
    first.kill().unwrap();
    first.wait().unwrap();
    handed_on.extend(answered(&mut lines, QUESTIONS));
    assert_eq!(handed_on, questions[..handed_on.len()]);
    assert!((QUESTIONS / 2..QUESTIONS).contains(&handed_on.len()), "{}", handed_on.len());
    let before = served.requests();

    // The second keeps to the limit, as there is not much left, and ends cleanly, with all answers.
    let mut second = asked(folder.path(), proxy.port(), &report, "900");
    let mut text = String::new();
    second.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(second.wait().unwrap().code(), Some(0), "{text}");
    let mut lines = text.lines().map(str::to_owned);
    assert_eq!(answered(&mut lines, QUESTIONS), questions);
    let report: Value = serde_json::from_str(&std::fs::read_to_string(&report).unwrap()).unwrap();
    assert_eq!((&report["job"]["outcome"], &report["job"]["cleanliness"]), (&json!("succeeded"), &json!("clean")));
    let services = report["job"]["services"].as_array().unwrap();
    let policy = &services.iter().find(|service| service["name"] == "llm").unwrap()["policy"];

    // No call was made again whose answer was handed on; the others are named.
    let after = served.requests().split_off(before.len());
    let handed_on: HashSet<String> = handed_on.into_iter().collect();
    assert!(after.iter().all(|request| !handed_on.contains(&question_of(request))));
    let out = policy["journal"]["begun_not_ended"].as_array().unwrap();
    assert!(out.len() <= IN_FLIGHT, "{out:?}");
    assert!(out.iter().all(|call| text.contains(&format!("call {} was out", call.as_str().unwrap()))), "{text}");
    let got = |request: &&Value| request["status"] == 200 && request["completed"] == true;
    let count = |requests: &[Value]| {
        let asked = requests.iter().filter(got).map(question_of);
        asked.fold(HashMap::new(), |mut counts: HashMap<String, usize>, question| {
            *counts.entry(question).or_default() += 1;
            counts
        })
    };
    let (got_before, got_after) = (count(&before), count(&after));
    let again = got_before.keys().filter(|question| got_after.contains_key(*question)).count();
    assert!(again <= out.len(), "{again} calls were repeated, and {} were out", out.len());
    // An answer that the outage has cut off was asked for once more.
    assert!(got_before.values().map(|times| times - 1).sum::<usize>() <= IN_FLIGHT);
    assert!(got_after.values().all(|times| *times == 1));
    assert_eq!(policy["journal"]["hits"].as_u64().unwrap() as usize, QUESTIONS - got_after.len());

    // What the second run has spent is counted.
    let tally = &policy["tallies"][0];
    assert_eq!(tally["of"]["gen_ai.request.model"], "gpt-4o-mini");
    let tokens = |kind: &str| tally["sums"][format!("gen_ai.usage.{kind}_tokens")].as_f64().unwrap() as u64;
    let usage = TokenUsage::new(tokens("input"), tokens("output"));
    assert!(usage.input > got_after.len() as u64 && usage.output > got_after.len() as u64, "{usage:?}");
    let spent = Prices::known().of("gpt-4o-mini").unwrap().spent(&usage);
    assert!((tally["sums"]["cost"].as_f64().unwrap() - spent).abs() < 1e-9);

    // Random waits may come out alike, which llmock takes for none that grow.
    let verdict = served.verdict();
    let findings = verdict["findings"].as_array().unwrap();
    assert!(findings.iter().all(|finding| finding["code"] == "no_backoff"), "{verdict}");
    assert!(before.iter().chain(&after).all(|request| request["fault"] != "ratelimit:requests"));
    assert!(verdict["faults_injected"].as_u64().unwrap() > 20, "{verdict}");
}
