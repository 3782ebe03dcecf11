//! Pushes.

use std::collections::BTreeMap;

use super::*;
use crate::runtime::image::{ImageError, Import};

/// A registry in memory that takes pushes.
#[derive(Default)]
struct Shelf {
    blobs: Mutex<BTreeMap<String, Vec<u8>>>,
    manifests: Mutex<BTreeMap<String, Vec<u8>>>,
    uploads: Mutex<Vec<Vec<u8>>>,
}

impl Shelf {
    fn answer(&self, seen: &Seen) -> Answer {
        let (path, query) = seen.path.split_once('?').unwrap_or((&seen.path, ""));
        let last = path.rsplit('/').next().unwrap_or_default().to_owned();
        let parameter =
            |key: &str| query.split('&').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='));
        let upload = |number: usize, status, uploads: &[Vec<u8>]| {
            let end = uploads[number].len().saturating_sub(1);
            answer(status, "")
                .with("location", &format!("/v2/app/blobs/uploads/{number}"))
                .with("range", &format!("0-{end}"))
        };
        let mut uploads = self.uploads.lock().expect("no panic");
        match seen.method.as_str() {
            "POST" => {
                if let Some(digest) = parameter("mount")
                    && self.blobs.lock().expect("no panic").contains_key(digest)
                {
                    return answer(201, "");
                }
                uploads.push(Vec::new());
                upload(uploads.len() - 1, 202, &uploads)
            }
            "PATCH" => {
                let number: usize = last.parse().expect("one of ours");
                uploads[number].extend_from_slice(&seen.body);
                upload(number, 202, &uploads)
            }
            "GET" if path.contains("/uploads/") => upload(last.parse().expect("one of ours"), 204, &uploads),
            "PUT" if path.contains("/uploads/") => {
                let mut bytes = std::mem::take(&mut uploads[last.parse::<usize>().expect("one of ours")]);
                bytes.extend_from_slice(&seen.body);
                let digest = Digest::of(&bytes).to_string();
                if parameter("digest") != Some(&digest) {
                    return answer(400, r#"{"errors":[{"code":"DIGEST_INVALID"}]}"#);
                }
                self.blobs.lock().expect("no panic").insert(digest, bytes);
                answer(201, "")
            }
            "PUT" => {
                let digest = Digest::of(&seen.body).to_string();
                let mut manifests = self.manifests.lock().expect("no panic");
                manifests.insert(digest.clone(), seen.body.clone());
                manifests.insert(last, seen.body.clone());
                answer(201, "").with("docker-content-digest", &digest)
            }
            "DELETE" => answer(204, ""),
            _ => {
                let from = if path.contains("/manifests/") { &self.manifests } else { &self.blobs };
                match from.lock().expect("no panic").get(&last) {
                    Some(bytes) => answer(200, bytes.clone()),
                    None => answer(404, "{}"),
                }
            }
        }
    }

    fn manifest(&self, name: &str) -> Option<Vec<u8>> {
        self.manifests.lock().expect("no panic").get(name).cloned()
    }
}

/// A store with an image of one layer of some random bytes, `size` of them, under this name.
fn imported(name: &str, size: usize) -> (tempfile::TempDir, Store) {
    let (dir, store) = store();
    let mut builder = tar::Builder::new(Vec::new());
    let mut state = 1_u32;
    let data: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_le_bytes()
    })
    .take(size / 4)
    .flatten()
    .collect();
    let mut header = tar::Header::new_gnu();
    header.set_size(data.len() as u64);
    header.set_mode(0o644);
    builder.append_data(&mut header, "data", &data[..]).expect("appended");
    let tarball = builder.into_inner().expect("finished");
    let import = Import { reference: Some(name.to_owned()), ..Import::default() };
    store.import(&tarball[..], &import, &|_| {}).expect("imported");
    (dir, store)
}

