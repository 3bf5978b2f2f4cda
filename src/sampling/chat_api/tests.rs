//! The client against a server of a few lines on this machine.

#[path = "../../../tests/http/mod.rs"]
mod http;

use super::*;
use crate::data::{Message, Record};
use crate::sampling::chat_api::REQUEST_TIMEOUT;
use crate::tasks::{NoAnswer, Score};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use image::RgbImage;
use serde_json::{Value, json};
use std::net::TcpListener;
use std::sync::Arc;

const SECRET: &str = "sk-very-secret";

/// A request as the server saw it.
#[derive(Clone)]
pub(crate) struct Seen {
    head: String,
    body: Value,
}

/// Answers every request by `answer(how-manieth, request)`: status, further header lines, body. With status 0 it hangs up instead.
pub(crate) struct Server {
    pub url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    /// Requests so far.
    pub fn requests(&self) -> usize {
        lock(&self.seen).len()
    }
}

pub(crate) type Answer = Box<dyn Fn(usize, &Seen) -> (u16, String, String) + Send>;

pub(crate) fn serve(answer: Answer) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
    let log = Arc::clone(&seen);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            let (head, body) = http::read_request(&stream);
            let request = Seen { head, body: serde_json::from_slice(&body).unwrap() };
            let number = {
                let mut log = lock(&log);
                log.push(request.clone());
                log.len() - 1
            };
            let (status, headers, text) = answer(number, &request);
            if status > 0 {
                http::respond(&stream, status, &headers, &text);
            }
        }
    });
    Server { url, seen }
}

pub(crate) fn says(text: &str) -> String {
    let choice = json!({"message": {"role": "assistant", "content": text}, "finish_reason": "stop"});
    json!({"choices": [choice], "usage": {"prompt_tokens": 10, "completion_tokens": 3}}).to_string()
}

fn good() -> Server {
    serve(Box::new(|n, _| (200, String::new(), says(&format!("answer {n}")))))
}

pub(crate) fn endpoint(url: &str) -> Endpoint {
    Endpoint {
        url: url.into(),
        model: "teacher-1".into(),
        concurrency: 1,
        per_minute: None,
        retries: 3,
        backoff: Duration::from_millis(1),
        timeout: REQUEST_TIMEOUT,
    }
}

struct Two(Vec<Record>);

fn two() -> Two {
    let record = |i: usize| Record {
        file_name: "i.png".into(),
        id: format!("p-{i}"),
        task: "jigsaw".into(),
        messages: vec![Message { role: "user".into(), content: format!("<image>\nquestion {i}?") }],
        images: vec!["i.png".into()],
        answer: String::new(),
        source: String::new(),
        seed: 0,
        meta: Default::default(),
    };
    Two((0..2).map(record).collect())
}

impl Task for Two {
    fn name(&self) -> &str {
        "two"
    }
    fn len(&self) -> usize {
        2
    }
    fn example(&self, i: usize) -> Result<std::borrow::Cow<'_, Record>> {
        Ok(std::borrow::Cow::Borrowed(&self.0[i]))
    }
    fn images(&self, _i: usize) -> Result<Vec<RgbImage>> {
        Ok(vec![RgbImage::new(2, 2)])
    }
    fn score(&self, _i: usize, _response: &str) -> Score {
        unreachable!("the client does not score")
    }
}

fn sampling() -> SamplingParams {
    SamplingParams { max_new_tokens: 77, temperature: 0.5, top_p: 0.9, top_k: 0, stop: Vec::new(), seed: 4 }
}

fn ask(endpoint: &Endpoint, file: &Path, samples: usize) -> Result<Vec<Vec<CachedResponse>>> {
    let sampling = sampling();
    ChatClient::open(endpoint, Some(SECRET.into()), file)?.responses(&two(), &[0, 1], samples, &sampling)
}

