//! Being connected to a process in a container: our streams are its streams.

use std::io;
use std::time::Duration;

use anyhow::Context as _;
use hoist::ops::Session;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;

use super::exit::Exit;
use super::render::out::Stream;
use super::signals::{Forwarded, Signals};
use super::terminal::{self, RawMode};

/// How the connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The process has.
    Exited(i32),
    /// The user typed the detach keys; it goes on.
    Detached,
}

impl From<Ended> for Exit {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Exited(0) | Ended::Detached => Self::Success,
            Ended::Exited(code) => Self::Process(code),
        }
    }
}

/// Keys that end the connection but not the process, as bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DetachKeys(Vec<u8>);

impl Default for DetachKeys {
    /// ctrl-p ctrl-q, Docker's usual keys.
    fn default() -> Self {
        Self(vec![0x10, 0x11])
    }
}

impl std::str::FromStr for DetachKeys {
    type Err = String;

    /// A comma-separated list of characters and `ctrl-X`.
    fn from_str(text: &str) -> Result<Self, String> {
        text.split(',')
            .map(|key| match (key.as_bytes(), key.strip_prefix("ctrl-").map(str::as_bytes)) {
                ([byte], _) if byte.is_ascii() => Ok(*byte),
                (_, Some([c @ (b'a'..=b'z' | b'@' | b'[' | b'\\' | b']' | b'^' | b'_')])) => {
                    Ok(c.to_ascii_uppercase() ^ 0x40)
                }
                _ => Err(format!("`{key}` is no key: it should be a character or ctrl-X")),
            })
            .collect::<Result<Vec<u8>, String>>()
            .map(Self)
    }
}

/// How we are connected.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    /// The process has a terminal: ours becomes it.
    pub(crate) tty: bool,
    /// Our standard input is connected.
    pub(crate) stdin: bool,
    /// Signals that we get are passed on.
    pub(crate) forward_signals: bool,
    /// What ends the connection.
    pub(crate) detach: DetachKeys,
}

impl Connection {
    /// With signals passed on and the usual keys.
    pub(crate) fn new(tty: bool, stdin: bool) -> Self {
        Self { tty, stdin, forward_signals: true, detach: DetachKeys::default() }
    }
}

/// What a background child that keeps the output open may still say after the process has ended.
const LINGER: Duration = Duration::from_secs(1);

/// Pumps the streams until the process ends.
///
/// With `tty` our terminal is in raw mode meanwhile and the process is told
/// its size. `stdin` says whether our standard input is connected at all.
///
/// # Errors
/// Of the terminal and of the engine.
pub(crate) async fn pump(
    session: Session,
    connection: Connection,
    signals: &Signals,
) -> anyhow::Result<Ended> {
    let Connection { tty, stdin, forward_signals, detach: keys } = connection;
    let mut attached = session.attached;
    let (sender, mut forwarded) = mpsc::unbounded_channel();
    if forward_signals {
        signals.forward_to(sender).context("cannot listen for signals")?;
    }
    let raw = if tty && stdin && io::IsTerminal::is_terminal(&io::stdin()) {
        Some(RawMode::enter().context("cannot put the terminal into raw mode")?)
    } else {
        None
    };
    if tty && let Some((columns, rows)) = terminal::size() {
        // A process that has ended already has no size.
        let _gone = attached.control.resize(columns, rows).await;
    }
    let watch_keys = raw.is_some();
    let (detach, mut detached) = mpsc::channel::<()>(1);
    let input = attached.stdin.take();
    let feed = async {
        if let Some(mut input) = input
            && stdin
        {
            let mut chunks = read_stdin(watch_keys.then(|| (detach, KeyWatch::new(keys))))?;
            while let Some(chunk) = chunks.recv().await {
                if input.write_all(&chunk).await.is_err() {
                    break;
                }
                let _gone = input.flush().await;
            }
            let _gone = input.shutdown().await;
        }
        // What has no more to say does not end the connection.
        std::future::pending::<io::Result<()>>().await
    };
    let (activity, mut active) = mpsc::channel::<()>(1);
    let output = {
        let activity = activity.clone();
        let stdout = attached.stdout;
        let stderr = attached.stderr;
        async move {
            let out = copy(stdout, Stream::Out, &activity);
            match stderr {
                Some(stderr) => tokio::try_join!(out, copy(stderr, Stream::Err, &activity)).map(|_| ()),
                None => out.await,
            }
        }
    };
    let control = &attached.control;
    let forwarding = async {
        while let Some(what) = forwarded.recv().await {
            let _gone = match what {
                Forwarded::Signal(name) => control.signal(name).await,
                Forwarded::Resized => match terminal::size() {
                    Some((columns, rows)) if tty => control.resize(columns, rows).await,
                    _ => Ok(()),
                },
            };
        }
        std::future::pending::<()>().await;
    };
    tokio::pin!(feed, output, forwarding);
    let waiting = control.wait();
    tokio::pin!(waiting);
    let mut output_done = false;
    let code = loop {
        tokio::select! {
            code = &mut waiting => break code?,
            result = &mut output, if !output_done => {
                result?;
                output_done = true;
            }
            result = &mut feed => result.context("cannot read standard input")?,
            Some(()) = detached.recv() => return Ok(Ended::Detached),
            () = &mut forwarding => {}
            Some(()) = active.recv() => {}
        }
    };
    while !output_done {
        tokio::select! {
            result = &mut output => {
                result?;
                output_done = true;
            }
            Some(()) = active.recv() => {}
            () = tokio::time::sleep(LINGER) => break,
        }
    }
    drop(raw);
    Ok(Ended::Exited(code))
}

