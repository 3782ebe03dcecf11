//! Reading tar headers: ustar, PAX, GNU long names, GNU and PAX sparse files.
//!
//! Gives one [`Entry`] after the other together with the raw bytes that led to
//! it; what to do with an entry is the caller's matter. Believes nothing:
//! numbers, lengths and checksums are checked, special headers are limited to 1 MiB.

use std::io::{self, BufRead};
use std::os::fd::AsFd;

use rustix::fs::{Timespec, Timestamps, XattrFlags};
use rustix::io::Errno;

/// Largest PAX header or long name, as in Go's `archive/tar`.
const MAX_SPECIAL: u64 = 1 << 20;
/// Largest number of pieces of a sparse file.
const MAX_PIECES: usize = 1 << 16;
/// `PATH_MAX`.
const MAX_PATH: usize = 4096;

/// Why an archive cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// The bytes ended inside an entry.
    #[error("the archive ends in the middle of an entry")]
    Truncated,
    /// Not a tar header.
    #[error("not a tar archive, or damaged: header checksum is wrong at byte {0}")]
    Checksum(u64),
    /// A number field is no number.
    #[error("invalid number in the header of `{0}`")]
    Number(String),
    /// A PAX record does not parse.
    #[error("invalid extended header before byte {0}")]
    Pax(u64),
    /// A header of more than 1 MiB.
    #[error("an extended header of {0} bytes is too large")]
    HeaderSize(u64),
    /// A name longer than `PATH_MAX`.
    #[error("a name of {0} bytes is too long")]
    NameSize(usize),
    /// An entry type nobody writes into images.
    #[error("`{name}` has the unsupported type {kind:?}")]
    Kind {
        /// Entry name.
        name: String,
        /// Type byte.
        kind: char,
    },
    /// The map of a sparse file is wrong.
    #[error("invalid sparse map of `{0}`")]
    Sparse(String),
    /// The bytes could not be had.
    #[error("cannot read the archive")]
    Read(#[source] io::Error),
}

impl From<io::Error> for TarError {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::UnexpectedEof { Self::Truncated } else { Self::Read(error) }
    }
}

/// Data pieces of a sparse file (offset, length), and its whole length.
pub(crate) type Sparse = (Vec<(u64, u64)>, u64);

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    HardLink,
    Symlink,
    CharDevice,
    BlockDevice,
    Directory,
    Fifo,
}

/// One entry. Its data, `size` bytes and padding to 512, follows in the stream.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) kind: Kind,
    /// As written in the archive.
    pub(crate) path: Vec<u8>,
    /// Target of a link, as written.
    pub(crate) link: Vec<u8>,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Bytes of data in the archive; 0 unless a file.
    pub(crate) size: u64,
    /// Seconds and nanoseconds.
    pub(crate) mtime: (i64, u32),
    /// Name without `SCHILY.xattr.`, value.
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(crate) device: (u32, u32),
    /// A sparse file's data pieces (offset, length) and its length.
    pub(crate) sparse: Option<Sparse>,
}

impl Entry {
    /// The name for messages.
    pub(crate) fn name(&self) -> String {
        String::from_utf8_lossy(&self.path).into_owned()
    }

    /// The entry's time, as both times that can be set.
    pub(crate) fn times(&self) -> Timestamps {
        let time = Timespec { tv_sec: self.mtime.0, tv_nsec: self.mtime.1.into() };
        Timestamps { last_access: time, last_modification: time }
    }

    /// Sets the extended attributes that mean something in a container; the rest (`trusted.*`,
    /// `security.selinux`, …) belongs to the machine the archive was made on.
    ///
    /// # Errors
    /// Those of `fsetxattr(2)`.
    pub(crate) fn set_xattrs(&self, file: &impl AsFd) -> rustix::io::Result<()> {
        for (name, value) in &self.xattrs {
            let user = name.starts_with(b"user.") && !name.starts_with(b"user.overlay.");
            if !user && name != b"security.capability" {
                continue;
            }
            match rustix::fs::fsetxattr(file, &name[..], value, XattrFlags::empty()) {
                // tmpfs before 6.6 and others have no user attributes; Docker goes on, too.
                Err(Errno::OPNOTSUPP | Errno::PERM) if user => {}
                other => other?,
            }
        }
        Ok(())
    }
}

