//! Tests with real namespaces, bridges and packets. Each test thread moves into
//! a network namespace of its own that plays the host.

mod dns;
mod measure;
mod root;
mod world;
