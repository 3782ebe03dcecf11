//! The event loop of a shim.
//!
//! One thread, one epoll instance, no time-outs but those that something is due
//! at: an idle container wakes nobody up. Sources of events: the control socket
//! and its clients, the main process and extra processes (pidfds), the
//! container's output, attached clients, the health probe, timers, and the
//! [`Source`](crate::runtime::Source)s of the network.
//!
//! Order at an exit: reap → take what is left in the pipes → write the log →
//! state file → event → answer those who wait. At the last exit the network, the
//! cgroup and the run directory go before the lock is let go.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rustix::event::epoll;
use rustix::net::{SocketFlags, accept_with};
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, pidfd_open, waitid};

use super::attach::Attachment;
use super::clients::{Client, Exec};
use super::finish;
use super::health::Prober;
use super::plan::ShimPlan;
use super::policy::{Backoff, starts_again};
use super::protocol::{Attach, Reply, listen};
use super::stdio::Streams;
use crate::runtime::cgroup::Cgroup;
use crate::runtime::container::Containers;
use crate::runtime::error::ShimError;
use crate::runtime::events::{Action, ContainerEvent, emit};
use crate::runtime::init::{self, NamespaceMode, Stdio};
use crate::runtime::log::StreamKind;
use crate::runtime::log::writer::LogWriter;
use crate::runtime::network::{self, Connected, Namespace, NetPlan};
use crate::runtime::proc;
use crate::runtime::state::{End, EndpointRecord, Event, HealthRecord, HealthStatus, Life, Process, State};
use crate::runtime::sys;
use crate::util::fs::{Lock, PathError};
use crate::{runtime::container::is_id, util::fs};

/// Bytes taken from a stream at once.
const CHUNK: usize = 64 << 10;

/// How long nothing happens before memory is given back, once; longer than what is left to do around a start.
const SETTLES_AFTER: Duration = Duration::from_millis(200);

/// What an epoll event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token {
    Listener,
    Main,
    Stream(StreamKind),
    /// The container takes typed bytes again.
    Stdin,
    Client(usize),
    AttachedIn(usize),
    AttachedOut(usize, StreamKind),
    Exec(usize),
    ProbeOutput,
    Probe,
    Source(usize),
}

impl Token {
    pub(super) fn data(self) -> epoll::EventData {
        let (kind, index) = match self {
            Self::Listener => (0, 0),
            Self::Main => (1, 0),
            Self::Stream(stream) => (2, stream as usize),
            Self::Stdin => (3, 0),
            Self::Client(index) => (4, index),
            Self::AttachedIn(index) => (5, index),
            Self::AttachedOut(index, stream) => (6, index * 2 + stream as usize),
            Self::Exec(index) => (7, index),
            Self::ProbeOutput => (8, 0),
            Self::Probe => (9, 0),
            Self::Source(index) => (10, index),
        };
        epoll::EventData::new_u64(kind << 32 | index as u64)
    }

    fn of(data: epoll::EventData) -> Option<Self> {
        let index = usize::try_from(data.u64() & 0xffff_ffff).ok()?;
        let stream = if index.is_multiple_of(2) { StreamKind::Stdout } else { StreamKind::Stderr };
        Some(match data.u64() >> 32 {
            0 => Self::Listener,
            1 => Self::Main,
            2 => Self::Stream(stream),
            3 => Self::Stdin,
            4 => Self::Client(index),
            5 => Self::AttachedIn(index),
            6 => Self::AttachedOut(index / 2, stream),
            7 => Self::Exec(index),
            8 => Self::ProbeOutput,
            9 => Self::Probe,
            10 => Self::Source(index),
            _ => return None,
        })
    }
}

/// A running main process.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) process: Process,
    pub(super) pidfd: OwnedFd,
    pub(super) cgroup: Cgroup,
    /// The overlay. Closing it syncs the upper layer, so it goes after the exit was reported.
    rootfs: Option<OwnedFd>,
    /// It is our child, so its exit can be waited for.
    child: bool,
    since: Instant,
}

/// A stop that has been asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stopping {
    /// When SIGKILL is due; none once it was sent.
    pub(super) kill_at: Option<Instant>,
    /// Start again afterwards.
    pub(super) restart: bool,
}

