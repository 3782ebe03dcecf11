//! What one does to a container that exists: stop, signal, freeze, wait, attach, run a command in it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::runtime::container::Liveness;
use crate::runtime::create::apply_environment;
use crate::runtime::error::{Result, RuntimeError, ShimError};
use crate::runtime::events::{Action, EventReader};
use crate::runtime::init::{CapabilitySets, ProcessPlan};
use crate::runtime::security::Security;
use crate::runtime::shim::finish;
use crate::runtime::shim::plan::ShimPlan;
use crate::runtime::shim::protocol::{Attach, Channel, Reply, Request};
use crate::runtime::start::{Waiting, capability_sets, identity, process};
use crate::runtime::state::Life;
use crate::runtime::user::{Identity, RootFiles};
use crate::runtime::watch::Watch;
use crate::runtime::{Runtime, signal, sys};
use crate::spec::ExecSpec;
use crate::util::fs;

/// Streams of a process: pipes, or a terminal's master.
#[derive(Debug)]
pub struct Streams {
    /// Where to write its input; none when it is not connected.
    pub stdin: Option<OwnedFd>,
    /// Its output, and errors with a terminal.
    pub stdout: OwnedFd,
    /// Its errors; none with a terminal.
    pub stderr: Option<OwnedFd>,
    /// The descriptors are the master of a terminal: end of output is an error `EIO`, end of input is typed.
    pub terminal: bool,
}

/// An extra process.
#[derive(Debug)]
pub struct ExecProcess {
    /// Its streams; none when detached.
    pub streams: Option<Streams>,
    /// For signals.
    pidfd: OwnedFd,
    channel: Channel,
    container: String,
}

impl ExecProcess {
    /// Sends a signal by name or number.
    ///
    /// # Errors
    /// [`RuntimeError::Signal`]; the process may be gone, which is no error.
    pub fn signal(&self, word: &str) -> Result<()> {
        let number = signal::parse(word)?;
        match sys::pidfd_send_signal(self.pidfd.as_fd(), number) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(RuntimeError::Control {
                step: "send a signal to a command under",
                container: self.container.clone(),
                source: error.into(),
            }),
        }
    }

    /// Blocks until it has ended; 128 + n for signal n.
    ///
    /// # Errors
    /// [`RuntimeError::ShimDied`] when nobody is left who knows.
    pub fn wait(&self) -> Result<i32> {
        match self.channel.receive::<Reply>() {
            Ok(Some((Reply::Exited { code }, _))) => Ok(code),
            Ok(Some((Reply::Failed { error }, _))) => {
                Err(RuntimeError::Exec { container: self.container.clone(), source: error })
            }
            Ok(Some((Reply::Done | Reply::Started, _)) | None) | Err(_) => {
                Err(RuntimeError::ShimDied { container: self.container.clone(), detail: String::new() })
            }
        }
    }
}

impl Runtime {
    /// Asks a container to stop, kills it after the grace period, and returns after the exit.
    /// One that does not run is left alone.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`], [`RuntimeError::ShimDied`].
    pub fn stop(&self, container: &str, grace: Option<Duration>) -> Result<()> {
        let grace_ms = grace.map(|g| u64::try_from(g.as_millis()).unwrap_or(u64::MAX));
        self.until_done(container, &Request::Stop { grace_ms })
    }

    /// Stops and starts a container, keeping its addresses. One that does not run is started.
    ///
    /// # Errors
    /// As [`Runtime::stop`] and [`Runtime::start`].
    pub fn restart(&self, container: &str, grace: Option<Duration>) -> Result<()> {
        let id = self.containers.resolve(container)?;
        let grace_ms = grace.map(|g| u64::try_from(g.as_millis()).unwrap_or(u64::MAX));
        match self.request(&id, container, &Request::Restart { grace_ms }, &[]) {
            Ok((Reply::Failed { error: ShimError::State { .. } }, _))
            | Err(RuntimeError::NotRunning { .. }) => self.start(container),
            Ok((Reply::Failed { error }, _)) => {
                Err(RuntimeError::Start { container: container.to_owned(), source: error })
            }
            Ok(_) => Ok(()),
            Err(RuntimeError::ShimDied { .. }) => {
                self.repair()?;
                self.restart(container, grace)
            }
            Err(error) => Err(error),
        }
    }

