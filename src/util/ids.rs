//! Random identifiers.

use std::fmt::Write as _;

/// `bytes` random bytes as lower-case hex. 32 bytes make an id as Docker's containers have.
///
/// # Panics
/// If the kernel gives no random bytes, which no supported kernel does.
pub fn random_hex(bytes: usize) -> String {
    let mut raw = vec![0; bytes];
    let mut filled = 0;
    while filled < bytes {
        // Blocks only before the kernel's pool is initialised, early at boot.
        match rustix::rand::getrandom(&mut raw[filled..], rustix::rand::GetRandomFlags::empty()) {
            Ok(n) => filled += n,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => panic!("the kernel gives no random bytes: {error}"),
        }
    }
    hex(&raw)
}

/// Bytes as lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes all");
        text
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn ids_have_the_asked_length_and_differ() {
        let (a, b) = (super::random_hex(32), super::random_hex(32));
        assert_eq!(a.len(), 64);
        assert!(a.bytes().all(|c| c.is_ascii_hexdigit() && !c.is_ascii_uppercase()));
        assert_ne!(a, b);
    }
}
