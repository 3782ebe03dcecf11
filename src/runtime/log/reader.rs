//! Segments → frames: tail, time limits, and going on while they grow and rotate.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::Frame;
use super::line::Decoder;
use crate::util::fs::PathError;

/// Bytes read at once.
const BLOCK: usize = 256 << 10;

/// Which part of the output is wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Range {
    /// Only the last n lines; none is all.
    pub tail: Option<usize>,
    /// Not before.
    pub since: Option<Timestamp>,
    /// Not after.
    pub until: Option<Timestamp>,
}

/// Reads one container's output from the oldest wanted line on.
///
/// It never blocks and never ends by itself: [`LogReader::batch`] gives an empty
/// batch when it has caught up, and goes on when there is more, also after rotations.
#[derive(Debug)]
pub struct LogReader {
    dir: PathBuf,
    segment: Option<File>,
    next: VecDeque<File>,
    buffer: Vec<u8>,
    /// Bytes at the start of `buffer` that are the beginning of an unfinished line.
    held: usize,
    decoder: Decoder,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    over: bool,
}

impl LogReader {
    /// Finds the first wanted line. A container that has written nothing yet has no segments; that is no error.
    ///
    /// # Errors
    /// A segment that exists cannot be read.
    pub fn open(dir: &Path, range: Range) -> Result<Self, PathError> {
        let mut segments = segments(dir)?;
        let failed = PathError::at("read the log in", dir);
        if let Some(since) = range.since {
            for file in &mut segments {
                seek_since(file, since).map_err(PathError::at("read the log in", dir))?;
            }
        }
        if let Some(lines) = range.tail {
            keep_tail(&mut segments, lines).map_err(failed)?;
        }
        Ok(Self {
            dir: dir.to_owned(),
            segment: segments.pop_front(),
            next: segments,
            buffer: Vec::new(),
            held: 0,
            decoder: Decoder::default(),
            since: range.since,
            until: range.until,
            over: false,
        })
    }

    /// The next lines; empty when there are none at present.
    ///
    /// # Errors
    /// A segment cannot be read.
    pub fn batch(&mut self) -> Result<Vec<Frame>, PathError> {
        let mut frames = Vec::new();
        while frames.is_empty() && !self.over {
            if self.segment.is_none() {
                self.next = segments(&self.dir)?;
                self.segment = self.next.pop_front();
            }
            let Some(file) = &mut self.segment else { break };
            self.buffer.resize(self.held + BLOCK, 0);
            let got = read_some(file, &mut self.buffer[self.held..])
                .map_err(PathError::at("read the log in", &self.dir))?;
            if got == 0 {
                if !self.advance()? {
                    break;
                }
                continue;
            }
            self.decode(self.held + got, &mut frames);
        }
        if frames.is_empty() && self.held == 0 {
            self.buffer = Vec::new();
        }
        Ok(frames)
    }

    /// Whether a line after `until` was seen, so that nothing more can come.
    pub fn over(&self) -> bool {
        self.over
    }

    fn decode(&mut self, filled: usize, frames: &mut Vec<Frame>) {
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', &self.buffer[..filled]) {
            let line = &self.buffer[start..end];
            start = end + 1;
            // A line that cannot be understood is the torn end of a write that a power failure interrupted.
            let Some(frame) = self.decoder.decode(line) else { continue };
            if self.until.is_some_and(|until| frame.time > until) {
                self.over = true;
                break;
            }
            if self.since.is_none_or(|since| frame.time >= since) {
                frames.push(frame);
            }
        }
        self.buffer.copy_within(start..filled, 0);
        self.held = filled - start;
    }

    /// At the end of a segment: goes to the next one if there is one.
    fn advance(&mut self) -> Result<bool, PathError> {
        if let Some(file) = self.next.pop_front() {
            self.segment = Some(file);
            self.held = 0;
            return Ok(true);
        }
        let failed = || PathError::at("read the log in", &self.dir);
        let Some(file) = &mut self.segment else { return Ok(false) };
        let ours = file.metadata().map_err(failed())?;
        let at = file.stream_position().map_err(failed())?;
        if ours.len() < at {
            // Half-written lines were taken back.
            file.seek(SeekFrom::Start(ours.len())).map_err(failed())?;
            self.held = 0;
        }
        match std::fs::metadata(self.dir.join("log")) {
            Ok(named) if named.ino() != ours.ino() => {}
            _ => return Ok(false),
        }
        // Rotated. The last lines may have come between our read and the rename.
        if file.metadata().map_err(failed())?.len() > at {
            return Ok(true);
        }
        let mut newer = segments(&self.dir)?;
        if let Some(place) = newer.iter().position(|f| f.metadata().is_ok_and(|m| m.ino() == ours.ino())) {
            newer.drain(..=place);
        }
        self.held = 0;
        self.segment = newer.pop_front();
        self.next = newer;
        Ok(self.segment.is_some())
    }
}

