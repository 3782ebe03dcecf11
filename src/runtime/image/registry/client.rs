//! Requests to one registry, and to one repository in it.

use std::io::Read as _;
use std::sync::Mutex;
use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use ureq::http::{Request, Response, header};
use ureq::unversioned::transport::DefaultConnector;
use ureq::{Agent, AsSendBody, Body, SendBody};

use super::auth::{Challenge, Tokens};
use super::blob::Blob;
use super::lookup::Lookup;
use super::proxy::Proxies;
use super::url::{host_of, is_loopback, resolve};
use super::{Credential, Registries, RegistryError, trust};
use crate::runtime::image::config::media;
use crate::runtime::image::reference::{DOCKER_HUB, Digest, Reference};

pub(super) type Result<T> = std::result::Result<T, RegistryError>;

/// Tries of one request or of one cut transfer without any progress.
pub(super) const ATTEMPTS: u32 = 5;
/// The wait after the first failed try; each further one is three times as long.
pub(super) const FIRST_WAIT: Duration = Duration::from_millis(300);
/// Longest wait that a registry may ask for.
const LONGEST_WAIT: Duration = Duration::from_mins(1);
/// Largest manifest, as registries have it.
const MAX_MANIFEST: u64 = 4 << 20;

/// What a client is going to do, which decides the rights it asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Access {
    /// Read; mirrors may be asked.
    Pull,
    /// Write, and take blobs from these other repositories of the same registry.
    Push {
        /// Repository paths.
        from: Vec<String>,
    },
}

/// Speaks with one registry.
pub(super) struct Endpoint {
    pub(super) agent: Agent,
    pub(super) proxies: Proxies,
    /// Scheme and authority that work, once known: `https://registry-1.docker.io`.
    base: Mutex<Option<String>>,
    candidates: Vec<Base>,
    /// Host and port, as in references.
    pub(super) registry: String,
    /// What errors are about: an image in familiar form, or the registry.
    subject: String,
    pub(super) credential: Option<Credential>,
    tokens: Tokens,
    /// What tokens are asked for.
    scopes: Vec<String>,
}

/// An address that a registry may be at.
struct Base {
    url: String,
    /// May lack what its original has.
    mirror: bool,
}

/// One request; `target` is a path below the base, or a whole URL that the registry has named.
pub(super) struct Ask<'a> {
    pub(super) method: &'a str,
    pub(super) target: &'a str,
    pub(super) headers: &'a [(&'a str, &'a str)],
    pub(super) body: Option<&'a [u8]>,
}

impl<'a> Ask<'a> {
    pub(super) fn new(method: &'a str, target: &'a str) -> Self {
        Self { method, target, headers: &[], body: None }
    }
}

