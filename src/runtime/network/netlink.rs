//! Netlink messages: written, sent, acknowledged, dumped. Knows no family's meaning.
//!
//! A small writer instead of `netlink-packet-route`: the `nf_tables` and conntrack
//! families need one anyway (that crate has none of them), the dozen route
//! messages we send are a few attributes each, and several requests share one
//! `send`. The tests let the kernel judge what is written here.

use std::borrow::Cow;
use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::rc::Rc;

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::NetworkError;
use crate::runtime::sys::netlink::{NetlinkOption, set_netlink_option};

/// `NLM_F_*`.
pub(super) const REQUEST: u16 = 1;
pub(super) const ACK: u16 = 4;
pub(super) const ROOT_AND_MATCH: u16 = 0x300;
pub(super) const EXCL: u16 = 0x200;
pub(super) const CREATE: u16 = 0x400;
pub(super) const APPEND: u16 = 0x800;
/// Message types every family has.
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLMSG_HEADER: usize = 16;

/// A step of a batch, for error messages.
#[derive(Debug)]
struct Step {
    text: Cow<'static, str>,
    ignore: &'static [Errno],
}

/// Requests that go out in one `send`.
#[derive(Debug, Default)]
pub(super) struct Batch {
    bytes: Vec<u8>,
    last: Option<usize>,
    steps: Vec<Step>,
    acknowledged: Option<usize>,
}

impl Batch {
    /// Begins a message; attributes written next belong to it. `step` completes
    /// “cannot …”. The sequence number is the index of the step plus one.
    pub(super) fn message(
        &mut self,
        kind: u16,
        flags: u16,
        header: &[u8],
        step: impl Into<Cow<'static, str>>,
    ) -> &mut Self {
        self.close();
        self.steps.push(Step { text: step.into(), ignore: &[] });
        self.last = Some(self.bytes.len());
        let sequence = u32::try_from(self.steps.len()).expect("fewer than 2^32 messages");
        self.bytes.extend(0_u32.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend((flags | REQUEST).to_ne_bytes());
        self.bytes.extend(sequence.to_ne_bytes());
        self.bytes.extend(0_u32.to_ne_bytes());
        self.bytes.extend(header);
        self.pad();
        self
    }

    /// Takes these errors of the message last begun as success.
    pub(super) fn ignoring(&mut self, errors: &'static [Errno]) -> &mut Self {
        if let Some(step) = self.steps.last_mut() {
            step.ignore = errors;
        }
        self
    }

    /// Asks for an answer to the message last begun also when it succeeds.
    /// [`Socket::run`] asks for one to the last message unless this was called.
    pub(super) fn acknowledge(&mut self) {
        let last = self.last.expect("a message is open");
        let flags = u16::from_ne_bytes([self.bytes[last + 6], self.bytes[last + 7]]) | ACK;
        self.bytes[last + 6..last + 8].copy_from_slice(&flags.to_ne_bytes());
        self.acknowledged = Some(self.steps.len());
    }

    /// An attribute with raw content.
    pub(super) fn attr(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        let length = u16::try_from(value.len() + 4).expect("an attribute is shorter than 64 KiB");
        self.bytes.extend(length.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(value);
        self.pad();
        self
    }

    /// A string attribute with its terminating zero.
    pub(super) fn text(&mut self, kind: u16, value: &str) -> &mut Self {
        let mut bytes = Vec::with_capacity(value.len() + 1);
        bytes.extend(value.as_bytes());
        bytes.push(0);
        self.attr(kind, &bytes)
    }

    /// A number in the machine's order (route netlink).
    pub(super) fn u32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.attr(kind, &value.to_ne_bytes())
    }

    /// A number in network order (netfilter netlink).
    pub(super) fn be32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.attr(kind, &value.to_be_bytes())
    }

