//! Whatever llmock does to a client whose calls go through a policy, it finds nothing wrong with it.

use std::time::Duration;

use sage::{CallError, Environment, Policy, Rate, Retry, RunError};
use sage_services::llm::{ChatAnswer, ChatRequest, Llm, LlmError, LlmOptions, Prices};
use serde_json::{Value, json};

use crate::llmock::Llmock;

/// Asks by a policy with a timeout, retries and a rate, and gives what the call came to.
fn ask(served: &Llmock, request: ChatRequest) -> Result<ChatAnswer, CallError> {
    ask_by(served.options(), Duration::from_secs(2), request)
}

/// As `ask`, for a stream: it may take longer, but not pause for long.
fn ask_streamed(served: &Llmock, request: ChatRequest) -> Result<ChatAnswer, CallError> {
    let options = served.options().read_timeout(Duration::from_millis(1_500));
    ask_by(options, Duration::from_secs(20), request.streamed())
}

fn ask_by(options: LlmOptions, timeout: Duration, request: ChatRequest) -> Result<ChatAnswer, CallError> {
    let policy = Policy::new()
        .timeout(timeout)
        .retry(Retry::up_to(4).backoff(Duration::from_millis(400), Duration::from_secs(2)))
        .rate(Rate::calls(50, Duration::from_secs(1)));
    let env = Environment::local("asked");
    let service = options.clone();
    let llm = env.register_async_service("llm", move || Llm::new(service.clone())).policy(policy).build();
    let chat = options.chat_method(&llm).build();
    let answers = env.from_iter([request]).map(move |request| chat.call_blocking(request)).collect();
    env.run().unwrap();
    answers.take().pop().unwrap()
}

fn long_reply() -> Value {
    json!({"type": "reply", "text": "word ".repeat(100), "times": null})
}

#[test]
fn each_fault_of_an_answer_is_met_as_it_should_be() {
    let served = Llmock::serve(&[]);
    let scenarios = [
        json!([{"type": "fail", "status": 429, "retry_after": 0.3, "times": 2}]),
        json!([{"type": "fail", "status": 429, "retry_after": 1.2}]),
        json!([{"type": "fail", "status": 429}]),
        json!([{"type": "fail", "status": 503, "retry_after": 0.5}]),
        json!([{"type": "fail", "status": 503}]),
        json!([{"type": "fail", "status": 504}]),
        json!([{"type": "fail", "status": 529, "retry_after": 0.2, "times": 3}]),
        json!([{"type": "fail", "status": 500}]),
        json!([{"type": "fail", "status": 502}]),
        json!([{"type": "fail", "status": 408}]),
        json!([{"type": "fail", "status": 409}]),
        json!([{"type": "delay", "seconds": 5.0}]),
    ];
    for scenario in scenarios {
        served.reset();
        served.plays(scenario.clone());
        let answer = ask(&served, ChatRequest::ask("Why?")).unwrap_or_else(|error| panic!("{scenario}: {error:?}"));
        assert!(!answer.text.is_empty() && answer.usage.is_some(), "{scenario}: {answer:?}");
        let verdict = served.verdict();
        assert_eq!(verdict["findings"], json!([]), "{scenario}: {verdict}");
    }
}

#[test]
fn each_fault_of_a_stream_is_met_as_it_should_be() {
    let served = Llmock::serve(&["--stream-chunk-delay-ms", "10"]);
    let whole = {
        served.plays(json!([long_reply()]));
        ask(&served, ChatRequest::ask("Why?")).unwrap().text
    };
    for kind in ["truncate", "disconnect", "malformed", "stall"] {
        for after_chunks in [0, 1, 7] {
            let fault =
                json!({"type": "stream_fault", "kind": kind, "after_chunks": after_chunks, "stall_seconds": 20});
            served.reset();
            served.plays(json!([fault, long_reply()]));
            let answer = ask_streamed(&served, ChatRequest::ask("Why?")).unwrap();
            assert_eq!(answer.text, whole, "{fault}");
            assert!(answer.usage.is_some(), "{fault}");
            let verdict = served.verdict();
            assert_eq!((&verdict["findings"], &verdict["attempts"]), (&json!([]), &json!(2)), "{fault}: {verdict}");
        }
    }
    served.reset();
    served.plays(json!([{"type": "slow_first_token", "seconds": 0.5}, long_reply()]));
    assert_eq!(ask_streamed(&served, ChatRequest::ask("Why?")).unwrap().text, whole);
    assert_eq!(served.verdict()["findings"], json!([]));
}