fn read_some(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match file.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// All segments, oldest first. Opened from the newest on, so that a rotation meanwhile loses none.
fn segments(dir: &Path) -> Result<VecDeque<File>, PathError> {
    let mut found: VecDeque<File> = VecDeque::new();
    let mut inodes = Vec::new();
    for n in 0.. {
        let path = if n == 0 { dir.join("log") } else { dir.join(format!("log.{n}")) };
        match File::open(&path) {
            Ok(file) => {
                let inode = file.metadata().map_err(PathError::at("inspect", &path))?.ino();
                if !inodes.contains(&inode) {
                    inodes.push(inode);
                    found.push_front(file);
                }
            }
            // In the moment of a rotation `log` does not exist while `log.1` does.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if n > 0 {
                    break;
                }
            }
            Err(error) => return Err(PathError::at("open", &path)(error)),
        }
    }
    Ok(found)
}

/// Moves to the first line that is not before `since`, by bisection over line times.
fn seek_since(file: &mut File, since: Timestamp) -> io::Result<()> {
    let mut decoder = Decoder::default();
    let (mut low, mut high) = (0, file.metadata()?.len());
    // Invariant: `low` is 0 or the start of a line before `since`; at `high` none before it starts.
    while high - low > 64 << 10 {
        let middle = low + (high - low) / 2;
        match line_after(file, middle, high)? {
            Some((start, line)) if decoder.time(&line).is_none_or(|t| t < since) => low = start,
            _ => high = middle,
        }
    }
    file.seek(SeekFrom::Start(low))?;
    Ok(())
}

/// The first whole line that starts behind `at` and before `limit`.
fn line_after(file: &File, at: u64, limit: u64) -> io::Result<Option<(u64, Vec<u8>)>> {
    let mut text = vec![0; 128 << 10];
    let got = file.read_at(&mut text, at)?;
    text.truncate(got);
    let Some(first) = memchr::memchr(b'\n', &text) else { return Ok(None) };
    let Some(length) = memchr::memchr(b'\n', &text[first + 1..]) else { return Ok(None) };
    let start = at + first as u64 + 1;
    Ok((start < limit).then(|| (start, text[first + 1..first + 1 + length].to_vec())))
}

/// Drops segments and moves in the first one left, so that `lines` lines remain.
fn keep_tail(segments: &mut VecDeque<File>, lines: usize) -> io::Result<()> {
    let mut wanted = lines;
    for index in (0..segments.len()).rev() {
        let file = &mut segments[index];
        let floor = file.stream_position()?;
        let (start, found) = tail_start(file, floor, wanted)?;
        file.seek(SeekFrom::Start(start))?;
        wanted -= found;
        if start > floor || wanted == 0 {
            segments.drain(..index);
            return Ok(());
        }
    }
    Ok(())
}

/// Where the last `wanted` lines between `floor` and the end start, and how many there are.
fn tail_start(file: &File, floor: u64, wanted: usize) -> io::Result<(u64, usize)> {
    let end = file.metadata()?.len();
    if wanted == 0 {
        return Ok((end, 0));
    }
    let mut found = 0;
    // `text` holds the file from `from` on; `upto` is the end of the part not looked at yet.
    let (mut from, mut text) = (end, Vec::new());
    let mut upto = 0;
    let mut last = true;
    loop {
        // Each turn looks at the last whole object of text[..upto], whose line feed is at upto - 1.
        let before = memchr::memrchr(b'\n', text.get(..upto.max(1) - 1).unwrap_or_default());
        match before {
            Some(feed) => {
                if counts(&text[feed + 1..upto], last) {
                    if found == wanted {
                        return Ok((from + upto as u64, found));
                    }
                    found += 1;
                }
                last = false;
                upto = feed + 1;
            }
            None if from == floor => {
                if upto > 0 && counts(&text[..upto], last) {
                    if found == wanted {
                        return Ok((from + upto as u64, found));
                    }
                    found += 1;
                }
                return Ok((floor, found));
            }
            None => {
                let size = (from - floor).min(BLOCK as u64);
                from -= size;
                let mut block = vec![0; usize::try_from(size).unwrap_or(BLOCK)];
                file.read_exact_at(&mut block, from)?;
                let added = block.len();
                block.extend_from_slice(&text[..upto]);
                text = block;
                upto += added;
                if last {
                    // A torn last line has no line feed and is not there yet.
                    upto = memchr::memrchr(b'\n', &text[..upto]).map_or(0, |feed| feed + 1);
                }
            }
        }
    }
}

