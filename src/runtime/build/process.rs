//! One `RUN` seen from the builder: starts the sandbox, takes its output line by line, waits.

use std::fmt;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::pipe::{PipeFlags, pipe_with};

use super::cancel::Cancel;
use super::sandbox::{self, ARGV0, Begin, Heard, Record, Say};
use crate::runtime::Runtime;
use crate::runtime::error::{Result, RuntimeError, ShimError};
use crate::runtime::init::LaunchPlan;
use crate::runtime::init::NameFiles;
use crate::runtime::network::{self, NetworkError, Networks};
use crate::runtime::shim::protocol::Channel;
use crate::spec::{EndpointSpec, NetworkMode, NetworkSpec};
use crate::util::fs::{self, Lock, PathError};
use crate::util::ids::random_hex;

/// Host name inside, as BuildKit's.
const HOSTNAME: &str = "buildkitsandbox";
/// The network of `RUN`s that ask for no other; made when needed.
pub(super) const NETWORK: &str = "hoist-build";
/// Longest piece of a line that is passed on at once.
const LONGEST_LINE: usize = 64 << 10;

/// Which network a command has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Network {
    /// A bridge of its own with a way out.
    Own,
    /// Loopback only.
    None,
    /// The host's.
    Host,
}

/// What is run, but for its network.
#[derive(Debug)]
pub(super) struct Command<'a> {
    /// The process, its root file system and mounts.
    pub(super) launch: LaunchPlan,
    pub(super) network: Network,
    /// Further lines of `/etc/hosts`: name and address.
    pub(super) extra_hosts: &'a [(String, String)],
}

/// A line of output.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Line<'a> {
    /// Seconds since the command was started.
    pub(super) at: f64,
    /// It went to standard error.
    pub(super) error: bool,
    pub(super) text: &'a [u8],
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Its exit code; 128 + n for signal n.
    Exited { code: i32, oom: bool },
    /// It was killed because the build was given up.
    Cancelled,
}

/// A step's directory, removed when dropped.
struct StepDir(PathBuf);

impl Drop for StepDir {
    fn drop(&mut self) {
        // What cannot be removed now is swept by the next command.
        drop(sandbox::remove_directory(&self.0));
    }
}

