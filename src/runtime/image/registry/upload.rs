//! Writing blobs and manifests.
//!
//! A blob of unknown length goes up in one streamed request. When that is cut,
//! the registry is asked how much it has, and a new one goes on from there.
//!
//! # Source
//! OCI distribution-spec 1.1, "Push".

use std::io::{self, Read};

use ring::digest::{Context, SHA256};
use ureq::http::{Response, header};
use ureq::{Body, http};

use super::RegistryError;
use super::client::{ATTEMPTS, Ask, Client, FIRST_WAIT, Result, is_passing, pause_for, retry_after, stated};
use super::url::with_query;
use crate::runtime::image::reference::Digest;

/// The bytes of a blob, from the beginning each time it is called.
pub(crate) type Content<'a> = &'a (dyn Fn() -> io::Result<Box<dyn Read + Send>> + Sync);

/// Why a blob did not go up.
#[derive(Debug)]
pub(crate) enum UploadError {
    /// Its bytes could not be had.
    Content(io::Error),
    /// The registry did not take them.
    Registry(RegistryError),
}

impl From<RegistryError> for UploadError {
    fn from(error: RegistryError) -> Self {
        Self::Registry(error)
    }
}

/// What asking for a blob of another repository came to.
pub(crate) enum Mounted {
    /// It is here now.
    Yes,
    /// It is not; an upload may begin at this place.
    No(Option<Session>),
}

/// An upload that the registry has begun: where it goes on, a URL.
pub(crate) struct Session(String);

/// How one request of an upload ended.
enum Part {
    /// All bytes are there; go on here.
    Complete(Session),
    /// It was cut, or the registry is busy; why, and how long it wants us to wait.
    Cut(RegistryError, Option<std::time::Duration>),
}

