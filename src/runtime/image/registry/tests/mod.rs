//! Pulling from and pushing to a registry that does everything a registry can do wrong.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use super::{Credential, Credentials, Registries};
use crate::runtime::image::{Digest, Event, ImageConfig, Pulled, RootFs, Store, media};
use crate::runtime::root::Root;

/// One request as the server saw it.
#[derive(Debug, Clone)]
struct Seen {
    method: String,
    path: String,
    headers: HashMap<String, String>,
    body: Vec<u8>,
    /// The connection ended before the body did.
    cut: bool,
}

struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// Close the connection after so many bytes of the body.
    cut: Option<usize>,
}

fn answer(status: u16, body: impl Into<Vec<u8>>) -> Answer {
    Answer { status, headers: Vec::new(), body: body.into(), cut: None }
}

impl Answer {
    fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

type Script = dyn Fn(&Seen, usize) -> Answer + Send + Sync;

/// Serves a script; the second argument counts earlier requests of the same path.
struct Server {
    address: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

fn serve(script: impl Fn(&Seen, usize) -> Answer + Send + Sync + 'static) -> Server {
    serve_up_to(usize::MAX, script)
}

/// As [`serve`], and cuts connections on which more than `hang_up` bytes of a body arrive.
fn serve_up_to(hang_up: usize, script: impl Fn(&Seen, usize) -> Answer + Send + Sync + 'static) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = listener.local_addr().expect("bound").to_string();
    let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
    let script: Arc<Script> = Arc::new(script);
    let log = seen.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (script, log) = (script.clone(), log.clone());
            std::thread::spawn(move || drop(converse(&stream, &*script, &log, hang_up)));
        }
    });
    Server { address, seen }
}

impl Server {
    /// The requests so far.
    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("no panic").clone()
    }
}

/// Takes a chunked body; once it is longer than `hang_up`, fails as a connection does.
fn read_chunks(
    reader: &mut impl std::io::BufRead,
    body: &mut Vec<u8>,
    hang_up: usize,
) -> std::io::Result<()> {
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let length = u64::from_str_radix(line.trim(), 16).map_err(std::io::Error::other)?;
        if reader.take(length).read_to_end(body)? as u64 != length || body.len() > hang_up {
            body.truncate(hang_up);
            return Err(std::io::ErrorKind::ConnectionReset.into());
        }
        reader.read_line(&mut line)?;
        if length == 0 {
            return Ok(());
        }
    }
}

fn converse(
    stream: &TcpStream,
    script: &Script,
    log: &Mutex<Vec<Seen>>,
    hang_up: usize,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let mut words = line.split_whitespace().map(str::to_owned);
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let mut headers = HashMap::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
        let mut body = Vec::new();
        let read = if headers.contains_key("transfer-encoding") {
            read_chunks(&mut reader, &mut body, hang_up)
        } else {
            let length: u64 = headers.get("content-length").and_then(|n| n.parse().ok()).unwrap_or(0);
            (&mut reader).take(length).read_to_end(&mut body).map(drop)
        };
        let seen = Seen { method, path, headers, body, cut: read.is_err() };
        let earlier = {
            let mut log = log.lock().expect("no holder panics");
            let earlier = log.iter().filter(|other| other.path == seen.path).count();
            log.push(seen.clone());
            earlier
        };
        let answer = script(&seen, earlier);
        if seen.cut {
            return stream.shutdown(std::net::Shutdown::Both);
        }
        let mut out = format!("HTTP/1.1 {} x\r\ncontent-length: {}\r\n", answer.status, answer.body.len());
        for (name, value) in &answer.headers {
            out += &format!("{name}: {value}\r\n");
        }
        let mut stream = stream;
        stream.write_all((out + "\r\n").as_bytes())?;
        if seen.method != "HEAD" {
            match answer.cut {
                Some(at) => {
                    stream.write_all(&answer.body[..at])?;
                    return stream.shutdown(std::net::Shutdown::Both);
                }
                None => stream.write_all(&answer.body)?,
            }
        }
    }
}

/// A one-layer image: blobs by path suffix.
#[derive(Clone)]
struct Sample {
    manifest: Vec<u8>,
    config: Vec<u8>,
    layer: Vec<u8>,
}

impl Sample {
    fn new(architecture: &str) -> Self {
        let mut builder = tar::Builder::new(Vec::new());
        let data: Vec<u8> =
            (0..300_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        let mut header = tar::Header::new_gnu();
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, "data", &data[..]).expect("appended");
        let tar = builder.into_inner().expect("finished");
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(&tar).expect("written");
        let layer = gz.finish().expect("finished");
        let config = serde_json::to_vec(&ImageConfig {
            os: "linux".to_owned(),
            architecture: architecture.to_owned(),
            rootfs: RootFs { diff_ids: vec![Digest::of(&tar)], ..RootFs::default() },
            ..ImageConfig::default()
        })
        .expect("encodes");
        let manifest = serde_json::to_vec(&serde_json::json!({
            "schemaVersion": 2, "mediaType": media::OCI_MANIFEST,
            "config": {"mediaType": media::OCI_CONFIG, "digest": Digest::of(&config), "size": config.len()},
            "layers": [{"mediaType": media::OCI_LAYER_GZIP, "digest": Digest::of(&layer), "size": layer.len()}],
        }))
        .expect("encodes");
        Self { manifest, config, layer }
    }

    /// What a good registry answers.
    fn good(&self, seen: &Seen) -> Answer {
        let last = seen.path.rsplit('/').next().unwrap_or_default();
        if seen.path.contains("/manifests/") {
            return answer(200, self.manifest.clone())
                .with("docker-content-digest", &Digest::of(&self.manifest).to_string());
        }
        for blob in [&self.config, &self.layer] {
            if Digest::of(blob).to_string() == last {
                let range = seen.headers.get("range").and_then(|r| r.strip_prefix("bytes="));
                let from = range.and_then(|r| r.trim_end_matches('-').parse::<usize>().ok());
                return match from {
                    Some(from) => answer(206, blob[from..].to_vec()),
                    None => answer(200, blob.clone()),
                };
            }
        }
        answer(404, "{}")
    }

    fn is_layer(&self, seen: &Seen) -> bool {
        seen.path.ends_with(&Digest::of(&self.layer).to_string())
    }
}

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir_in("/var/tmp").expect("a directory");
    let store = Store::open(&Root::new(Some(dir.path()))).expect("opens");
    (dir, store)
}

fn pull_with(server: &Server, store: &Store, registries: &Registries) -> Result<Pulled, String> {
    let quiet = |_: Event| {};
    store
        .pull(&format!("{}/app:1", server.address), None, registries, &quiet)
        .map_err(|error| format!("{:#}", anyhow::Error::new(error)))
}

fn pull(server: &Server) -> (tempfile::TempDir, Store, Result<Pulled, String>) {
    let (dir, store) = store();
    let result = pull_with(server, &store, &Registries::default());
    (dir, store, result)
}

mod pull;
mod push;
