//! What a client asks llmock for, and gets: answers, tools, JSON, pieces, vectors.

use std::time::Duration;

use sage::{Batching, BoxError, Environment, Order, Policy, Rate, Retry};
use sage_services::llm::{ChatRequest, Finish, Llm, LlmOptions, Message, Piece, Tool};
use serde_json::{Value, json};

use crate::llmock::Llmock;

fn weather() -> Tool {
    let schema = json!({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]});
    Tool::new("weather", "The weather of a city.", schema)
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

#[test]
fn a_model_answers_and_says_what_it_took() {
    let served = Llmock::serve(&[]);
    block_on(async {
        let llm = Llm::new(served.options());
        let answer = llm.chat(&ChatRequest::ask("Why is the sky blue?").temperature(0.5).max_tokens(50)).await.unwrap();
        assert!(!answer.text.is_empty());
        assert_eq!((answer.finish, answer.model.as_str()), (Some(Finish::Stop), "gpt-4o-mini"));
        assert!(answer.usage.unwrap().input > 0 && answer.usage.unwrap().output > 0);
        let sent = &served.requests()[0]["body"];
        assert_eq!(
            (&sent["model"], &sent["temperature"], &sent["max_tokens"]),
            (&json!("gpt-4o-mini"), &json!(0.5), &json!(50))
        );
    });
}

#[test]
fn a_conversation_with_tools_goes_on_until_there_is_an_answer() {
    let served = Llmock::serve(&[]);
    block_on(async {
        let llm = Llm::new(served.options());
        for is_streamed in [false, true] {
            let request = ChatRequest::ask("Is it warm in Rome?").tool(weather());
            let request = if is_streamed { request.streamed() } else { request };
            let answer = llm.chat(&request).await.unwrap();
            assert_eq!((answer.finish.clone(), answer.tool_calls.len()), (Some(Finish::ToolCalls), 1));
            let call = &answer.tool_calls[0];
            let arguments: Value = call.parsed().unwrap();
            assert!(call.name == "weather" && arguments["city"].is_string() && !call.id.is_empty(), "{call:?}");
            let answer =
                llm.chat(&request.message(answer.message()).message(Message::tool(&call.id, "30 degrees"))).await;
            assert!(!answer.unwrap().text.is_empty());
        }
        // What a model makes up is handed on as it is.
        served.plays(json!([{"type": "tool_fault", "kind": "malformed_arguments"}]));
        let answer = llm.chat(&ChatRequest::ask("And in Oslo?").tool(weather())).await.unwrap();
        answer.tool_calls[0].parsed::<Value>().unwrap_err();
        served.plays(json!([{"type": "tool_fault", "kind": "unknown_tool"}]));
        let answer = llm.chat(&ChatRequest::ask("And in Bern?").tool(weather())).await.unwrap();
        assert_ne!(answer.tool_calls[0].name, "weather");
        assert_eq!(served.verdict()["findings"], json!([]));
    });
}

#[test]
fn an_answer_follows_a_schema() {
    let served = Llmock::serve(&[]);
    block_on(async {
        let schema = json!({
            "type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
            "required": ["name", "age"], "additionalProperties": false,
        });
        let llm = Llm::new(served.options());
        let answer = llm.chat(&ChatRequest::ask("Who?").json_schema("person", schema)).await.unwrap();
        let person: Value = answer.json().unwrap();
        assert!(person["name"].is_string() && person["age"].is_i64(), "{person}");
    });
}

#[test]
fn pieces_make_up_the_answer() {
    let served = Llmock::serve(&[]);
    block_on(async {
        let llm = Llm::new(served.options());
        let text = "words, Wörter, 言葉 and more of them";
        served.plays(json!([{"type": "reply", "text": text, "times": 2}]));
        let mut stream = llm.stream(&ChatRequest::ask("Say something.")).await.unwrap();
        let mut pieces = Vec::new();
        while let Some(piece) = stream.next().await {
            let Piece::Text(piece) = piece.unwrap() else { panic!() };
            pieces.push(piece);
        }
        assert!(pieces.len() > 3 && pieces.concat() == text, "{pieces:?}");
        assert!(stream.so_far().usage.is_some() && stream.so_far().finish == Some(Finish::Stop));
        assert!(stream.next().await.is_none());
        let whole = llm.stream(&ChatRequest::ask("Say something.")).await.unwrap().answer().await.unwrap();
        assert_eq!(whole.text, text);
    });
}

