//! A stored layer as the bytes of a blob: its tar, plain or as gzip.
//!
//! The tar comes from the journal and is checked against the diff ID, so a
//! layer whose files have changed is never passed on. gzip is written in members of
//! 1 MiB of input, which RFC 1952 lets every reader take as one file: several
//! threads compress, and the bytes are the same whatever their number.

use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use ring::digest::{Context, SHA256};

use super::journal::{self, Shadow};
use super::reference::Digest;

/// Input bytes of one gzip member.
const MEMBER: usize = 1 << 20;
/// Level 4 takes two thirds of the time of the usual 6 for 1 % more bytes (measured on a Debian root).
const LEVEL: u32 = 4;

/// A layer to read.
#[derive(Debug, Clone)]
pub(crate) struct StoredLayer {
    /// `layers/<key>`.
    pub(crate) dir: PathBuf,
    pub(crate) shadows: Vec<Shadow>,
    pub(crate) diff_id: Digest,
}

type Block = io::Result<Vec<u8>>;

/// The tar of a layer, compressed with `gzip`. Reading ends with an error if the tar is not what
/// the diff ID says.
pub(crate) fn read(layer: StoredLayer, gzip: bool) -> Box<dyn Read + Send> {
    let (queue, receiver) = sync_channel(4);
    let mut threads = Vec::new();
    let sink = if gzip {
        let workers = std::thread::available_parallelism().map_or(2, usize::from).clamp(1, 4);
        let (jobs, todo) = sync_channel::<Job>(workers);
        let (order, results) = sync_channel::<Receiver<Block>>(workers * 2);
        let todo = Arc::new(Mutex::new(todo));
        for _ in 0..workers {
            let todo = Arc::clone(&todo);
            threads.push(std::thread::spawn(move || compress(&todo)));
        }
        threads.push(std::thread::spawn(move || {
            // In the order of the input, whoever has finished first.
            while let Ok(block) = results.recv().map(|result| result.recv()) {
                let Ok(block) = block else { return };
                if queue.send(block).is_err() {
                    return;
                }
            }
        }));
        Sink::Gzip { jobs, order }
    } else {
        Sink::Plain(queue)
    };
    threads.push(std::thread::spawn(move || {
        let mut tar = Tar { sink, context: Context::new(&SHA256), buffer: Vec::new(), empty: true };
        if let Err(error) = tar.produce(&layer) {
            tar.sink.fail(error);
        }
    }));
    Box::new(Output { receiver: Some(receiver), current: Vec::new(), at: 0, threads })
}

/// One piece to compress, and whom to give the result.
struct Job {
    input: Vec<u8>,
    done: SyncSender<Block>,
}

fn compress(todo: &Mutex<Receiver<Job>>) {
    loop {
        let job = todo.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        let out = Vec::with_capacity(job.input.len() / 2);
        let mut encoder = flate2::GzBuilder::new().write(out, flate2::Compression::new(LEVEL));
        let member = encoder.write_all(&job.input).and_then(|()| encoder.finish());
        // Nobody waits any more when the reader has gone.
        drop(job.done.send(member));
    }
}

/// Where pieces of the tar go.
enum Sink {
    Plain(SyncSender<Block>),
    Gzip { jobs: SyncSender<Job>, order: SyncSender<Receiver<Block>> },
}

impl Sink {
    fn send(&self, input: Vec<u8>) -> io::Result<()> {
        let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
        match self {
            Self::Plain(queue) => queue.send(Ok(input)).map_err(|_| gone()),
            Self::Gzip { jobs, order } => {
                let (done, result) = sync_channel(1);
                order.send(result).map_err(|_| gone())?;
                jobs.send(Job { input, done }).map_err(|_| gone())
            }
        }
    }

    /// Tells the reader, after all that came before.
    fn fail(&self, error: io::Error) {
        // A reader that has gone needs to know nothing.
        match self {
            Self::Plain(queue) => drop(queue.send(Err(error))),
            Self::Gzip { order, .. } => {
                let (done, result) = sync_channel(1);
                drop(done.send(Err(error)));
                drop(order.send(result));
            }
        }
    }
}

/// Hashes the tar and cuts it into pieces.
struct Tar {
    sink: Sink,
    context: Context,
    buffer: Vec<u8>,
    empty: bool,
}

impl Tar {
    fn produce(&mut self, layer: &StoredLayer) -> io::Result<()> {
        journal::replay(&layer.dir, &layer.shadows, self)?;
        let found = Digest::from_ring(&self.context.clone().finish());
        if found != layer.diff_id {
            let wanted = &layer.diff_id;
            let text = format!("the stored layer {wanted} has changed: its files give {found} now");
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        // Not even an empty input is an empty gzip file.
        if !self.buffer.is_empty() || self.empty { self.pass_on() } else { Ok(()) }
    }

    fn pass_on(&mut self) -> io::Result<()> {
        self.empty = false;
        self.sink.send(std::mem::take(&mut self.buffer))
    }
}

impl Write for Tar {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.buffer.capacity() == 0 {
            self.buffer.reserve_exact(MEMBER);
        }
        let room = bytes.len().min(MEMBER - self.buffer.len());
        self.context.update(&bytes[..room]);
        self.buffer.extend_from_slice(&bytes[..room]);
        if self.buffer.len() == MEMBER {
            self.pass_on()?;
        }
        Ok(room)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The reading end. Dropping it ends the threads.
struct Output {
    receiver: Option<Receiver<Block>>,
    current: Vec<u8>,
    at: usize,
    threads: Vec<JoinHandle<()>>,
}

impl Read for Output {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.current.len() {
            match self.receiver.as_ref().map(Receiver::recv) {
                Some(Ok(block)) => (self.current, self.at) = (block?, 0),
                _ => return Ok(0),
            }
        }
        let count = buffer.len().min(self.current.len() - self.at);
        buffer[..count].copy_from_slice(&self.current[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        drop(self.receiver.take());
        for thread in self.threads.drain(..) {
            // What it had to say was in the queue.
            drop(thread.join());
        }
    }
}