/// Whether an object ends a line of output (the last one counts in any case).
fn counts(object: &[u8], last: bool) -> bool {
    last || memchr::memmem::rfind(object, b"\",\"stream\":\"std").is_none_or(|at| {
        object[..at].ends_with(b"\\n") || memchr::memmem::find(object, b"\",\"raw\":\"").is_some()
    })
}

#[cfg(test)]
mod tests {
    use super::super::writer::LogWriter;
    use super::super::{LogPlan, StreamKind};
    use super::*;

    fn second(n: i64) -> Timestamp {
        Timestamp::from_second(n).unwrap()
    }

    fn all(reader: &mut LogReader) -> Vec<String> {
        let mut texts = Vec::new();
        loop {
            let batch = reader.batch().unwrap();
            if batch.is_empty() {
                return texts;
            }
            texts.extend(batch.into_iter().map(|f| String::from_utf8(f.data).unwrap()));
        }
    }

    /// Lines `line 0` … at one per second.
    fn log(dir: &Path, plan: &LogPlan, count: i64) -> LogWriter {
        let mut writer = LogWriter::open(dir, plan).unwrap();
        for n in 0..count {
            writer.write(StreamKind::Stdout, format!("line {n}\n").as_bytes(), second(n));
        }
        writer
    }

    fn expect(range: std::ops::Range<i64>) -> Vec<String> {
        range.map(|n| format!("line {n}")).collect()
    }

    #[test]
    fn tail_counts_lines_over_blocks_and_segments() {
        for max_size in [None, Some(500_000)] {
            let dir = tempfile::tempdir().unwrap();
            let plan = LogPlan { max_size, max_files: 100, ..LogPlan::default() };
            drop(log(dir.path(), &plan, 20_000));
            for tail in [0, 1, 2, 10, 3000, 9999, 20_000, 50_000] {
                let range = Range { tail: Some(tail), ..Range::default() };
                let got = all(&mut LogReader::open(dir.path(), range).unwrap());
                let from = 20_000 - i64::try_from(tail.min(20_000)).unwrap();
                assert!(got == expect(from..20_000), "tail {tail} of {max_size:?}: {} lines", got.len());
            }
        }
    }

    #[test]
    fn a_long_line_counts_once() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = log(dir.path(), &LogPlan::default(), 3);
        let long = "x".repeat(40_000);
        writer.write(StreamKind::Stdout, format!("{long}\nlast\n").as_bytes(), second(3));
        let range = Range { tail: Some(2), ..Range::default() };
        let got = all(&mut LogReader::open(dir.path(), range).unwrap()).concat();
        assert_eq!(got, format!("{long}last"));
    }

    #[test]
    fn time_limits_hold_in_small_and_big_logs() {
        for count in [10, 30_000] {
            let dir = tempfile::tempdir().unwrap();
            drop(log(dir.path(), &LogPlan::default(), count));
            for (since, until) in [(3, 5), (0, 0), (7, count + 5), (count - 2, count), (count + 5, count + 9)]
            {
                let range = Range { tail: None, since: Some(second(since)), until: Some(second(until)) };
                let got = all(&mut LogReader::open(dir.path(), range).unwrap());
                let want = expect(since.min(count)..(until + 1).min(count));
                assert!(got == want, "{since}..={until} of {count}: {} lines", got.len());
            }
        }
    }

    #[test]
    fn a_reader_goes_on_after_rotations_without_losing_a_line() {
        let dir = tempfile::tempdir().unwrap();
        let mut reader = LogReader::open(dir.path(), Range::default()).unwrap();
        assert!(reader.batch().unwrap().is_empty(), "no segment yet");
        let plan = LogPlan { max_size: Some(2000), max_files: 50, ..LogPlan::default() };
        let mut writer = LogWriter::open(dir.path(), &plan).unwrap();
        let mut got = Vec::new();
        for n in 0..1000 {
            writer.write(StreamKind::Stdout, format!("line {n}\n").as_bytes(), second(n));
            if n % 37 == 0 {
                got.extend(all(&mut reader));
            }
        }
        got.extend(all(&mut reader));
        assert!(got == expect(0..1000), "{} lines", got.len());
    }

    #[test]
    fn a_single_segment_that_starts_anew_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let plan = LogPlan { max_size: Some(2000), max_files: 1, ..LogPlan::default() };
        let mut writer = LogWriter::open(dir.path(), &plan).unwrap();
        let mut reader = LogReader::open(dir.path(), Range::default()).unwrap();
        let mut got = Vec::new();
        for n in 0..100 {
            writer.write(StreamKind::Stdout, format!("line {n}\n").as_bytes(), second(n));
            got.extend(all(&mut reader));
        }
        assert_eq!(got, expect(0..100));
    }
}
