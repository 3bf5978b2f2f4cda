//! `jigsaw report --watch` as a browser sees it: it follows a growing run, answers this machine alone, and ends with Ctrl-C.

use crate::command::{jigsaw, refused};
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The server, and the port that it has chosen.
struct Server(Child, u16);

impl Server {
    fn start(dir: &Path) -> Server {
        let mut command = Command::new(env!("CARGO_BIN_EXE_jigsaw"));
        command.args(["report", "runs", "--watch", "--port", "0", "--title", "At work"]).current_dir(dir);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut said = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut said).unwrap();
        let port = said.trim().strip_prefix("http://127.0.0.1:").and_then(|rest| rest.strip_suffix('/')).unwrap();
        Server(child, port.parse().unwrap())
    }

    /// The answer to a request with this host.
    fn ask(&self, host: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.1)).unwrap();
        write!(stream, "GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }

    /// The page, once all of `expected` are in it.
    fn page_with(&self, expected: &[&str]) -> String {
        let begun = Instant::now();
        loop {
            let page = self.ask("localhost");
            assert!(page.starts_with("HTTP/1.1 200"), "{page}");
            match expected.iter().find(|text| !page.contains(**text)) {
                None => return page,
                Some(missing) => assert!(begun.elapsed() < Duration::from_secs(60), "{missing:?} is not in {page}"),
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn interrupt(mut self) -> Option<i32> {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        self.0.wait().unwrap().code()
    }
}

#[test]
fn the_page_follows_a_run_and_ends_with_ctrl_c() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    let run = dir.join("runs/sft");
    std::fs::create_dir_all(&run).unwrap();
    let server = Server::start(dir);
    server.page_with(&["At work", "no run in runs", "metrics.jsonl"]);

    // A run is begun: its directory is locked.
    std::fs::write(run.join("config.toml"), "[train]\nmethod = \"sft\"\nsteps = 40\n").unwrap();
    std::fs::write(run.join("run.json"), r#"{"model": "m", "data": "d", "started": 1}"#).unwrap();
    let lock = File::create(run.join(".lock")).unwrap();
    lock.lock().unwrap();
    let metrics = run.join("metrics.jsonl");
    let append = |text: &str| {
        OpenOptions::new().append(true).create(true).open(&metrics).unwrap().write_all(text.as_bytes()).unwrap();
    };
    append("{\"step\":1,\"loss\":2.0,\"step_seconds\":3.0}\n{\"step\":2,\"loss\":1.5,\"step_seconds\":3.0}\n");
    let sample = r#"{"step":2,"source":"eval","id":"puzzle-7","response":"<answer>2 1</answer>","answer":"1 2"}"#;
    std::fs::write(run.join("samples.jsonl"), format!("{sample}\n")).unwrap();
    let page = server.page_with(&["step 2 of 40", "about 1 min 54 s left", "puzzle-7", "SFT loss</h3>"]);
    assert!(page.contains("&lt;answer&gt;2 1&lt;") && page.contains("right answer 1 2"), "{page}");

    // Half a line is no line yet.
    append("{\"step\":3,\"lo");
    std::thread::sleep(Duration::from_millis(300));
    server.page_with(&["step 2 of 40"]);
    append("ss\":1.25,\"step_seconds\":3.0}\n");
    server.page_with(&["step 3 of 40", "loss 1.25"]);
    // What no run has written is named, over the last page.
    append("what is this?\n");
    server.page_with(&["metrics.jsonl:4: this line is damaged", "SFT loss</h3>"]);

    assert!(server.ask("evil.example").starts_with("HTTP/1.1 403"));
    let port = server.1.to_string();
    let said = refused(dir, &["report", "runs", "--watch", "--port", &port]);
    assert!(said.contains(&format!("--port {port}: the port is in use")), "{said}");
    assert!(refused(dir, "report nope --watch").contains("no run at nope"));
    assert_eq!(jigsaw(dir, "report runs --watch --format md").status.code(), Some(2));
    assert_eq!(server.interrupt(), Some(0));
    assert!(!dir.join("report.html").exists());
}