    /// An attribute that holds attributes.
    pub(super) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        const NESTED: u16 = 0x8000;
        let start = self.bytes.len();
        self.attr(kind | NESTED, &[]);
        fill(self);
        let length = u16::try_from(self.bytes.len() - start).expect("a nest is shorter than 64 KiB");
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self
    }

    /// Bytes that belong to a message or nest but are no attribute (an inner header).
    pub(super) fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend(bytes);
        self.pad();
        self
    }

    /// Whether nothing was written.
    pub(super) fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn close(&mut self) {
        if let Some(start) = self.last.take() {
            let length = u32::try_from(self.bytes.len() - start).expect("a message is shorter than 4 GiB");
            self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
        }
    }

    /// The finished bytes.
    pub(super) fn finish(&mut self) -> &[u8] {
        self.close();
        &self.bytes
    }
}

/// A message that failed.
#[derive(Debug)]
pub(super) struct Failure {
    /// What it was to do.
    pub(super) step: String,
    /// Error.
    pub(super) errno: Errno,
    /// The kernel's words, if any.
    pub(super) detail: String,
}

impl From<Failure> for NetworkError {
    fn from(failure: Failure) -> Self {
        let Failure { step, errno, detail } = failure;
        match errno {
            Errno::PERM | Errno::ACCESS => Self::Permission { step },
            Errno::OPNOTSUPP | Errno::PROTONOSUPPORT | Errno::AFNOSUPPORT => Self::Kernel {
                step,
                missing: if detail.is_empty() {
                    "the kernel lacks a module for it (bridge, veth, nf_tables, nft_nat and nft_fib are needed)"
                        .to_owned()
                } else {
                    detail
                },
            },
            errno => Self::Step { step, detail, source: errno.into() },
        }
    }
}

/// A netlink socket. It stays in the namespace it was opened in.
#[derive(Debug)]
pub(super) struct Socket {
    fd: OwnedFd,
}

impl Socket {
    /// A route socket in the calling thread's namespace.
    pub(super) fn route() -> Result<Self, NetworkError> {
        // NETLINK_ROUTE is protocol 0.
        Self::open(None, "open a route netlink socket")
    }

    /// A netfilter socket in the calling thread's namespace.
    pub(super) fn netfilter() -> Result<Self, NetworkError> {
        Self::open(Some(rustix::net::netlink::NETFILTER), "open a netfilter netlink socket")
    }

    /// A netfilter socket of this thread that stays open until the thread ends
    /// or is in another namespace. Closing one waits until the kernel has freed
    /// what was deleted from a rule set meanwhile, which takes 10 ms and more.
    pub(super) fn kept() -> Result<Rc<Self>, NetworkError> {
        thread_local! {
            static KEPT: RefCell<Option<(u64, Rc<Socket>)>> = const { RefCell::new(None) };
        }
        let place = std::fs::metadata("/proc/thread-self/ns/net")
            .map_err(NetworkError::step("look at the network namespace"))?
            .ino();
        if let Some(socket) = KEPT.with_borrow(|kept| {
            kept.as_ref().filter(|(there, _)| *there == place).map(|(_, socket)| Rc::clone(socket))
        }) {
            return Ok(socket);
        }
        let socket = Rc::new(Self::netfilter()?);
        KEPT.set(Some((place, Rc::clone(&socket))));
        Ok(socket)
    }

