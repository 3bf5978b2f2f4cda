//! A Hub on this machine: the addresses that a client asks a real one for, with what a test wants to go wrong.

// Each test binary uses its part of this.
#![allow(dead_code)]

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
pub const TOKEN: &str = "hf_ThisIsAVerySecretToken";
/// Large files come from another host than the Hub, as they do in the world.
const STORE: &str = if cfg!(target_os = "linux") { "127.0.0.2" } else { "localhost" };

/// One request, as it came.
#[derive(Debug, Clone)]
pub struct Request {
    pub path: String,
    pub host: String,
    pub range: Option<String>,
    pub authorization: Option<String>,
}

/// What a test wants of the server.
#[derive(Default)]
pub struct Behaviour {
    /// Files of `acme/tiny`.
    pub files: BTreeMap<String, Vec<u8>>,
    /// Answer everything with this status and error code.
    pub refuse: Option<(u16, &'static str)>,
    /// Give files only to who sends `TOKEN`.
    pub gated: bool,
    /// Weights break off before this byte.
    pub breaks_at: Option<usize>,
    /// Answer with whole files to who asks for a part.
    pub no_parts: bool,
    /// Send so many bytes more of this file than were promised.
    pub longer: Option<(&'static str, usize)>,
    /// Send other weights than were promised.
    pub corrupt: bool,
    /// Send another content of this file than was promised, of the same length.
    pub damaged: Option<&'static str>,
    /// Answer so many requests with 429 first.
    pub busy: usize,
    /// The store refuses so many requests first, with 403.
    pub expired: usize,
    /// Weights are on another port of the Hub's own host.
    pub store_port: Option<u16>,
}

pub struct Hub {
    pub port: u16,
    pub behaviour: Arc<Mutex<Behaviour>>,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Hub {
    /// With the files of `data/base-tiny` and some that no checkpoint needs.
    pub fn new() -> Hub {
        let mut files: BTreeMap<String, Vec<u8>> = base_tiny();
        for other in ["README.md", ".gitattributes", "pytorch_model.bin", "onnx/model.onnx", "training_args.bin"] {
            files.insert(other.into(), b"of no use here".to_vec());
        }
        let listener = TcpListener::bind("0.0.0.0:0").unwrap();
        let hub = Hub {
            port: listener.local_addr().unwrap().port(),
            behaviour: Arc::new(Mutex::new(Behaviour { files, ..Behaviour::default() })),
            requests: Arc::default(),
        };
        let (behaviour, requests) = (hub.behaviour.clone(), hub.requests.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (behaviour, requests) = (behaviour.clone(), requests.clone());
                // A client that goes away is no error of the server.
                std::thread::spawn(move || answer(stream, &behaviour, &requests));
            }
        });
        hub
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn change(&self, change: impl FnOnce(&mut Behaviour)) {
        change(&mut self.behaviour.lock().unwrap());
    }

    /// The requests since this was last asked.
    pub fn take(&self) -> Vec<Request> {
        std::mem::take(&mut self.requests.lock().unwrap())
    }

    /// `jigsaw LINE`, with this Hub and its cache in `home`.
    pub fn jigsaw(&self, home: &Path, line: &str) -> Command {
        let mut command = plain(home, line);
        command.env("HF_ENDPOINT", self.endpoint());
        command
    }

    pub fn run(&self, home: &Path, line: &str) -> Output {
        self.jigsaw(home, line).output().unwrap()
    }
}

/// `jigsaw LINE` with nothing of this machine's own Hub settings.
pub fn plain(home: &Path, line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_jigsaw"));
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy().to_uppercase();
        if text.starts_with("HF_") || text.starts_with("HUGGING") || text.ends_with("_PROXY") {
            command.env_remove(&name);
        }
    }
    command.args(line.split(' ')).env("HF_HOME", home.join("hf")).env("HOME", home).current_dir(home);
    command
}

pub fn base_tiny() -> BTreeMap<String, Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/base-tiny");
    let entries = std::fs::read_dir(dir).unwrap().flatten();
    entries.map(|e| (e.file_name().into_string().unwrap(), std::fs::read(e.path()).unwrap())).collect()
}

/// The snapshot of `acme/tiny` in a cache.
pub fn snapshot(home: &Path) -> PathBuf {
    home.join("hf/hub/models--acme--tiny/snapshots").join(COMMIT)
}

pub fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

fn listing(files: &BTreeMap<String, Vec<u8>>) -> Value {
    let sibling = |(name, bytes): (&String, &Vec<u8>)| {
        let mut entry = json!({ "rfilename": name, "size": bytes.len(), "blobId": jigsaw::hub::git_blob_hash(bytes) });
        if name.ends_with(".safetensors") {
            entry["lfs"] = json!({ "sha256": sha256(bytes), "size": bytes.len(), "pointerSize": 132 });
        }
        entry
    };
    json!({ "id": "acme/tiny", "sha": COMMIT, "private": false, "siblings": files.iter().map(sibling).collect::<Vec<_>>() })
}