#[test]
fn errors_that_stay_are_not_tried_again_and_quoted_without_the_key() {
    let served = Llmock::serve(&[]);
    let message = "sk-secret-of-the-test is poor";
    let quota = json!({"type": "fail", "status": 429, "code": "insufficient_quota", "message": message});
    for scenario in [
        quota,
        json!({"type": "fail", "status": 402, "message": "sk-secret-of-the-test pays not"}),
        json!({"type": "fail", "status": 400}),
        json!({"type": "fail", "status": 401, "message": "wrong key: sk-secret-of-the-test"}),
        json!({"type": "fail", "status": 404}),
        json!({"type": "fail", "status": 422}),
    ] {
        served.reset();
        served.plays(json!([scenario]));
        let error = ask(&served, ChatRequest::ask("Why?")).unwrap_err();
        let Some(LlmError::Status { status, message, .. }) = LlmError::of(&error) else { panic!("{error:?}") };
        assert_eq!(json!(status), scenario["status"]);
        assert!(!message.contains("secret") && !format!("{error} {error:?}").contains("secret"), "{error:?}");
        assert_eq!(served.requests().len(), 1, "{scenario}");
        let retryable = scenario["status"] == 429;
        let verdict = served.verdict();
        // It does not look at the code: giving up on an empty account is right.
        assert!(retryable || verdict["findings"] == json!([]), "{verdict}");
    }
}

#[test]
fn a_limit_of_the_provider_is_kept_by_all_tasks_together() {
    let served = Llmock::serve(&["--rpm", "600"]);
    let options = served.options();
    let minute = Duration::from_secs(60);
    let limits = Policy::new().rate(Rate::calls(600, minute)).rate(Rate::cost(1_000_000, minute));
    let policy = limits.retry(Retry::up_to(5));
    let price = Prices::known().of("gpt-4o-mini").unwrap();
    let env = Environment::local("limited");
    let service = options.clone();
    let llm = env.register_async_service("llm", move || Llm::new(service.clone())).policy(policy).build();
    let chat = options.chat_method(&llm).build();
    let answers = env
        .from_iter(0..60)
        .try_map(move |number| chat.call_blocking(ChatRequest::ask(format!("What is {number}?"))))
        .parallelism(4)
        .collect();
    let report = env.run().map_err(|error: RunError| error.to_string()).unwrap();
    let answers = answers.take();
    assert_eq!(answers.len(), 60);
    let verdict = served.verdict();
    assert_eq!((&verdict["findings"], &verdict["calls"]), (&json!([]), &json!(60)), "{verdict}");
    let billed: u64 = answers.iter().map(|answer| answer.usage.unwrap().total()).sum();
    let spent: f64 = answers.iter().map(|answer| price.spent(&answer.usage.unwrap())).sum();
    let policy = report.services[0].policy.as_ref().unwrap();
    let (rate, tallies) = (policy.rate.as_ref().unwrap(), &policy.tallies);
    assert_eq!(rate.cost, billed);
    assert_eq!((tallies.len(), tallies[0].of["gen_ai.request.model"].as_str()), (1, "gpt-4o-mini"));
    let tallied = |name: &str| tallies[0].sums[name];
    assert_eq!(tallied("gen_ai.usage.input_tokens") + tallied("gen_ai.usage.output_tokens"), billed as f64);
    assert!((tallied("cost") - spent).abs() < 1e-9 && report.to_string().contains("gen_ai.usage.input_tokens"));
    assert!((rate.spent_billionths as f64 / 1e9 - spent).abs() < 1e-6, "{rate:?}, not {spent}");
}
