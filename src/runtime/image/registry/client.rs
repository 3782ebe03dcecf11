//! One repository of one registry.

use std::collections::HashMap;
use std::io::{self, Read};
use std::sync::Mutex;
use std::time::Duration;

use base64::Engine as _;
use jiff::Timestamp;
use serde::Deserialize;
use ureq::http::{Request, Response, header};
use ureq::unversioned::transport::DefaultConnector;
use ureq::{Agent, Body, SendBody};

use super::lookup::Lookup;
use super::{Credential, Registries, RegistryError, trust};
use crate::runtime::image::config::media;
use crate::runtime::image::reference::{DOCKER_HUB, Digest, Reference};

type Result<T> = std::result::Result<T, RegistryError>;

/// Tries of one request or of one cut download without any progress.
const ATTEMPTS: u32 = 5;
/// Longest wait that a registry may ask for.
const LONGEST_WAIT: Duration = Duration::from_mins(1);
/// Largest manifest, as registries have it.
const MAX_MANIFEST: u64 = 4 << 20;

/// Speaks with the registry of one reference.
pub(crate) struct Client {
    agent: Agent,
    /// Scheme and authority that work, once known: `https://registry-1.docker.io`.
    base: Mutex<Option<String>>,
    candidates: Vec<String>,
    image: Reference,
    credential: Option<Credential>,
    /// `Authorization` values by scope.
    tokens: Mutex<HashMap<String, String>>,
}

/// What a token server gives.
#[derive(Deserialize)]
struct Answer {
    token: Option<String>,
    access_token: Option<String>,
}

/// A challenge of a 401.
struct Challenge {
    bearer: bool,
    realm: String,
    service: String,
    scope: String,
}

