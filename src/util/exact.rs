//! Reading exactly as many bytes as were promised.

use std::io::{self, Read};

/// Gives so many bytes of a source, whatever happens to its length meanwhile: zeros when it ends before.
///
/// For archives: the header with the length has been written already, and one
/// with less behind it is broken for all that follows.
#[derive(Debug)]
pub struct Exactly<R> {
    source: R,
    left: u64,
    failed: Option<io::Error>,
}

impl<R: Read> Exactly<R> {
    /// The first `length` bytes of `source`.
    pub fn new(source: R, length: u64) -> Self {
        Self { source, left: length, failed: None }
    }

    /// Why the source could not be read, if that is what went wrong; then it was not whoever took the bytes.
    pub fn failure(self) -> Option<io::Error> {
        self.failed
    }
}

impl<R: Read> Read for Exactly<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let got = match self.source.read(&mut buffer[..room]) {
            Ok(0) if room > 0 => {
                buffer[..room].fill(0);
                room
            }
            Ok(got) => got,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
            Err(error) => {
                self.failed = Some(error);
                return Err(io::Error::other("the source cannot be read"));
            }
        };
        self.left -= got as u64;
        Ok(got)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_zeros_and_what_is_more_is_left() {
        let read = |text: &[u8], length| {
            let mut all = Vec::new();
            Exactly::new(text, length).read_to_end(&mut all).expect("read");
            all
        };
        assert_eq!(read(b"abc", 5), b"abc\0\0");
        assert_eq!(read(b"abc", 2), b"ab");
    }
}
