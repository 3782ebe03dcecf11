//! Files from the web: `ADD https://…`, and contexts that are an archive or a Dockerfile there.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use jiff::fmt::rfc2822;
use ring::digest::{Context, SHA256};
use ureq::http::{Uri, header};

use crate::runtime::image::{Digest, RegistryError, web_agent};
use crate::util::ids::hex;

/// Why a file could not be downloaded.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// The address is none.
    #[error("`{0}` is no address of a file; it begins with `http://` or `https://`")]
    Address(String),
    /// Certificates.
    #[error(transparent)]
    Trust(#[from] RegistryError),
    /// The connection.
    #[error("cannot download `{address}`")]
    Connect {
        /// What; without a password.
        address: String,
        /// Why.
        #[source]
        source: Box<ureq::Error>,
    },
    /// The server says no.
    #[error("cannot download `{address}`: the server answers {status}")]
    Status {
        /// What.
        address: String,
        /// Number and words.
        status: String,
    },
    /// The bytes do not come, or cannot be kept.
    #[error("cannot download `{address}` to `{}`", path.display())]
    Write {
        /// What.
        address: String,
        /// Where to.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is larger than allowed.
    #[error("`{address}` is larger than {limit} bytes")]
    Size {
        /// What.
        address: String,
        /// How large it may be.
        limit: u64,
    },
}

/// What was downloaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Download {
    /// What the server, or else the address, calls it; without slashes.
    pub name: String,
    /// When the server says it was changed, in seconds since 1970; 0 if it does not say.
    pub modified: i64,
    /// Of its content.
    pub digest: Digest,
    /// Its bytes.
    pub size: u64,
}

/// Whether a text is the address of a file on the web.
pub fn is_address(text: &str) -> bool {
    text.starts_with("http://") || text.starts_with("https://")
}

/// Downloads to the new file `path` (mode 0600).
///
/// # Errors
/// [`DownloadError`]; the file may hold a part then.
pub fn download(address: &str, path: &Path, limit: u64) -> Result<Download, DownloadError> {
    let uri: Uri = address
        .parse()
        .ok()
        .filter(|uri: &Uri| is_address(address) && uri.host().is_some())
        .ok_or_else(|| DownloadError::Address(shown(address)))?;
    let shown = shown(address);
    let agent = web_agent(uri.host().unwrap_or_default())?;
    let failed =
        |source: ureq::Error| DownloadError::Connect { address: shown.clone(), source: Box::new(source) };
    let mut answer = agent.get(&uri).call().map_err(failed)?;
    let status = answer.status();
    if !status.is_success() {
        return Err(DownloadError::Status { address: shown, status: status.to_string() });
    }
    let text = |name: header::HeaderName| answer.headers().get(name).and_then(|value| value.to_str().ok());
    let modified = text(header::LAST_MODIFIED)
        .and_then(|time| rfc2822::DateTimeParser::new().parse_timestamp(time).ok())
        .map_or(0, jiff::Timestamp::as_second);
    let name = text(header::CONTENT_DISPOSITION).and_then(attached).or_else(|| last_part(uri.path()));
    let name = name.unwrap_or_else(|| "download".to_owned());

    let failed = |source| DownloadError::Write { address: shown.clone(), path: path.to_owned(), source };
    let mut file =
        std::os::unix::fs::OpenOptionsExt::mode(File::options().write(true).create_new(true), 0o600)
            .open(path)
            .map_err(failed)?;
    let mut body = answer.body_mut().with_config().limit(u64::MAX).reader();
    let mut context = Context::new(&SHA256);
    let mut buffer = vec![0; 256 << 10];
    let mut size = 0;
    loop {
        let count = body.read(&mut buffer).map_err(failed)?;
        if count == 0 {
            break;
        }
        size += count as u64;
        if size > limit {
            return Err(DownloadError::Size { address: shown, limit });
        }
        context.update(&buffer[..count]);
        file.write_all(&buffer[..count]).map_err(failed)?;
    }
    let digest = format!("sha256:{}", hex(context.finish().as_ref()));
    let digest = digest.parse().map_err(|_| failed(std::io::Error::other("its digest is none")))?;
    Ok(Download { name, modified, digest, size })
}

/// An address without a password.
pub(super) fn shown(address: &str) -> String {
    let Some((scheme, rest)) = address.split_once("://") else { return address.to_owned() };
    let host_end = rest.find('/').unwrap_or(rest.len());
    match rest[..host_end].rfind('@') {
        Some(at) => format!("{scheme}://…{}", &rest[at..]),
        None => address.to_owned(),
    }
}

/// `filename=` of a `Content-Disposition`.
fn attached(value: &str) -> Option<String> {
    let found = value.split(';').skip(1).find_map(|part| part.trim().strip_prefix("filename="))?;
    last_part(found.trim_matches('"'))
}

/// The last part of a path, if it can be the name of a file.
fn last_part(path: &str) -> Option<String> {
    let last = path.rsplit('/').next()?;
    (!matches!(last, "" | "." | "..") && !last.contains('\0')).then(|| last.to_owned())
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::{BufRead as _, BufReader};
    use std::net::TcpListener;

    use super::*;

    /// Answers one request after the other, whatever it asks for.
    pub(in super::super) fn serve(answers: Vec<String>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
                while lines.next().is_some_and(|line| !line.unwrap().is_empty()) {}
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        address
    }

    pub(in super::super) fn answer(head: &str, body: &str) -> String {
        format!("HTTP/1.1 {head}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
    }

    #[test]
    fn content_name_and_time() {
        let dir = tempfile::tempdir().unwrap();
        let address = serve(vec![
            answer("200 OK\r\nLast-Modified: Sun, 09 Sep 2001 01:46:40 GMT", "hello"),
            answer("200 OK\r\nContent-Disposition: attachment; filename=\"../../x.txt\"", "hello"),
            answer("302 Found\r\nLocation: /there/", ""),
            answer("200 OK", "hello"),
        ]);
        let get =
            |path: &str, to: &str| download(&format!("{address}{path}"), &dir.path().join(to), 5).unwrap();
        let first = get("/a/f.tar?x=y", "1");
        let hello = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
        assert_eq!((first.name.as_str(), first.modified, first.size), ("f.tar", 1_000_000_000, 5));
        assert_eq!(first.digest.to_string(), hello);
        assert_eq!(std::fs::read(dir.path().join("1")).unwrap(), b"hello");
        assert_eq!((get("/a", "2").name.as_str(), get("/a/b", "3").modified), ("x.txt", 0));
    }

    #[test]
    fn failures_say_what_and_why_and_no_password() {
        let dir = tempfile::tempdir().unwrap();
        let address = serve(vec![answer("404 Not Found", ""), answer("200 OK", "123456")]);
        let get =
            |address: &str, to: &str| download(address, &dir.path().join(to), 5).unwrap_err().to_string();
        let secret = address.replace("http://", "http://me:hunter2@");
        let error = get(&format!("{secret}/x"), "1");
        assert!(
            error.ends_with("/x`: the server answers 404 Not Found") && !error.contains("hunter2"),
            "{error}"
        );
        assert!(get(&address, "2").contains("larger than 5 bytes"));
        assert!(get("ftp://x/y", "3").contains("no address"));
    }
}