    fn open(protocol: impl Into<Option<Protocol>>, step: &str) -> Result<Self, NetworkError> {
        let fd = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            protocol.into(),
        )
        .map_err(NetworkError::step(step))?;
        // Both only make errors more readable; a kernel without them still works.
        for option in [NetlinkOption::ExtAck, NetlinkOption::CapAck] {
            match set_netlink_option(fd.as_fd(), option, 1) {
                Ok(()) | Err(Errno::NOPROTOOPT) => {}
                Err(error) => return Err(NetworkError::step(step)(error)),
            }
        }
        Ok(Self { fd })
    }

    /// Joins a notification group.
    pub(super) fn subscribe(&self, group: u32) -> Result<(), NetworkError> {
        let step = "subscribe to netlink notifications";
        rustix::net::bind(&self.fd, &SocketAddrNetlink::new(0, 0)).map_err(NetworkError::step(step))?;
        set_netlink_option(self.fd.as_fd(), NetlinkOption::AddMembership, group)
            .map_err(NetworkError::step(step))
    }

    /// Sends a batch and waits for its result. The kernel works through all of
    /// it before `send` returns, so all answers are there afterwards. The first
    /// failure that the batch does not ignore is returned; requests after it
    /// were tried too (route) or undone with the whole batch (netfilter).
    pub(super) fn run(&self, batch: &mut Batch) -> Result<(), Failure> {
        if batch.is_empty() {
            return Ok(());
        }
        // Errors always come; asking the last one for an answer tells that all were seen.
        if batch.acknowledged.is_none() {
            batch.acknowledge();
        }
        let expected = batch.acknowledged.unwrap_or_default();
        self.send(batch)?;
        let mut first = None;
        let mut answered = false;
        loop {
            let bytes = match self.receive(RecvFlags::DONTWAIT) {
                Ok(bytes) => bytes,
                Err(Errno::AGAIN) => break,
                Err(errno) => return Err(Self::failure(batch, expected, errno, String::new())),
            };
            for message in messages(&bytes) {
                if message.kind != NLMSG_ERROR {
                    continue;
                }
                let sequence = message.sequence as usize;
                answered |= sequence == expected;
                let Some(errno) = message.error() else { continue };
                let ignored = batch
                    .steps
                    .get(sequence.wrapping_sub(1))
                    .is_some_and(|step| step.ignore.contains(&errno));
                if !ignored && first.is_none() {
                    first = Some(Self::failure(batch, sequence, errno, message.reason()));
                }
            }
        }
        match first {
            Some(failure) => Err(failure),
            None if answered => Ok(()),
            None => Err(Self::failure(batch, expected, Errno::PROTO, "no answer".to_owned())),
        }
    }

    /// Sends one request and returns the messages it is answered with, each
    /// without its netlink header; a dump's are complete and consistent, else
    /// it is repeated.
    pub(super) fn request(&self, batch: &mut Batch) -> Result<Vec<Vec<u8>>, Failure> {
        const NLM_F_DUMP_INTR: u16 = 0x10;
        const NLM_F_MULTI: u16 = 2;
        for _ in 0..16 {
            let mut found = Vec::new();
            let mut interrupted = false;
            self.send(batch)?;
            'answer: loop {
                // A dump goes on in `recv`, so this one never waits for anybody but the kernel.
                let bytes = self
                    .receive(RecvFlags::empty())
                    .map_err(|errno| Self::failure(batch, 1, errno, String::new()))?;
                for message in messages(&bytes) {
                    interrupted |= message.flags & NLM_F_DUMP_INTR != 0;
                    match message.kind {
                        NLMSG_DONE => break 'answer,
                        NLMSG_ERROR => match message.error() {
                            Some(errno) => return Err(Self::failure(batch, 1, errno, message.reason())),
                            None => break 'answer,
                        },
                        _ => found.push(message.body.to_vec()),
                    }
                    if message.flags & NLM_F_MULTI == 0 {
                        break 'answer;
                    }
                }
            }
            if !interrupted {
                return Ok(found);
            }
        }
        Err(Self::failure(batch, 1, Errno::INTR, "the list kept changing while it was read".to_owned()))
    }

    fn send(&self, batch: &mut Batch) -> Result<(), Failure> {
        const DEFAULT_BUFFER: usize = 100 << 10;
        let expected = batch.steps.len();
        let length = batch.finish().len();
        if length > DEFAULT_BUFFER {
            // Needs CAP_NET_ADMIN, as everything sent in such amounts; failure shows in the send.
            rustix::net::sockopt::set_socket_send_buffer_size_force(&self.fd, length * 2).ok();
        }
        let sent =
            rustix::io::retry_on_intr(|| rustix::net::send(&self.fd, &batch.bytes, SendFlags::empty()));
        sent.map(drop).map_err(|errno| Self::failure(batch, expected, errno, String::new()))
    }

    fn receive(&self, flags: RecvFlags) -> Result<Vec<u8>, Errno> {
        // The kernel fills dumps in pieces of at most 32 KiB.
        let mut buffer = vec![0; 32 << 10];
        let (_, length) = rustix::io::retry_on_intr(|| {
            rustix::net::recv(&self.fd, &mut buffer[..], flags | RecvFlags::TRUNC)
        })?;
        if length > buffer.len() {
            return Err(Errno::MSGSIZE);
        }
        buffer.truncate(length);
        Ok(buffer)
    }

    /// Takes all pending notifications: the type and body of each.
    pub(super) fn drain(&self) -> Vec<(u16, Vec<u8>)> {
        let mut found = Vec::new();
        loop {
            match self.receive(RecvFlags::DONTWAIT) {
                Ok(bytes) => {
                    found.extend(messages(&bytes).map(|message| (message.kind, message.body.to_vec())));
                }
                // Lost notifications: the caller looks for itself.
                Err(Errno::NOBUFS) => found.push((0, Vec::new())),
                Err(_) => return found,
            }
        }
    }

    fn failure(batch: &Batch, sequence: usize, errno: Errno, detail: String) -> Failure {
        let step = batch.steps.get(sequence.wrapping_sub(1)).or(batch.steps.last());
        Failure { step: step.map_or_else(String::new, |s| s.text.clone().into_owned()), errno, detail }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// One received message.
pub(super) struct Message<'a> {
    pub(super) kind: u16,
    flags: u16,
    sequence: u32,
    /// Everything after the netlink header.
    pub(super) body: &'a [u8],
}