/// Bytes of padding after `size` bytes of data.
pub(crate) const fn padding(size: u64) -> u64 {
    (512 - size % 512) % 512
}

/// What extended headers say about the entry that follows.
#[derive(Default)]
struct Extended {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u32>,
    gid: Option<u32>,
    mtime: Option<(i64, u32)>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    sparse_pieces: Vec<u64>,
    sparse_size: Option<u64>,
    sparse_name: Option<Vec<u8>>,
    sparse_major: bool,
}

/// Reads headers from a stream.
pub(crate) struct Reader<R> {
    pub(crate) inner: R,
    offset: u64,
}

impl<R: BufRead> Reader<R> {
    pub(crate) fn new(inner: R) -> Self {
        Self { inner, offset: 0 }
    }

    /// Bytes read so far.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// The next entry; `None` at the end marker or at the end of the stream.
    ///
    /// All bytes read are appended to `raw`, the end marker's too.
    pub(crate) fn next(&mut self, raw: &mut Vec<u8>) -> Result<Option<Entry>, TarError> {
        let mut extended = Extended::default();
        loop {
            if self.inner.fill_buf()?.is_empty() {
                return Ok(None);
            }
            let start = self.offset;
            let header: [u8; 512] = self.take(512, raw)?.try_into().map_err(|_| TarError::Truncated)?;
            if header.iter().all(|byte| *byte == 0) {
                return Ok(None);
            }
            if !checksum_fits(&header) {
                return Err(TarError::Checksum(start));
            }
            let name = || String::from_utf8_lossy(until_nul(&header[..100])).into_owned();
            let number = |range: std::ops::Range<usize>| {
                number(&header[range]).ok_or_else(|| TarError::Number(name()))
            };
            let size = u64::try_from(number(124..136)?).map_err(|_| TarError::Number(name()))?;
            match header[156] {
                b'x' | b'X' => {
                    let data = self.special(size, raw)?;
                    pax(&data, &mut extended).ok_or(TarError::Pax(self.offset))?;
                }
                b'L' => extended.path = Some(until_nul(&self.special(size, raw)?).to_vec()),
                b'K' => extended.link = Some(until_nul(&self.special(size, raw)?).to_vec()),
                // Global headers (`git archive` writes its commit there) and volume labels say nothing to us.
                b'g' | b'V' => drop(self.special(size, raw)?),
                kind => return self.entry(&header, kind, size, extended, raw).map(Some),
            }
        }
    }

