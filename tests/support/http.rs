//! A small HTTP client on a test's machine.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd as _;
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::environment::TestEnvironment;

impl TestEnvironment {
    /// Runs `action` on a thread that is in the machine's network.
    pub(crate) fn in_network<T: Send>(&self, action: impl FnOnce() -> T + Send) -> T {
        let network = File::open(format!("/proc/{}/ns/net", self.first_process())).expect("its network");
        std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))
                        .expect("root may enter a network namespace");
                    action()
                })
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Connects to an address of the machine, or says why not.
    pub(crate) fn connect(&self, address: &str) -> Result<TcpStream, String> {
        let address: SocketAddr = address.parse().expect("an address with a port");
        self.in_network(|| {
            let stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))
                .map_err(|error| format!("cannot connect to {address}: {error}"))?;
            stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a time-out above zero");
            Ok(stream)
        })
    }

    /// All that a service on `address` says before it closes the connection.
    pub(crate) fn read_all(&self, address: &str) -> Result<String, String> {
        let mut text = String::new();
        self.connect(address)?
            .read_to_string(&mut text)
            .map_err(|error| format!("cannot read from {address}: {error}"))?;
        Ok(text)
    }

    /// GETs a page: status and body.
    pub(crate) fn get(&self, address: &str, path: &str) -> Result<(u16, String), String> {
        self.request(address, &format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n"))
    }

    /// POSTs a form: status and body.
    pub(crate) fn post(
        &self,
        address: &str,
        path: &str,
        fields: &[(&str, &str)],
    ) -> Result<(u16, String), String> {
        let body: Vec<String> =
            fields.iter().map(|(name, value)| format!("{}={}", escaped(name), escaped(value))).collect();
        let body = body.join("&");
        self.request(
            address,
            &format!(
                "POST {path} HTTP/1.0\r\nHost: {address}\r\nContent-Length: {}\r\n\
                 Content-Type: application/x-www-form-urlencoded\r\n\r\n{body}",
                body.len()
            ),
        )
    }

    fn request(&self, address: &str, request: &str) -> Result<(u16, String), String> {
        let mut stream = self.connect(address)?;
        let failed = |error: std::io::Error| format!("request to {address} failed: {error}");
        stream.write_all(request.as_bytes()).map_err(failed)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).map_err(failed)?;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
        match (status, answer.split_once("\r\n\r\n")) {
            (Some(status), Some((_, body))) => Ok((status, body.to_owned())),
            _ => Err(format!("{address} answered `{answer}`")),
        }
    }
}

/// A form field's name or value, every byte that is not a letter or digit escaped.
fn escaped(text: &str) -> String {
    text.bytes()
        .map(|b| if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect()
}
