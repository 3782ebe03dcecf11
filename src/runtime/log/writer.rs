//! Output → segments: line splitting, rotation, and what happens on a full disk.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::line::{MAX_PIECE, Stamp, encode};
use super::{LogPlan, StreamKind};
use crate::util::fs::PathError;

/// Bytes of encoded lines that are written at once at most.
const BATCH: usize = 256 << 10;

/// Writes one container's output.
///
/// A failing disk never stops the container: lines that cannot be written are
/// dropped and counted, and the count is written as a line of its own as soon as
/// something can be written again.
#[derive(Debug)]
pub struct LogWriter {
    path: PathBuf,
    file: Option<File>,
    size: u64,
    max_size: Option<u64>,
    max_files: u32,
    attrs: Vec<u8>,
    stamp: Stamp,
    out: Vec<u8>,
    /// Lines that are in `out`.
    lines: u64,
    partial: [Vec<u8>; 2],
    dropped: u64,
    unreported: u64,
}

impl LogWriter {
    /// Opens the current segment of the container directory for appending.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open(dir: &Path, plan: &LogPlan) -> Result<Self, PathError> {
        let path = dir.join("log");
        let (file, size) = if plan.enabled {
            let (file, size) = open(&path)?;
            (Some(file), size)
        } else {
            (None, 0)
        };
        let attrs = if plan.attrs.is_empty() {
            Vec::new()
        } else {
            let mut text = b",\"attrs\":".to_vec();
            text.extend(serde_json::to_vec(&plan.attrs).unwrap_or_else(|_| b"{}".to_vec()));
            text
        };
        Ok(Self {
            path,
            file,
            size,
            max_size: plan.max_size,
            max_files: plan.max_files,
            attrs,
            stamp: Stamp::default(),
            out: Vec::new(),
            lines: 0,
            partial: [Vec::new(), Vec::new()],
            dropped: 0,
            unreported: 0,
        })
    }

    /// Takes bytes as they came from a stream; whole lines are written before it returns.
    pub fn write(&mut self, stream: StreamKind, bytes: &[u8], time: Timestamp) {
        if self.file.is_none() {
            return;
        }
        let slot = stream as usize;
        let mut rest = bytes;
        if !self.partial[slot].is_empty() {
            let mut held = std::mem::take(&mut self.partial[slot]);
            let room = MAX_PIECE - held.len();
            let (taken, newline) = match memchr::memchr(b'\n', &rest[..rest.len().min(room + 1)]) {
                Some(at) => (at, true),
                None => (rest.len().min(room), false),
            };
            held.extend_from_slice(&rest[..taken]);
            rest = &rest[taken + usize::from(newline)..];
            if !newline && held.len() < MAX_PIECE {
                self.partial[slot] = held;
                return;
            }
            self.line(stream, &held, newline, time);
        }
        while !rest.is_empty() {
            match memchr::memchr(b'\n', &rest[..rest.len().min(MAX_PIECE + 1)]) {
                Some(at) => {
                    self.line(stream, &rest[..at], true, time);
                    rest = &rest[at + 1..];
                }
                None if rest.len() >= MAX_PIECE => {
                    let cut = piece_end(rest);
                    self.line(stream, &rest[..cut], false, time);
                    rest = &rest[cut..];
                }
                None => {
                    self.partial[slot].extend_from_slice(rest);
                    break;
                }
            }
        }
        self.write_out();
    }

    /// Writes what is held back of unfinished lines. Called when a run of the container has ended.
    pub fn finish(&mut self, time: Timestamp) {
        for stream in [StreamKind::Stdout, StreamKind::Stderr] {
            let held = std::mem::take(&mut self.partial[stream as usize]);
            if !held.is_empty() {
                self.line(stream, &held, false, time);
            }
        }
        self.write_out();
    }

    /// Gives memory back that only a burst of output needed.
    pub fn relax(&mut self) {
        self.out = Vec::new();
        for held in &mut self.partial {
            if held.is_empty() {
                *held = Vec::new();
            }
        }
    }

    /// Lines dropped so far because they could not be written.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    fn line(&mut self, stream: StreamKind, piece: &[u8], newline: bool, time: Timestamp) {
        let before = self.out.len();
        let stamp = *self.stamp.render(time);
        encode(&mut self.out, piece, newline, stream, &self.attrs, &stamp);
        if let Some(max) = self.max_size
            && self.size + self.out.len() as u64 > max
            && self.size + before as u64 > 0
        {
            let line = self.out.split_off(before);
            self.write_out();
            self.rotate();
            self.out = line;
        }
        self.lines += 1;
        if self.out.len() >= BATCH {
            self.write_out();
        }
    }

    fn write_out(&mut self) {
        if self.out.is_empty() {
            return;
        }
        if self.unreported > 0 {
            self.report();
        }
        let written = match &mut self.file {
            Some(file) => file.write_all(&self.out),
            None => Ok(()),
        };
        match written {
            Ok(()) => self.size += self.out.len() as u64,
            Err(_) => self.undo_and_count(),
        }
        self.out.clear();
        self.lines = 0;
    }

    /// Takes back a half-written batch, so that no torn line stays, and counts its lines as dropped.
    fn undo_and_count(&mut self) {
        if let Some(file) = &self.file {
            // If even this fails the reader skips the torn line.
            drop(file.set_len(self.size));
        }
        self.dropped += self.lines;
        self.unreported += self.lines;
    }

    fn report(&mut self) {
        let text =
            format!("hoist: {} lines of output were dropped: the log could not be written", self.unreported);
        let mut note = Vec::new();
        let stamp = *self.stamp.render(Timestamp::now());
        encode(&mut note, text.as_bytes(), true, StreamKind::Stderr, &self.attrs, &stamp);
        if let Some(file) = &mut self.file {
            if file.write_all(&note).is_ok() {
                self.size += note.len() as u64;
                self.unreported = 0;
            } else {
                drop(file.set_len(self.size));
            }
        }
    }

    /// `log.1` → `log.2` …, `log` → `log.1`, and a new `log`. With one segment it is emptied.
    fn rotate(&mut self) {
        if self.file.is_none() {
            return;
        }
        let numbered = |n: u32| self.path.with_file_name(format!("log.{n}"));
        if self.max_files == 1 {
            // The new segment replaces the old one by name, so that a reader in the middle of it goes on.
            drop(std::fs::remove_file(&self.path));
        } else {
            for n in (1..self.max_files - 1).rev() {
                drop(std::fs::rename(numbered(n), numbered(n + 1)));
            }
            drop(std::fs::rename(&self.path, numbered(1)));
        }
        // When nothing can be opened we go on with the segment we have, whatever its name is now.
        if let Ok((file, size)) = open(&self.path) {
            self.file = Some(file);
            self.size = size;
        }
    }
}