/// What is kept of the plan; the rest is read again when it is needed, which is rare, and costs no memory until then.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent switches of the spec")]
pub(super) struct Kept {
    pub(super) name: String,
    pub(super) image: String,
    pub(super) labels: std::collections::BTreeMap<String, String>,
    pub(super) stdin_once: bool,
    pub(super) tty: bool,
    pub(super) restart: crate::spec::RestartPolicy,
    pub(super) stop_signal: i32,
    pub(super) stop_signal_given: bool,
    pub(super) grace: Duration,
    pub(super) auto_remove: bool,
}

/// One container's supervisor.
pub(super) struct Supervisor {
    pub(super) containers: Containers,
    pub(super) id: String,
    pub(super) live_dir: PathBuf,
    pub(super) plan: Kept,
    pub(super) state: State,
    pub(super) epoll: OwnedFd,
    listener: OwnedFd,
    lock: Option<Lock>,
    connected: Connected,
    pub(super) run: Option<Run>,
    pub(super) streams: Streams,
    pub(super) log: LogWriter,
    buffer: Vec<u8>,
    /// Output is held back because a client is slow.
    held: bool,
    pub(super) attachments: Vec<Option<Attachment>>,
    pub(super) clients: Vec<Option<Client>>,
    pub(super) execs: Vec<Option<Exec>>,
    pub(super) prober: Option<Prober>,
    pub(super) stopping: Option<Stopping>,
    pub(super) restart_at: Option<Instant>,
    backoff: Backoff,
    last_time: Timestamp,
    over: bool,
}

/// What a shim begins with.
pub(super) struct Begin {
    pub(super) containers: Containers,
    pub(super) id: String,
    pub(super) lock: Lock,
    pub(super) adopt: bool,
}

