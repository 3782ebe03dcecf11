//! Name service of one container, at 127.0.0.11 in its own network namespace.
//!
//! Owns two sockets inside the namespace and the look-ups behind them. It does
//! not write names: those are the endpoint records of [`super::network`], one
//! file per container and network, so that the shims of several projects see
//! each other without any daemon.
//!
//! What is answered, in this order:
//! 1. `localhost`.
//! 2. Links of this container.
//! 3. Names on its networks (container name, short id, host name, service name
//!    and other aliases), also as `name.network`. Addresses of replicas rotate.
//! 4. Names that the project declares but that nobody has now: no such name.
//! 5. Any of those with a search domain of the container appended: no such
//!    name. glibc goes on to the search list after every negative answer, and a
//!    wildcard in the outer domain would win.
//! 6. Addresses on its networks (PTR), `_port._proto.name` (SRV).
//! 7. All else is passed on to the host's servers, unless all its networks are internal.
//!
//! Local answers live 0 s. The socket tells who asks, so networks never mix.
//!
//! A query costs one `stat` per network to see whether a record came or went.
//! inotify would do that too, but wakes every shim for every container that
//! starts, and its instances are limited to 128 per user.

mod codec;
mod forward;
mod names;
mod responder;

pub use responder::Responder;

#[cfg(test)]
pub(crate) mod tests {
    pub(crate) use super::codec::tests::{ask, read};
}
