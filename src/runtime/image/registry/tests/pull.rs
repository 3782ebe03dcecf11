//! Pulls.

use super::*;

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
