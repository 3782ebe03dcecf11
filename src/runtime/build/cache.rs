//! Keys of steps: what a result depends on, and nothing else.
//!
//! A key is the digest of the format version, the content of what the step
//! starts from (the chain ID of its layers), and every input that can change
//! its result. Times of files, names of projects and the order of other stages
//! are no inputs.

use std::collections::HashSet;
use std::sync::{Condvar, Mutex, PoisonError};

use ring::digest::{Context, SHA256};

use crate::util::ids::hex;

/// Raise when the same key would have to give something else.
const FORMAT: &str = "hoist-step-1";

/// A key under construction.
pub(super) struct Key(Context);

impl Key {
    /// Of a kind of step.
    pub(super) fn new(kind: &str) -> Self {
        let mut key = Self(Context::new(&SHA256));
        key.text(FORMAT);
        key.text(kind);
        key
    }

    /// One more input. Each is told from the next by its length.
    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.0.update(&(bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    /// One more input.
    pub(super) fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    /// Several inputs of one kind, as many as there are.
    pub(super) fn list<T: AsRef<str>>(&mut self, texts: &[T]) {
        self.0.update(&(texts.len() as u64).to_le_bytes());
        for text in texts {
            self.text(text.as_ref());
        }
    }

    /// An input that may be absent.
    pub(super) fn optional(&mut self, text: Option<&str>) {
        self.list(text.as_slice());
    }

    /// The key: 64 hex digits.
    pub(super) fn finish(self) -> String {
        hex(self.0.finish().as_ref())
    }
}

/// Steps under way in this process, so that two builds do not do the same at once.
#[derive(Debug, Default)]
pub(crate) struct Flights {
    keys: Mutex<HashSet<String>>,
    landed: Condvar,
}

/// Being the one who makes a step.
pub(super) struct Flight<'a> {
    flights: &'a Flights,
    key: String,
}

impl Flights {
    /// Waits until nobody else makes this step.
    pub(super) fn take(&self, key: &str) -> Flight<'_> {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        while keys.contains(key) {
            keys = self.landed.wait(keys).unwrap_or_else(PoisonError::into_inner);
        }
        keys.insert(key.to_owned());
        Flight { flights: self, key: key.to_owned() }
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        self.flights.keys.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
        self.flights.landed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_do_not_run_into_each_other() {
        let key = |parts: &[&str]| {
            let mut key = Key::new("k");
            key.list(parts);
            key.finish()
        };
        assert_ne!(key(&["ab", "c"]), key(&["a", "bc"]));
        assert_ne!(key(&["a"]), key(&["a", ""]));
        assert_eq!(key(&["a"]), key(&["a"]));
    }
}