impl Message<'_> {
    fn error(&self) -> Option<Errno> {
        let code = i32::from_ne_bytes(self.body.get(..4)?.try_into().ok()?);
        (code < 0).then(|| Errno::from_raw_os_error(-code))
    }

    /// The text of an extended acknowledgement.
    fn reason(&self) -> String {
        const NLM_F_ACK_TLVS: u16 = 0x200;
        const NLMSGERR_ATTR_MSG: u16 = 1;
        if self.flags & NLM_F_ACK_TLVS == 0 {
            return String::new();
        }
        // Error code, then the request's header (its body is left out, see CapAck).
        let found = attributes(self.body.get(4 + NLMSG_HEADER..).unwrap_or_default())
            .find(|(kind, _)| *kind == NLMSGERR_ATTR_MSG);
        found.map_or_else(String::new, |(_, text)| as_text(text))
    }
}

/// The messages of one datagram. Ends at the first malformed one.
pub(super) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let header: &[u8; NLMSG_HEADER] = bytes.first_chunk()?;
        let length = u32::from_ne_bytes(*header.first_chunk()?) as usize;
        let body = bytes.get(NLMSG_HEADER..length)?;
        let message = Message {
            kind: u16::from_ne_bytes([header[4], header[5]]),
            flags: u16::from_ne_bytes([header[6], header[7]]),
            sequence: u32::from_ne_bytes([header[8], header[9], header[10], header[11]]),
            body,
        };
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

/// The attributes of a message or nest: type without its flags, and content.
pub(super) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    const TYPE_MASK: u16 = 0x3fff;
    std::iter::from_fn(move || {
        let header: &[u8; 4] = bytes.first_chunk()?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let value = bytes.get(4..length)?;
        let kind = u16::from_ne_bytes([header[2], header[3]]) & TYPE_MASK;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The attribute of this type.
pub(super) fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(k, _)| *k == kind).map(|(_, value)| value)
}

/// A number in the machine's order.
pub(super) fn as_u32(value: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(*value.first_chunk()?))
}

/// A string up to its terminating zero.
pub(super) fn as_text(value: &[u8]) -> String {
    let end = value.iter().position(|b| *b == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

/// The error of a closed answer as `io::Error`, for callers outside this module.
impl From<Failure> for io::Error {
    fn from(failure: Failure) -> Self {
        failure.errno.into()
    }
}