impl Client {
    pub(crate) fn new(image: &Reference, registries: &Registries) -> Result<Self> {
        let registry = image.registry();
        let local = is_loopback(registry);
        let insecure = local || registries.insecure.iter().any(|host| host == registry);
        let host = if registry == DOCKER_HUB { "registry-1.docker.io" } else { registry };
        let mut candidates = Vec::new();
        if registry == DOCKER_HUB {
            candidates.extend(registries.mirrors.iter().map(|url| url.trim_end_matches('/').to_owned()));
        }
        // A loopback registry is plain unless it has been given certificates.
        match (insecure, trust::directory(registry).is_some()) {
            (false, _) => candidates.push(format!("https://{host}")),
            (true, true) => candidates.extend([format!("https://{host}"), format!("http://{host}")]),
            (true, false) => candidates.extend([format!("http://{host}"), format!("https://{host}")]),
        }
        let verify = !insecure || trust::directory(registry).is_some();
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("hoist/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(Duration::from_secs(20)))
            .timeout_recv_response(Some(Duration::from_mins(1)))
            .timeout_per_read(Some(Duration::from_mins(1)))
            .input_buffer_size(256 << 10);
        if candidates.iter().any(|url| url.starts_with("https")) {
            config = config.tls_config(trust::tls(registry, verify)?);
        }
        if local {
            config = config.proxy(None);
        }
        Ok(Self {
            agent: Agent::with_parts(config.build(), DefaultConnector::new(), Lookup),
            base: Mutex::new(None),
            candidates,
            image: image.clone(),
            credential: registries.credentials.get(registry)?,
            tokens: Mutex::default(),
        })
    }

    /// Digest of what a tag points to, without its content; `None` if the registry does not say.
    pub(crate) fn head(&self, tag: &str) -> Result<Option<Digest>> {
        let answer = self.manifest_request("HEAD", tag)?;
        Ok(answer
            .headers()
            .get("docker-content-digest")
            .and_then(|value| value.to_str().ok())
            .and_then(|text| text.parse().ok()))
    }

    /// A manifest or an index by tag or digest: its bytes and their digest, verified.
    pub(crate) fn manifest(&self, tag_or_digest: &str) -> Result<(Vec<u8>, Digest)> {
        let mut answer = self.manifest_request("GET", tag_or_digest)?;
        let stated: Option<Digest> = answer
            .headers()
            .get("docker-content-digest")
            .and_then(|value| value.to_str().ok())
            .and_then(|text| text.parse().ok());
        let bytes = answer
            .body_mut()
            .with_config()
            .limit(MAX_MANIFEST)
            .read_to_vec()
            .map_err(|error| self.answer(format!("manifest `{tag_or_digest}`: {error}")))?;
        let digest = Digest::of(&bytes);
        let wanted = tag_or_digest.parse().ok().or(stated);
        if wanted.is_some_and(|wanted: Digest| wanted != digest) {
            return Err(self.answer(format!("manifest `{tag_or_digest}` does not have its digest")));
        }
        Ok((bytes, digest))
    }

    fn manifest_request(&self, method: &str, tag_or_digest: &str) -> Result<Response<Body>> {
        let accept = [
            media::OCI_INDEX,
            media::OCI_MANIFEST,
            media::DOCKER_LIST,
            media::DOCKER_MANIFEST,
            "application/vnd.docker.distribution.manifest.v1+prettyjws;q=0.1",
        ]
        .join(", ");
        let path = format!("/v2/{}/manifests/{tag_or_digest}", self.image.repository());
        self.send(method, &path, &[("accept", &accept)])
    }

    /// A small blob, verified.
    pub(crate) fn document(&self, digest: &Digest, size: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut reader = Blob::new(self, digest.clone(), size);
        reader
            .read_to_end(&mut bytes)
            .map_err(|error| self.answer(format!("blob {}: {error}", digest.short())))?;
        if Digest::of(&bytes) != *digest {
            return Err(self.answer(format!("blob {} does not have its digest", digest.short())));
        }
        Ok(bytes)
    }

    /// One request with everything: base, authentication, redirects, retries. Gives successes only.
    fn send(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Result<Response<Body>> {
        let mut wait = Duration::from_millis(300);
        let mut attempt = 1;
        loop {
            let outcome = self.send_once(method, path, headers);
            let (pause, error) = match outcome {
                Ok(answer) if answer.status().is_success() => return Ok(answer),
                Ok(answer) => {
                    let status = answer.status().as_u16();
                    let asked = retry_after(&answer);
                    let error = self.status_error(method, path, answer);
                    if status != 429 && !matches!(status, 500 | 502 | 503 | 504 | 408) {
                        return Err(error);
                    }
                    (asked, error)
                }
                Err(error @ RegistryError::Connect { .. }) => {
                    let known = self.base.lock().is_ok_and(|base| base.is_some());
                    // A registry that has never answered is not there: no use in waiting for it.
                    if !known {
                        return Err(error);
                    }
                    (None, error)
                }
                Err(error) => return Err(error),
            };
            if attempt == ATTEMPTS {
                return Err(error);
            }
            pause_for(pause.unwrap_or(wait));
            wait *= 3;
            attempt += 1;
        }
    }

    /// Finds the base that works, answers a challenge, follows redirects.
    fn send_once(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Result<Response<Body>> {
        let known = self.base.lock().ok().and_then(|base| base.clone());
        let bases = match &known {
            Some(base) => std::slice::from_ref(base),
            None => &self.candidates[..],
        };
        let mut last = None;
        for (index, base) in bases.iter().enumerate() {
            match self.authenticated(method, base, path, headers) {
                Ok(answer) => {
                    let status = answer.status().as_u16();
                    // A TLS port answers 400 to plain HTTP; a mirror may just not have the image.
                    if index + 1 < bases.len() && (status == 400 || status == 404 || status >= 500) {
                        last = Some(Ok(answer));
                        continue;
                    }
                    if let Ok(mut slot) = self.base.lock() {
                        *slot = Some(base.clone());
                    }
                    return Ok(answer);
                }
                Err(error @ RegistryError::Connect { .. }) => {
                    // The first reason is the telling one, unless something answered.
                    last.get_or_insert(Err(error));
                }
                Err(error) => return Err(error),
            }
        }
        last.unwrap_or_else(|| Err(self.answer("no address to ask".to_owned())))
    }

    fn authenticated(
        &self,
        method: &str,
        base: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<Response<Body>> {
        let scope = format!("repository:{}:pull", self.image.repository());
        let url = format!("{base}{path}");
        let token = self.tokens.lock().ok().and_then(|tokens| tokens.get(&scope).cloned());
        let answer = self.follow(method, &url, headers, token.as_deref())?;
        if answer.status() != 401 {
            return Ok(answer);
        }
        let challenge = answer
            .headers()
            .get_all(header::WWW_AUTHENTICATE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .find_map(Challenge::parse);
        let Some(challenge) = challenge else { return Ok(answer) };
        let Some(token) = self.authorize(&challenge, base, &scope)? else { return Ok(answer) };
        if let Ok(mut tokens) = self.tokens.lock() {
            tokens.insert(scope, token.clone());
        }
        self.follow(method, &url, headers, Some(&token))
    }

    /// The `Authorization` value that answers a challenge; `None` without a credential for basic.
    fn authorize(&self, challenge: &Challenge, base: &str, scope: &str) -> Result<Option<String>> {
        let basic = |credential: &Credential| {
            let plain = format!("{}:{}", credential.user, credential.secret);
            format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(plain))
        };
        if !challenge.bearer {
            // A password must not be sent in the clear over a network.
            let safe = base.starts_with("https://") || is_loopback(host_of(base));
            return Ok(self.credential.as_ref().filter(|_| safe).map(basic));
        }
        let scope = if challenge.scope.is_empty() { scope } else { &challenge.scope };
        let failed = |source: ureq::Error| RegistryError::Connect {
            host: host_of(&challenge.realm).to_owned(),
            source: Box::new(source),
        };
        let mut answer = match &self.credential {
            Some(credential) if credential.is_token => {
                let form = [
                    ("grant_type", "refresh_token"),
                    ("service", &challenge.service),
                    ("client_id", "hoist"),
                    ("scope", scope),
                    ("refresh_token", &credential.secret),
                ];
                self.agent.post(&challenge.realm).send_form(form).map_err(failed)?
            }
            credential => {
                let mut request = self.agent.get(&challenge.realm).query("scope", scope);
                if !challenge.service.is_empty() {
                    request = request.query("service", &challenge.service);
                }
                if let Some(credential) = credential {
                    request = request.header("authorization", basic(credential));
                }
                request.call().map_err(failed)?
            }
        };
        if !answer.status().is_success() {
            let status = answer.status().as_u16();
            let reason = reason_of(&mut answer);
            if matches!(status, 401 | 403) {
                return Err(self.denied(if reason.is_empty() {
                    "wrong user name or password"
                } else {
                    &reason
                }));
            }
            return Err(RegistryError::Status {
                host: host_of(&challenge.realm).to_owned(),
                status,
                what: "the request for a token".to_owned(),
                reason,
            });
        }
        let bytes = answer
            .body_mut()
            .with_config()
            .limit(1 << 20)
            .read_to_vec()
            .map_err(|error| self.answer(format!("token: {error}")))?;
        let answer: Answer =
            serde_json::from_slice(&bytes).map_err(|error| self.answer(format!("token: {error}")))?;
        let token = answer.token.or(answer.access_token).unwrap_or_default();
        if token.is_empty() {
            return Err(self.answer("token: there is none in it".to_owned()));
        }
        Ok(Some(format!("Bearer {token}")))
    }

    /// Sends and follows redirects; only the first host is told who we are.
    fn follow(
        &self,
        method: &str,
        url: &str,
        headers: &[(&str, &str)],
        authorization: Option<&str>,
    ) -> Result<Response<Body>> {
        let mut url = url.to_owned();
        let first = host_of(&url).to_owned();
        for _ in 0..10 {
            let mut request = Request::builder().method(method).uri(&url);
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            if let Some(value) = authorization
                && host_of(&url) == first
            {
                request = request.header(header::AUTHORIZATION, value);
            }
            let request = request
                .body(SendBody::none())
                .map_err(|error| self.answer(format!("address `{url}`: {error}")))?;
            let answer = self.agent.run(request).map_err(|source| RegistryError::Connect {
                host: host_of(&url).to_owned(),
                source: Box::new(source),
            })?;
            let status = answer.status().as_u16();
            if !matches!(status, 301 | 302 | 303 | 307 | 308) {
                return Ok(answer);
            }
            let to = answer
                .headers()
                .get(header::LOCATION)
                .and_then(|value| value.to_str().ok())
                .ok_or_else(|| self.answer(format!("status {status} without a location")))?;
            let next = resolve(&url, to);
            if url.starts_with("https://") && !next.starts_with("https://") {
                return Err(self.answer(format!("a redirect from HTTPS to `{next}`")));
            }
            url = next;
        }
        Err(self.answer("more than 10 redirects".to_owned()))
    }

    fn status_error(&self, method: &str, path: &str, mut answer: Response<Body>) -> RegistryError {
        let status = answer.status().as_u16();
        let reason = reason_of(&mut answer);
        match status {
            404 => RegistryError::NotFound {
                image: self.image.familiar(),
                registry: self.image.registry().to_owned(),
            },
            401 | 403 => self.denied(if reason.is_empty() { "not logged in" } else { &reason }),
            _ => RegistryError::Status {
                host: self.image.registry().to_owned(),
                status,
                what: format!("{method} {path}"),
                reason,
            },
        }
    }

    fn denied(&self, reason: &str) -> RegistryError {
        RegistryError::Denied {
            image: self.image.familiar(),
            registry: self.image.registry().to_owned(),
            reason: reason.to_owned(),
        }
    }

    fn answer(&self, what: String) -> RegistryError {
        RegistryError::Answer { host: self.image.registry().to_owned(), what }
    }
}

impl Challenge {
    /// `Bearer realm="…",service="…",scope="…"` or `Basic realm="…"`.
    fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once(' ').unwrap_or((text, ""));
        let bearer = scheme.eq_ignore_ascii_case("bearer");
        if !bearer && !scheme.eq_ignore_ascii_case("basic") {
            return None;
        }
        let mut fields = HashMap::new();
        let mut rest = rest.trim_start();
        while let Some((key, after)) = rest.split_once('=') {
            let (value, tail) = match after.strip_prefix('"') {
                Some(quoted) => quoted.split_once('"')?,
                None => after.split_once(',').map_or((after, ""), |(value, tail)| (value, tail)),
            };
            fields.insert(key.trim().to_ascii_lowercase(), value.to_owned());
            rest = tail.trim_start().trim_start_matches(',').trim_start();
        }
        let mut take = |key: &str| fields.remove(key).unwrap_or_default();
        let challenge = Self { bearer, realm: take("realm"), service: take("service"), scope: take("scope") };
        (!bearer || !challenge.realm.is_empty()).then_some(challenge)
    }
}

/// What the registry says in its error body, in one line.
fn reason_of(answer: &mut Response<Body>) -> String {
    #[derive(Deserialize, Default)]
    struct Errors {
        #[serde(default)]
        errors: Vec<OneError>,
        #[serde(default)]
        details: String,
    }
    #[derive(Deserialize)]
    struct OneError {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let bytes = answer.body_mut().with_config().limit(64 << 10).read_to_vec().unwrap_or_default();
    let Ok(parsed) = serde_json::from_slice::<Errors>(&bytes) else { return String::new() };
    let texts: Vec<String> = parsed
        .errors
        .into_iter()
        .map(|error| if error.message.is_empty() { error.code } else { error.message })
        .chain((!parsed.details.is_empty()).then_some(parsed.details))
        .collect();
    texts.join("; ").chars().filter(|c| !c.is_control()).take(300).collect()
}

/// `Retry-After` in seconds or as a date.
fn retry_after(answer: &Response<Body>) -> Option<Duration> {
    let text = answer.headers().get(header::RETRY_AFTER)?.to_str().ok()?;
    let wait = if let Ok(seconds) = text.trim().parse::<u64>() {
        Duration::from_secs(seconds)
    } else {
        let at = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
        Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or_default()
    };
    Some(wait.min(LONGEST_WAIT))
}

/// Waits; nothing can happen meanwhile that would end it earlier.
fn pause_for(duration: Duration) {
    let (_sender, receiver) = std::sync::mpsc::channel::<()>();
    let _timed_out = receiver.recv_timeout(duration);
}

fn host_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split(['/', '?']).next().unwrap_or(rest)
}

/// Whether a registry host is this machine.
fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// A location header relative to the address it came from.
fn resolve(from: &str, to: &str) -> String {
    if to.contains("://") {
        return to.to_owned();
    }
    let scheme_end = from.find("://").map_or(0, |at| at + 3);
    let authority_end = from[scheme_end..].find('/').map_or(from.len(), |at| scheme_end + at);
    if let Some(rest) = to.strip_prefix("//") {
        return format!("{}//{rest}", &from[..scheme_end - 2]);
    }
    if to.starts_with('/') {
        return format!("{}{to}", &from[..authority_end]);
    }
    let directory = from.rfind('/').filter(|at| *at >= authority_end).unwrap_or(authority_end);
    format!("{}/{to}", &from[..directory])
}

/// A blob as a stream that survives cut connections: it goes on where it stopped.
pub(crate) struct Blob<'a> {
    client: &'a Client,
    digest: Digest,
    size: u64,
    at: u64,
    failures: u32,
    body: Option<Box<dyn Read + Send>>,
}

impl<'a> Blob<'a> {
    pub(crate) fn new(client: &'a Client, digest: Digest, size: u64) -> Self {
        Self { client, digest, size, at: 0, failures: 0, body: None }
    }

    fn connect(&mut self) -> io::Result<()> {
        let path = format!("/v2/{}/blobs/{}", self.client.image.repository(), self.digest);
        let range = format!("bytes={}-", self.at);
        let headers: &[(&str, &str)] = if self.at > 0 { &[("range", &range)] } else { &[] };
        let answer = self.client.send("GET", &path, headers).map_err(|error| {
            // The whole chain, as this travels through `io::Error`.
            io::Error::other(error)
        })?;
        let partial = answer.status().as_u16() == 206;
        let mut reader: Box<dyn Read + Send> =
            Box::new(answer.into_body().into_with_config().limit(u64::MAX).reader());
        if self.at > 0 && !partial {
            // It does not know ranges: skip what we have.
            let skipped = io::copy(&mut (&mut reader).take(self.at), &mut io::sink())?;
            if skipped != self.at {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        self.body = Some(reader);
        Ok(())
    }

    /// After a failure without progress in between: again, or enough.
    fn again(&mut self, error: io::Error) -> io::Result<()> {
        self.body = None;
        self.failures += 1;
        if self.failures >= ATTEMPTS {
            return Err(error);
        }
        pause_for(Duration::from_millis(200) * 3_u32.pow(self.failures - 1));
        Ok(())
    }
}

impl Read for Blob<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if self.at >= self.size {
                return Ok(0);
            }
            let Some(body) = &mut self.body else {
                // `send` has tried as often as makes sense.
                self.connect()?;
                continue;
            };
            let room = buffer.len().min(usize::try_from(self.size - self.at).unwrap_or(usize::MAX));
            match body.read(&mut buffer[..room]) {
                Ok(0) => self.again(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    format!("the registry sent {} of {} bytes", self.at, self.size),
                ))?,
                Ok(count) => {
                    self.at += count as u64;
                    self.failures = 0;
                    return Ok(count);
                }
                Err(error) => self.again(error)?,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_parse() {
        let text = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#;
        let challenge = Challenge::parse(text).expect("parses");
        assert!(challenge.bearer);
        assert_eq!(challenge.realm, "https://auth.docker.io/token");
        assert_eq!(challenge.scope, "repository:a/b:pull,push");
        assert!(!Challenge::parse("Basic realm=\"x\"").expect("parses").bearer);
        assert!(Challenge::parse("Negotiate").is_none());
        assert!(Challenge::parse("Bearer").is_none());
    }

    #[test]
    fn locations_resolve() {
        assert_eq!(resolve("https://a/b/c", "https://x/y"), "https://x/y");
        assert_eq!(resolve("https://a/b/c", "/y?z"), "https://a/y?z");
        assert_eq!(resolve("https://a/b/c", "//x/y"), "https://x/y");
        assert_eq!(resolve("https://a/b/c", "d"), "https://a/b/d");
        assert_eq!(resolve("https://a", "d"), "https://a/d");
    }

    #[test]
    fn only_this_machine_is_loopback() {
        for host in ["localhost", "localhost:5000", "127.0.0.1:5000", "127.3.2.1", "[::1]:5000"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["localhost.example.com", "10.0.0.1:5000", "[::2]:5000", "example.com"] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