/// Runs a command to its end.
///
/// # Errors
/// [`RuntimeError::Start`] when it could not be started; those of network and files.
pub(super) fn run(
    runtime: &Runtime,
    command: Command<'_>,
    cancel: &Cancel,
    output: &mut dyn FnMut(Line<'_>),
) -> Result<End> {
    let root = runtime.root();
    let id = random_hex(32);
    let name = format!("build-{}", &id[..12]);
    let dir = StepDir(root.steps().join(&id));
    fs::create_dir_all(&dir.0)?;
    let lock = Lock::exclusive(&dir.0.join("lock"))?;
    let mode = match command.network {
        Network::Host => NetworkMode::Host,
        Network::None => NetworkMode::None,
        Network::Own => {
            let endpoint = EndpointSpec { network: NETWORK.to_owned(), ..EndpointSpec::default() };
            NetworkMode::Networks { endpoints: vec![endpoint] }
        }
    };
    let no_names: &[String] = &[];
    let no_servers: &[IpAddr] = &[];
    let request = network::Request {
        container: &id,
        name: &name,
        hostname: HOSTNAME,
        domainname: None,
        mode: &mode,
        ports: &[],
        dns: no_servers,
        dns_search: no_names,
        dns_options: no_names,
        extra_hosts: command.extra_hosts,
        links: &[],
    };
    if command.network == Network::Own {
        make_network(&Networks::new(root))?;
    }
    let net = network::prepare(root, &request)?;
    let mut launch = command.launch;
    HOSTNAME.clone_into(&mut launch.hostname);
    launch.name_files = name_files(&dir.0, &net)?;
    let tag = root.tag();
    let parent = if tag.is_empty() { "hoist".to_owned() } else { format!("hoist-{tag}") };
    launch.cgroup.path = format!("{parent}/{id}");
    // Before anything of it is made.
    let record = Record { version: 1, cgroup: launch.cgroup.path.clone(), net: net.clone() };
    fs::write_json(&dir.0.join("record"), &record, false)?;
    let ended = execute(runtime, &name, &lock, &Begin { launch, net }, cancel, output);
    if let Err(RuntimeError::ShimDied { .. }) = &ended {
        // It could not clean up after itself.
        drop(lock);
        drop(sandbox::sweep(root));
    }
    ended
}

fn make_network(networks: &Networks) -> Result<()> {
    match networks.get(NETWORK) {
        Err(NetworkError::NotFound(_)) => {}
        other => return Ok(other.map(drop)?),
    }
    let spec = NetworkSpec { name: NETWORK.to_owned(), ..NetworkSpec::default() };
    match networks.create(&spec) {
        Ok(_) | Err(NetworkError::NameTaken(_)) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Says that a build is under way, so that the network of builds stays until [`leave_network`].
///
/// # Errors
/// The lock file cannot be made or locked.
pub(super) fn join_network(runtime: &Runtime) -> Result<Lock> {
    let dir = runtime.root().data().join("build");
    fs::create_dir_all(&dir)?;
    Ok(Lock::shared(&dir.join("network.lock"))?)
}

/// Removes the network of builds unless another build is under way, which then does it.
pub(super) fn leave_network(runtime: &Runtime, joined: Lock) {
    let path = joined.path().to_owned();
    drop(joined);
    // A sandbox that is just being executed may have a copy of our lock for a moment.
    if let Ok(Some(_alone)) = Lock::exclusive_within(&path, Duration::from_millis(20)) {
        // What cannot be removed now goes with the next build, or with `builder prune`.
        drop(Networks::new(runtime.root()).remove(NETWORK));
    }
}

fn name_files(dir: &Path, net: &network::NetPlan) -> Result<NameFiles> {
    let put = |name: &str, text: &str| -> Result<Option<PathBuf>> {
        let path = dir.join(name);
        std::fs::write(&path, text).map_err(PathError::at("write", &path))?;
        Ok(Some(path))
    };
    Ok(NameFiles {
        hostname: None,
        hosts: put("hosts", &net.hosts)?,
        resolv_conf: put("resolv.conf", &net.resolv_conf)?,
    })
}

fn execute(
    runtime: &Runtime,
    name: &str,
    lock: &Lock,
    begin: &Begin,
    cancel: &Cancel,
    output: &mut dyn FnMut(Line<'_>),
) -> Result<End> {
    let control = |step| {
        let container = name.to_owned();
        move |source: std::io::Error| RuntimeError::Control { step, container, source }
    };
    let (channel, theirs) = Channel::pair().map_err(control("make the channel to"))?;
    let pipe = || pipe_with(PipeFlags::CLOEXEC).map_err(|e| control("make the streams of")(e.into()));
    let ((out, out_theirs), (err, err_theirs)) = (pipe()?, pipe()?);
    let mut child = runtime
        .executable
        .command(ARGV0)
        .env_clear()
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(control("execute"))?;
    let sent = channel.send(begin, &[lock.file().as_fd(), out_theirs.as_fd(), err_theirs.as_fd()]);
    drop((out_theirs, err_theirs));
    let died = || RuntimeError::ShimDied { container: name.to_owned(), detail: String::new() };
    let heard = match sent {
        Ok(()) => follow(&channel, [out, err], cancel, output).map_err(control("follow")),
        Err(_) => Ok((None, false)),
    };
    // It has ended, or ends now that the channel is closed.
    drop(channel);
    drop(child.wait());
    match heard? {
        (_, true) => Ok(End::Cancelled),
        (Some(Heard::Ended { code, oom }), _) => Ok(End::Exited { code, oom }),
        (Some(Heard::Failed { error }), _) => Err(start_error(name, error)),
        (None, _) => Err(died()),
    }
}

fn start_error(name: &str, source: ShimError) -> RuntimeError {
    RuntimeError::Start { container: name.to_owned(), source }
}

/// Passes output on until the sandbox has said how it ended. Also says whether the build was given up.
fn follow(
    channel: &Channel,
    streams: [OwnedFd; 2],
    cancel: &Cancel,
    output: &mut dyn FnMut(Line<'_>),
) -> std::io::Result<(Option<Heard>, bool)> {
    let started = Instant::now();
    let mut streams = streams.map(|fd| Some(Lines { fd, rest: Vec::new() }));
    let (mut heard, mut over, mut cancelled) = (None, false, false);
    let mut buffer = vec![0; 64 << 10];
    while !over || streams.iter().any(Option::is_some) {
        let (said, stop, ready) = {
            let mut polled = Vec::with_capacity(4);
            let mut slots = [usize::MAX; 2];
            for (slot, stream) in slots.iter_mut().zip(&streams) {
                if let Some(stream) = stream {
                    *slot = polled.len();
                    polled.push(PollFd::new(&stream.fd, PollFlags::IN));
                }
            }
            let channel_at = polled.len();
            if !over {
                polled.push(PollFd::new(channel, PollFlags::IN));
            }
            let cancel_at = polled.len();
            if !cancelled {
                polled.push(PollFd::from_borrowed_fd(cancel.fd(), PollFlags::IN));
            }
            match poll(&mut polled, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let has = |at: usize| polled.get(at).is_some_and(|fd| !fd.revents().is_empty());
            (!over && has(channel_at), !cancelled && has(cancel_at), slots.map(has))
        };
        let at = started.elapsed().as_secs_f64();
        for (index, ready) in ready.into_iter().enumerate() {
            let Some(stream) = streams[index].as_mut().filter(|_| ready) else { continue };
            let count = rustix::io::retry_on_intr(|| rustix::io::read(&stream.fd, &mut buffer[..]))?;
            stream.take(&buffer[..count], &mut |text| output(Line { at, error: index == 1, text }));
            if count == 0 {
                streams[index] = None;
            }
        }
        if stop {
            cancelled = true;
            // It may have ended by itself in this moment.
            drop(channel.send(&Say::Kill, &[]));
        }
        if said {
            heard = channel.receive::<Heard>()?.map(|(heard, _)| heard);
            over = true;
        }
    }
    Ok((heard, cancelled))
}

/// A stream cut into lines.
struct Lines {
    fd: OwnedFd,
    rest: Vec<u8>,
}

impl Lines {
    /// Takes bytes in and gives complete lines out, at the end (no bytes) what is left.
    fn take(&mut self, bytes: &[u8], out: &mut dyn FnMut(&[u8])) {
        self.rest.extend_from_slice(bytes);
        let mut from = 0;
        for at in memchr::memchr_iter(b'\n', &self.rest) {
            let line = &self.rest[from..at];
            out(line.strip_suffix(b"\r").unwrap_or(line));
            from = at + 1;
        }
        if self.rest.len() - from > LONGEST_LINE || (bytes.is_empty() && from < self.rest.len()) {
            out(&self.rest[from..]);
            from = self.rest.len();
        }
        self.rest.drain(..from);
    }
}

impl fmt::Debug for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lines").field("rest", &self.rest.len()).finish_non_exhaustive()
    }
}