fn open(path: &Path) -> Result<(File, u64), PathError> {
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        .open(path)
        .map_err(PathError::at("open", path))?;
    let size = file.metadata().map_err(PathError::at("inspect", path))?.len();
    Ok((file, size))
}

/// Where to cut a line that is too long: not inside a UTF-8 sequence if that can be helped.
fn piece_end(text: &[u8]) -> usize {
    let mut cut = MAX_PIECE;
    while cut > MAX_PIECE - 4 && text.get(cut).is_some_and(|b| b & 0xc0 == 0x80) {
        cut -= 1;
    }
    if cut == MAX_PIECE - 4 { MAX_PIECE } else { cut }
}

#[cfg(test)]
mod tests {
    use super::super::line::Decoder;
    use super::*;

    fn lines(path: &Path) -> Vec<(StreamKind, String, bool)> {
        let mut decoder = Decoder::default();
        std::fs::read(path)
            .unwrap()
            .split(|b| *b == b'\n')
            .filter(|l| !l.is_empty())
            .map(|l| decoder.decode(l).expect("a whole line"))
            .map(|f| (f.stream, String::from_utf8(f.data).unwrap(), f.newline))
            .collect()
    }

    #[test]
    fn chunks_become_lines_whatever_the_cuts() {
        let text = "first\nsecond line\n\nfourth".as_bytes();
        for cut in 0..=text.len() {
            let dir = tempfile::tempdir().unwrap();
            let mut log = LogWriter::open(dir.path(), &LogPlan::default()).unwrap();
            log.write(StreamKind::Stdout, &text[..cut], Timestamp::UNIX_EPOCH);
            log.write(StreamKind::Stderr, b"x\n", Timestamp::UNIX_EPOCH);
            log.write(StreamKind::Stdout, &text[cut..], Timestamp::UNIX_EPOCH);
            log.finish(Timestamp::UNIX_EPOCH);
            let mut got = lines(&dir.path().join("log"));
            got.retain(|l| l.0 == StreamKind::Stdout);
            let got: Vec<_> = got.iter().map(|(_, t, n)| (t.as_str(), *n)).collect();
            assert_eq!(
                got,
                [("first", true), ("second line", true), ("", true), ("fourth", false)],
                "cut {cut}"
            );
        }
    }

