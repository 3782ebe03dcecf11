//! Who we are to a registry: challenges, tokens, basic authentication.
//!
//! # Source
//! distribution's `docs/content/spec/auth/token.md` and `oauth.md`; RFC 9110, section 11.

use std::collections::HashMap;
use std::sync::Mutex;

use base64::Engine as _;
use serde::Deserialize;
use ureq::http::{Request, Response, header};
use ureq::{Body, SendBody};

use super::client::{Endpoint, Result, reason_of};
use super::url::{host_of, is_loopback};
use super::{Credential, RegistryError};

/// Largest answer of a token server.
const MAX_ANSWER: u64 = 1 << 20;

/// A challenge of a 401.
pub(super) struct Challenge {
    bearer: bool,
    realm: String,
    service: String,
    scope: String,
}

/// What a token server gives.
#[derive(Deserialize)]
struct Answer {
    token: Option<String>,
    access_token: Option<String>,
    refresh_token: Option<String>,
}

/// `Authorization` values by the scopes they were asked for.
#[derive(Default)]
pub(super) struct Tokens(Mutex<HashMap<String, String>>);

impl Tokens {
    pub(super) fn get(&self, scopes: &[String]) -> Option<String> {
        self.0.lock().ok()?.get(&scopes.join(" ")).cloned()
    }

    pub(super) fn put(&self, scopes: &[String], value: &str) {
        if let Ok(mut tokens) = self.0.lock() {
            tokens.insert(scopes.join(" "), value.to_owned());
        }
    }
}

/// What answers a challenge.
pub(super) struct Authorization {
    /// Value of the header.
    pub(super) value: String,
    /// A token that buys tokens, if one was asked for and given.
    pub(super) identity: Option<String>,
}

impl Challenge {
    /// The first challenge of an answer that we can meet.
    pub(super) fn of(answer: &Response<Body>) -> Option<Self> {
        let values = answer.headers().get_all(header::WWW_AUTHENTICATE);
        values.iter().filter_map(|value| value.to_str().ok()).find_map(Self::parse)
    }

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

    /// The scopes to ask for: those we know we need, and what the registry names beside them.
    fn scopes<'a>(&'a self, own: &'a [String]) -> Vec<&'a str> {
        let named = self.scope.split(' ').filter(|scope| !scope.is_empty());
        // For reading, the registry knows best what it calls the repository (a mirror may prefix it).
        if !self.scope.is_empty() && !own.iter().any(|scope| scope.ends_with("push")) {
            return named.collect();
        }
        // `repository:x:pull` is part of `repository:x:pull,push`.
        let covered = |scope: &str| own.iter().any(|own| own.starts_with(scope));
        own.iter().map(String::as_str).chain(named.filter(|scope| !covered(scope))).collect()
    }
}

impl Endpoint {
    /// What answers a challenge; `None` when we have nothing that does.
    ///
    /// With `keep`, a token server is also asked for a token to keep instead of the password.
    pub(super) fn authorize(
        &self,
        challenge: &Challenge,
        base: &str,
        own: &[String],
        keep: bool,
    ) -> Result<Option<Authorization>> {
        let credential = self.credential.as_ref();
        if !challenge.bearer {
            // A password must not be sent in the clear over a network.
            let safe = base.starts_with("https://") || is_loopback(host_of(base));
            let value = credential.filter(|known| safe && !known.is_token).map(basic);
            return Ok(value.map(|value| Authorization { value, identity: None }));
        }
        let realm = &challenge.realm;
        if !realm.starts_with("https://") && credential.is_some() && !is_loopback(host_of(realm)) {
            return Err(self.answer(format!("it sends us to `{realm}` for a token, which is not encrypted")));
        }
        let scopes = challenge.scopes(own);
        let mut answer = match credential {
            Some(known) if known.is_token => {
                let mut form = vec![("grant_type", "refresh_token"), ("client_id", "hoist")];
                form.extend([("service", challenge.service.as_str()), ("refresh_token", &known.secret)]);
                let scopes = scopes.join(" ");
                if !scopes.is_empty() {
                    form.push(("scope", &scopes));
                }
                let body = self.agent.post(realm).config().proxy(self.proxies.of(realm)).build();
                body.send_form(form).map_err(|source| unreachable(realm, source))?
            }
            known => {
                let mut url = realm.clone();
                let mut add = |key: &str, value: &str| {
                    url.push(if url.contains('?') { '&' } else { '?' });
                    url += &format!("{key}={}", escape(value));
                };
                if !challenge.service.is_empty() {
                    add("service", &challenge.service);
                }
                for scope in &scopes {
                    add("scope", scope);
                }
                if let Some(known) = known {
                    add("account", &known.user);
                }
                if keep {
                    add("client_id", "hoist");
                    add("offline_token", "true");
                }
                let mut request = Request::builder().method("GET").uri(&url);
                if let Some(known) = known {
                    request = request.header(header::AUTHORIZATION, basic(known));
                }
                let request = request
                    .body(SendBody::none())
                    .map_err(|error| self.answer(format!("address `{realm}`: {error}")))?;
                self.run(request, realm)?
            }
        };
        if !answer.status().is_success() {
            let status = answer.status().as_u16();
            let reason = reason_of(&mut answer);
            if matches!(status, 400 | 401 | 403) {
                let reason = if reason.is_empty() { "wrong user name or password" } else { &reason };
                return Err(self.denied(reason));
            }
            let what = "the request for a token".to_owned();
            return Err(RegistryError::Status { host: host_of(realm).to_owned(), status, what, reason });
        }
        let bad = |error: &dyn std::fmt::Display| self.answer(format!("token: {error}"));
        let body = answer.body_mut().with_config().limit(MAX_ANSWER).read_to_vec();
        let answer: Answer =
            serde_json::from_slice(&body.map_err(|e| bad(&e))?).map_err(|error| bad(&error))?;
        let token = answer.token.or(answer.access_token).unwrap_or_default();
        if token.is_empty() {
            return Err(bad(&"there is none in it"));
        }
        let identity = answer.refresh_token.filter(|token| keep && !token.is_empty());
        Ok(Some(Authorization { value: format!("Bearer {token}"), identity }))
    }
}

fn basic(credential: &Credential) -> String {
    let plain = format!("{}:{}", credential.user, credential.secret);
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(plain))
}

fn unreachable(url: &str, source: ureq::Error) -> RegistryError {
    RegistryError::Connect { host: host_of(url).to_owned(), source: Box::new(source) }
}

/// A value of a query: everything but what RFC 3986 calls unreserved, and `:/,` which scopes are full of.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b':' | b'/' | b',' => {
                out.push(char::from(byte));
            }
            _ => out += &format!("%{byte:02X}"),
        }
    }
    out
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
    fn what_we_need_is_asked_for_once() {
        let text = r#"Bearer realm="r",scope="repository:a:pull""#;
        let challenge = Challenge::parse(text).expect("parses");
        let push = ["repository:a:pull,push".to_owned(), "repository:b:pull".to_owned()];
        assert_eq!(challenge.scopes(&push), ["repository:a:pull,push", "repository:b:pull"]);
        let other = ["repository:c:pull".to_owned()];
        assert_eq!(challenge.scopes(&other), ["repository:a:pull"]);
        assert_eq!(escape("a b&c=d"), "a%20b%26c%3Dd");
    }
}