impl Supervisor {
    /// Sets the container up, or takes it over. When it fails, everything made so far has been taken back.
    pub(super) fn begin(
        begin: Begin,
        attachments: Vec<Attach>,
        descriptors: &mut impl Iterator<Item = OwnedFd>,
    ) -> Result<Self, ShimError> {
        let Begin { containers, id, lock, adopt } = begin;
        let live_dir = containers.live_dir(&id);
        let plan = read_plan(&live_dir)?;
        let step =
            |what: &'static str| move |e: io::Error| ShimError::Step { text: format!("cannot {what}: {e}") };
        let state = containers
            .state(&id)?
            .ok_or_else(|| ShimError::Step { text: format!("container {id} has no state file") })?;
        let log = LogWriter::open(&containers.dir(&id), &plan.log)?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)
            .map_err(|e| step("create an epoll instance")(e.into()))?;
        let listener = listen(&live_dir).map_err(step("open the control socket"))?;
        let mut this = Self {
            live_dir: live_dir.clone(),
            plan: Kept {
                name: plan.name.clone(),
                image: plan.image.clone(),
                labels: plan.labels.clone(),
                stdin_once: plan.stdin_once,
                tty: plan.tty,
                restart: plan.restart,
                stop_signal: plan.stop_signal,
                stop_signal_given: plan.stop_signal_given,
                grace: Duration::from_millis(plan.grace_ms),
                auto_remove: plan.auto_remove,
            },
            state,
            epoll,
            listener,
            lock: Some(lock),
            connected: Connected::default(),
            run: None,
            streams: Streams::new(&live_dir, plan.tty),
            log,
            buffer: Vec::new(),
            held: false,
            attachments: Vec::new(),
            clients: Vec::new(),
            execs: Vec::new(),
            prober: plan.probe.clone().map(Prober::new),
            stopping: None,
            restart_at: None,
            backoff: Backoff::default(),
            last_time: Timestamp::now(),
            over: false,
            containers,
            id,
        };
        for kind in attachments {
            let attachment =
                Attachment::new(kind, descriptors).map_err(step("connect an attached client"))?;
            this.attachments.push(Some(attachment));
        }
        let started =
            if adopt { this.adopt(&plan) } else { this.connect(&plan).and_then(|()| this.launch(&plan)) };
        if let Err(error) = started {
            if !adopt {
                this.fail(&plan, &error);
            }
            return Err(error);
        }
        this.register();
        Ok(this)
    }

    fn connect(&mut self, plan: &ShimPlan) -> Result<(), ShimError> {
        self.connected = network::connect(&plan.net)?;
        self.note_network(&plan.net);
        Ok(())
    }

    fn note_network(&mut self, net: &NetPlan) {
        self.state.endpoints = net
            .endpoints
            .iter()
            .map(|e| EndpointRecord {
                network_id: e.network_id.clone(),
                network: e.network.clone(),
                addresses: [e.ipv4.map(|c| c.address()), e.ipv6.map(|c| c.address())]
                    .into_iter()
                    .flatten()
                    .collect(),
                mac: e.mac.to_string(),
                names: e.names.clone(),
            })
            .collect();
        self.state.ports.clone_from(&net.ports);
    }

    /// Executes the container's command in the network namespace that is there.
    fn launch(&mut self, plan: &ShimPlan) -> Result<(), ShimError> {
        let mut launch = std::borrow::Cow::Borrowed(&plan.launch);
        for (joined, pid) in [(&plan.joins.pid, true), (&plan.joins.ipc, false)] {
            if let Some(id) = joined {
                let mode = NamespaceMode::Join(self.running_pid(id)?);
                let namespaces = &mut launch.to_mut().namespaces;
                *(if pid { &mut namespaces.pid } else { &mut namespaces.ipc }) = mode;
            }
        }
        let joined_net;
        let netns: Option<BorrowedFd<'_>> = match (&plan.net.namespace, &plan.joins.network) {
            (Namespace::Own, _) => self.connected.netns.as_ref().map(AsFd::as_fd),
            (Namespace::Container { .. }, Some(id)) => {
                joined_net = proc::open_namespace(self.running_pid(id)?, "net").map_err(|e| {
                    ShimError::Step { text: format!("cannot join the network of container {id}: {e}") }
                })?;
                Some(joined_net.as_fd())
            }
            (Namespace::Host | Namespace::Container { .. }, _) => None,
        };
        let inner;
        let stdio = if plan.tty {
            Stdio::Pty { rows: 0, columns: 0 }
        } else {
            inner = self
                .streams
                .prepare(plan.stdin_open)
                .map_err(|e| ShimError::Step { text: format!("cannot open the standard streams: {e}") })?;
            Stdio::Fds {
                stdin: inner.stdin.as_fd(),
                stdout: inner.stdout.as_fd(),
                stderr: inner.stderr.as_fd(),
            }
        };
        let launched = init::launch(&launch, stdio, netns)?;
        if let Some(master) = launched.pty {
            self.streams
                .take_terminal(master)
                .map_err(|e| ShimError::Step { text: format!("cannot use the terminal: {e}") })?;
        }
        let started = self.now();
        let process = Process { pid: launched.pid, birth: proc::birth(launched.pid).unwrap_or(0), started };
        self.run = Some(Run {
            process,
            pidfd: launched.pidfd,
            cgroup: launched.cgroup,
            rootfs: Some(launched.rootfs),
            child: true,
            since: Instant::now(),
        });
        self.state.health = HealthRecord::default();
        if let Some(prober) = &mut self.prober {
            self.state.health.status = HealthStatus::Starting;
            prober.started(Instant::now());
        }
        self.change(Event::Executed(process));
        self.event(Action::Start);
        Ok(())
    }

    /// Takes over a container whose shim was killed.
    fn adopt(&mut self, plan: &ShimPlan) -> Result<(), ShimError> {
        let gone = || ShimError::State { state: "gone".into(), action: "be taken over".into() };
        let process = self.state.life.process().ok_or_else(gone)?;
        let pid = Pid::from_raw(process.pid).ok_or_else(gone)?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(|_| gone())?;
        if proc::birth(process.pid) != Some(process.birth) {
            return Err(gone());
        }
        self.run = Some(Run {
            process,
            pidfd,
            cgroup: Cgroup::at(plan.launch.cgroup.path.clone()),
            rootfs: None,
            child: false,
            since: Instant::now(),
        });
        self.streams
            .adopt(plan.stdin_open)
            .map_err(|e| ShimError::Step { text: format!("cannot open the standard streams: {e}") })?;
        if plan.net.namespace == Namespace::Own {
            let netns = proc::open_namespace(process.pid, "net")
                .map_err(|e| ShimError::Step { text: format!("cannot open the network namespace: {e}") })?;
            self.connected = network::adopt(&plan.net, netns)?;
        }
        if let Some(prober) = &mut self.prober {
            prober.started(Instant::now());
        }
        Ok(())
    }

    /// The pid of another container that is joined.
    fn running_pid(&self, id: &str) -> Result<i32, ShimError> {
        let state = self.containers.state(id)?;
        match state.and_then(|s| s.life.process()) {
            Some(process) if proc::birth(process.pid) == Some(process.birth) => Ok(process.pid),
            _ => Err(ShimError::Step {
                text: format!(
                    "cannot join a namespace of container {}: it is not running",
                    &id[..12.min(id.len())]
                ),
            }),
        }
    }

    /// A first start that failed: takes everything back and records why.
    fn fail(&mut self, plan: &ShimPlan, error: &ShimError) {
        self.connected = Connected::default();
        let failed = Event::LaunchFailed { code: error.code(), error: error.to_string(), at: self.now() };
        self.change(failed);
        if finish::clean(&self.containers, plan).is_ok() && plan.auto_remove {
            self.lock = None;
            drop(finish::remove(&self.containers, &self.id, true));
        }
        self.lock = None;
    }

    fn register(&mut self) {
        self.watch(&self.listener, Token::Listener, epoll::EventFlags::IN);
        for (index, source) in self.connected.sources.iter().enumerate() {
            self.watch(source.fd(), Token::Source(index), epoll::EventFlags::IN);
        }
        for index in 0..self.attachments.len() {
            self.register_attachment(index);
        }
        self.register_run();
    }

    fn register_run(&mut self) {
        if let Some(run) = &self.run {
            self.watch(&run.pidfd, Token::Main, epoll::EventFlags::IN);
        }
        for (stream, fd) in [(StreamKind::Stdout, &self.streams.out), (StreamKind::Stderr, &self.streams.err)]
        {
            if let Some(fd) = fd {
                self.watch(fd, Token::Stream(stream), epoll::EventFlags::IN);
            }
        }
    }

    pub(super) fn register_attachment(&mut self, index: usize) {
        let Some(Some(attachment)) = self.attachments.get(index) else { return };
        if let Some(stdin) = &attachment.stdin {
            self.watch(stdin, Token::AttachedIn(index), epoll::EventFlags::IN);
        }
        for (stream, sink) in
            [(StreamKind::Stdout, &attachment.stdout), (StreamKind::Stderr, &attachment.stderr)]
        {
            if let Some(sink) = sink {
                // Errors are reported without being asked for: the reader has left.
                self.watch(&sink.fd, Token::AttachedOut(index, stream), epoll::EventFlags::empty());
            }
        }
    }

    /// Adds a descriptor to the loop, or changes what is waited for.
    pub(super) fn watch(&self, fd: impl AsFd, token: Token, flags: epoll::EventFlags) {
        let fd = fd.as_fd();
        if epoll::add(&self.epoll, fd, token.data(), flags) == Err(rustix::io::Errno::EXIST) {
            // Cannot fail for a descriptor that is in there.
            epoll::modify(&self.epoll, fd, token.data(), flags).ok();
        }
    }

    pub(super) fn unwatch(&self, fd: impl AsFd) {
        // Not being there is what is wanted.
        epoll::delete(&self.epoll, fd).ok();
    }

    /// Turns until the container has stopped for good, then cleans up.
    pub(super) fn turn_until_over(mut self) {
        let mut events = Vec::with_capacity(32);
        let mut busy = false;
        // Something happened since memory was last given back.
        let mut stirred = true;
        while !self.over {
            let mut timeout = self.deadline().map(|at| at.saturating_duration_since(Instant::now()));
            if busy {
                timeout = Some(Duration::ZERO);
            } else if stirred {
                timeout = Some(timeout.map_or(SETTLES_AFTER, |t| t.min(SETTLES_AFTER)));
            }
            let settles = timeout == Some(SETTLES_AFTER) && !busy;
            let timeout = timeout.map(|t| rustix::time::Timespec {
                tv_sec: i64::try_from(t.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: i64::from(t.subsec_nanos()),
            });
            events.clear();
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), timeout.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                // EBADF and EINVAL cannot happen to a descriptor of ours; going on would spin.
                Err(_) => break,
            }
            if events.is_empty() && busy {
                // Nothing more to do for now: give the memory of the burst back and sleep.
                busy = false;
                self.buffer = Vec::new();
                self.log.relax();
            } else if events.is_empty() && settles {
                stirred = false;
                sys::release_idle_memory();
            } else {
                stirred = true;
            }
            for event in &events {
                if let Some(token) = Token::of(event.data) {
                    busy |= matches!(token, Token::Stream(_));
                    self.handle(token, event.flags);
                }
            }
            self.timers();
        }
        self.leave();
    }

    fn handle(&mut self, token: Token, flags: epoll::EventFlags) {
        match token {
            Token::Listener => self.accept(),
            Token::Main => self.main_exited(),
            Token::Stream(stream) => {
                self.read_stream(stream);
            }
            Token::Stdin => self.push_stdin(),
            Token::Client(index) => self.client(index),
            Token::AttachedIn(index) => self.typed(index),
            Token::AttachedOut(index, stream) => self.attached_out(index, stream, flags),
            Token::Exec(index) => self.exec_exited(index),
            Token::ProbeOutput => self.probe_output(),
            Token::Probe => self.probe_exited(),
            Token::Source(index) => {
                if let Some(source) = self.connected.sources.get_mut(index) {
                    source.turn();
                }
            }
        }
    }

    fn accept(&mut self) {
        while let Ok(socket) = accept_with(&self.listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
            self.take_client(socket);
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let prober = self.prober.as_ref().and_then(Prober::deadline);
        let sources = self.connected.sources.iter().filter_map(|s| s.deadline());
        [self.stopping.and_then(|s| s.kill_at), self.restart_at, prober]
            .into_iter()
            .flatten()
            .chain(sources)
            .min()
    }

    fn timers(&mut self) {
        let now = Instant::now();
        if let Some(stopping) = &mut self.stopping
            && stopping.kill_at.is_some_and(|at| at <= now)
        {
            stopping.kill_at = None;
            self.kill_all();
        }
        if self.restart_at.is_some_and(|at| at <= now) {
            self.start_again(true);
        }
        self.prober_timers(now);
        for source in &mut self.connected.sources {
            if source.deadline().is_some_and(|at| at <= now) {
                source.turn();
            }
        }
    }

    /// SIGKILL to everything in the container, also where it shares its process namespace.
    pub(super) fn kill_all(&mut self) {
        if let Some(run) = &self.run {
            sys::pidfd_send_signal(run.pidfd.as_fd(), libc::SIGKILL).ok();
            drop(run.cgroup.kill());
            // A frozen process dies when it thaws.
            if matches!(self.state.life, Life::Paused { .. }) {
                drop(run.cgroup.thaw());
            }
        }
    }

    /// Reads once; `false` when there is nothing.
    fn read_stream(&mut self, stream: StreamKind) -> bool {
        let fd = match stream {
            StreamKind::Stdout => &self.streams.out,
            StreamKind::Stderr => &self.streams.err,
        };
        let Some(fd) = fd else { return false };
        if self.buffer.capacity() < CHUNK {
            self.buffer.reserve_exact(CHUNK);
        }
        self.buffer.clear();
        let read = rustix::io::retry_on_intr(|| {
            rustix::io::read(fd, rustix::buffer::spare_capacity(&mut self.buffer))
        });
        match read {
            Ok(n) if n > 0 => {
                let now = self.now();
                self.log.write(stream, &self.buffer, now);
                self.fan_out(stream);
                true
            }
            Err(rustix::io::Errno::AGAIN) => false,
            // A terminal whose other side is closed; the exit comes by the pidfd.
            Ok(_) | Err(_) => {
                self.unwatch(fd);
                false
            }
        }
    }

    fn fan_out(&mut self, stream: StreamKind) {
        let mut slow = false;
        for index in 0..self.attachments.len() {
            let Some(attachment) = self.attachments[index].as_mut().filter(|a| !a.ended) else { continue };
            // With a terminal there is one stream; without stderr of its own a client gets stdout only.
            let Some(sink) = attachment.sink(stream) else { continue };
            let alive = sink.write(&self.buffer);
            let arm = alive && sink.is_waiting() && !sink.armed;
            if arm {
                sink.armed = true;
                let token = Token::AttachedOut(index, stream);
                epoll::modify(&self.epoll, &sink.fd, token.data(), epoll::EventFlags::OUT).ok();
            }
            slow |= attachment.is_slow();
            if !alive {
                self.close_sink(index, stream);
            }
        }
        if slow {
            self.hold(true);
        }
    }

    /// Takes no output from the container until clients have caught up, or takes it again.
    fn hold(&mut self, hold: bool) {
        if self.held == hold {
            return;
        }
        self.held = hold;
        let flags = if hold { epoll::EventFlags::empty() } else { epoll::EventFlags::IN };
        for (stream, fd) in [(StreamKind::Stdout, &self.streams.out), (StreamKind::Stderr, &self.streams.err)]
        {
            if let Some(fd) = fd {
                self.watch(fd, Token::Stream(stream), flags);
            }
        }
    }

    fn attached_out(&mut self, index: usize, stream: StreamKind, flags: epoll::EventFlags) {
        let Some(Some(attachment)) = self.attachments.get_mut(index) else { return };
        let ended = attachment.ended;
        let Some(sink) = attachment.sink(stream) else { return };
        let mut alive = !flags.contains(epoll::EventFlags::ERR) && sink.flush();
        if alive && !sink.is_waiting() {
            sink.armed = false;
            let token = Token::AttachedOut(index, stream);
            epoll::modify(&self.epoll, &sink.fd, token.data(), epoll::EventFlags::empty()).ok();
            alive = !ended;
        }
        if !alive {
            self.close_sink(index, stream);
        }
        if self.held && !self.attachments.iter().flatten().any(Attachment::is_slow) {
            self.hold(false);
        }
    }

    fn close_sink(&mut self, index: usize, stream: StreamKind) {
        let Some(slot) = self.attachments.get_mut(index) else { return };
        let Some(attachment) = slot else { return };
        if let Some(sink) = attachment.sink(stream).take() {
            epoll::delete(&self.epoll, &sink.fd).ok();
        }
        // Without output nobody is there, whatever is left of its input.
        if attachment.stdout.is_none() && attachment.stderr.is_none() {
            *slot = None;
            self.client_left();
        } else if attachment.is_gone() {
            *slot = None;
        }
    }

    /// Typed bytes from an attached client.
    fn typed(&mut self, index: usize) {
        let Some(Some(attachment)) = self.attachments.get_mut(index) else { return };
        let Some(stdin) = &attachment.stdin else { return };
        let mut chunk = [0_u8; 4096];
        match rustix::io::read(stdin, &mut chunk) {
            Ok(0) => {
                epoll::delete(&self.epoll, stdin).ok();
                attachment.stdin = None;
                self.client_left();
            }
            Ok(n) => {
                self.streams.typed.extend_from_slice(&chunk[..n]);
                self.push_stdin();
            }
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            Err(_) => {
                epoll::delete(&self.epoll, stdin).ok();
                attachment.stdin = None;
            }
        }
    }

    /// The first client that leaves closes standard input where the plan says so.
    fn client_left(&mut self) {
        if self.plan.stdin_once && !self.plan.tty {
            self.streams.close_input();
        }
    }

    /// Gives typed bytes to the container; while it does not take them, no more are read from clients.
    fn push_stdin(&mut self) {
        self.streams.push();
        let waiting = !self.streams.typed.is_empty();
        if let Some(fd) = self.streams.input() {
            let flags = if waiting { epoll::EventFlags::OUT } else { epoll::EventFlags::empty() };
            if self.plan.tty {
                let both = if self.held { flags } else { flags | epoll::EventFlags::IN };
                // The terminal has one registration, for output; it is written on any event.
                self.watch(fd, Token::Stream(StreamKind::Stdout), both);
            } else {
                self.watch(fd, Token::Stdin, flags);
            }
        }
        let flags = if waiting { epoll::EventFlags::empty() } else { epoll::EventFlags::IN };
        for (index, attachment) in self.attachments.iter().enumerate() {
            if let Some(stdin) = attachment.as_ref().and_then(|a| a.stdin.as_ref()) {
                self.watch(stdin, Token::AttachedIn(index), flags);
            }
        }
    }

    fn main_exited(&mut self) {
        let Some(run) = &self.run else { return };
        let status = if run.child {
            match waitid(WaitId::PidFd(run.pidfd.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG) {
                Ok(None) => return,
                Ok(Some(status)) => match (status.exit_status(), status.terminating_signal()) {
                    (Some(code), _) => Some(code),
                    (None, Some(signal)) => Some(128 + signal),
                    (None, None) => None,
                },
                Err(_) => None,
            }
        } else {
            match proc::foreign_exit(run.process, run.pidfd.as_fd()) {
                proc::Foreign::Code(code) => Some(code),
                proc::Foreign::Unknown => None,
            }
        };
        let Some(run) = self.run.take() else { return };
        self.unwatch(&run.pidfd);
        let oom_killed = run.cgroup.oom_kills() > 0;
        let end = End { code: status.unwrap_or(255), at: self.now(), oom_killed, unknown: status.is_none() };
        // Other processes are left only where the process namespace is shared. The group goes in
        // any case: Linux kills what is cloned into a group on which `cgroup.kill` was ever used
        // (it compares with the kill count of the parent's group; seen on 6.18).
        if !run.cgroup.processes().is_empty() {
            drop(run.cgroup.kill());
        }
        drop(run.cgroup.remove());
        self.hold(false);
        while self.read_stream(StreamKind::Stdout) {}
        while self.read_stream(StreamKind::Stderr) {}
        let now = self.now();
        self.log.finish(now);
        self.state.dropped_lines = self.log.dropped();
        self.end_processes();
        if self.plan.tty {
            self.streams.out = None;
        }
        let ran = run.since.elapsed();
        let stopping = self.stopping.take();
        let restart = stopping.is_some_and(|s| s.restart);
        let by_policy = !restart
            && stopping.is_none()
            && starts_again(self.plan.restart, end.code, self.state.restarts, self.state.stopped);
        self.detach_all();
        if oom_killed {
            self.event(Action::Oom);
        }
        if restart || by_policy {
            self.change(Event::ExitToRestart(end));
            self.event(Action::Die { code: end.code, restarting: true });
            drop(run);
            if restart {
                self.start_again(false);
            } else {
                self.restart_at = Some(Instant::now() + self.backoff.next(ran));
            }
            return;
        }
        self.change(Event::Exit(end));
        self.event(Action::Die { code: end.code, restarting: false });
        if stopping.is_some() {
            self.event(Action::Stop);
        }
        self.run = None;
        self.finish_keeping(run.rootfs);
    }

    /// The start after an exit, by policy or because a restart was asked for.
    pub(super) fn start_again(&mut self, by_policy: bool) {
        self.restart_at = None;
        if by_policy {
            self.state.restarts += 1;
        } else {
            self.state.restarts = 0;
            self.state.stopped = false;
        }
        let launched = read_plan(&self.live_dir).and_then(|plan| {
            self.change(Event::Launch);
            self.launch(&plan)
        });
        match launched {
            Ok(()) => {
                self.register_run();
                if !by_policy {
                    self.event(Action::Restart);
                }
                self.answer_restart(&Reply::Done);
            }
            Err(error) => {
                let failed =
                    Event::LaunchFailed { code: error.code(), error: error.to_string(), at: self.now() };
                self.change(failed);
                self.answer_restart(&Reply::Failed { error });
                self.finish_keeping(None);
            }
        }
    }

    /// Calls off a restart that is due later.
    pub(super) fn give_up(&mut self) {
        self.restart_at = None;
        self.change(Event::GiveUp);
        self.event(Action::Stop);
        self.finish_keeping(None);
    }

    /// The container has stopped for good: cleans up, then answers those who wait.
    fn finish_keeping(&mut self, rootfs: Option<OwnedFd>) {
        // The proxies and reserved ports go before the addresses are given back.
        self.connected = Connected::default();
        if let Ok(plan) = read_plan(&self.live_dir) {
            // What could not be taken back stays recorded in the run directory; the next command tries again.
            drop(finish::clean(&self.containers, &plan));
        }
        let code = match &self.state.life {
            Life::Exited { end } => end.code,
            Life::Failed { code, .. } => *code,
            _ => 255,
        };
        self.lock = None;
        self.answer_all(code);
        if self.plan.auto_remove
            && let Ok(_lock) = self.containers.lock(&self.id)
        {
            drop(finish::remove(&self.containers, &self.id, true));
        }
        // Closing the overlay syncs its upper layer; nobody waits for that any more.
        drop(rootfs);
        self.over = true;
    }

    /// Gives attached clients their last bytes, however slow they are.
    fn leave(mut self) {
        for attachment in self.attachments.iter_mut().filter_map(Option::take) {
            super::attach::flush_blocking(attachment);
        }
    }

    /// The output of this run is complete: clients see its end.
    fn detach_all(&mut self) {
        let mut waiting = Vec::new();
        for mut attachment in self.attachments.drain(..).flatten() {
            attachment.stdin = None;
            attachment.ended = true;
            for stream in [StreamKind::Stdout, StreamKind::Stderr] {
                let sink = attachment.sink(stream);
                if let Some(open) = sink {
                    epoll::delete(&self.epoll, &open.fd).ok();
                    if !open.is_waiting() || !open.flush() || !open.is_waiting() {
                        *sink = None;
                    }
                }
            }
            if !attachment.is_gone() {
                waiting.push(Some(attachment));
            }
        }
        self.attachments = waiting;
        for index in 0..self.attachments.len() {
            self.rearm_ended(index);
        }
    }

    fn rearm_ended(&mut self, index: usize) {
        let Some(Some(attachment)) = self.attachments.get_mut(index) else { return };
        for stream in [StreamKind::Stdout, StreamKind::Stderr] {
            if let Some(sink) = attachment.sink(stream) {
                sink.armed = true;
                let token = Token::AttachedOut(index, stream);
                epoll::add(&self.epoll, &sink.fd, token.data(), epoll::EventFlags::OUT).ok();
            }
        }
    }

    /// Applies an event and writes the state file.
    pub(super) fn change(&mut self, event: Event) {
        // The events come from what the kernel says; one that does not fit the state file
        // means that somebody wrote it meanwhile, and then what the kernel says wins.
        if self.state.apply(event.clone()).is_err() {
            self.state.life = match event {
                Event::Executed(process) => Life::Running { process },
                Event::Exit(end) | Event::Lost(end) => Life::Exited { end },
                Event::ExitToRestart(end) => Life::Restarting { end },
                Event::LaunchFailed { code, error, at } => Life::Failed { code, error, at },
                _ => return,
            };
        }
        self.save();
    }

    /// Writes the state file. A full disk does not stop a container; the next change tries again.
    pub(super) fn save(&mut self) {
        if is_id(&self.id) && self.containers.dir(&self.id).exists() {
            drop(self.containers.write_state(&self.id, &self.state));
        }
    }

    pub(super) fn event(&mut self, action: Action) {
        let event = ContainerEvent {
            time: self.now(),
            id: self.id.clone(),
            name: self.plan.name.clone(),
            image: self.plan.image.clone(),
            labels: self.plan.labels.clone(),
            action,
        };
        drop(emit(self.containers.root(), &event));
    }

    /// The time, which never goes back during the life of a shim.
    pub(super) fn now(&mut self) -> Timestamp {
        self.last_time = self.last_time.max(Timestamp::now());
        self.last_time
    }
}

/// The plan of a run directory.
pub(super) fn read_plan(live_dir: &std::path::Path) -> Result<ShimPlan, ShimError> {
    let path = live_dir.join("plan");
    fs::read_json(&path)?.ok_or_else(|| {
        let missing = io::Error::from(io::ErrorKind::NotFound);
        ShimError::step(&PathError::at("read", &path)(missing))
    })
}