impl Endpoint {
    pub(super) fn new(
        registry: &str,
        subject: String,
        scopes: Vec<String>,
        mirrors: bool,
        registries: &Registries,
    ) -> Result<Self> {
        let trusted = trust::directory(registry).is_some();
        let insecure = is_loopback(registry) || registries.is_insecure(registry);
        let host = if registry == DOCKER_HUB { "registry-1.docker.io" } else { registry };
        let mut candidates = Vec::new();
        if mirrors {
            let urls = registries.mirrors_of(registry);
            candidates
                .extend(urls.map(|url| Base { url: url.trim_end_matches('/').to_owned(), mirror: true }));
        }
        let mut add = |scheme| candidates.push(Base { url: format!("{scheme}://{host}"), mirror: false });
        // A loopback registry is plain unless it has been given certificates.
        match (insecure, trusted) {
            (false, _) => add("https"),
            (true, true) => ["https", "http"].into_iter().for_each(add),
            (true, false) => ["http", "https"].into_iter().for_each(add),
        }
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("hoist/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(Duration::from_secs(20)))
            .timeout_recv_response(Some(Duration::from_mins(1)))
            .timeout_per_read(Some(Duration::from_mins(1)))
            .input_buffer_size(256 << 10)
            .output_buffer_size(256 << 10)
            .proxy(None);
        if candidates.iter().any(|base| base.url.starts_with("https")) {
            config = config.tls_config(trust::tls(registry, !insecure || trusted)?);
        }
        Ok(Self {
            agent: Agent::with_parts(config.build(), DefaultConnector::new(), Lookup),
            proxies: Proxies::from_environment(),
            base: Mutex::new(None),
            candidates,
            registry: registry.to_owned(),
            subject,
            credential: registries.credentials.get(registry)?,
            tokens: Tokens::default(),
            scopes,
        })
    }

    /// One request with everything: base, authentication, redirects, retries. Gives successes only.
    pub(super) fn send(&self, ask: &Ask<'_>) -> Result<Response<Body>> {
        let mut wait = FIRST_WAIT;
        let mut attempt = 1;
        loop {
            let (pause, error) = match self.send_once(ask) {
                Ok(answer) if answer.status().is_success() => return Ok(answer),
                Ok(answer) => {
                    let status = answer.status().as_u16();
                    let asked = retry_after(&answer);
                    let error = self.status_error(ask, answer);
                    if !is_passing(status) {
                        return Err(error);
                    }
                    (asked, error)
                }
                Err(error @ RegistryError::Connect { .. }) => {
                    // A registry that has never answered is not there: no use in waiting for it.
                    if self.known_base().is_none() {
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

    fn known_base(&self) -> Option<String> {
        self.base.lock().ok().and_then(|base| base.clone())
    }

    /// Finds the base that works, answers a challenge, follows redirects.
    fn send_once(&self, ask: &Ask<'_>) -> Result<Response<Body>> {
        if let Some(base) = self.known_base() {
            return self.authenticated(ask, &base);
        }
        let mut last = None;
        for (index, base) in self.candidates.iter().enumerate() {
            match self.authenticated(ask, &base.url) {
                Ok(answer) => {
                    let status = answer.status().as_u16();
                    // A TLS port answers 400 to plain HTTP; a mirror may just not have the image.
                    let useless = if base.mirror { !answer.status().is_success() } else { status == 400 };
                    if useless && index + 1 < self.candidates.len() {
                        last = Some(Ok(answer));
                        continue;
                    }
                    if let Ok(mut slot) = self.base.lock() {
                        *slot = Some(base.url.clone());
                    }
                    return Ok(answer);
                }
                // The first reason is the telling one, unless something answered.
                Err(error @ RegistryError::Connect { .. }) => drop(last.get_or_insert(Err(error))),
                // Neither is a mirror's broken token server a reason to give up.
                Err(error) if base.mirror => drop(last.get_or_insert(Err(error))),
                Err(error) => return Err(error),
            }
        }
        last.unwrap_or_else(|| Err(self.answer("no address to ask".to_owned())))
    }

    /// One request without saying who we are, to the first base that answers; and which that was.
    pub(super) fn unauthenticated(&self, ask: &Ask<'_>) -> Result<(Response<Body>, String)> {
        let mut failure = None;
        for base in &self.candidates {
            match self.follow(ask, &format!("{}{}", base.url, ask.target), None) {
                Ok(answer) if answer.status() != 400 => return Ok((answer, base.url.clone())),
                Ok(answer) => failure = Some(self.status_error(ask, answer)),
                Err(error) => drop(failure.get_or_insert(error)),
            }
        }
        Err(failure.unwrap_or_else(|| self.answer("no address to ask".to_owned())))
    }

    /// The same with this `Authorization`.
    pub(super) fn with_authorization(
        &self,
        ask: &Ask<'_>,
        base: &str,
        value: &str,
    ) -> Result<Response<Body>> {
        self.follow(ask, &format!("{base}{}", ask.target), Some(value))
    }

    fn authenticated(&self, ask: &Ask<'_>, base: &str) -> Result<Response<Body>> {
        let url =
            if ask.target.starts_with('/') { format!("{base}{}", ask.target) } else { ask.target.to_owned() };
        // An upload may go on at another host, which is not to know who we are.
        let ours = host_of(&url) == host_of(base);
        let token = self.tokens.get(&self.scopes).filter(|_| ours);
        let answer = self.follow(ask, &url, token.as_deref())?;
        if answer.status() != 401 || !ours {
            return Ok(answer);
        }
        let Some(challenge) = Challenge::of(&answer) else { return Ok(answer) };
        let Some(found) = self.authorize(&challenge, base, &self.scopes, false)? else { return Ok(answer) };
        self.tokens.put(&self.scopes, &found.value);
        self.follow(ask, &url, Some(&found.value))
    }

    /// Sends and follows redirects; only the first host is told who we are.
    fn follow(&self, ask: &Ask<'_>, url: &str, authorization: Option<&str>) -> Result<Response<Body>> {
        let mut url = url.to_owned();
        let first = host_of(&url).to_owned();
        for _ in 0..10 {
            let authorization = authorization.filter(|_| host_of(&url) == first);
            let request = request(ask.method, &url, ask.headers, authorization);
            let bad = |error: ureq::http::Error| self.answer(format!("address `{url}`: {error}"));
            let answer = match ask.body {
                Some(body) => self.run(request.body(body).map_err(bad)?, &url)?,
                None => self.run(request.body(()).map_err(bad)?, &url)?,
            };
            let status = answer.status().as_u16();
            if !matches!(status, 301 | 302 | 303 | 307 | 308) {
                return Ok(answer);
            }
            let next = location(&answer, &url)
                .ok_or_else(|| self.answer(format!("status {status} without a location")))?;
            if url.starts_with("https://") && !next.starts_with("https://") {
                return Err(self.answer(format!("a redirect from HTTPS to `{next}`")));
            }
            url = next;
        }
        Err(self.answer("more than 10 redirects".to_owned()))
    }

    /// Sends a body of unknown length once, with what is known of authentication. Follows nothing.
    pub(super) fn stream(
        &self,
        method: &str,
        url: &str,
        headers: &[(&str, &str)],
        body: &mut dyn std::io::Read,
    ) -> Result<Response<Body>> {
        let ours = self.known_base().is_some_and(|base| host_of(&base) == host_of(url));
        let token = self.tokens.get(&self.scopes).filter(|_| ours);
        let request = request(method, url, headers, token.as_deref())
            .body(SendBody::from_reader(body))
            .map_err(|error| self.answer(format!("address `{url}`: {error}")))?;
        self.run(request, url)
    }

    /// Runs one request, through the proxy of its address.
    pub(super) fn run<B: AsSendBody>(&self, request: Request<B>, url: &str) -> Result<Response<Body>> {
        let request = self.agent.configure_request(request).proxy(self.proxies.of(url)).build();
        self.agent.run(request).map_err(|source| RegistryError::Connect {
            host: host_of(url).to_owned(),
            source: Box::new(source),
        })
    }

    /// Where an upload goes on, as a whole URL.
    pub(super) fn upload_location(&self, answer: &Response<Body>, target: &str) -> Result<String> {
        let base = self.known_base().unwrap_or_default();
        let from = if target.starts_with('/') { format!("{base}{target}") } else { target.to_owned() };
        let next =
            location(answer, &from).ok_or_else(|| self.answer("an upload without a location".to_owned()))?;
        if from.starts_with("https://") && !next.starts_with("https://") {
            // Registries behind a proxy that ends TLS often name themselves so.
            let host = host_of(&next);
            if host == host_of(&from) {
                return Ok(next.replacen("http://", "https://", 1));
            }
            return Err(self.answer(format!("it wants the upload to go on at `{next}`, unencrypted")));
        }
        Ok(next)
    }

    pub(super) fn status_error(&self, ask: &Ask<'_>, mut answer: Response<Body>) -> RegistryError {
        let status = answer.status().as_u16();
        let reason = reason_of(&mut answer);
        match status {
            404 => RegistryError::NotFound { image: self.subject.clone(), registry: self.registry.clone() },
            401 | 403 => self.denied(if reason.is_empty() { "not logged in" } else { &reason }),
            _ => RegistryError::Status {
                host: self.registry.clone(),
                status,
                // Without the query: uploads carry their state there.
                what: format!("{} {}", ask.method, ask.target.split('?').next().unwrap_or_default()),
                reason,
            },
        }
    }

    pub(super) fn denied(&self, reason: &str) -> RegistryError {
        RegistryError::Denied {
            image: self.subject.clone(),
            registry: self.registry.clone(),
            reason: reason.to_owned(),
        }
    }

    pub(super) fn answer(&self, what: String) -> RegistryError {
        RegistryError::Answer { host: self.registry.clone(), what }
    }
}

/// Speaks with the registry about one repository.
pub(crate) struct Client {
    pub(super) endpoint: Endpoint,
    pub(super) image: Reference,
}

impl Client {
    pub(crate) fn new(image: &Reference, access: &Access, registries: &Registries) -> Result<Self> {
        let repository = image.repository();
        let scopes = match access {
            Access::Pull => vec![format!("repository:{repository}:pull")],
            Access::Push { from } => std::iter::once(format!("repository:{repository}:pull,push"))
                .chain(from.iter().map(|other| format!("repository:{other}:pull")))
                .collect(),
        };
        let mirrors = *access == Access::Pull;
        let endpoint = Endpoint::new(image.registry(), image.familiar(), scopes, mirrors, registries)?;
        Ok(Self { endpoint, image: image.clone() })
    }

    /// Digest of what a tag points to, without its content; `None` if the registry does not say.
    pub(crate) fn head(&self, tag: &str) -> Result<Option<Digest>> {
        Ok(stated(&self.manifest_request("HEAD", tag)?))
    }

    /// A manifest or an index by tag or digest: its bytes and their digest, verified.
    pub(crate) fn manifest(&self, tag_or_digest: &str) -> Result<(Vec<u8>, Digest)> {
        let mut answer = self.manifest_request("GET", tag_or_digest)?;
        let stated = stated(&answer);
        let bytes = answer
            .body_mut()
            .with_config()
            .limit(MAX_MANIFEST)
            .read_to_vec()
            .map_err(|error| self.endpoint.answer(format!("manifest `{tag_or_digest}`: {error}")))?;
        let digest = Digest::of(&bytes);
        let wanted = tag_or_digest.parse().ok().or(stated);
        if wanted.is_some_and(|wanted: Digest| wanted != digest) {
            return Err(self.endpoint.answer(format!("manifest `{tag_or_digest}` does not have its digest")));
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
        self.endpoint.send(&Ask { headers: &[("accept", &accept)], ..Ask::new(method, &path) })
    }

    /// The answer that carries a blob.
    pub(super) fn blob(&self, digest: &Digest, headers: &[(&str, &str)]) -> Result<Response<Body>> {
        let path = format!("/v2/{}/blobs/{digest}", self.image.repository());
        self.endpoint.send(&Ask { headers, ..Ask::new("GET", &path) })
    }

    /// A small blob, verified.
    pub(crate) fn document(&self, digest: &Digest, size: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut reader = Blob::new(self, digest.clone(), size);
        reader
            .read_to_end(&mut bytes)
            .map_err(|error| self.endpoint.answer(format!("blob {}: {error}", digest.short())))?;
        if Digest::of(&bytes) != *digest {
            return Err(self.endpoint.answer(format!("blob {} does not have its digest", digest.short())));
        }
        Ok(bytes)
    }
}

fn request(
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    authorization: Option<&str>,
) -> ureq::http::request::Builder {
    let mut request = Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    if let Some(value) = authorization {
        request = request.header(header::AUTHORIZATION, value);
    }
    request
}

/// Where an answer says to go on; `url` is where it came from.
fn location(answer: &Response<Body>, url: &str) -> Option<String> {
    let to = answer.headers().get(header::LOCATION)?.to_str().ok()?;
    Some(resolve(url, to))
}

/// The digest that a registry says its answer has.
pub(super) fn stated(answer: &Response<Body>) -> Option<Digest> {
    answer.headers().get("docker-content-digest")?.to_str().ok()?.parse().ok()
}

/// Whether the same request may succeed a little later.
pub(super) const fn is_passing(status: u16) -> bool {
    matches!(status, 408 | 429 | 500 | 502 | 503 | 504)
}

/// What the registry says in its error body, in one line.
pub(super) fn reason_of(answer: &mut Response<Body>) -> String {
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
pub(super) fn retry_after(answer: &Response<Body>) -> Option<Duration> {
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
pub(super) fn pause_for(duration: Duration) {
    let (_sender, receiver) = std::sync::mpsc::channel::<()>();
    let _timed_out = receiver.recv_timeout(duration);
}