#[test]
fn what_a_stream_took_is_in_the_report_and_one_that_is_cut_as_well() {
    let served = Llmock::serve(&[]);
    let fault = json!({"type": "stream_fault", "kind": "truncate", "after_chunks": 2});
    served.plays(json!([fault, {"type": "reply", "text": "one two three four", "times": null}]));
    let options = LlmOptions::new("gpt-4o-mini").base_url(served.base_url());
    let env = Environment::local("streamed");
    let service = options.clone();
    let policy = Policy::new().retry(Retry::up_to(3));
    let llm = env.register_async_service("llm", move || Llm::new(service.clone())).policy(policy).build();
    let stream = options.stream_method(&llm).build();
    let read = move |n| {
        let stream = stream.clone();
        async move {
            let stream = stream.call(ChatRequest::ask(format!("{n}?"))).await?;
            Ok::<_, BoxError>(stream.answer().await.map(|answer| answer.usage.unwrap()).ok())
        }
    };
    let answers = env.from_iter(0..2).try_map_async(1, Order::Ordered, read).collect();
    let report = env.run().unwrap();
    let answers = answers.take();
    let (None, Some(took)) = (answers[0], answers[1]) else { panic!("{answers:?}") };
    let policy = report.services[0].policy.as_ref().unwrap();
    assert_eq!((policy.calls, policy.attempts, policy.failed, policy.tallies.len()), (2, 2, 1, 1));
    assert!(policy.last_error.as_ref().unwrap().contains("cut"), "{report}");
    let tally = &policy.tallies[0];
    assert_eq!(tally.of["gen_ai.request.model"], "gpt-4o-mini");
    assert_eq!(tally.sums["gen_ai.usage.output_tokens"], took.output as f64);
    assert!(took.output > 0 && tally.sums["cost"] > 0.0);
}

#[test]
fn vectors_come_in_the_order_of_their_texts_by_requests_of_allowed_size() {
    let served = Llmock::serve(&[]);
    block_on(async {
        let texts: Vec<String> = (0..25).map(|number| format!("text {number}")).collect();
        let llm = Llm::new(served.options().embed_at_most(10, 300_000));
        let embeddings = llm.embed(&texts).await.unwrap();
        assert_eq!(embeddings.len(), 25);
        assert_eq!(
            served.requests().iter().map(|asked| asked["body"]["input"].as_array().unwrap().len()).collect::<Vec<_>>(),
            [10, 10, 5]
        );
        let alone = llm.embed(&texts[17..18]).await.unwrap();
        assert_eq!(alone[0].vector, embeddings[17].vector);
        assert!(embeddings[0].vector.len() == 1536 && embeddings[0].vector != embeddings[1].vector);
        assert!(llm.embed(&[]).await.unwrap().is_empty());
    });
}

#[test]
fn texts_of_all_callers_go_together_and_what_they_took_is_in_the_report() {
    let served = Llmock::serve(&[]);
    served.plays(json!([{"type": "fail", "status": 503, "retry_after": 0.2}]));
    let options = LlmOptions::new("text-embedding-3-small").base_url(served.base_url());
    let policy = Policy::new().retry(Retry::up_to(3)).rate(Rate::cost(100_000, Duration::from_secs(60)));
    let env = Environment::local("embedded");
    let service = options.clone();
    let llm = env.register_async_service("llm", move || Llm::new(service.clone())).policy(policy).build();
    let batching = Batching::of(16).within(Duration::from_millis(20));
    let embed = options.embed_method(&llm, batching).build();
    let embedded = env
        .from_iter((0..40).map(|number| format!("a text with number {number}")))
        .try_map_async(40, Order::Ordered, move |text| {
            let embed = embed.clone();
            async move { embed.call(text).await }
        })
        .collect();
    let report = env.run().unwrap();
    let embedded = embedded.take();
    let alone = block_on(Llm::new(options).embed(&["a text with number 33".to_owned()])).unwrap();
    assert_eq!((embedded.len(), &embedded[33].vector), (40, &alone[0].vector));
    // Those of the batch that failed are tried again in whatever batch they then meet.
    let requests = served.requests();
    assert!(requests.len() <= 16, "{} requests for 40 texts", requests.len());
    let policy = report.services[0].policy.as_ref().unwrap();
    let tokens = embedded.iter().map(|embedding| embedding.tokens).sum::<u64>();
    assert_eq!((policy.rate.as_ref().unwrap().cost, tokens > 40), (tokens, true));
    assert_eq!(policy.tallies[0].sums["gen_ai.usage.input_tokens"], tokens as f64);
    assert!(policy.tallies[0].sums["cost"] > 0.0);
}
