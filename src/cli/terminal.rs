//! The terminal as a raw device: its modes, restored after any exit, and its size.

use std::io;
use std::sync::Mutex;

use rustix::stdio;
use rustix::termios::{self, OptionalActions, Termios};

use super::render::out;

/// Modes to go back to. Process-wide, because a panic or a third Ctrl-C must find it.
static ORIGINAL: Mutex<Option<Termios>> = Mutex::new(None);

/// The terminal on standard input is in raw mode while this lives.
#[derive(Debug)]
#[must_use]
pub(crate) struct RawMode(());

impl RawMode {
    /// Every key goes to the process as it is.
    ///
    /// # Errors
    /// When standard input is no terminal.
    pub(crate) fn enter() -> io::Result<Self> {
        let original = termios::tcgetattr(stdio::stdin())?;
        let mut raw = original.clone();
        raw.make_raw();
        if let Ok(mut slot) = ORIGINAL.lock() {
            slot.get_or_insert(original);
        }
        termios::tcsetattr(stdio::stdin(), OptionalActions::Drain, &raw)?;
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            restore();
            before(panic);
        }));
        Ok(Self(()))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        restore();
    }
}

/// Puts the terminal back as it was found; does nothing when it was not changed.
pub(crate) fn restore() {
    if let Ok(mut slot) = ORIGINAL.lock()
        && let Some(original) = slot.take()
    {
        let _gone = termios::tcsetattr(stdio::stdin(), OptionalActions::Drain, &original);
    }
}

/// Puts modes back and shows the cursor: for an exit that runs no destructors.
pub(crate) fn restore_all(cursor: bool) {
    restore();
    if cursor {
        out::talk("\x1b[?25h");
    }
}

/// Columns and rows of the terminal on standard output.
pub(crate) fn size() -> Option<(u16, u16)> {
    let size = termios::tcgetwinsize(stdio::stdout()).ok()?;
    (size.ws_col > 0 && size.ws_row > 0).then_some((size.ws_col, size.ws_row))
}
