//! One pass from compressed bytes to a layer directory.
//!
//! Four threads with small bounded queues between them:
//! source + sha256 of the blob → inflate → { sha256 of the tar (diff ID), apply }.
//! So memory stays at a few MiB however large a layer is.

use std::io::{self, BufRead, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use ring::digest::{Context, SHA256};

use super::apply::{self, Applied, ApplyError};
use super::reference::Digest;

/// Bytes per queue element.
const CHUNK: usize = 256 << 10;
/// Elements per queue.
const DEPTH: usize = 6;

/// What a layer may grow to.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of one unpacked layer.
    pub layer_bytes: u64,
    /// Times its compressed size, looked at once it is larger than [`Limits::ratio_from`].
    pub ratio: u64,
    /// Bytes below which the ratio does not matter.
    pub ratio_from: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { layer_bytes: 128 << 30, ratio: 100, ratio_from: 2 << 30 }
    }
}

/// Why bytes did not become a layer.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The bytes could not be had.
    #[error("cannot read the layer")]
    Read(#[source] io::Error),
    /// The compressed stream is damaged.
    #[error("cannot decompress the layer ({0})")]
    Inflate(&'static str, #[source] io::Error),
    /// A compression we do not have.
    #[error("the layer is compressed with {0}, which is not supported; use gzip or zstd")]
    Compression(&'static str),
    /// It grew beyond the limit.
    #[error(
        "the layer unpacks to more than {limit} bytes ({read} compressed bytes so far); \
         this looks like a decompression bomb and was stopped"
    )]
    Bomb {
        /// The limit it hit.
        limit: u64,
        /// Compressed bytes that led there.
        read: u64,
    },
    /// The tar cannot be applied.
    #[error(transparent)]
    Apply(#[from] ApplyError),
}

/// A layer in its staging directory.
#[derive(Debug)]
pub(crate) struct Unpacked {
    /// Digest of the bytes as they came.
    pub(crate) blob: Digest,
    /// Their number.
    pub(crate) blob_size: u64,
    /// How they were compressed.
    pub(crate) form: Form,
    /// Digest of the tar.
    pub(crate) diff_id: Digest,
    /// Its bytes.
    pub(crate) tar_size: u64,
    pub(crate) applied: Applied,
}

/// Unpacks `source` (gzip, zstd or plain tar, told by its first bytes) into `layer`.
///
/// `tick` is called with the number of compressed bytes read so far.
pub(crate) fn unpack(
    mut source: impl Read,
    layer: &Path,
    limits: Limits,
    tick: &mut dyn FnMut(u64),
) -> Result<Unpacked, UnpackError> {
    let (feed, compressed) = sync_channel::<Arc<Vec<u8>>>(DEPTH);
    let (to_hash, hash_queue) = sync_channel::<Arc<Vec<u8>>>(DEPTH);
    let (to_apply, apply_queue) = sync_channel::<Arc<Vec<u8>>>(DEPTH);
    std::thread::scope(|scope| {
        let inflating = scope.spawn(move || inflate(Queue::new(compressed), &[to_apply, to_hash], limits));
        let hashing = scope.spawn(move || {
            let mut context = Context::new(&SHA256);
            while let Ok(chunk) = hash_queue.recv() {
                context.update(&chunk);
            }
            Digest::from_ring(&context.finish())
        });
        let applying = scope.spawn(move || apply::apply(layer, Queue::new(apply_queue), true));

        let mut context = Context::new(&SHA256);
        let mut blob_size = 0;
        let read = (|| {
            let mut wanted = true;
            loop {
                let mut chunk = vec![0; CHUNK];
                let count = fill(&mut source, &mut chunk)?;
                if count == 0 {
                    return Ok(());
                }
                chunk.truncate(count);
                context.update(&chunk);
                blob_size += count as u64;
                tick(blob_size);
                // When the stages behind have given up we stop, too; what they say is the reason.
                wanted = wanted && feed.send(Arc::new(chunk)).is_ok();
                if !wanted {
                    return Ok(());
                }
            }
        })();
        drop(feed);
        let inflated = inflating.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let diff_id = hashing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let applied = applying.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        // The first stage that failed by itself names the reason.
        read.map_err(UnpackError::Read)?;
        let (form, tar_size) = match inflated {
            Ok(done) => done,
            Err(Stopped::Failed(error)) => return Err(error),
            Err(Stopped::NotWanted) => (Form::Plain, 0),
        };
        let applied = applied?;
        let blob = Digest::from_ring(&context.finish());
        Ok(Unpacked { blob, blob_size, form, diff_id, tar_size, applied })
    })
}

/// Why inflating ended early.
enum Stopped {
    Failed(UnpackError),
    /// Nobody takes the bytes any more.
    NotWanted,
}

fn inflate(
    mut source: Queue,
    sinks: &[SyncSender<Arc<Vec<u8>>>],
    limits: Limits,
) -> Result<(Form, u64), Stopped> {
    let (mut total, mut read) = (0_u64, 0_u64);
    let mut emit = |chunk: Vec<u8>, read: u64| {
        total += chunk.len() as u64;
        let allowed = limits.layer_bytes.min(limits.ratio_from.max(read.max(1).saturating_mul(limits.ratio)));
        if total > allowed {
            return Err(Stopped::Failed(UnpackError::Bomb { limit: allowed, read }));
        }
        let chunk = Arc::new(chunk);
        for sink in sinks {
            sink.send(chunk.clone()).map_err(|_| Stopped::NotWanted)?;
        }
        Ok(())
    };
    let form = Form::of(source.peek());
    if let Form::Unsupported(name) = form {
        return Err(Stopped::Failed(UnpackError::Compression(name)));
    }
    if form == Form::Plain {
        while let Some(chunk) = source.next_chunk() {
            read += chunk.len() as u64;
            emit(chunk.to_vec(), read)?;
        }
        return Ok((form, total));
    }
    let failed = |error| Stopped::Failed(UnpackError::Inflate(form.name(), error));
    let count = source.counter();
    let mut decoder = form.decoder(source).map_err(failed)?;
    loop {
        let mut chunk = vec![0; CHUNK];
        let got = fill(&mut decoder, &mut chunk).map_err(failed)?;
        if got == 0 {
            return Ok((form, total));
        }
        chunk.truncate(got);
        emit(chunk, count.load(std::sync::atomic::Ordering::Relaxed))?;
    }
}

/// How bytes are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Plain,
    Gzip,
    Zstd,
    Unsupported(&'static str),
}

impl Form {
    /// Tells by the first bytes.
    pub(crate) fn of(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, ..] => Self::Gzip,
            // Skippable frames may come first (zstd:chunked writes them last).
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [0xfd, b'7', b'z', b'X', b'Z', ..] => Self::Unsupported("xz"),
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Self::Unsupported("bzip2"),
            _ => Self::Plain,
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Unsupported(name) => name,
        }
    }

    /// A reader of the plain bytes.
    pub(crate) fn decoder<'a>(
        self,
        source: impl BufRead + Send + 'a,
    ) -> io::Result<Box<dyn Read + Send + 'a>> {
        Ok(match self {
            Self::Plain => Box::new(source),
            Self::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(source)),
            Self::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(source)?),
            Self::Unsupported(name) => {
                return Err(io::Error::new(io::ErrorKind::Unsupported, format!("{name} is not supported")));
            }
        })
    }
}