#[test]
fn a_request_holds_prompt_image_and_settings_and_the_answer_comes_back() {
    let (dir, server) = (tempfile::tempdir().unwrap(), good());
    let answers = ask(&endpoint(&server.url), &dir.path().join("api-cache.jsonl"), 1).unwrap();
    let answer = &answers[1][0];
    assert_eq!((answer.response.as_str(), answer.completion_tokens, answer.finished), ("answer 1", 3, true));
    let seen = lock(&server.seen)[0].clone();
    assert!(seen.head.starts_with("POST /v1/chat/completions "), "{}", seen.head);
    assert!(seen.head.to_lowercase().contains(&format!("authorization: bearer {SECRET}")));
    assert_eq!((&seen.body["model"], &seen.body["max_tokens"]), (&json!("teacher-1"), &json!(77)));
    assert!(seen.body.get("top_k").is_none());
    let content = seen.body["messages"][0]["content"].as_array().unwrap();
    let url = content[0]["image_url"]["url"].as_str().unwrap();
    let png = STANDARD.decode(url.strip_prefix("data:image/png;base64,").unwrap()).unwrap();
    assert_eq!(image::load_from_memory(&png).unwrap().into_rgb8(), RgbImage::new(2, 2));
    assert_eq!(content[1]["text"], "\nquestion 0?", "as a model here is given it");
    let log = std::fs::read_to_string(dir.path().join("api-cache.jsonl")).unwrap();
    assert!(log.lines().count() == 2 && !log.contains(SECRET));
}

#[test]
fn text_around_images_is_sent_untrimmed_and_only_a_blank_part_is_left_out() {
    let of = |content: &str| {
        crate::sampling::chat_api::request_body::content(content, &mut (1..).map(|n| format!("url {n}")))
    };
    let text = |text: &str| json!({"type": "text", "text": text});
    let image = |n: usize| json!({"type": "image_url", "image_url": {"url": format!("url {n}")}});
    assert_eq!(of("<image>\nWhat? \n"), json!([image(1), text("\nWhat? \n")]));
    assert_eq!(of("See <image>\n<image> and say"), json!([text("See "), image(1), image(2), text(" and say")]));
    assert_eq!(of(" Answer.\n"), json!(" Answer.\n"));
}

#[test]
fn cached_responses_are_not_requested_again() {
    let (dir, server) = (tempfile::tempdir().unwrap(), good());
    let file = dir.path().join("api-cache.jsonl");
    let first = ask(&endpoint(&server.url), &file, 2).unwrap();
    assert_eq!(lock(&server.seen).len(), 4);
    assert_eq!(ask(&endpoint(&server.url), &file, 2).unwrap(), first);
    assert_eq!(lock(&server.seen).len(), 4, "all answers were there");
    // A kill in the middle of a write.
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, &text[..text.len() - 9]).unwrap();
    ask(&endpoint(&server.url), &file, 2).unwrap();
    assert_eq!(lock(&server.seen).len(), 5);
    let endpoint = endpoint(&server.url);
    let usage = ChatClient::open(&endpoint, None, &file).unwrap().usage();
    assert_eq!(usage, TokenUsage { prompts: 40, responses: 12, uncounted: 0 });
    assert_eq!(usage.to_string(), "40 of prompts, 12 of responses");
}