    fn entry(
        &mut self,
        header: &[u8; 512],
        kind: u8,
        size: u64,
        extended: Extended,
        raw: &mut Vec<u8>,
    ) -> Result<Entry, TarError> {
        let ustar = &header[257..262] == b"ustar";
        let posix = ustar && header[262] == 0;
        let path = extended.sparse_name.or(extended.path).unwrap_or_else(|| {
            let (name, prefix) = (until_nul(&header[..100]), until_nul(&header[345..500]));
            if posix && !prefix.is_empty() { [prefix, b"/", name].concat() } else { name.to_vec() }
        });
        let shown = String::from_utf8_lossy(&path).into_owned();
        let link = extended.link.unwrap_or_else(|| until_nul(&header[157..257]).to_vec());
        if path.len() > MAX_PATH || link.len() > MAX_PATH {
            return Err(TarError::NameSize(path.len().max(link.len())));
        }
        let field = |range: std::ops::Range<usize>| {
            number(&header[range]).ok_or_else(|| TarError::Number(shown.clone()))
        };
        let small = |value: i64| u32::try_from(value).map_err(|_| TarError::Number(shown.clone()));
        let mut size = extended.size.unwrap_or(size);
        let mut sparse = None;
        let kind = match kind {
            // Before POSIX a directory was a file with a slash at the end of its name.
            b'0' | 0 | b'7' if path.ends_with(b"/") => Kind::Directory,
            b'0' | 0 | b'7' => {
                sparse = self.pax_sparse(
                    &mut size,
                    &shown,
                    extended.sparse_major,
                    extended.sparse_size,
                    &extended.sparse_pieces,
                    raw,
                )?;
                Kind::File
            }
            b'S' => {
                sparse = Some(self.gnu_sparse(header, size, &shown, raw)?);
                Kind::File
            }
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => Kind::CharDevice,
            b'4' => Kind::BlockDevice,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            other => return Err(TarError::Kind { name: shown, kind: char::from(other) }),
        };
        let device = match kind {
            Kind::CharDevice | Kind::BlockDevice => (small(field(329..337)?)?, small(field(337..345)?)?),
            _ => (0, 0),
        };
        Ok(Entry {
            kind,
            size: if kind == Kind::File { size } else { 0 },
            mode: small(field(100..108)? & 0o7777)?,
            uid: extended.uid.map_or_else(|| small(field(108..116)?), Ok)?,
            gid: extended.gid.map_or_else(|| small(field(116..124)?), Ok)?,
            mtime: extended.mtime.map_or_else(|| field(136..148).map(|s| (s, 0)), Ok)?,
            xattrs: extended.xattrs,
            device,
            sparse,
            path,
            link,
        })
    }

    /// PAX sparse forms 0.0, 0.1 (map in the header) and 1.0 (map before the data).
    fn pax_sparse(
        &mut self,
        size: &mut u64,
        name: &str,
        in_data: bool,
        length: Option<u64>,
        pieces: &[u64],
        raw: &mut Vec<u8>,
    ) -> Result<Option<Sparse>, TarError> {
        let bad = || TarError::Sparse(name.to_owned());
        let Some(length) = length else { return Ok(None) };
        let numbers = if in_data {
            let mut numbers: Vec<u64> = Vec::new();
            let mut digits = Vec::new();
            let mut wanted = None;
            while wanted.is_none_or(|count| numbers.len() < count) {
                if *size < 512 {
                    return Err(bad());
                }
                let block = self.take(512, raw)?;
                *size -= 512;
                for byte in block {
                    if byte == b'\n' {
                        let text = std::str::from_utf8(&digits).map_err(|_| bad())?;
                        let value: u64 = text.parse().map_err(|_| bad())?;
                        digits.clear();
                        match wanted {
                            None if value <= MAX_PIECES as u64 => {
                                wanted = usize::try_from(value * 2).ok();
                            }
                            None => return Err(bad()),
                            Some(count) if numbers.len() < count => numbers.push(value),
                            Some(_) => break,
                        }
                        if wanted.is_some_and(|count| numbers.len() == count) {
                            break;
                        }
                    } else {
                        digits.push(byte);
                        if digits.len() > 20 {
                            return Err(bad());
                        }
                    }
                }
            }
            numbers
        } else {
            pieces.to_vec()
        };
        if numbers.len() % 2 != 0 || numbers.len() / 2 > MAX_PIECES {
            return Err(bad());
        }
        let map: Vec<_> = numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
        check_map(&map, length, *size).ok_or_else(bad)?;
        Ok(Some((map, length)))
    }