/// Reads until the buffer is full or the source ends.
pub(crate) fn fill(source: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut count = 0;
    while count < buffer.len() {
        match source.read(&mut buffer[count..]) {
            Ok(0) => break,
            Ok(n) => count += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(count)
}

/// A queue as a reader; the sender's end is the end of the bytes.
struct Queue {
    receiver: Receiver<Arc<Vec<u8>>>,
    current: Arc<Vec<u8>>,
    at: usize,
    taken: Arc<std::sync::atomic::AtomicU64>,
}

impl Queue {
    fn new(receiver: Receiver<Arc<Vec<u8>>>) -> Self {
        Self { receiver, current: Arc::default(), at: 0, taken: Arc::default() }
    }

    /// The first bytes, not yet taken.
    fn peek(&mut self) -> &[u8] {
        self.refill();
        &self.current[self.at..]
    }

    /// Bytes received so far, readable from outside.
    fn counter(&self) -> Arc<std::sync::atomic::AtomicU64> {
        self.taken.clone()
    }

    fn next_chunk(&mut self) -> Option<Arc<Vec<u8>>> {
        self.refill();
        (!self.current.is_empty()).then(|| {
            self.at = 0;
            std::mem::take(&mut self.current)
        })
    }

    fn refill(&mut self) {
        while self.at == self.current.len() {
            self.at = 0;
            let Ok(chunk) = self.receiver.recv() else {
                self.current = Arc::default();
                return;
            };
            self.taken.fetch_add(chunk.len() as u64, std::sync::atomic::Ordering::Relaxed);
            self.current = chunk;
        }
    }
}

impl BufRead for Queue {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        Ok(self.peek())
    }

    fn consume(&mut self, amount: usize) {
        self.at += amount;
    }
}

impl Read for Queue {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.peek();
        let count = available.len().min(buffer.len());
        buffer[..count].copy_from_slice(&available[..count]);
        self.at += count;
        Ok(count)
    }
}