#[test]
fn transient_failures_are_retried_and_permanent_ones_reported_without_the_key() {
    let dir = tempfile::tempdir().unwrap();
    let busy = serve(Box::new(|n, _| match n {
        0 => (503, String::new(), "busy".into()),
        1 => (429, "Retry-After: 0\r\n".into(), "slow down".into()),
        _ => (200, String::new(), says("at last")),
    }));
    let answers = ask(&endpoint(&busy.url), &dir.path().join("a"), 1).unwrap();
    assert_eq!((answers[0][0].response.as_str(), lock(&busy.seen).len()), ("at last", 4));

    let failing = |status: u16, text: String| {
        let server = serve(Box::new(move |_, _| (status, String::new(), text.clone())));
        let error = ask(&endpoint(&server.url), &dir.path().join("b"), 1).unwrap_err();
        assert!(!error.to_string().contains(SECRET), "{error}");
        let requests = lock(&server.seen).len();
        (error.exit_code(), error.to_string(), requests)
    };
    let repeated = json!({"error": {"message": format!("bad key {SECRET}")}}).to_string();
    let (code, message, requests) = failing(401, repeated);
    assert!(code == 2 && requests == 1 && message.contains("OPENAI_API_KEY") && message.contains("[key]"), "{message}");
    let (code, message, requests) = failing(500, "broken".into());
    assert!(code == 1 && requests == 4 && message.contains("500") && message.contains("continues"), "{message}");
    let (code, message, _) = failing(404, "no such model".into());
    assert!(code == 2 && message.contains("teacher-1") && message.contains("no such model"), "{message}");
    assert!(message.starts_with("record `p-0`: "), "{message}");
    // A 400 that is not about what may be said.
    let other = json!({"error": {"message": "cannot decode the image", "type": "invalid_request_error", "code": null}});
    let (code, message, requests) = failing(400, other.to_string());
    assert!(code == 2 && requests == 1 && message.contains("cannot decode the image"), "{message}");
    // A redirection, perhaps to a login page.
    let away = serve(Box::new(|_, _| (302, "Location: https://login.example/?next=/v1\r\n".into(), String::new())));
    let error = ask(&endpoint(&away.url), &dir.path().join("c"), 1).unwrap_err();
    let (message, requests) = (error.to_string(), lock(&away.seen).len());
    assert!(error.exit_code() == 2 && requests == 1, "{requests} requests: {message}");
    assert!(
        message.contains("status 302, to https://login.example/") && message.contains("no redirection"),
        "{message}"
    );
}

#[test]
fn a_broken_body_is_requested_again_before_giving_up() {
    let dir = tempfile::tempdir().unwrap();
    let aborted = json!({"choices": [{"message": {"content": "half"}, "finish_reason": "abort"}]}).to_string();
    let ailing = serve(Box::new(move |n, _| {
        let text = match n {
            1 => says("cut")[..20].to_string(),
            2 => "<html>".into(),
            3 => json!({"error": {"message": "model is overloaded"}}).to_string(),
            5 => aborted.clone(),
            _ => says(&format!("answer {n}")),
        };
        (200, String::new(), text)
    }));
    let answers = ask(&endpoint(&ailing.url), &dir.path().join("a"), 2).unwrap();
    let texts: Vec<&str> = answers.iter().flatten().map(|answer| answer.response.as_str()).collect();
    assert_eq!((texts, ailing.requests()), (vec!["answer 0", "answer 4", "answer 6", "answer 7"], 8));
    for (i, (text, said)) in [
        ("<html>".to_string(), "this is no chat API: its answer is no JSON"),
        (json!({"object": "list"}).to_string(), "this is no chat API: its answer has no `choices`"),
        (json!({"choices": []}).to_string(), "this is no chat API: its answer has no `choices`"),
        (json!({"choices": [{"text": "yes"}]}).to_string(), "this is no chat API: its answer has no `message`"),
        (json!({"choices": [null]}).to_string(), "this is no chat API: its answer has no `message`"),
        (json!({"choices": [{"message": "yes"}]}).to_string(), "this is no chat API: its answer has no `message`"),
        (json!({"error": {"message": "model is overloaded"}}).to_string(), "an error: model is overloaded (after"),
        (json!({"error": "model is loading"}).to_string(), "an error: model is loading (after"),
    ]
    .into_iter()
    .enumerate()
    {
        let server = serve(Box::new(move |_, _| (200, String::new(), text.clone())));
        let error = ask(&endpoint(&server.url), &dir.path().join(format!("b{i}")), 1).unwrap_err();
        assert!(error.exit_code() == 1 && error.to_string().contains(said), "{error}");
        assert!(error.to_string().contains("(after 3 more attempts)") && server.requests() == 4, "{error}");
    }
}

