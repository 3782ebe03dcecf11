//! Reading blobs.

use std::io::{self, Read};
use std::time::Duration;

use super::client::{ATTEMPTS, Client, pause_for};
use crate::runtime::image::reference::Digest;

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
        let range = format!("bytes={}-", self.at);
        let headers: &[(&str, &str)] = if self.at > 0 { &[("range", &range)] } else { &[] };
        // The whole chain, as this travels through `io::Error`.
        let answer = self.client.blob(&self.digest, headers).map_err(io::Error::other)?;
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
