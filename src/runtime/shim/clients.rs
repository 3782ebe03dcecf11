//! The control socket: requests of commands, and extra processes.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::epoll::EventFlags;
use rustix::process::{WaitId, WaitIdOptions, waitid};
use rustix::termios::{Winsize, tcsetwinsize};

use super::attach::Attachment;
use super::protocol::{Channel, Reply, Request};
use super::supervise::{Stopping, Supervisor, Token};
use crate::runtime::error::ShimError;
use crate::runtime::events::Action;
use crate::runtime::init::{self, ExecTarget, ProcessPlan, Stdio};
use crate::runtime::state::{Event, Life};
use crate::runtime::sys;

/// A connected command.
#[derive(Debug)]
pub(super) struct Client {
    channel: Channel,
    waits: Waits,
}

/// What a client waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waits {
    /// It has not asked for anything yet.
    Nothing,
    /// The container has stopped; answered with `Done`.
    Stopped,
    /// The container has stopped; answered with the exit code.
    Exit,
    /// The container has been started again.
    Restarted,
    /// An extra process; answered with its exit code.
    Process,
}

/// An extra process that somebody asked for.
#[derive(Debug)]
pub(super) struct Exec {
    pidfd: OwnedFd,
    client: Option<usize>,
}

impl Supervisor {
    /// Takes in somebody who knocked.
    pub(super) fn take_client(&mut self, socket: OwnedFd) {
        let index = free_slot(&mut self.clients);
        self.watch(&socket, Token::Client(index), EventFlags::IN);
        self.clients[index] = Some(Client { channel: Channel::new(socket), waits: Waits::Nothing });
    }

    /// A client has said something, or has left.
    pub(super) fn client(&mut self, index: usize) {
        let Some(Some(client)) = self.clients.get(index) else { return };
        match client.channel.receive::<Request>() {
            Ok(Some((request, descriptors))) => {
                // The first request decides the conversation; there is none after it.
                if client.waits == Waits::Nothing
                    && let Some(reply) = self.request(index, request, descriptors)
                {
                    self.answer(index, &reply, &[]);
                    self.drop_client(index);
                }
            }
            Ok(None) => self.drop_client(index),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => {
                let error = ShimError::Step { text: format!("cannot understand the request: {error}") };
                self.answer(index, &Reply::Failed { error }, &[]);
                self.drop_client(index);
            }
        }
    }

    fn drop_client(&mut self, index: usize) {
        if let Some(client) = self.clients.get_mut(index).and_then(Option::take) {
            self.unwatch(&client.channel);
            for exec in self.execs.iter_mut().flatten() {
                if exec.client == Some(index) {
                    exec.client = None;
                }
            }
        }
    }