    /// Sends a signal to the main process.
    ///
    /// # Errors
    /// [`RuntimeError::Signal`]; [`RuntimeError::NotRunning`].
    pub fn kill(&self, container: &str, word: &str) -> Result<()> {
        let signal = signal::parse(word)?;
        self.simple(container, &Request::Kill { signal })
    }

    /// Freezes all processes.
    ///
    /// # Errors
    /// [`RuntimeError::NotRunning`]; [`RuntimeError::State`] when it is frozen.
    pub fn pause(&self, container: &str) -> Result<()> {
        self.simple(container, &Request::Pause)
    }

    /// Thaws.
    ///
    /// # Errors
    /// [`RuntimeError::NotRunning`]; [`RuntimeError::State`] when it is not frozen.
    pub fn unpause(&self, container: &str) -> Result<()> {
        self.simple(container, &Request::Unpause)
    }

    /// Sets the size of the main process's terminal.
    ///
    /// # Errors
    /// [`RuntimeError::NotRunning`].
    pub fn resize(&self, container: &str, columns: u16, rows: u16) -> Result<()> {
        self.simple(container, &Request::Resize { rows, columns })
    }

    /// Blocks until the container has stopped for good and gives its exit code. One that does
    /// not run gives its last code at once; one that was never started is waited for; one that
    /// has removed itself is known by its last event.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`] when there is none, and none is remembered.
    pub fn wait(&self, container: &str) -> Result<i32> {
        let id = match self.containers.resolve(container) {
            Ok(id) => id,
            Err(error @ RuntimeError::NotFound(_)) => return self.last_exit(container)?.ok_or(error),
            Err(error) => return Err(error),
        };
        loop {
            match self.request(&id, container, &Request::Wait, &[]) {
                Ok((Reply::Exited { code }, _)) => return Ok(code),
                Ok(_) | Err(RuntimeError::ShimDied { .. }) => {}
                Err(RuntimeError::NotFound(_)) => {
                    return self.last_exit(&id)?.ok_or_else(|| RuntimeError::NotFound(container.to_owned()));
                }
                Err(RuntimeError::NotRunning { .. }) => {
                    let watch = Watch::new(&self.containers.dir(&id));
                    let (Ok(watch), Some(state)) = (watch, self.containers.state(&id)?) else {
                        return self
                            .last_exit(&id)?
                            .ok_or_else(|| RuntimeError::NotFound(container.to_owned()));
                    };
                    match state.life {
                        Life::Exited { end } => return Ok(end.code),
                        Life::Failed { code, .. } => return Ok(code),
                        Life::Created | Life::Removing => {
                            watch.wait(None);
                        }
                        Life::Starting
                        | Life::Running { .. }
                        | Life::Paused { .. }
                        | Life::Restarting { .. } => {
                            self.repair()?;
                        }
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The exit code in the last `die` event of a container that is gone, by full id or name.
    fn last_exit(&self, container: &str) -> Result<Option<i32>> {
        let mut events = EventReader::open(self.root(), Some(jiff::Timestamp::MIN))?;
        Ok(events.batch()?.into_iter().rev().find_map(|event| match event.action {
            Action::Die { code, .. } if event.id == container || event.name == container => Some(code),
            _ => None,
        }))
    }

    /// Connects to the streams of the main process. For a container that does not run they
    /// are connected by the next [`Runtime::start`] of this object, so that nothing is missed.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`]; the shim cannot be reached.
    pub fn attach(&self, container: &str, stdin: bool) -> Result<Streams> {
        let id = self.containers.resolve(container)?;
        let record =
            self.containers.record(&id)?.ok_or_else(|| RuntimeError::NotFound(container.to_owned()))?;
        let tty = record.spec.process.tty;
        let kind = Attach { stdin: stdin && record.spec.process.stdin_open, stderr: !tty };
        let (streams, theirs) = pipes(kind).map_err(|source| RuntimeError::Control {
            step: "make pipes to",
            container: container.to_owned(),
            source,
        })?;
        let descriptors: Vec<_> = theirs.iter().map(AsFd::as_fd).collect();
        match self.request(&id, container, &Request::Attach(kind), &descriptors) {
            Ok((Reply::Failed { error }, _)) => {
                return Err(RuntimeError::Exec { container: container.to_owned(), source: error });
            }
            Ok(_) => {}
            Err(RuntimeError::NotRunning { .. }) => {
                drop(descriptors);
                if let Ok(mut waiting) = self.waiting.lock() {
                    waiting.entry(id).or_default().push(Waiting { kind, descriptors: theirs });
                }
            }
            Err(error) => return Err(error),
        }
        Ok(streams)
    }

    /// Runs an extra process in a container; returns once it has been executed.
    ///
    /// # Errors
    /// [`RuntimeError::NotRunning`]; [`RuntimeError::Exec`] with the step; [`RuntimeError::User`].
    pub fn exec(&self, container: &str, spec: &ExecSpec) -> Result<ExecProcess> {
        let id = self.containers.resolve(container)?;
        let process = self.exec_plan(&id, container, spec)?;
        let terminal = spec.tty.then_some((0, 0));
        let request = Request::Exec { process: Box::new(process), terminal };
        let failed = |source| RuntimeError::Control {
            step: "make pipes to a command under",
            container: container.to_owned(),
            source,
        };
        let mut streams = None;
        let mut theirs = Vec::new();
        if spec.tty {
        } else if spec.detach {
            for _ in 0..3 {
                theirs.push(null().map_err(failed)?);
            }
        } else {
            let (ours, mut fds) = pipes(Attach { stdin: spec.stdin, stderr: true }).map_err(failed)?;
            if !spec.stdin {
                fds.insert(0, null().map_err(failed)?);
            }
            streams = Some(ours);
            theirs = fds;
        }
        let channel = self.connect(&id, container)?;
        let descriptors: Vec<_> = theirs.iter().map(AsFd::as_fd).collect();
        let sent = channel.send(&request, &descriptors).and_then(|()| channel.receive::<Reply>());
        let mut received = match sent {
            Ok(Some((Reply::Started, received))) => received.into_iter(),
            Ok(Some((Reply::Failed { error: ShimError::State { state, .. } }, _))) => {
                return Err(RuntimeError::NotRunning { container: container.to_owned(), state });
            }
            Ok(Some((Reply::Failed { error }, _))) => {
                return Err(RuntimeError::Exec { container: container.to_owned(), source: error });
            }
            Ok(_) => {
                return Err(RuntimeError::ShimDied {
                    container: container.to_owned(),
                    detail: String::new(),
                });
            }
            Err(source) => {
                return Err(RuntimeError::Control {
                    step: "talk to",
                    container: container.to_owned(),
                    source,
                });
            }
        };
        let pidfd = received.next().ok_or_else(|| RuntimeError::ShimDied {
            container: container.to_owned(),
            detail: String::new(),
        })?;
        if let Some(master) = received.next().filter(|_| !spec.detach) {
            let stdin = master.try_clone().map_err(failed)?;
            streams = Some(Streams {
                stdin: spec.stdin.then_some(stdin),
                stdout: master,
                stderr: None,
                terminal: true,
            });
        }
        Ok(ExecProcess { streams, pidfd, channel, container: container.to_owned() })
    }

    fn exec_plan(&self, id: &str, container: &str, spec: &ExecSpec) -> Result<ProcessPlan> {
        let mut record =
            self.containers.record(id)?.ok_or_else(|| RuntimeError::NotFound(container.to_owned()))?;
        let state = self.state_of(id)?;
        let not_running = || RuntimeError::NotRunning {
            container: container.to_owned(),
            state: state.life.word().to_owned(),
        };
        let running = state.life.process().ok_or_else(not_running)?;
        let plan: ShimPlan =
            fs::read_json(&self.containers.live_dir(id).join("plan"))?.ok_or_else(not_running)?;
        if spec.command.is_empty() {
            return Err(RuntimeError::Invalid {
                container: container.to_owned(),
                reason: "there is no command to run".into(),
            });
        }
        // Rights are those of the main process; its filter was made once, at the start.
        let base = plan.launch.process;
        let bounding = base.capabilities.bounding;
        let security = Security {
            capabilities: if spec.privileged {
                capability_sets(&record.spec, true)?
            } else {
                CapabilitySets { effective: bounding, permitted: bounding, ..base.capabilities }
            },
            seccomp: if spec.privileged { None } else { base.seccomp.clone() },
            no_new_privileges: base.no_new_privileges,
            masked_paths: Vec::new(),
            readonly_paths: Vec::new(),
        };
        record.args.clone_from(&spec.command);
        let mut process = if let Some(user) = &spec.user {
            let root = RootFiles::of_process(running.pid).map_err(|_| not_running())?;
            let identity = identity(&record, user, &root)?;
            process(&record, &identity, &security, &plan.launch.hostname, spec.tty)?
        } else {
            // The same user as the main process, whose look-up is in the plan.
            let known = Identity {
                uid: base.uid,
                gid: base.gid,
                groups: base.groups.clone(),
                home: base.env.iter().find_map(|e| e.strip_prefix("HOME=")).unwrap_or("/").to_owned(),
            };
            process(&record, &known, &security, &plan.launch.hostname, spec.tty)?
        };
        apply_environment(&mut process.env, &spec.env);
        if let Some(cwd) = &spec.working_dir {
            process.cwd.clone_from(cwd);
        }
        Ok(process)
    }

    /// Kills and waits until no shim is alive; clean-up of a crash included. Under the container's lock.
    pub(super) fn make_idle(&self, id: &str, container: &str, force: bool) -> Result<()> {
        loop {
            let state = self.state_of(id)?;
            match self.containers.liveness(id, false)? {
                Liveness::Absent if !state.life.is_live() => return Ok(()),
                Liveness::Alive if !state.life.is_live() => self.containers.wait_for_shim_to_end(id)?,
                Liveness::Alive if !force => {
                    return Err(RuntimeError::Running {
                        container: container.to_owned(),
                        state: state.life.word().to_owned(),
                    });
                }
                // Its control socket is not there yet.
                Liveness::Alive if matches!(state.life, Life::Starting) => self.wait_while_starting(id)?,
                Liveness::Alive => {
                    if let Ok(channel) = Channel::connect(&self.containers.live_dir(id)) {
                        let kill = channel
                            .send(&Request::Stop { grace_ms: Some(0) }, &[])
                            .and_then(|()| channel.receive::<Reply>());
                        // Its answer, or its end: either way the lock tells.
                        drop(kill);
                    }
                    self.containers.wait_for_shim_to_end(id)?;
                }
                Liveness::Free(lock) if state.life.is_live() => self.repair_dead(id, lock)?,
                Liveness::Free(_lock) => {
                    match fs::read_json::<ShimPlan>(&self.containers.live_dir(id).join("plan"))? {
                        Some(plan) => finish::clean(&self.containers, &plan)?,
                        None => finish::clean_run_directory(&self.containers, id)?,
                    }
                }
                Liveness::Absent => {
                    // It claims to run and has not even a run directory: the machine was rebooted.
                    self.void(id)?;
                }
            }
        }
    }

    fn simple(&self, container: &str, request: &Request) -> Result<()> {
        let id = self.containers.resolve(container)?;
        match self.request(&id, container, request, &[])?.0 {
            Reply::Failed { error: ShimError::State { state, action } } => {
                Err(RuntimeError::State { container: container.to_owned(), state, action })
            }
            Reply::Failed { error } => {
                Err(RuntimeError::Exec { container: container.to_owned(), source: error })
            }
            Reply::Done | Reply::Exited { .. } | Reply::Started => Ok(()),
        }
    }

    /// For requests whose goal is reached when the container does not run.
    fn until_done(&self, container: &str, request: &Request) -> Result<()> {
        let id = self.containers.resolve(container)?;
        loop {
            return match self.request(&id, container, request, &[]) {
                Ok((Reply::Failed { error: ShimError::State { .. } }, _))
                | Err(RuntimeError::NotRunning { .. }) => Ok(()),
                Ok((Reply::Failed { error }, _)) => {
                    Err(RuntimeError::Exec { container: container.to_owned(), source: error })
                }
                Ok(_) => Ok(()),
                Err(RuntimeError::ShimDied { .. }) => {
                    self.repair()?;
                    continue;
                }
                Err(error) => Err(error),
            };
        }
    }

    /// One request and its answer.
    fn request(
        &self,
        id: &str,
        container: &str,
        request: &Request,
        descriptors: &[std::os::fd::BorrowedFd<'_>],
    ) -> Result<(Reply, Vec<OwnedFd>)> {
        let channel = self.connect(id, container)?;
        let answer = channel.send(request, descriptors).and_then(|()| channel.receive::<Reply>());
        match answer {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => {
                Err(RuntimeError::ShimDied { container: container.to_owned(), detail: String::new() })
            }
            Err(error) if is_disconnect(&error) => {
                Err(RuntimeError::ShimDied { container: container.to_owned(), detail: String::new() })
            }
            Err(source) => {
                Err(RuntimeError::Control { step: "talk to", container: container.to_owned(), source })
            }
        }
    }

    /// Connects to a container's shim, repairing it first if it was killed.
    pub(super) fn connect(&self, id: &str, container: &str) -> Result<Channel> {
        let mut repaired = false;
        loop {
            match Channel::connect(&self.containers.live_dir(id)) {
                Ok(channel) => return Ok(channel),
                Err(error) if is_disconnect(&error) || error.kind() == io::ErrorKind::NotFound => {
                    let state = self.state_of(id)?;
                    if !state.life.is_live() {
                        return Err(RuntimeError::NotRunning {
                            container: container.to_owned(),
                            state: state.life.word().to_owned(),
                        });
                    }
                    if repaired {
                        // Somebody is starting it, and holds its lock until that is over.
                        drop(self.containers.lock(id)?);
                        let again = self.state_of(id)?;
                        if again == state {
                            return Err(RuntimeError::Control {
                                step: "connect to",
                                container: container.to_owned(),
                                source: error,
                            });
                        }
                    }
                    self.repair()?;
                    repaired = true;
                }
                Err(source) => {
                    return Err(RuntimeError::Control {
                        step: "connect to",
                        container: container.to_owned(),
                        source,
                    });
                }
            }
        }
    }

    /// The pidfd of a running container's main process.
    ///
    /// # Errors
    /// [`RuntimeError::NotRunning`].
    pub fn main_process(&self, container: &str) -> Result<OwnedFd> {
        let id = self.containers.resolve(container)?;
        let state = self.state_of(&id)?;
        state
            .life
            .process()
            .and_then(|p| Pid::from_raw(p.pid))
            .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok())
            .ok_or_else(|| RuntimeError::NotRunning {
                container: container.to_owned(),
                state: state.life.word().to_owned(),
            })
    }
}

fn is_disconnect(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
    )
}

fn null() -> io::Result<OwnedFd> {
    Ok(std::fs::File::options().read(true).write(true).open("/dev/null")?.into())
}

/// Pipes for the wanted streams: our ends, and theirs in the order of [`Attach`].
fn pipes(kind: Attach) -> io::Result<(Streams, Vec<OwnedFd>)> {
    let mut theirs = Vec::with_capacity(3);
    let mut stdin = None;
    if kind.stdin {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
        theirs.push(read);
        stdin = Some(write);
    }
    let (stdout, write) = pipe_with(PipeFlags::CLOEXEC)?;
    theirs.push(write);
    let mut stderr = None;
    if kind.stderr {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
        theirs.push(write);
        stderr = Some(read);
    }
    Ok((Streams { stdin, stdout, stderr, terminal: false }, theirs))
}