    /// GNU tar's old sparse form: the map is in the header and in blocks after it.
    fn gnu_sparse(
        &mut self,
        header: &[u8; 512],
        size: u64,
        name: &str,
        raw: &mut Vec<u8>,
    ) -> Result<Sparse, TarError> {
        let bad = || TarError::Sparse(name.to_owned());
        let positive = |bytes: &[u8]| number(bytes).and_then(|n| u64::try_from(n).ok()).ok_or_else(bad);
        let length = positive(&header[483..495])?;
        let mut map = Vec::new();
        let mut collect = |bytes: &[u8]| -> Result<(), TarError> {
            for piece in bytes.chunks_exact(24) {
                if piece[0] != 0 {
                    map.push((positive(&piece[..12])?, positive(&piece[12..])?));
                }
            }
            if map.len() > MAX_PIECES { Err(bad()) } else { Ok(()) }
        };
        collect(&header[386..482])?;
        let mut more = header[482] != 0;
        while more {
            let block = self.take(512, raw)?;
            collect(&block[..504])?;
            more = block[504] != 0;
        }
        check_map(&map, length, size).ok_or_else(bad)?;
        Ok((map, length))
    }

    /// The data of an extended header.
    fn special(&mut self, size: u64, raw: &mut Vec<u8>) -> Result<Vec<u8>, TarError> {
        if size > MAX_SPECIAL {
            return Err(TarError::HeaderSize(size));
        }
        let padded = usize::try_from(size + padding(size)).map_err(|_| TarError::HeaderSize(size))?;
        let mut data = self.take(padded, raw)?;
        data.truncate(usize::try_from(size).map_err(|_| TarError::HeaderSize(size))?);
        Ok(data)
    }

    fn take(&mut self, count: usize, raw: &mut Vec<u8>) -> Result<Vec<u8>, TarError> {
        let mut data = vec![0; count];
        io::Read::read_exact(&mut self.inner, &mut data)?;
        self.offset += count as u64;
        raw.extend_from_slice(&data);
        Ok(data)
    }

    /// Hands `count` bytes of data to `sink` in pieces, without copying.
    pub(crate) fn pass<E: From<TarError>>(
        &mut self,
        mut count: u64,
        mut sink: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        while count > 0 {
            let buffer = self.inner.fill_buf().map_err(TarError::from)?;
            if buffer.is_empty() {
                return Err(TarError::Truncated.into());
            }
            let part = buffer.len().min(usize::try_from(count).unwrap_or(usize::MAX));
            sink(&buffer[..part])?;
            self.inner.consume(part);
            self.offset += part as u64;
            count -= part as u64;
        }
        Ok(())
    }
}

/// Pieces ascending, inside the file, and as much data as the archive has.
fn check_map(map: &[(u64, u64)], length: u64, data: u64) -> Option<()> {
    let (mut end, mut sum) = (0_u64, 0_u64);
    for (offset, count) in map {
        if *offset < end {
            return None;
        }
        end = offset.checked_add(*count)?;
        sum = sum.checked_add(*count)?;
    }
    (end <= length && sum == data).then_some(())
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    &bytes[..memchr::memchr(0, bytes).unwrap_or(bytes.len())]
}

/// Octal text, or base 256 with the top bit set (then signed).
fn number(bytes: &[u8]) -> Option<i64> {
    if bytes[0] & 0x80 != 0 {
        let negative = bytes[0] & 0x40 != 0;
        let mut value: i128 = if negative { -1 } else { 0 };
        for (at, byte) in bytes.iter().enumerate() {
            let byte = if at == 0 && !negative { byte & 0x7f } else { *byte };
            value = (value << 8) | i128::from(byte);
            if value > i128::from(i64::MAX) || value < i128::from(i64::MIN) {
                return None;
            }
        }
        return i64::try_from(value).ok();
    }
    let text = bytes.trim_ascii_start();
    let text = &text[..text.iter().position(|c| matches!(c, 0 | b' ')).unwrap_or(text.len())];
    text.iter().try_fold(0_i64, |value, digit| match digit {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(i64::from(digit - b'0')),
        _ => None,
    })
}

/// Sum of the header's bytes with the checksum field as spaces; old tars summed signed bytes.
fn checksum_fits(header: &[u8; 512]) -> bool {
    let Some(stored) = number(&header[148..156]) else { return false };
    let (mut unsigned, mut signed) = (0_i64, 0_i64);
    for (at, byte) in header.iter().enumerate() {
        let byte = if (148..156).contains(&at) { b' ' } else { *byte };
        unsigned += i64::from(byte);
        signed += i64::from(byte.cast_signed());
    }
    stored == unsigned || stored == signed
}