    #[test]
    fn long_lines_are_split_at_16_kib_and_not_inside_a_character() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = LogWriter::open(dir.path(), &LogPlan::default()).unwrap();
        let text = format!("{}{}\n", "a".repeat(MAX_PIECE - 1), "é".repeat(10));
        for chunk in text.as_bytes().chunks(5000) {
            log.write(StreamKind::Stdout, chunk, Timestamp::UNIX_EPOCH);
        }
        let got = lines_raw(&dir.path().join("log"));
        assert!(got.iter().all(|(data, _)| data.len() <= MAX_PIECE));
        let joined: Vec<u8> = got.iter().flat_map(|(data, _)| data.clone()).collect();
        assert_eq!(joined, text.trim_end().as_bytes());
        assert_eq!(got.iter().filter(|(_, newline)| *newline).count(), 1);

        let dir = tempfile::tempdir().unwrap();
        let mut log = LogWriter::open(dir.path(), &LogPlan::default()).unwrap();
        log.write(StreamKind::Stdout, text.as_bytes(), Timestamp::UNIX_EPOCH);
        let got = lines(&dir.path().join("log"));
        assert_eq!(got[0].1.len(), MAX_PIECE - 1);
        assert_eq!(got[1].1, "é".repeat(10));
    }

    fn lines_raw(path: &Path) -> Vec<(Vec<u8>, bool)> {
        let mut decoder = Decoder::default();
        std::fs::read(path)
            .unwrap()
            .split(|b| *b == b'\n')
            .filter(|l| !l.is_empty())
            .map(|l| decoder.decode(l).map(|f| (f.data, f.newline)).unwrap())
            .collect()
    }

    #[test]
    fn rotation_keeps_the_newest_segments_within_their_size() {
        let dir = tempfile::tempdir().unwrap();
        let plan = LogPlan { max_size: Some(1000), max_files: 3, ..LogPlan::default() };
        let mut log = LogWriter::open(dir.path(), &plan).unwrap();
        let all: String =
            (0..100).flat_map(|n| ["line ".to_owned(), n.to_string(), "\n".to_owned()]).collect();
        log.write(StreamKind::Stdout, all.as_bytes(), Timestamp::UNIX_EPOCH);
        let mut got = Vec::new();
        for name in ["log.2", "log.1", "log"] {
            let path = dir.path().join(name);
            assert!(std::fs::metadata(&path).unwrap().len() <= 1000, "{name}");
            got.extend(lines(&path).into_iter().map(|l| l.1));
        }
        assert!(!dir.path().join("log.3").exists());
        let expected: Vec<_> = (100 - got.len()..100).map(|n| format!("line {n}")).collect();
        assert!(got.len() >= 20);
        assert_eq!(got, expected);
    }

    #[test]
    fn attributes_and_appending_to_an_old_segment() {
        let dir = tempfile::tempdir().unwrap();
        let plan = LogPlan { attrs: [("tag".into(), "t".into())].into(), ..LogPlan::default() };
        for text in ["one\n", "two\n"] {
            LogWriter::open(dir.path(), &plan).unwrap().write(
                StreamKind::Stdout,
                text.as_bytes(),
                Timestamp::UNIX_EPOCH,
            );
        }
        let text = std::fs::read_to_string(dir.path().join("log")).unwrap();
        assert_eq!(
            text.lines().next().unwrap(),
            r#"{"log":"one\n","stream":"stdout","attrs":{"tag":"t"},"time":"1970-01-01T00:00:00.000000000Z"}"#
        );
        assert_eq!(lines(&dir.path().join("log")).len(), 2);
    }

    #[test]
    fn a_full_disk_drops_lines_counts_them_and_says_so_later() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = LogWriter::open(dir.path(), &LogPlan::default()).unwrap();
        log.write(StreamKind::Stdout, b"kept\n", Timestamp::UNIX_EPOCH);
        let good = log.file.replace(File::options().write(true).open("/dev/full").unwrap());
        log.write(StreamKind::Stdout, b"lost\nlost\n", Timestamp::UNIX_EPOCH);
        assert_eq!(log.dropped(), 2);
        log.file = good;
        log.write(StreamKind::Stdout, b"again\n", Timestamp::UNIX_EPOCH);
        let got: Vec<_> = lines(&dir.path().join("log")).into_iter().map(|l| l.1).collect();
        assert_eq!(got[0], "kept");
        assert!(got[1].contains("2 lines"), "{}", got[1]);
        assert_eq!(got[2], "again");
    }
}
