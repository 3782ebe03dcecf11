//! Containers that are really started, looked at from inside and from the host.

mod attack;
mod parity;
mod rig;
mod root;
mod storage;