/// Copies until the end, and says when there was something.
async fn copy(
    mut from: Box<dyn AsyncRead + Send + Unpin>,
    mut to: Stream,
    activity: &mpsc::Sender<()>,
) -> io::Result<()> {
    let mut buffer = vec![0; 32 * 1024];
    loop {
        match from.read(&mut buffer).await {
            Ok(0) => return Ok(()),
            Ok(n) => io::Write::write_all(&mut to, &buffer[..n])?,
            // How the far end of a terminal says that it is closed.
            Err(e) if e.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => return Ok(()),
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => return Ok(()),
            Err(e) => return Err(e),
        }
        let _full = activity.try_send(());
    }
}

/// Our standard input in chunks. A thread, because a read of a terminal cannot
/// be called off; it ends with the process. With `detach`, that channel is told
/// when the detach keys were typed.
fn read_stdin(mut detach: Option<(mpsc::Sender<()>, KeyWatch)>) -> io::Result<mpsc::Receiver<Vec<u8>>> {
    let (sender, receiver) = mpsc::channel(16);
    std::thread::Builder::new().name("stdin".into()).spawn(move || {
        let mut buffer = vec![0; 32 * 1024];
        loop {
            match rustix::io::read(rustix::stdio::stdin(), &mut buffer) {
                Ok(0) => return,
                Ok(n) => {
                    let (chunk, leave) = match &mut detach {
                        Some((_, keys)) => keys.filter(&buffer[..n]),
                        None => (buffer[..n].to_vec(), false),
                    };
                    if !chunk.is_empty() && sender.blocking_send(chunk).is_err() {
                        return;
                    }
                    if leave {
                        if let Some((detach, _)) = &detach {
                            let _gone = detach.blocking_send(());
                        }
                        return;
                    }
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return,
            }
        }
    })?;
    Ok(receiver)
}

/// Watches for the detach keys; the first of them are passed on late when others follow.
#[derive(Debug)]
struct KeyWatch {
    keys: Vec<u8>,
    /// How many of them have been typed in a row.
    held: usize,
}

impl KeyWatch {
    fn new(keys: DetachKeys) -> Self {
        Self { keys: keys.0, held: 0 }
    }

    /// What to pass on, and whether to detach.
    fn filter(&mut self, bytes: &[u8]) -> (Vec<u8>, bool) {
        let mut out = Vec::with_capacity(bytes.len() + self.held);
        for byte in bytes {
            if self.keys.get(self.held) != Some(byte) {
                out.extend_from_slice(&self.keys[..self.held]);
                self.held = 0;
            }
            if self.keys.get(self.held) == Some(byte) {
                self.held += 1;
                if self.held == self.keys.len() {
                    return (out, true);
                }
            } else {
                out.push(*byte);
            }
        }
        (out, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detach_keys_are_taken_out_of_the_input() {
        let mut keys = KeyWatch::new(DetachKeys::default());
        assert_eq!(keys.filter(b"ab\x10"), (b"ab".to_vec(), false));
        assert_eq!(keys.filter(b"c"), (b"\x10c".to_vec(), false));
        assert_eq!(keys.filter(b"\x10\x10\x11rest"), (b"\x10".to_vec(), true));
    }

    #[test]
    fn detach_keys_can_be_chosen() {
        assert_eq!("ctrl-a,x".parse(), Ok(DetachKeys(vec![1, b'x'])));
        assert_eq!("ctrl-[".parse(), Ok(DetachKeys(vec![0x1b])));
        assert!("ctrl-".parse::<DetachKeys>().is_err());
    }
}
