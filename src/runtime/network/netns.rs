//! Network namespaces of the calling thread.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::error::NetworkError;
use crate::runtime::sys::netlink::unshare_network;

/// The calling thread's namespace.
pub(crate) fn current() -> Result<OwnedFd, NetworkError> {
    let step = "open the network namespace";
    Ok(File::open("/proc/thread-self/ns/net").map_err(NetworkError::step(step))?.into())
}

/// A new, empty namespace; the thread stays where it is.
pub(crate) fn create(home: BorrowedFd<'_>) -> Result<OwnedFd, NetworkError> {
    unshare_network().map_err(NetworkError::step("make a network namespace"))?;
    let made = current();
    let _back = Visit { home };
    made
}

/// Runs `work` in the namespace and comes back. Sockets opened there stay there.
/// Only this thread moves, so the caller is single-threaded or does not care.
pub(crate) fn inside<T>(
    netns: BorrowedFd<'_>,
    home: BorrowedFd<'_>,
    work: impl FnOnce() -> Result<T, NetworkError>,
) -> Result<T, NetworkError> {
    enter(netns)?;
    let _back = Visit { home };
    work()
}

fn enter(netns: BorrowedFd<'_>) -> Result<(), NetworkError> {
    move_into_link_name_space(netns, Some(LinkNameSpaceType::Network))
        .map_err(NetworkError::step("enter a network namespace"))
}

/// Brings the thread back when dropped, also after an error.
struct Visit<'a> {
    home: BorrowedFd<'a>,
}

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        // A process that cannot come home would carry on in a container's
        // network with the host's rights; nothing good follows from that.
        enter(self.home.as_fd()).expect("the way back to the own network namespace is open");
    }
}