#[test]
fn refusals_of_a_content_filter_are_cached_and_not_requested_again() {
    let (dir, file) = (tempfile::tempdir().unwrap(), "api-cache.jsonl");
    let choice = |content: Value, refusal: Value, reason: &str| {
        let choice = json!({"message": {"content": content, "refusal": refusal}, "finish_reason": reason});
        (200, json!({"choices": [choice], "usage": {"prompt_tokens": 10, "completion_tokens": 3}}))
    };
    let error = |error: Value| json!({"error": error});
    let answers = [
        (
            400,
            error(
                json!({"message": "not this one", "type": "invalid_request_error", "code": "content_policy_violation"}),
            ),
        ),
        (
            400,
            error(
                json!({"message": "filtered", "code": "400", "innererror": {"code": "ResponsibleAIPolicyViolation"}}),
            ),
        ),
        (403, error(json!({"message": format!("filtered {SECRET}"), "type": "content_filter", "code": 403}))),
        (200, error(json!({"message": "filtered", "code": "content_filter"}))),
        choice(json!("I would"), Value::Null, "content_filter"),
        choice(Value::Null, json!("I cannot help with that."), "stop"),
    ];
    let server = serve(Box::new(move |n, _| {
        let (status, body) = &answers[n % answers.len()];
        (*status, String::new(), body.to_string())
    }));
    let file = dir.path().join(file);
    let first = ask(&endpoint(&server.url), &file, 3).unwrap();
    let refused: Vec<&CachedResponse> = first.iter().flatten().collect();
    assert!(
        refused.iter().all(|cached| cached.no_answer() == Some(NoAnswer::Refused) && cached.finished),
        "{refused:?}"
    );
    assert_eq!(refused[0].refusal, "content_policy_violation: not this one");
    assert_eq!(refused[1].refusal, "ResponsibleAIPolicyViolation: filtered");
    assert_eq!(
        (refused[4].refusal.as_str(), refused[4].response.as_str()),
        ("finish_reason content_filter", "I would")
    );
    assert_eq!(refused[5].refusal, "I cannot help with that.");
    assert!(!std::fs::read_to_string(&file).unwrap().contains(SECRET));
    assert_eq!((ask(&endpoint(&server.url), &file, 3).unwrap(), server.requests()), (first, 6));
    let endpoint = endpoint(&server.url);
    let usage = ChatClient::open(&endpoint, None, &file).unwrap().usage();
    assert_eq!(usage, TokenUsage { prompts: 20, responses: 6, uncounted: 0 });
}

/// Error bodies of servers whose context a prompt does not fit into.
#[test]
fn a_prompt_too_long_for_the_server_is_kept_and_the_others_are_asked() {
    let error =
        |message: &str| json!({"error": {"message": message, "type": "BadRequestError", "code": 400}}).to_string();
    let bodies = [
        // vLLM, before and since its error objects.
        (400, json!({"object": "error", "message": "This model's maximum context length is 4096 tokens. However, you requested 5000 \
            tokens", "type": "BadRequestError", "code": 400}).to_string()),
        (400, error("The decoder prompt (length 5000) is longer than the maximum model length of 4096.")),
        // SGLang, OpenAI, llama.cpp, TGI, Ollama, a proxy.
        (400, error("The input (5000 tokens) is longer than the model's context length (4096 tokens).")),
        (400, json!({"error": {"message": "too many", "type": "invalid_request_error", "code": "context_length_exceeded"}}).to_string()),
        (400, json!({"error": {"code": 400, "message": "the request exceeds it", "type": "exceed_context_size_error"}}).to_string()),
        (422, json!({"error": "`inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000", "error_type": "validation"}).to_string()),
        (400, json!({"error": "input length exceeds the context length"}).to_string()),
        (413, "<html>413 Request Entity Too Large</html>".into()),
        (200, error("This endpoint's maximum context length is 4096 tokens.")),
    ];
    for (status, body) in bodies {
        let (dir, answer) = (tempfile::tempdir().unwrap(), (status, body.clone()));
        let server = serve(Box::new(move |_, seen| match seen.body.to_string().contains("question 0?") {
            true => (answer.0, String::new(), answer.1.clone()),
            false => (200, String::new(), says("fine")),
        }));
        let file = dir.path().join("a");
        let answers = ask(&endpoint(&server.url), &file, 1).unwrap_or_else(|e| panic!("{body}: {e}"));
        let found: Vec<_> =
            answers.iter().flatten().map(|cached| (cached.no_answer(), cached.response.as_str())).collect();
        assert_eq!(found, [(Some(NoAnswer::TooLong), ""), (None, "fine")], "{body}");
        assert!(answers[0][0].refusal.starts_with("too long"), "{}", answers[0][0].refusal);
        assert_eq!((ask(&endpoint(&server.url), &file, 1).unwrap(), server.requests()), (answers, 2), "{body}");
    }
    for (status, body) in [(400, error("the image has too many channels")), (404, error("context length"))] {
        let dir = tempfile::tempdir().unwrap();
        let server = serve(Box::new(move |_, _| (status, String::new(), body.clone())));
        assert_eq!(ask(&endpoint(&server.url), &dir.path().join("a"), 1).unwrap_err().exit_code(), 2);
    }
}