fn answer(stream: TcpStream, behaviour: &Mutex<Behaviour>, requests: &Mutex<Vec<Request>>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        match reader.read_line(&mut line) {
            Ok(n) if n > 0 && line.trim() != "" => lines.push(line.trim().to_string()),
            _ => break,
        }
    }
    let Some(path) = lines.first().and_then(|line| line.split(' ').nth(1)).map(String::from) else { return };
    let header = |name: &str| {
        let found =
            lines.iter().find_map(|line| line.split_once(": ").filter(|(key, _)| key.eq_ignore_ascii_case(name)));
        found.map(|(_, value)| value.to_string())
    };
    let request = Request {
        path: path.clone(),
        host: header("host").unwrap_or_default(),
        range: header("range"),
        authorization: header("authorization"),
    };
    requests.lock().unwrap().push(request.clone());
    let (head, body) = reply(&request, &mut behaviour.lock().unwrap());
    let mut stream = stream;
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body)).and_then(|()| stream.flush());
}

/// Head and body, the latter shorter than the head says where the connection is to break.
fn reply(request: &Request, b: &mut Behaviour) -> (String, Vec<u8>) {
    let simple = |status: &str, more: &str, body: &[u8]| {
        let length = body.len();
        (format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\n{more}\r\n"), body.to_vec())
    };
    let path = request.path.split('?').next().unwrap_or_default();
    let from_store = path.starts_with("/store/");
    let counted = |left: &mut usize| std::mem::replace(left, left.saturating_sub(1)) > 0;
    if counted(&mut b.busy) {
        return simple("429 Too Many Requests", "", b"{}");
    }
    if from_store && counted(&mut b.expired) {
        return simple("403 Forbidden", "", b"Request has expired");
    }
    if let Some((status, code)) = b.refuse {
        return simple(&format!("{status} No"), &format!("X-Error-Code: {code}\r\n"), b"{\"error\": \"no\"}");
    }
    if path == "/api/models/acme/tiny/revision/main" || path == format!("/api/models/acme/tiny/revision/{COMMIT}") {
        return simple("200 OK", "Content-Type: application/json\r\n", listing(&b.files).to_string().as_bytes());
    }
    // The model's former name.
    if path.starts_with("/api/models/acme/old/") || path.starts_with("/acme/old/") {
        let now = request.path.replacen("/acme/old/", "/acme/tiny/", 1);
        return simple("307 Temporary Redirect", &format!("Location: {now}\r\n"), b"");
    }
    if path.starts_with("/api/models/acme/tiny/") {
        return simple("404 Not Found", "X-Error-Code: RevisionNotFound\r\n", b"{}");
    }
    let name = path.strip_prefix(&format!("/acme/tiny/resolve/{COMMIT}/")).or_else(|| path.strip_prefix("/store/"));
    let Some((name, bytes)) = name.and_then(|name| Some((name, b.files.get(name)?))) else {
        return simple("404 Not Found", "X-Error-Code: RepoNotFound\r\n", b"{}");
    };
    let allowed = request.authorization.as_deref() == Some(format!("Bearer {TOKEN}").as_str());
    if b.gated && !from_store && !allowed {
        return simple("401 Unauthorized", "X-Error-Code: GatedRepo\r\n", b"{}");
    }
    let large = name.ends_with(".safetensors");
    if large && !from_store {
        let own = request.host.split(':').nth(1).unwrap_or_default();
        let place = match b.store_port {
            Some(port) => format!("127.0.0.1:{port}"),
            None => format!("{STORE}:{own}"),
        };
        return simple("302 Found", &format!("Location: http://{place}/store/{name}?signed=1\r\n"), b"");
    }
    let first =
        request.range.as_deref().and_then(|r| r.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
    let (status, from) = match first.filter(|_| !b.no_parts) {
        Some(from) if from >= bytes.len() => return simple("416 Range Not Satisfiable", "", b""),
        Some(from) => ("206 Partial Content", from),
        None => ("200 OK", 0),
    };
    let more = b.longer.map_or(0, |(file, more)| if file == name { more } else { 0 });
    let length = bytes.len() - from + more;
    let range = format!("Content-Range: bytes {from}-{}/{}\r\n", bytes.len() - 1, bytes.len());
    let head = format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\n{range}\r\n");
    let mut body = [&bytes[from..], &vec![b'x'; more]].concat();
    if let Some(end) = b.breaks_at.filter(|_| large) {
        body.truncate(end.saturating_sub(from));
    }
    if b.corrupt
        && large
        && let Some(last) = body.last_mut()
    {
        *last ^= 1;
    }
    if b.damaged == Some(name)
        && let Some(first) = body.first_mut()
    {
        *first ^= 1;
    }
    (head, body)
}

/// A small disk of its own; `None` where this user may not make one.
#[cfg(target_os = "linux")]
pub struct SmallDisk(PathBuf);

#[cfg(target_os = "linux")]
impl SmallDisk {
    pub fn mount(at: &Path, size: &str) -> Option<SmallDisk> {
        std::fs::create_dir_all(at).unwrap();
        let options = format!("size={size}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(at).output();
        let mounted = mounted.is_ok_and(|output| output.status.success());
        if !mounted {
            eprintln!("not tested: a file system of {size} cannot be mounted here");
        }
        mounted.then(|| SmallDisk(at.to_path_buf()))
    }
}

#[cfg(target_os = "linux")]
impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
