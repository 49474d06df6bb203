//! What llmock cannot do: a server that plays back bytes.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::thread;
use std::time::{Duration, Instant};

use sage::{ServiceError, Verdict};
use sage_services::llm::{ChatAnswer, ChatRequest, Llm, LlmError, LlmOptions};

use crate::llmock::free_port;

/// Asks a server that answers with these bytes, and closes the connection. Gives what was sent as well.
fn ask_one(
    change: fn(LlmOptions) -> LlmOptions,
    request: &ChatRequest,
    bytes: String,
) -> (Result<ChatAnswer, ServiceError>, String) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut sent = Vec::new();
        let mut piece = [0; 4096];
        while !sent.ends_with(b"}") {
            let read = stream.read(&mut piece).unwrap();
            sent.extend_from_slice(&piece[..read]);
        }
        // A client that has seen enough may be gone.
        let _ = stream.write_all(bytes.as_bytes());
        String::from_utf8(sent).unwrap()
    });
    let llm = Llm::new(change(LlmOptions::new("m").base_url(format!("http://{address}/v1/"))));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let answer = runtime.block_on(llm.chat(request));
    (answer, server.join().unwrap())
}

fn ask(bytes: impl Into<String>) -> Result<ChatAnswer, ServiceError> {
    ask_one(|options| options, &ChatRequest::ask("why?"), bytes.into()).0
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

fn stream(events: &[&str]) -> Result<ChatAnswer, ServiceError> {
    let events: String = events.iter().map(|event| format!("data: {event}\n\n")).collect();
    let bytes = format!("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n{events}");
    ask_one(|options| options, &ChatRequest::ask("why?").streamed(), bytes).0
}

fn reason(answer: Result<ChatAnswer, ServiceError>) -> (Verdict, String) {
    let error = answer.unwrap_err();
    (error.verdict(), error.to_string())
}

#[test]
fn a_key_is_sent_to_the_provider_and_shown_to_nobody() {
    let body = r#"{"error": {"message": "key sk-1234567890 is wrong", "code": "sk-1234567890"}}"#;
    let bytes = format!("HTTP/1.1 401 No\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let (answer, sent) = ask_one(|options| options.key("sk-1234567890"), &ChatRequest::ask("why?"), bytes);
    assert!(sent.contains("authorization: Bearer sk-1234567890\r\n"), "{sent}");
    let error = answer.unwrap_err();
    assert!(!format!("{error} {error:?} {error:#?}").contains("1234567890"), "{error:?}");
    assert_eq!(error.to_string(), "the provider answered 401: key (key) is wrong");
}

#[test]
fn redirections_are_not_followed() {
    let bytes = "HTTP/1.1 307 There\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n";
    assert_eq!(reason(ask(bytes)), (Verdict::Bad, "the provider answered 307: (nothing more)".to_owned()));
}

#[test]
fn nobody_there_is_an_outage_and_a_broken_connection_is_not() {
    let llm = Llm::new(LlmOptions::new("m").base_url(format!("http://127.0.0.1:{}/v1", free_port())));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let refused = runtime.block_on(llm.chat(&ChatRequest::ask("why?"))).unwrap_err();
    assert_eq!(refused.verdict(), Verdict::Outage);
    assert!(matches!(LlmError::of(&refused), Some(LlmError::Unreachable(_))), "{refused:?}");
    for bytes in ["", "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{", "nonsense"] {
        let error = ask(bytes).unwrap_err();
        assert_eq!(error.verdict(), Verdict::Passing(None), "{bytes:?}");
        assert!(matches!(LlmError::of(&error), Some(LlmError::Broken(_))), "{bytes:?}: {error:?}");
    }
    let wrong = runtime.block_on(Llm::new(LlmOptions::new("m").base_url("http:// no")).chat(&ChatRequest::ask("why?")));
    assert_eq!(reason(wrong).0, Verdict::Bad);
}

#[test]
fn an_answer_is_read_up_to_its_limit_and_no_further() {
    let large = ok(&format!(r#"{{"choices": [{{"message": {{"content": "{}"}}}}]}}"#, "a".repeat(5_000)));
    let unsized_one = large.replacen("content-length", "x-length", 1);
    for bytes in [large, unsized_one] {
        ask(bytes.clone()).unwrap();
        let (answer, _) = ask_one(|options| options.largest_answer(4_000), &ChatRequest::ask("why?"), bytes);
        assert_eq!(reason(answer), (Verdict::Bad, "the answer has more than 4000 bytes".to_owned()));
    }
    let flood = format!("HTTP/1.1 500 Oh\r\n\r\n{}", "a".repeat(1 << 20));
    let (verdict, text) = reason(ask(flood));
    assert!(verdict == Verdict::Passing(None) && text.len() < 600, "{text}");
}

#[test]
fn what_is_no_answer_is_an_error_and_what_is_odd_is_not() {
    for body in ["", "{", "[]", "null", r#"{"choices": []}"#] {
        let error = ask(ok(body)).unwrap_err();
        assert!(matches!(LlmError::of(&error), Some(LlmError::Malformed(_))), "{body}: {error:?}");
    }
    assert_eq!(ask(ok(r#"{"choices": [{"message": {"content": "so"}}], "new": [1]}"#)).unwrap().text, "so");
    let refused = r#"{"error": {"message": "no money", "code": "insufficient_quota"}}"#;
    assert_eq!(reason(ask(ok(refused))), (Verdict::Denied, "the provider answered 200: no money".to_owned()));
}

#[test]
fn a_stream_is_whole_once_it_has_a_finish_reason() {
    let [first, second] =
        [r#"{"choices": [{"delta": {"content": "a"}}]}"#, r#"{"choices": [{"delta": {"content": "b"}}]}"#];
    let finish = r#"{"choices": [{"delta": {}, "finish_reason": "stop"}]}"#;
    let usage = r#"{"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}"#;
    let whole = stream(&[first, second, finish, usage, "[DONE]"]).unwrap();
    assert_eq!((whole.text.as_str(), whole.usage.unwrap().total()), ("ab", 5));
    assert_eq!(stream(&[first, finish]).unwrap().text, "a", "some providers do not say that they are done");
    for cut in [&[][..], &[first], &[first, second, "[DONE]"], &[first, usage]] {
        let error = stream(cut).unwrap_err();
        assert_eq!(error.verdict(), Verdict::Passing(None));
        assert!(matches!(LlmError::of(&error), Some(LlmError::Cut)), "{cut:?}: {error:?}");
    }
    let error = stream(&[first, r#"{"choices": [{"del"#, finish]).unwrap_err();
    assert!(matches!(LlmError::of(&error), Some(LlmError::Malformed(_))), "{error:?}");
    let told = stream(&[first, r#"{"error": {"message": "overloaded", "code": 502}}"#, finish]);
    assert_eq!(reason(told), (Verdict::Passing(None), "the provider answered 200: overloaded".to_owned()));
}

#[test]
fn a_server_that_does_not_stream_is_understood() {
    let body = ok(r#"{"choices": [{"message": {"content": "so"}}]}"#);
    let (answer, sent) = ask_one(|options| options, &ChatRequest::ask("why?").streamed(), body);
    assert!(sent.contains(r#""stream":true"#) && answer.unwrap().text == "so");
}

#[test]
fn a_server_that_takes_no_connection_is_left_after_the_connect_timeout() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    // SAFETY: the descriptor is that of the listener, which is open. The queue of who is not accepted has room for one.
    assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 0) }, 0);
    let address = listener.local_addr().unwrap();
    let within = Duration::from_millis(100);
    let mut held = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, within) {
        held.push(stream);
    }
    let llm = Llm::new(LlmOptions::new("m").base_url(format!("http://{address}/v1")).connect_timeout(within));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let begin = Instant::now();
    let error = runtime.block_on(llm.chat(&ChatRequest::ask("why?"))).unwrap_err();
    // The system itself would try for minutes.
    assert!((within..Duration::from_secs(30)).contains(&begin.elapsed()));
    assert_eq!(error.verdict(), Verdict::Outage);
    assert!(matches!(LlmError::of(&error), Some(LlmError::Unreachable(_))), "{error:?}");
}

#[test]
fn a_server_that_stops_sending_is_left_after_the_read_timeout() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let options = LlmOptions::new("m").base_url(format!("http://{}/v1", listener.local_addr().unwrap()));
    let llm = Llm::new(options.read_timeout(Duration::from_millis(100)));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    // Nobody accepts: the system holds the connection.
    let error = runtime.block_on(llm.chat(&ChatRequest::ask("why?"))).unwrap_err();
    assert_eq!(error.verdict(), Verdict::Passing(None));
}
