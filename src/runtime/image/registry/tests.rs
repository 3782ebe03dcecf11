//! Pulling from a registry that does everything a registry can do wrong.

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
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = listener.local_addr().expect("bound").to_string();
    let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
    let script: Arc<Script> = Arc::new(script);
    let log = seen.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (script, log) = (script.clone(), log.clone());
            std::thread::spawn(move || drop(converse(&stream, &*script, &log)));
        }
    });
    Server { address, seen }
}

fn converse(stream: &TcpStream, script: &Script, log: &Mutex<Vec<Seen>>) -> std::io::Result<()> {
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
        let length = headers.get("content-length").and_then(|n| n.parse().ok()).unwrap_or(0);
        std::io::copy(&mut (&mut reader).take(length), &mut std::io::sink())?;
        let seen = Seen { method, path, headers };
        let earlier = {
            let mut log = log.lock().expect("no holder panics");
            let earlier = log.iter().filter(|other| other.path == seen.path).count();
            log.push(seen.clone());
            earlier
        };
        let answer = script(&seen, earlier);
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

fn nothing_is_left(dir: &tempfile::TempDir, store: &Store) {
    assert!(store.list().expect("lists").is_empty());
    for part in ["layers", "staging", "refs"] {
        let left: Vec<_> = std::fs::read_dir(dir.path().join("images").join(part)).expect("listed").collect();
        assert!(left.is_empty(), "{part}: {left:?}");
    }
}

#[test]
fn an_unchanged_tag_costs_one_request() {
    let sample = Sample::new("amd64");
    let server = serve(move |seen, _| sample.good(seen));
    let (_dir, store, result) = pull(&server);
    assert!(result.expect("pulled").new);
    let before = server.seen.lock().expect("no panic").len();
    assert!(!pull_with(&server, &store, &Registries::default()).expect("pulled").new);
    let seen = server.seen.lock().expect("no panic")[before..].to_vec();
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert_eq!(seen[0].method, "HEAD");
}

#[test]
fn a_cut_connection_goes_on_where_it_stopped() {
    let sample = Sample::new("amd64");
    let copy = sample.clone();
    let server = serve(move |seen, earlier| {
        let mut answer = copy.good(seen);
        if copy.is_layer(seen) && earlier < 3 {
            answer.cut = Some(answer.body.len() / 2);
        }
        answer
    });
    let (_dir, _store, result) = pull(&server);
    let image = result.expect("pulled").image;
    assert_eq!(image.size, 1_200_000);
    let ranges: Vec<_> = server
        .seen
        .lock()
        .expect("no panic")
        .iter()
        .filter(|seen| sample.is_layer(seen))
        .map(|seen| seen.headers.get("range").cloned())
        .collect();
    assert_eq!(ranges.len(), 4);
    assert!(ranges[0].is_none() && ranges[1..].iter().all(Option::is_some), "{ranges:?}");
}

#[test]
fn a_busy_registry_is_asked_again_after_the_time_it_names() {
    let sample = Sample::new("amd64");
    let server = serve(move |seen, earlier| match earlier {
        0 if seen.path.contains("/manifests/") => answer(429, "{}").with("retry-after", "1"),
        0 => answer(503, ""),
        _ => sample.good(seen),
    });
    let start = std::time::Instant::now();
    let (_dir, _store, result) = pull(&server);
    result.expect("pulled");
    assert!(start.elapsed() >= std::time::Duration::from_secs(1));
}

#[test]
fn a_broken_registry_is_given_up_with_its_reason() {
    let server = serve(|_, _| {
        answer(500, r#"{"errors":[{"code":"UNKNOWN","message":"disk on fire"}]}"#).with("retry-after", "0")
    });
    let (dir, store, result) = pull(&server);
    let text = result.expect_err("failed");
    assert!(text.contains("500") && text.contains("disk on fire"), "{text}");
    nothing_is_left(&dir, &store);
}

#[test]
fn wrong_bytes_never_become_visible() {
    let sample = Sample::new("amd64");
    for what in ["layer", "config", "manifest", "short"] {
        let sample = sample.clone();
        let server = serve(move |seen, _| {
            let mut answer = sample.good(seen);
            let manifest = seen.path.contains("/manifests/");
            let hit = match what {
                "layer" => sample.is_layer(seen),
                "config" => !manifest && !sample.is_layer(seen),
                "manifest" => manifest,
                _ => false,
            };
            if hit {
                let at = answer.body.len() - 4;
                answer.body[at] ^= 1;
            }
            if what == "short" && sample.is_layer(seen) {
                answer.body.truncate(1000);
                answer.status = 200;
            }
            answer
        });
        let (dir, store, result) = pull(&server);
        let text = result.expect_err(what);
        assert!(!text.is_empty(), "{what}: {text}");
        nothing_is_left(&dir, &store);
    }
}

#[test]
fn a_token_goes_to_the_registry_and_to_no_other_host() {
    let sample = Sample::new("amd64");
    let copy = sample.clone();
    let storage = serve(move |seen, _| copy.good(seen));
    let elsewhere = storage.address.clone();
    let auth = serve(|seen, _| {
        if seen.headers.get("authorization").map(String::as_str) == Some("Basic bWU6c2VjcmV0") {
            answer(200, r#"{"token":"good"}"#)
        } else {
            answer(401, "{}")
        }
    });
    let realm = auth.address.clone();
    let copy = sample.clone();
    let server = serve(move |seen, _| {
        if seen.headers.get("authorization").map(String::as_str) != Some("Bearer good") {
            let challenge =
                format!(r#"Bearer realm="http://{realm}/token",service="s",scope="repository:app:pull""#);
            return answer(401, "{}").with("www-authenticate", &challenge);
        }
        if copy.is_layer(seen) {
            return answer(307, "").with("location", &format!("http://{elsewhere}{}", seen.path));
        }
        copy.good(seen)
    });
    let (_dir, store) = store();
    let refused = pull_with(&server, &store, &Registries::default()).expect_err("denied");
    assert!(refused.contains("denies access") && refused.contains("hoist login"), "{refused}");
    let credential = Credential { user: "me".into(), secret: "secret".into(), is_token: false };
    let registries = Registries {
        credentials: Credentials::default().with(&server.address, credential),
        ..Registries::default()
    };
    pull_with(&server, &store, &registries).expect("pulled");
    let seen = storage.seen.lock().expect("no panic").clone();
    assert_eq!(seen.len(), 1);
    assert!(!seen[0].headers.contains_key("authorization"), "{seen:?}");
    let asked = auth.seen.lock().expect("no panic").iter().filter(|s| s.path.starts_with("/token")).count();
    assert_eq!(asked, 2, "one token serves all requests");
}

#[test]
fn basic_authentication() {
    let sample = Sample::new("amd64");
    let server = serve(move |seen, _| {
        if seen.headers.get("authorization").map(String::as_str) == Some("Basic bWU6c2VjcmV0") {
            sample.good(seen)
        } else {
            answer(401, "{}").with("www-authenticate", "Basic realm=\"x\"")
        }
    });
    let (_dir, store) = store();
    let credential = Credential { user: "me".into(), secret: "secret".into(), is_token: false };
    let registries = Registries {
        credentials: Credentials::default().with(&server.address, credential),
        ..Registries::default()
    };
    pull_with(&server, &store, &registries).expect("pulled");
    let wrong = pull_with(&server, &self::store().1, &Registries::default()).expect_err("denied");
    assert!(wrong.contains("denies access"), "{wrong}");
}

#[test]
fn an_image_for_another_machine_is_refused_with_what_there_is() {
    let sample = Sample::new("s390x");
    let copy = sample.clone();
    let single = serve(move |seen, _| copy.good(seen));
    let (dir, store, result) = pull(&single);
    let text = result.expect_err("refused");
    assert!(text.contains("linux/s390x"), "{text}");
    nothing_is_left(&dir, &store);

    let index = serde_json::to_vec(&serde_json::json!({
        "schemaVersion": 2, "mediaType": media::OCI_INDEX, "manifests": [
            {"mediaType": media::OCI_MANIFEST, "digest": Digest::of(&sample.manifest), "size": sample.manifest.len(),
             "platform": {"os": "linux", "architecture": "s390x"}},
            {"mediaType": media::OCI_MANIFEST, "digest": Digest::of(b"attestation"), "size": 1,
             "platform": {"os": "unknown", "architecture": "unknown"}},
        ]}))
    .expect("encodes");
    let server = serve(move |seen, _| {
        if seen.path.ends_with("/manifests/1") { answer(200, index.clone()) } else { sample.good(seen) }
    });
    let (_dir, store, result) = pull(&server);
    let text = result.expect_err("refused");
    assert!(text.contains("only for linux/s390x") && !text.contains("unknown"), "{text}");
    let quiet = |_: Event| {};
    let name = format!("{}/app:1", server.address);
    let pulled = store.pull(&name, Some("linux/s390x"), &Registries::default(), &quiet).expect("pulled");
    assert_eq!(pulled.image.platform.to_string(), "linux/s390x");
    assert!(store.resolve(&name, Some("linux/amd64")).expect("resolves").is_none());
}

#[test]
fn a_missing_image_and_a_missing_registry_are_told_apart() {
    let server = serve(|_, _| answer(404, r#"{"errors":[{"code":"MANIFEST_UNKNOWN"}]}"#));
    let (_dir, _store, result) = pull(&server);
    assert!(result.expect_err("missing").contains("was not found in registry"));
    let closed = TcpListener::bind("127.0.0.1:0").expect("bound").local_addr().expect("bound").to_string();
    let nobody = Server { address: closed, seen: Arc::default() };
    let (_dir, _store, result) = pull(&nobody);
    let text = result.expect_err("nobody");
    assert!(text.contains("cannot reach registry"), "{text}");
}
