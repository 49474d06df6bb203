//! The client and the demo against a real model, a small one: that they understand each other, not that its answers are
//! good. Takes a minute or two: `make test-llm-model`.

#![expect(clippy::unwrap_used, reason = "in a test, also outside of its function")]

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use sage::AsyncService;
use sage_services::llm::{ChatRequest, Finish, Llm, LlmOptions, Message, Piece};
use serde_json::{Value, json};

/// A model that is served; ended when it is dropped.
struct Model {
    child: Child,
    port: u16,
}

impl Model {
    fn serve() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let python = root.join("../../.venv-llm-model/bin/python");
        assert!(python.exists(), "`{}` is missing: it comes with `make test-llm-model`", python.display());
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let mut command = Command::new(python);
        command.arg(root.join("tests/llm_model/serve.py")).arg(port.to_string());
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let mut model = Self { child, port };
        let begin = Instant::now();
        let llm = Llm::new(LlmOptions::new("smollm2").base_url(model.base_url()));
        // Until the weights are loaded, it answers with an error.
        while block_on(llm.health()).is_err() {
            assert!(model.child.try_wait().unwrap().is_none(), "the model's server has ended");
            assert!(begin.elapsed() < Duration::from_secs(60), "the model's server took too long to start");
            thread::sleep(Duration::from_millis(50));
        }
        model
    }

    fn base_url(&self) -> String {
        format!("http://127.0.0.1:{}/v1", self.port)
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

#[test]
fn a_real_model_answers_in_a_whole_in_pieces_and_by_a_schema() {
    let model = Model::serve();
    let llm = Llm::new(LlmOptions::new("smollm2").base_url(model.base_url()));
    block_on(async {
        let messages = [Message::system("You answer in one word."), Message::user("What is the capital of France?")];
        let request = ChatRequest::new(messages).temperature(0.0).max_tokens(30);
        let whole = llm.chat(&request).await.unwrap();
        assert!(whole.text.contains("Paris"), "{whole:?}");
        assert!(whole.usage.is_some_and(|usage| usage.input > 10 && usage.output > 0), "{whole:?}");

        let mut stream = llm.stream(&request).await.unwrap();
        let mut text = String::new();
        while let Some(piece) = stream.next().await {
            if let Piece::Text(piece) = piece.unwrap() {
                text.push_str(&piece);
            }
        }
        assert_eq!((text.as_str(), &stream.so_far().finish), (whole.text.as_str(), &Some(Finish::Stop)));
        assert_eq!(stream.so_far().usage.map(|usage| usage.total()), whole.usage.map(|usage| usage.total()));

        let schema = json!({
            "type": "object", "properties": {"city": {"type": "string"}, "is_large": {"type": "boolean"}},
            "required": ["city", "is_large"], "additionalProperties": false,
        });
        let asked = ChatRequest::ask("Describe Paris.").json_schema("city", schema).temperature(0.0).max_tokens(100);
        let city: Value = llm.chat(&asked).await.unwrap().json().unwrap();
        assert!(city["city"].is_string() && city["is_large"].is_boolean(), "{city}");
    });
}

#[test]
fn twenty_questions_are_answered_from_their_passages() {
    let model = Model::serve();
    let folder = tempfile::tempdir().unwrap();
    let cities = [
        "Bergen", "Bilbao", "Bremen", "Brest", "Cadiz", "Cork", "Faro", "Gdansk", "Genoa", "Ghent", "Hull", "Kotka",
        "Lagos", "Malmo", "Nantes", "Narva", "Porto", "Riga", "Split", "Turku",
    ];
    let sections = cities.map(|city| format!("# {city}\n\nThe ship of {city} is called Star of {city}.\n\n"));
    std::fs::create_dir(folder.path().join("documents")).unwrap();
    std::fs::write(folder.path().join("documents/ships.md"), sections.concat()).unwrap();
    let questions = cities.map(|city| format!("What is the ship of {city} called?"));
    std::fs::write(folder.path().join("questions"), questions.join("\n")).unwrap();
    let report = folder.path().join("report.json");
    let test = std::env::current_exe().unwrap();
    let mut command = Command::new(test.parent().and_then(Path::parent).unwrap().join("examples/rag"));
    command.arg(folder.path().join("documents")).args(["--passages", "1", "--in-flight", "2", "--llm", "openai"]);
    command.args(["--model", "smollm2", "--base-url", &model.base_url(), "--timeout", "300"]);
    command.arg("--questions").arg(folder.path().join("questions"));
    command.arg("--journal").arg(folder.path().join("journal")).arg("--report").arg(&report);
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_str(&std::fs::read_to_string(&report).unwrap()).unwrap();
    let answers = report["answers"].as_array().unwrap();
    assert_eq!(answers.iter().map(|answer| answer["question"].as_str().unwrap()).collect::<Vec<_>>(), questions);
    assert!(answers.iter().all(|answer| answer["answer"].as_str().is_some_and(|text| !text.is_empty())), "{text}");
    let services = report["job"]["services"].as_array().unwrap();
    let policy = &services.iter().find(|service| service["name"] == "llm").unwrap()["policy"];
    assert_eq!((&policy["calls"], &policy["journal"]["entries"]), (&json!(20), &json!(20)));
    assert!(policy["tallies"][0]["sums"]["gen_ai.usage.input_tokens"].as_f64().unwrap() > 20.0 * 40.0, "{policy}");
}