fn push(store: &Store, name: &str, registries: &Registries) -> Result<Digest, String> {
    let pushed = store.push(name, None, registries, &|_| {});
    pushed.map(|pushed| pushed.digest).map_err(|error| format!("{:#}", anyhow::Error::new(error)))
}

#[test]
fn a_pushed_image_comes_back_the_same() {
    let shelf = Arc::new(Shelf::default());
    let copy = shelf.clone();
    let server = serve(move |seen, _| copy.answer(seen));
    let name = format!("{}/app:1", server.address);
    let (_dir, store) = imported(&name, 3 << 20);
    let digest = push(&store, &name, &Registries::default()).expect("pushed");
    let image = store.resolve(&name, None).expect("resolves").expect("there");
    assert_eq!(image.digests, [format!("{}/app@{digest}", server.address)]);
    let (_other_dir, other) = self::store();
    let pulled = other.pull(&name, None, &Registries::default(), &|_| {}).expect("pulled");
    assert_eq!(pulled.image.id, image.id);
    assert_eq!(pulled.image.config, image.config);
    assert_eq!(pulled.digest, digest);
    // The second time nothing is sent but the manifest, which is the same.
    let before = server.seen().len();
    assert_eq!(push(&store, &name, &Registries::default()).expect("pushed"), digest);
    let again: Vec<String> = server.seen()[before..].iter().map(|seen| seen.method.clone()).collect();
    assert_eq!(again, ["HEAD", "HEAD", "PUT"]);
}

#[test]
fn an_image_that_was_pulled_goes_back_byte_for_byte() {
    let sample = Sample::new("amd64");
    let copy = sample.clone();
    let server = serve(move |seen, _| copy.good(seen));
    let (_dir, store, result) = super::pull(&server);
    result.expect("pulled");
    // Another registry has the layer under the same digest already, as one has that it came from.
    let shelf = Arc::new(Shelf::default());
    shelf.blobs.lock().expect("no panic").insert(Digest::of(&sample.layer).to_string(), Vec::new());
    let copy = shelf.clone();
    let other = serve(move |seen, _| copy.answer(seen));
    let name = format!("{}/app:back", other.address);
    store.tag(&format!("{}/app:1", server.address), &name).expect("tagged");
    push(&store, &name, &Registries::default()).expect("pushed");
    assert_eq!(shelf.manifest("back").expect("there"), sample.manifest);
}

#[test]
fn a_layer_that_another_repository_has_is_taken_over() {
    let shelf = Arc::new(Shelf::default());
    let copy = shelf.clone();
    // Each repository sees only what it has: HEAD knows the first one's blobs there alone.
    let server = serve(move |seen, _| {
        if seen.method == "HEAD" && seen.path.contains("/v2/second/") {
            answer(404, "")
        } else {
            copy.answer(seen)
        }
    });
    let first = format!("{}/app:1", server.address);
    let (_dir, store) = imported(&first, 100_000);
    push(&store, &first, &Registries::default()).expect("pushed");
    // Only what has come from a registry has a blob there that is known.
    let (_dir, store) = self::store();
    store.pull(&first, None, &Registries::default(), &|_| {}).expect("pulled");
    let second = format!("{}/second:1", server.address);
    store.tag(&first, &second).expect("tagged");
    push(&store, &second, &Registries::default()).expect("pushed");
    let seen = server.seen();
    assert!(seen.iter().any(|seen| seen.path.contains("mount=sha256:") && seen.path.ends_with("from=app")));
    assert_eq!(seen.iter().filter(|seen| seen.method == "PATCH").count(), 1, "the first push alone sent it");
}