#[test]
fn a_filtered_response_is_a_refusal_even_without_a_message() {
    let (dir, endpoint) = (tempfile::tempdir().unwrap(), endpoint("http://localhost:1/v1"));
    let chat = ChatClient::open(&endpoint, None, &dir.path().join("cache")).unwrap();
    for reason in ["content_filter", "content_filter: PROHIBITED_CONTENT"] {
        let body = json!({"choices": [{"message": null, "finish_reason": reason}]}).to_string();
        let cached = chat.parse(&body, "p-0", 0).unwrap();
        assert_eq!(cached.refusal, format!("finish_reason {}", reason.to_lowercase()));
        assert_eq!(cached.no_answer(), Some(NoAnswer::Refused));
    }
    let code = json!({"error": {"message": "no", "code": "content_filter\u{1b}"}}).to_string();
    assert_eq!(chat.parse(&code, "p-0", 0).unwrap().refusal, "content_filter\u{fffd}: no");
}

#[test]
fn a_response_is_the_text_of_its_parts_and_only_the_length_limit_leaves_it_unfinished() {
    let dir = tempfile::tempdir().unwrap();
    let parts = json!([{"type": "text", "text": "<think>a"}, {"type": "text", "text": "</think>b"}]);
    let answers = [
        (parts, "stop", ("<think>a</think>b", true, None)),
        (Value::Null, "stop", ("", true, Some(NoAnswer::Empty))),
        (json!(" \n"), "tool_calls", (" \n", true, Some(NoAnswer::Empty))),
        (json!("c"), "eos", ("c", true, None)),
        (json!("d"), "max_tokens", ("d", false, None)),
        (Value::Null, "length", ("", false, None)),
    ];
    let expected: Vec<_> = answers.iter().map(|(_, _, expected)| *expected).collect();
    let server = serve(Box::new(move |n, _| {
        let (content, reason, _) = &answers[n];
        let choice = json!({"message": {"content": content}, "finish_reason": reason});
        (200, String::new(), json!({"choices": [choice]}).to_string())
    }));
    let file = dir.path().join("cache");
    let found = ask(&endpoint(&server.url), &file, 3).unwrap();
    let found: Vec<_> =
        found.iter().flatten().map(|cached| (cached.response.as_str(), cached.finished, cached.no_answer())).collect();
    assert_eq!(found, expected);
    let endpoint = endpoint(&server.url);
    let usage = ChatClient::open(&endpoint, None, &file).unwrap().usage();
    assert_eq!((usage.uncounted, usage.to_string().as_str()), (6, "not known: the server does not count them"));
    let some = TokenUsage { prompts: 10, responses: 3, uncounted: 2 };
    assert!(some.to_string().starts_with("10 of prompts, 3 of responses; not known of 2 responses"), "{some}");
}