impl Client {
    /// Whether the repository has a blob.
    pub(crate) fn has(&self, digest: &Digest) -> Result<bool> {
        let path = format!("/v2/{}/blobs/{digest}", self.image.repository());
        match self.endpoint.send(&Ask::new("HEAD", &path)) {
            Ok(_) => Ok(true),
            Err(RegistryError::NotFound { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Takes a blob over from another repository of the same registry.
    pub(crate) fn mount(&self, digest: &Digest, from: &str) -> Result<Mounted> {
        let path = format!("/v2/{}/blobs/uploads/?mount={digest}&from={from}", self.image.repository());
        let ask = Ask { body: Some(&[]), ..Ask::new("POST", &path) };
        match self.endpoint.send(&ask) {
            Ok(answer) if answer.status() == http::StatusCode::CREATED => Ok(Mounted::Yes),
            Ok(answer) => Ok(Mounted::No(self.endpoint.upload_location(&answer, &path).ok().map(Session))),
            // We may not read there, or it does not exist: then there is nothing to take over.
            Err(RegistryError::NotFound { .. } | RegistryError::Denied { .. }) => Ok(Mounted::No(None)),
            Err(error) => Err(error),
        }
    }

    fn begin(&self) -> Result<Session> {
        let path = format!("/v2/{}/blobs/uploads/", self.image.repository());
        let answer = self.endpoint.send(&Ask { body: Some(&[]), ..Ask::new("POST", &path) })?;
        Ok(Session(self.endpoint.upload_location(&answer, &path)?))
    }

    /// Uploads a small blob that is in memory.
    pub(crate) fn put_document(&self, bytes: &[u8], digest: &Digest) -> Result<()> {
        let session = self.begin()?;
        let target = with_query(&session.0, "digest", &digest.to_string());
        let headers = [("content-type", "application/octet-stream")];
        self.endpoint.send(&Ask { method: "PUT", target: &target, headers: &headers, body: Some(bytes) })?;
        Ok(())
    }

    /// Uploads what `content` gives; its digest and length are found on the way.
    ///
    /// `wanted` is checked before the registry is told that the blob is complete.
    /// `tick` is called with the number of bytes sent so far.
    pub(crate) fn put_blob(
        &self,
        content: Content<'_>,
        wanted: Option<&Digest>,
        mut session: Option<Session>,
        tick: &dyn Fn(u64),
    ) -> std::result::Result<(Digest, u64), UploadError> {
        let (mut at, mut failures, mut wait) = (0, 0, FIRST_WAIT);
        loop {
            let begun = match session.take() {
                Some(begun) => begun,
                None => {
                    at = 0;
                    self.begin()?
                }
            };
            let mut body = Metered::new(content().map_err(UploadError::Content)?, tick);
            body.skip(at).map_err(UploadError::Content)?;
            let part = self.patch(&begun, &mut body)?;
            if let Some(error) = body.failure {
                self.abandon(&begun);
                return Err(UploadError::Content(error));
            }
            let (error, asked) = match part {
                Part::Complete(next) => {
                    let (digest, size) = (Digest::from_ring(&body.context.finish()), body.count);
                    if let Some(wanted) = wanted.filter(|wanted| **wanted != digest) {
                        self.abandon(&next);
                        let text = format!("it should have the digest {wanted} and has {digest}");
                        return Err(UploadError::Content(io::Error::new(io::ErrorKind::InvalidData, text)));
                    }
                    let target = with_query(&next.0, "digest", &digest.to_string());
                    let ask = Ask { body: Some(&[]), ..Ask::new("PUT", &target) };
                    match self.endpoint.send(&ask) {
                        Ok(_) => return Ok((digest, size)),
                        // The answer may have been lost on its way.
                        Err(error) if self.has(&digest).unwrap_or(false) => {
                            tracing::debug!(%error, %digest, "the blob is there although its upload failed");
                            return Ok((digest, size));
                        }
                        Err(error @ (RegistryError::NotFound { .. } | RegistryError::Connect { .. })) => {
                            (error, None)
                        }
                        Err(error) => return Err(error.into()),
                    }
                }
                Part::Cut(error, asked) => {
                    if let Some((next, reached)) = self.reached(&begun) {
                        if reached > at {
                            (failures, wait) = (0, FIRST_WAIT);
                        }
                        at = reached;
                        session = Some(next);
                    }
                    (error, asked)
                }
            };
            failures += 1;
            if failures == ATTEMPTS {
                return Err(error.into());
            }
            pause_for(asked.unwrap_or(wait));
            wait *= 3;
        }
    }

    /// Sends the rest of a blob in one request.
    fn patch(&self, session: &Session, body: &mut Metered<'_>) -> Result<Part> {
        let headers = [("content-type", "application/octet-stream")];
        let answer = match self.endpoint.stream("PATCH", &session.0, &headers, body) {
            Ok(answer) => answer,
            Err(error @ RegistryError::Connect { .. }) => return Ok(Part::Cut(error, None)),
            Err(error) => return Err(error),
        };
        let status = answer.status().as_u16();
        if answer.status().is_success() {
            return Ok(Part::Complete(Session(self.endpoint.upload_location(&answer, &session.0)?)));
        }
        let asked = retry_after(&answer);
        let error = self.endpoint.status_error(&Ask::new("PATCH", &session.0), answer);
        // 404: the session is gone. 416: the registry has another part than we think. Both begin anew.
        if is_passing(status) || matches!(status, 404 | 416) {
            return Ok(Part::Cut(error, asked));
        }
        Err(error)
    }

    /// How far a cut upload has come; `None` when it cannot be continued.
    fn reached(&self, session: &Session) -> Option<(Session, u64)> {
        let answer = self.endpoint.send(&Ask::new("GET", &session.0)).ok()?;
        let next = self.endpoint.upload_location(&answer, &session.0).ok()?;
        Some((Session(next), end_of_range(&answer)?))
    }

    /// Tells the registry to forget an upload. It would do so by itself some day.
    fn abandon(&self, session: &Session) {
        if let Err(error) = self.endpoint.send(&Ask::new("DELETE", &session.0)) {
            tracing::debug!(%error, "an upload was not cancelled");
        }
    }

    /// Puts a manifest under a tag or digest.
    pub(crate) fn put_manifest(&self, name: &str, media_type: &str, bytes: &[u8]) -> Result<Digest> {
        let path = format!("/v2/{}/manifests/{name}", self.image.repository());
        let headers = [("content-type", media_type)];
        let ask = Ask { method: "PUT", target: &path, headers: &headers, body: Some(bytes) };
        let answer = self.endpoint.send(&ask)?;
        let digest = Digest::of(bytes);
        match stated(&answer) {
            Some(other) if other != digest => {
                Err(self.endpoint.answer(format!("it stored the manifest as {other} instead of {digest}")))
            }
            _ => Ok(digest),
        }
    }
}

/// `Range: 0-99` means that 100 bytes are there; `0-0` that none are.
fn end_of_range(answer: &Response<Body>) -> Option<u64> {
    let text = answer.headers().get(header::RANGE)?.to_str().ok()?;
    let last: u64 = text.trim_start_matches("bytes=").split_once('-')?.1.parse().ok()?;
    Some(if last == 0 { 0 } else { last + 1 })
}

/// Hashes and counts what goes through, and keeps the source's own failure.
struct Metered<'a> {
    inner: Box<dyn Read + Send>,
    context: Context,
    count: u64,
    failure: Option<io::Error>,
    tick: &'a dyn Fn(u64),
}

impl<'a> Metered<'a> {
    fn new(inner: Box<dyn Read + Send>, tick: &'a dyn Fn(u64)) -> Self {
        Self { inner, context: Context::new(&SHA256), count: 0, failure: None, tick }
    }

    /// Passes over what the registry has already.
    fn skip(&mut self, count: u64) -> io::Result<()> {
        let skipped = io::copy(&mut self.by_ref().take(count), &mut io::sink())?;
        if skipped == count { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

impl Read for Metered<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.inner.read(buffer) {
            Ok(count) => {
                self.context.update(&buffer[..count]);
                self.count += count as u64;
                (self.tick)(self.count);
                Ok(count)
            }
            Err(error) => {
                // Who sends the body sees a copy; the caller is told the real one.
                let copy = io::Error::new(error.kind(), error.to_string());
                self.failure = Some(error);
                Err(copy)
            }
        }
    }
}