#[test]
fn a_cut_upload_goes_on_where_it_stopped() {
    let shelf = Arc::new(Shelf::default());
    let copy = shelf.clone();
    let server = serve_up_to(2 << 20, move |seen, _| copy.answer(seen));
    let name = format!("{}/app:1", server.address);
    let (_dir, store) = imported(&name, 5 << 20);
    push(&store, &name, &Registries::default()).expect("pushed");
    let parts: Vec<(usize, bool)> = server
        .seen()
        .iter()
        .filter(|seen| seen.method == "PATCH")
        .map(|seen| (seen.body.len(), seen.cut))
        .collect();
    assert_eq!(parts.len(), 3, "{parts:?}");
    assert_eq!(parts.iter().map(|(_, cut)| *cut).collect::<Vec<_>>(), [true, true, false]);
    // Nothing was sent twice: the parts together are the blob.
    let blobs = shelf.blobs.lock().expect("no panic");
    let largest = blobs.values().map(Vec::len).max().expect("blobs");
    assert_eq!(parts.iter().map(|(length, _)| length).sum::<usize>(), largest);
}

#[test]
fn a_busy_registry_is_waited_for_and_a_lost_upload_begins_anew() {
    let shelf = Arc::new(Shelf::default());
    let copy = shelf.clone();
    let refused = Mutex::new(0);
    let server = serve(move |seen, _| {
        let mut refused = refused.lock().expect("no panic");
        match (seen.method.as_str(), *refused) {
            ("POST", 0) => {
                *refused = 1;
                answer(429, "{}").with("retry-after", "0")
            }
            ("PATCH", 1) => {
                *refused = 2;
                answer(404, r#"{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN"}]}"#).with("retry-after", "0")
            }
            ("GET", 2) if seen.path.contains("/uploads/") => answer(404, "{}"),
            ("PUT", 2) if seen.path.contains("/manifests/") => {
                *refused = 3;
                answer(503, "{}").with("retry-after", "0")
            }
            _ => copy.answer(seen),
        }
    });
    let name = format!("{}/app:1", server.address);
    let (_dir, store) = imported(&name, 100_000);
    let digest = push(&store, &name, &Registries::default()).expect("pushed");
    assert!(shelf.manifest(&digest.to_string()).is_some());
}

#[test]
fn rights_to_push_are_asked_for_and_go_to_no_other_host() {
    let shelf = Arc::new(Shelf::default());
    let auth = serve(|_, _| answer(200, r#"{"token":"good"}"#));
    let realm = auth.address.clone();
    let uploads = serve({
        let shelf = shelf.clone();
        move |seen, _| shelf.answer(seen)
    });
    let elsewhere = uploads.address.clone();
    let copy = shelf.clone();
    let server = serve(move |seen, _| {
        if seen.headers.get("authorization").map(String::as_str) != Some("Bearer good") {
            let challenge =
                format!(r#"Bearer realm="http://{realm}/token",service="s",scope="repository:app:pull""#);
            return answer(401, "{}").with("www-authenticate", &challenge);
        }
        let mut answer = copy.answer(seen);
        for (name, value) in &mut answer.headers {
            if name == "location" {
                *value = format!("http://{elsewhere}{value}");
            }
        }
        answer
    });
    let name = format!("{}/app:1", server.address);
    let (_dir, store) = imported(&name, 100_000);
    let credential = Credential { user: "me".into(), secret: "secret".into(), is_token: false };
    let registries = Registries {
        credentials: Credentials::default().with(&server.address, credential),
        ..Registries::default()
    };
    push(&store, &name, &registries).expect("pushed");
    assert!(auth.seen()[0].path.contains("scope=repository:app:pull,push"), "{:?}", auth.seen());
    let there = uploads.seen();
    assert!(there.iter().any(|seen| seen.method == "PATCH") && there.iter().any(|seen| seen.method == "PUT"));
    assert!(there.iter().all(|seen| !seen.headers.contains_key("authorization")), "{there:?}");
}

#[test]
fn a_registry_that_only_knows_dockers_words_gets_them() {
    let shelf = Arc::new(Shelf::default());
    let copy = shelf.clone();
    let server = serve(move |seen, _| {
        if seen.headers.get("content-type").map(String::as_str) == Some(media::OCI_MANIFEST) {
            return answer(415, r#"{"errors":[{"code":"MANIFEST_INVALID"}]}"#);
        }
        copy.answer(seen)
    });
    let name = format!("{}/app:1", server.address);
    let (_dir, store) = imported(&name, 1000);
    push(&store, &name, &Registries::default()).expect("pushed");
    let manifest: serde_json::Value =
        serde_json::from_slice(&shelf.manifest("1").expect("there")).expect("JSON");
    assert_eq!(manifest["mediaType"], media::DOCKER_MANIFEST);
    assert_eq!(manifest["layers"][0]["mediaType"], media::DOCKER_LAYER_GZIP);
    assert_eq!(manifest["config"]["mediaType"], media::DOCKER_CONFIG);
}

#[test]
fn who_may_not_push_is_told_so() {
    for (status, wanted) in [(403, "denies access"), (401, "hoist login"), (400, "answered 400")] {
        let server = serve(move |seen, _| {
            let denied = r#"{"errors":[{"code":"DENIED","message":"no room for you"}]}"#;
            if seen.method == "HEAD" { answer(404, "") } else { answer(status, denied) }
        });
        let name = format!("{}/app:1", server.address);
        let (_dir, store) = imported(&name, 1000);
        let text = push(&store, &name, &Registries::default()).expect_err("refused");
        assert!(text.contains(wanted) && text.contains("no room for you"), "{text}");
    }
    let (_dir, store) = store();
    assert!(matches!(
        store.push("app:1", None, &Registries::default(), &|_| {}),
        Err(ImageError::NotFound(_))
    ));
    let digest = format!("app@sha256:{}", "0".repeat(64));
    let text = push(&store, &digest, &Registries::default()).expect_err("no tag");
    assert!(text.contains("only a tag can be pushed"), "{text}");
}

#[test]
fn a_layer_that_was_changed_on_disk_is_not_sent() {
    let shelf = Arc::new(Shelf::default());
    let copy = shelf.clone();
    let server = serve(move |seen, _| copy.answer(seen));
    let name = format!("{}/app:1", server.address);
    let (_dir, store) = imported(&name, 100_000);
    let image = store.resolve(&name, None).expect("resolves").expect("there");
    let file = image.layers[0].join("data");
    let mut bytes = std::fs::read(&file).expect("read");
    bytes[500] ^= 1;
    std::fs::write(&file, bytes).expect("written");
    let text = push(&store, &name, &Registries::default()).expect_err("refused");
    assert!(text.contains("has changed"), "{text}");
    assert!(shelf.blobs.lock().expect("no panic").is_empty() && shelf.manifest("1").is_none());
}

#[test]
fn a_login_is_tried_out_and_a_token_is_kept_instead_of_the_password() {
    let auth = serve(|seen, _| {
        if seen.headers.get("authorization").map(String::as_str) == Some("Basic bWU6c2VjcmV0") {
            assert!(seen.path.contains("offline_token=true") && seen.path.contains("account=me"));
            answer(200, r#"{"token":"good","refresh_token":"keep"}"#)
        } else {
            answer(401, r#"{"details":"incorrect username or password"}"#)
        }
    });
    let realm = auth.address.clone();
    let server = serve(move |seen, _| {
        if seen.headers.get("authorization").map(String::as_str) == Some("Bearer good") {
            return answer(200, "{}");
        }
        answer(401, "{}").with("www-authenticate", &format!(r#"Bearer realm="http://{realm}/t",service="s""#))
    });
    let login = |secret: &str| {
        let credential = Credential { user: "me".into(), secret: secret.into(), is_token: false };
        super::super::check_login(&server.address, &credential, &Registries::default())
            .map_err(|error| error.to_string())
    };
    let kept = login("secret").expect("known");
    assert_eq!((kept.user.as_str(), kept.secret.as_str(), kept.is_token), ("me", "keep", true));
    let refused = login("wrong").expect_err("refused");
    assert!(refused.contains("incorrect username or password"), "{refused}");
}