#[test]
fn an_absent_server_is_reported_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    drop(listener);
    let slow = Endpoint { backoff: Duration::from_secs(3600), ..endpoint(&url) };
    let error = ask(&slow, &dir.path().join("cache"), 1).unwrap_err();
    assert!(error.exit_code() == 1 && error.to_string().contains("is it running?"), "{error}");
    for (url, named) in [
        ("https://", "https://HOST/v1"),
        ("http://", "http://HOST:PORT/v1"),
        ("script", "no address of a chat API"),
        ("http://127.0.0.1:99999/v1", "`99999` is no port"),
        ("http://host:0/v1", "`0` is no port"),
        ("http://host:/v1", "`` is no port"),
        ("http://host:80a/v1", "`80a` is no port"),
        ("http://[::1]:70000/v1", "`70000` is no port"),
        ("http://:8000/v1", "http://HOST:PORT/v1"),
        ("http://::1/v1", "http://HOST:PORT/v1"),
    ] {
        let error = endpoint(url).check("--api").unwrap_err();
        assert!(error.exit_code() == 2 && error.to_string().contains(named), "{error}");
        assert!(error.to_string().starts_with(&format!("--api {url}: ")), "{error}");
    }
    for (url, shown) in [
        ("http://user:sk-1@host/v1", "http://***@host/v1"),
        ("https://sk-1@host/v1", "https://***@host/v1"),
        ("http://host/v1?api_key=sk-1", "http://host/v1?api_key=***"),
    ] {
        let said = endpoint(url).check("--api").unwrap_err().to_string();
        assert!(said.starts_with(&format!("--api {shown}: ")) && said.contains("OPENAI_API_KEY"), "{said}");
    }
    for url in ["http://host/v1", "http://host:65535/v1", "http://[::1]/v1", "https://[fe80::1]:8000/v1", "http://h:1"]
    {
        endpoint(url).check("--api").unwrap();
    }
}

#[test]
fn a_broken_connection_is_retried_even_before_the_first_answer() {
    let dir = tempfile::tempdir().unwrap();
    let hangs_up = |times: usize| {
        serve(Box::new(move |n, _| (if n < times { 0 } else { 200 }, String::new(), says(&format!("answer {n}")))))
    };
    let server = hangs_up(2);
    let answers = ask(&endpoint(&server.url), &dir.path().join("a"), 1).unwrap();
    assert_eq!((answers[0][0].response.as_str(), server.requests()), ("answer 2", 4));
    let server = hangs_up(usize::MAX);
    let error = ask(&endpoint(&server.url), &dir.path().join("b"), 1).unwrap_err();
    let (said, requests) = (error.to_string(), server.requests());
    assert!(error.exit_code() == 1 && requests == 4, "{requests} requests: {said}");
    assert!(said.contains("no chat server answers there") && said.contains("(after 3 more attempts)"), "{said}");
    // Only a server that has never answered and refuses the connection is absent.
    let endpoint = endpoint("http://localhost:1/v1");
    let chat = ChatClient::open(&endpoint, None, &dir.path().join("c")).unwrap();
    let lasts = |e: &ureq::Error| matches!(chat.connection_error(e), RequestError::Fatal(_));
    let io = |kind: std::io::ErrorKind| ureq::Error::Io(kind.into());
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionRefused, ConnectionReset, UnexpectedEof};
    for kind in [BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof] {
        assert!(!lasts(&io(kind)), "{kind}");
    }
    let lookup = || ureq::Error::Io(std::io::Error::other("failed to lookup address information: not known"));
    assert!(lasts(&io(ConnectionRefused)) && lasts(&lookup()) && lasts(&ureq::Error::HostNotFound));
    chat.connected.store(true, Ordering::SeqCst);
    assert!(!lasts(&io(ConnectionRefused)) && !lasts(&lookup()));
}