    fn answer(&mut self, index: usize, reply: &Reply, descriptors: &[std::os::fd::BorrowedFd<'_>]) {
        if let Some(Some(client)) = self.clients.get(index) {
            // A client that has left does not want it any more.
            drop(client.channel.send(reply, descriptors));
        }
    }

    fn wait_for(&mut self, index: usize, what: Waits) {
        if let Some(Some(client)) = self.clients.get_mut(index) {
            client.waits = what;
        }
    }

    /// Does what is asked; `None` when the answer comes later.
    fn request(&mut self, index: usize, request: Request, descriptors: Vec<OwnedFd>) -> Option<Reply> {
        let failed = |error| Some(Reply::Failed { error });
        match request {
            Request::Stop { grace_ms } => {
                self.wait_for(index, Waits::Stopped);
                self.stop(grace_ms, false);
                None
            }
            Request::Restart { grace_ms } => {
                self.wait_for(index, Waits::Restarted);
                self.stop(grace_ms, true);
                None
            }
            Request::Wait => {
                self.wait_for(index, Waits::Exit);
                None
            }
            Request::Ready => Some(Reply::Done),
            Request::Kill { signal } => match self.kill(signal) {
                Ok(()) => Some(Reply::Done),
                Err(error) => failed(error),
            },
            Request::Pause | Request::Unpause => {
                let pause = matches!(request, Request::Pause);
                match self.freeze(pause) {
                    Ok(()) => Some(Reply::Done),
                    Err(error) => failed(error),
                }
            }
            Request::Attach(kind) => {
                let mut descriptors = descriptors.into_iter();
                match Attachment::new(kind, &mut descriptors) {
                    Ok(attachment) => {
                        let slot = free_slot(&mut self.attachments);
                        self.attachments[slot] = Some(attachment);
                        self.register_attachment(slot);
                        Some(Reply::Done)
                    }
                    Err(error) => failed(ShimError::Step { text: format!("cannot attach: {error}") }),
                }
            }
            Request::Resize { rows, columns } => {
                if let Some(terminal) = self.streams.terminal() {
                    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
                    if let Err(error) = tcsetwinsize(terminal, size) {
                        return failed(ShimError::Step {
                            text: format!("cannot set the terminal size: {error}"),
                        });
                    }
                }
                Some(Reply::Done)
            }
            Request::Exec { process, terminal } => match self.exec(index, &process, terminal, &descriptors) {
                Ok(()) => None,
                Err(error) => failed(error),
            },
        }
    }

    fn stop(&mut self, grace_ms: Option<u64>, restart: bool) {
        match &self.state.life {
            Life::Running { .. } | Life::Paused { .. } => {}
            Life::Restarting { .. } if restart => {
                self.start_again(false);
                return;
            }
            Life::Restarting { .. } => {
                self.state.stopped = true;
                self.give_up();
                return;
            }
            Life::Created | Life::Starting | Life::Exited { .. } | Life::Failed { .. } | Life::Removing => {
                return;
            }
        }
        let grace = grace_ms.map_or(self.plan.grace, Duration::from_millis);
        // A grace period of centuries is none.
        let kill_at = Instant::now().checked_add(grace);
        let first = self.stopping.is_none();
        let stopping = self.stopping.get_or_insert(Stopping { kill_at, restart });
        if !first {
            // The more impatient of two wins, and a stop wins over a restart.
            stopping.kill_at = match (stopping.kill_at, kill_at) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
            stopping.restart &= restart;
        }
        if !restart {
            self.state.stopped = true;
            self.save();
        }
        if first {
            self.thaw();
            self.signal_main(self.plan.stop_signal);
        }
    }

    fn kill(&mut self, signal: i32) -> Result<(), ShimError> {
        if self.run.is_none() {
            return Err(self.state_error("be sent a signal"));
        }
        // Docker does not restart a container after a signal that can only mean its end.
        if signal == libc::SIGKILL || !self.plan.stop_signal_given || signal == self.plan.stop_signal {
            self.state.stopped = true;
            self.save();
            self.thaw();
        }
        if signal == libc::SIGKILL {
            self.kill_all();
        } else {
            self.signal_main(signal);
        }
        self.event(Action::Kill { signal });
        Ok(())
    }

    fn signal_main(&mut self, signal: i32) {
        if let Some(run) = &self.run {
            // It may have ended in this moment; the pidfd tells.
            sys::pidfd_send_signal(run.pidfd.as_fd(), signal).ok();
        }
    }

    fn thaw(&mut self) {
        if matches!(self.state.life, Life::Paused { .. }) {
            drop(self.freeze(false));
        }
    }

    fn freeze(&mut self, pause: bool) -> Result<(), ShimError> {
        let allowed = match &self.state.life {
            Life::Running { .. } => pause,
            Life::Paused { .. } => !pause,
            _ => false,
        };
        let action = if pause { "be paused" } else { "be unpaused" };
        let Some(run) = self.run.as_ref().filter(|_| allowed) else { return Err(self.state_error(action)) };
        let done = if pause { run.cgroup.freeze() } else { run.cgroup.thaw() };
        done.map_err(|e| ShimError::step(&e))?;
        self.change(if pause { Event::Pause } else { Event::Unpause });
        self.event(if pause { Action::Pause } else { Action::Unpause });
        Ok(())
    }

    fn state_error(&self, action: &str) -> ShimError {
        ShimError::State { state: self.state.life.word().to_owned(), action: action.to_owned() }
    }

    fn exec(
        &mut self,
        index: usize,
        process: &ProcessPlan,
        terminal: Option<(u16, u16)>,
        descriptors: &[OwnedFd],
    ) -> Result<(), ShimError> {
        let (Life::Running { .. }, Some(run)) = (&self.state.life, &self.run) else {
            return Err(self.state_error("run a command"));
        };
        let stdio = match (terminal, descriptors) {
            (Some((rows, columns)), _) => Stdio::Pty { rows, columns },
            (None, [stdin, stdout, stderr]) => {
                Stdio::Fds { stdin: stdin.as_fd(), stdout: stdout.as_fd(), stderr: stderr.as_fd() }
            }
            (None, _) => {
                return Err(ShimError::Step {
                    text: "a command without terminal needs three descriptors".into(),
                });
            }
        };
        let target = ExecTarget { pidfd: run.pidfd.as_fd(), cgroup: &run.cgroup };
        let executed = init::exec(&target, process, stdio)?;
        self.event(Action::ExecStart { command: process.args.join(" ") });
        let mut carried = vec![executed.pidfd.as_fd()];
        carried.extend(executed.pty.as_ref().map(AsFd::as_fd));
        self.answer(index, &Reply::Started, &carried);
        drop(carried);
        self.wait_for(index, Waits::Process);
        let slot = free_slot(&mut self.execs);
        self.watch(&executed.pidfd, Token::Exec(slot), EventFlags::IN);
        self.execs[slot] = Some(Exec { pidfd: executed.pidfd, client: Some(index) });
        Ok(())
    }

    /// An extra process has ended.
    pub(super) fn exec_exited(&mut self, index: usize) {
        let Some(Some(exec)) = self.execs.get(index) else { return };
        let Some(code) = reap(&exec.pidfd, false) else { return };
        self.exec_over(index, code);
    }

    fn exec_over(&mut self, index: usize, code: i32) {
        let Some(exec) = self.execs.get_mut(index).and_then(Option::take) else { return };
        self.unwatch(&exec.pidfd);
        self.event(Action::ExecDie { code });
        if let Some(client) = exec.client {
            self.answer(client, &Reply::Exited { code }, &[]);
            self.drop_client(client);
        }
    }

    /// The main process is gone, and with it all others.
    pub(super) fn end_processes(&mut self) {
        for index in 0..self.execs.len() {
            if let Some(Some(exec)) = self.execs.get(index) {
                let code = reap(&exec.pidfd, false).unwrap_or_else(|| {
                    // With a shared process namespace it may live on.
                    sys::pidfd_send_signal(exec.pidfd.as_fd(), libc::SIGKILL).ok();
                    reap(&exec.pidfd, true).unwrap_or(137)
                });
                self.exec_over(index, code);
            }
        }
        self.end_probe();
    }

    /// Tells those who wait for a restart.
    pub(super) fn answer_restart(&mut self, reply: &Reply) {
        for index in 0..self.clients.len() {
            if self.clients[index].as_ref().is_some_and(|c| c.waits == Waits::Restarted) {
                self.answer(index, reply, &[]);
                self.drop_client(index);
            }
        }
    }

    /// Tells everybody that the container has stopped for good.
    pub(super) fn answer_all(&mut self, code: i32) {
        for index in 0..self.clients.len() {
            let Some(client) = &self.clients[index] else { continue };
            let reply = match client.waits {
                Waits::Stopped => Reply::Done,
                Waits::Exit | Waits::Process => Reply::Exited { code },
                Waits::Nothing | Waits::Restarted => Reply::Failed { error: self.state_error("do that") },
            };
            self.answer(index, &reply, &[]);
            self.drop_client(index);
        }
    }
}

/// The exit code of a child, when it has one yet.
pub(super) fn reap(pidfd: &OwnedFd, wait: bool) -> Option<i32> {
    let mut options = WaitIdOptions::EXITED;
    if !wait {
        options |= WaitIdOptions::NOHANG;
    }
    match rustix::io::retry_on_intr(|| waitid(WaitId::PidFd(pidfd.as_fd()), options)) {
        Ok(None) => None,
        Ok(Some(status)) => status
            .exit_status()
            .or_else(|| status.terminating_signal().map(|signal| 128 + signal))
            .or(Some(255)),
        Err(_) => Some(255),
    }
}

/// An empty place in a table of slots.
fn free_slot<T>(slots: &mut Vec<Option<T>>) -> usize {
    slots.iter().position(Option::is_none).unwrap_or_else(|| {
        slots.push(None);
        slots.len() - 1
    })
}