/// Records of the form `<length> <key>=<value>\n`.
fn pax(mut data: &[u8], out: &mut Extended) -> Option<()> {
    while !data.is_empty() {
        if data[0] == 0 {
            return Some(());
        }
        let space = memchr::memchr(b' ', data)?;
        let length: usize = std::str::from_utf8(&data[..space]).ok()?.parse().ok()?;
        if length <= space + 1 || length > data.len() || data[length - 1] != b'\n' {
            return None;
        }
        let record = &data[space + 1..length - 1];
        let equals = memchr::memchr(b'=', record)?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        data = &data[length..];
        let text = || std::str::from_utf8(value).ok();
        match key {
            // An empty value takes the setting back.
            b"path" => out.path = (!value.is_empty()).then(|| value.to_vec()),
            b"linkpath" => out.link = (!value.is_empty()).then(|| value.to_vec()),
            b"size" => out.size = Some(text()?.parse().ok()?),
            b"uid" => out.uid = Some(text()?.parse().ok()?),
            b"gid" => out.gid = Some(text()?.parse().ok()?),
            b"mtime" => out.mtime = Some(time(text()?)?),
            b"GNU.sparse.major" => out.sparse_major = value == b"1",
            b"GNU.sparse.name" => out.sparse_name = Some(value.to_vec()),
            b"GNU.sparse.realsize" | b"GNU.sparse.size" => out.sparse_size = Some(text()?.parse().ok()?),
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => out.sparse_pieces.push(text()?.parse().ok()?),
            b"GNU.sparse.map" => {
                out.sparse_pieces = text()?
                    .split(',')
                    .filter(|n| !n.is_empty())
                    .map(|n| n.parse().ok())
                    .collect::<Option<_>>()?;
            }
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    out.xattrs.push((name.to_vec(), value.to_vec()));
                }
            }
        }
        // A path with a NUL cannot be meant.
        if matches!(key, b"path" | b"linkpath" | b"GNU.sparse.name") && value.contains(&0) {
            return None;
        }
    }
    Some(())
}

/// Seconds since the epoch with a decimal fraction.
fn time(text: &str) -> Option<(i64, u32)> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    let digits: String = fraction.chars().chain(std::iter::repeat('0')).take(9).collect();
    let nanos: u32 = digits.parse().ok()?;
    if whole.starts_with('-') && nanos > 0 {
        return Some((seconds.checked_sub(1)?, 1_000_000_000 - nanos));
    }
    Some((seconds, nanos))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_of_all_forms() {
        assert_eq!(number(b"0000644\0"), Some(0o644));
        assert_eq!(number(b"   644 \0"), Some(0o644));
        assert_eq!(number(b"\0\0\0\0\0\0\0\0"), Some(0));
        assert_eq!(number(&[0x80, 0, 0, 0, 0, 0, 1, 0]), Some(256));
        assert_eq!(number(&[0xff; 12]), Some(-1));
        assert_eq!(number(b"9"), None);
        assert_eq!(number(&[0x80, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), None);
    }

    #[test]
    fn times_keep_their_fraction() {
        assert_eq!(time("12.5"), Some((12, 500_000_000)));
        assert_eq!(time("-1.25"), Some((-2, 750_000_000)));
        assert_eq!(time("x"), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..4096)) {
            let mut reader = Reader::new(&bytes[..]);
            let mut raw = Vec::new();
            while let Ok(Some(entry)) = reader.next(&mut raw) {
                if reader.pass::<TarError>(entry.size, |_| Ok(())).is_err() { break; }
            }
        }

        #[test]
        fn no_pax_record_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            let _parsed = pax(&bytes, &mut Extended::default());
        }
    }
}