#[test]
fn a_permanent_failure_ends_the_pauses_of_other_requests() {
    let dir = tempfile::tempdir().unwrap();
    // One question is put off, the other one is refused.
    let server = serve(Box::new(|_, seen| {
        if seen.body.to_string().contains("question 0?") {
            return (429, "Retry-After: 30\r\n".into(), "slow down".into());
        }
        std::thread::sleep(Duration::from_millis(200));
        (400, String::new(), "bad request".into())
    }));
    let (both, began) = (Endpoint { concurrency: 2, ..endpoint(&server.url) }, Instant::now());
    let error = ask(&both, &dir.path().join("a"), 1).unwrap_err();
    assert!(error.exit_code() == 2 && error.to_string().contains("bad request"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    assert!(server.requests() <= 2, "nothing is asked again");
    // Nor does anybody wait for a next_slot that is not to come.
    let server = serve(Box::new(|_, _| (400, String::new(), "bad request".into())));
    let (rare, began) = (Endpoint { per_minute: Some(2), concurrency: 2, ..endpoint(&server.url) }, Instant::now());
    let error = ask(&rare, &dir.path().join("b"), 1).unwrap_err();
    assert!(error.to_string().contains("bad request") && server.requests() == 1, "{error}");
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
}

#[test]
fn a_servers_text_is_sanitized_before_it_is_shown() {
    let dir = tempfile::tempdir().unwrap();
    let failing = |path: &str, status: u16, text: &str| {
        let text = text.to_string();
        let server = serve(Box::new(move |_, _| (status, String::new(), text.clone())));
        let url = server.url.replace("/v1", path);
        let error = ask(&Endpoint { retries: 0, ..endpoint(&url) }, &dir.path().join("cache"), 1).unwrap_err();
        error.to_string()
    };
    let said = failing("/v1", 400, "\u{1b}[2Jred\u{7}\n\u{202e}txt.exe\u{2069}\u{9b}1m \u{e9}");
    assert!(
        said.ends_with("; it says: \u{fffd}[2Jred\u{fffd} \u{fffd}txt.exe\u{fffd}\u{fffd}1m \u{e9}"),
        "{}",
        said.escape_debug()
    );
    for (status, cancel) in [(405, "status 405 for model `teacher-1`"), (401, "OPENAI_API_KEY")] {
        let said = failing("/v1", status, "");
        assert!(said.ends_with(cancel), "{said}");
    }
    let said = failing("/v1", 503, " \n");
    assert!(said.contains(": status 503; the responses so far"), "{said}");
    let said = failing("/v1", 404, "no such model");
    assert!(!said.contains("usually ends in /v1"), "{said}");
    for path in ["", "/api/"] {
        let said = failing(path, 404, "Not Found");
        assert!(said.contains("it says: Not Found; the address of a chat API usually ends in /v1"), "{said}");
    }
}

#[test]
fn an_untrusted_certificate_is_reported_with_what_to_do() {
    let said = |url: &str, text: &str| {
        let (dir, endpoint) = (tempfile::tempdir().unwrap(), endpoint("http://localhost:1/v1"));
        let named = Endpoint { url: url.into(), ..endpoint.clone() };
        let mut chat = ChatClient::open(&endpoint, None, &dir.path().join("cache")).unwrap();
        chat.endpoint = &named;
        let e = std::io::Error::new(std::io::ErrorKind::InvalidData, text);
        match chat.connection_error(&ureq::Error::Io(e)) {
            RequestError::Fatal(e) => e.to_string(),
            RequestError::Transient(reason, _) => format!("passing: {reason}"),
            RequestError::Rejected(e) | RequestError::Missing(e) => format!("rejected: {e}"),
        }
    };
    let url = "https://host/v1";
    let unknown = said(url, "invalid peer certificate: UnknownIssuer");
    assert!(unknown.starts_with("https://host/v1: its certificate is not trusted; name"), "{unknown}");
    assert!(unknown.contains("SSL_CERT_FILE") && !unknown.contains("running"), "{unknown}");
    let authority = said(url, "invalid peer certificate: Other(OtherError(CaUsedAsEndEntity))");
    assert!(authority.contains("basicConstraints=CA:FALSE") && authority.contains("SSL_CERT_FILE"), "{authority}");
    assert!(authority.ends_with("invalid peer certificate: Other(OtherError(CaUsedAsEndEntity)))"), "{authority}");
    let expired = said(url, "invalid peer certificate: certificate expired: verification time 9 (UNIX)");
    assert!(expired.contains("not valid, or not for this address"), "{expired}");
    let plain = said(url, "received corrupt message of type InvalidContentType");
    assert!(plain.contains("does not speak TLS"), "{plain}");
    assert!(said("http://host/v1", "odd").starts_with("passing: "));
}

#[test]
fn a_slow_server_is_asked_again_and_then_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let hangs = || {
        serve(Box::new(|_, _| {
            std::thread::sleep(Duration::from_millis(400));
            (200, String::new(), says("too late"))
        }))
    };
    let server = hangs();
    let impatient = Endpoint { timeout: Duration::from_millis(100), retries: 1, ..endpoint(&server.url) };
    let error = ask(&impatient, &dir.path().join("cache"), 1).unwrap_err();
    let said = error.to_string();
    assert!(error.exit_code() == 1 && said.contains("no answer within 0.1 s (after 1 more attempts)"), "{said}");
    assert!(said.contains("the same command continues"), "{said}");
}

#[test]
fn a_key_that_no_header_can_hold_is_refused_without_being_shown() {
    let (dir, server) = (tempfile::tempdir().unwrap(), good());
    let endpoint = endpoint(&server.url);
    let open = |key: &str| ChatClient::open(&endpoint, Some(key.into()), &dir.path().join("cache")).map(drop);
    let error = open("sk-a\nb").unwrap_err();
    assert!(error.exit_code() == 2 && error.to_string().contains("OPENAI_API_KEY"), "{error}");
    assert!(!error.to_string().contains("sk-a"), "{error}");
    assert!(open("sk-a\n").is_ok(), "a line cancel after it, as files have");
}

#[test]
fn no_more_requests_begin_than_the_limit_allows() {
    let (dir, server) = (tempfile::tempdir().unwrap(), good());
    let limited = Endpoint { per_minute: Some(1200), concurrency: 4, ..endpoint(&server.url) };
    let started = Instant::now();
    ask(&limited, &dir.path().join("cache"), 3).unwrap();
    // Six requests, 50 ms apart.
    assert!(started.elapsed() >= Duration::from_millis(245), "{:?}", started.elapsed());
    assert_eq!(lock(&server.seen).len(), 6);
}

#[test]
fn a_long_pause_is_reported_once_for_all_requests_that_wait() {
    let (dir, endpoint) = (tempfile::tempdir().unwrap(), endpoint("http://localhost:1/v1"));
    let told = Mutex::new(Vec::new());
    let note = |text: &str| lock(&told).push(text.to_string());
    let chat = ChatClient::open(&endpoint, None, &dir.path().join("cache")).unwrap().with_note(&note);
    let secs = Duration::from_secs;
    chat.warn_of_long_pause(secs(60), "status 429");
    assert!(lock(&chat.warned_until).is_none(), "short pauses are not worth a line");
    chat.warn_of_long_pause(secs(1800), "status 429");
    chat.warn_of_long_pause(secs(3600), "status 429");
    let until = lock(&chat.warned_until).unwrap();
    assert!(until <= Instant::now() + secs(1800), "the second pause, at the same time, is not reported again");
    let expected = "http://localhost:1/v1: status 429; the server asks to wait: next attempt in 1800 s";
    assert_eq!(*lock(&told), [expected]);
}

#[test]
fn a_retry_after_of_an_hour_is_obeyed() {
    let dir = tempfile::tempdir().unwrap();
    let busy = serve(Box::new(|_, _| (429, "Retry-After: 3600\r\n".into(), "quota".into())));
    let endpoint = endpoint(&busy.url);
    let chat = ChatClient::open(&endpoint, None, &dir.path().join("cache")).unwrap();
    match chat.send(b"{}", "p-0", 0) {
        Err(RequestError::Transient(_, Some(retry_after))) => assert_eq!(retry_after, Duration::from_secs(3600)),
        _ => panic!("no wish"),
    }
}

#[test]
fn a_response_cut_off_by_the_length_limit_is_marked() {
    let dir = tempfile::tempdir().unwrap();
    let server = serve(Box::new(|_, _| {
        let choice = json!({"message": {"content": null}, "finish_reason": "length"});
        (200, String::new(), json!({"choices": [choice]}).to_string())
    }));
    let answers = ask(&endpoint(&server.url), &dir.path().join("cache"), 1).unwrap();
    let answer = &answers[0][0];
    assert_eq!((answer.response.as_str(), answer.completion_tokens, answer.finished), ("", 0, false));
}
