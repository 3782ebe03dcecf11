//! Address blocks of both families.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An address with its prefix length: a subnet, or an interface's address in its subnet.
///
/// Serialized as text, `10.0.0.1/24`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cidr {
    address: IpAddr,
    prefix: u8,
}

impl Cidr {
    /// `None` when the prefix is longer than the address.
    pub fn new(address: IpAddr, prefix: u8) -> Option<Self> {
        (prefix <= bits(address)).then_some(Self { address, prefix })
    }

    /// The address as given.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// The prefix length.
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// Whether the family is IPv6.
    pub fn is_ipv6(&self) -> bool {
        self.address.is_ipv6()
    }

    /// The block without host bits.
    #[must_use]
    pub fn network(&self) -> Self {
        Self { address: self.nth(0), prefix: self.prefix }
    }

    /// The highest address of the block (IPv4: its broadcast address).
    pub fn last(&self) -> IpAddr {
        self.nth(self.size() - 1)
    }

    /// Number of addresses; `u128::MAX` for `::/0`.
    pub fn size(&self) -> u128 {
        1_u128.checked_shl(u32::from(bits(self.address) - self.prefix)).unwrap_or(u128::MAX)
    }

    /// The address `n` above the lowest one; `n` is less than [`Cidr::size`].
    pub fn nth(&self, n: u128) -> IpAddr {
        let mask = self.size().wrapping_sub(1);
        let base = if self.prefix == 0 { 0 } else { number(self.address) & !mask };
        from_number(base + n, self.is_ipv6())
    }

    /// How far an address of the block is above its lowest one.
    pub fn offset(&self, address: IpAddr) -> Option<u128> {
        self.contains(address).then(|| number(address) - number(self.nth(0)))
    }

    /// Whether the address is in the block.
    pub fn contains(&self, address: IpAddr) -> bool {
        let shift = u32::from(bits(self.address) - self.prefix);
        address.is_ipv6() == self.is_ipv6()
            && (number(address) ^ number(self.address)).checked_shr(shift).unwrap_or(0) == 0
    }

    /// Whether the blocks have an address in common.
    pub fn overlaps(&self, other: &Self) -> bool {
        if self.prefix <= other.prefix { self.contains(other.address) } else { other.contains(self.address) }
    }
}

const fn bits(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(ip) => u128::from(ip.to_bits()),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

fn from_number(number: u128, v6: bool) -> IpAddr {
    if v6 {
        return IpAddr::V6(Ipv6Addr::from_bits(number));
    }
    IpAddr::V4(Ipv4Addr::from_bits(u32::try_from(number).unwrap_or(u32::MAX)))
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl FromStr for Cidr {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (address, prefix) = text.split_once('/').ok_or(())?;
        if prefix.is_empty() || !prefix.bytes().all(|c| c.is_ascii_digit()) {
            return Err(());
        }
        Self::new(address.parse().map_err(drop)?, prefix.parse().map_err(drop)?).ok_or(())
    }
}

impl Serialize for Cidr {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Cidr {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(|()| serde::de::Error::custom("not an address block"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidr(text: &str) -> Cidr {
        text.parse().expect("a block")
    }

    #[test]
    fn blocks_know_their_members() {
        assert_eq!(cidr("10.1.2.3/24").network().to_string(), "10.1.2.0/24");
        assert_eq!(cidr("10.1.2.3/24").last().to_string(), "10.1.2.255");
        assert_eq!(cidr("10.1.2.3/24").nth(7).to_string(), "10.1.2.7");
        assert_eq!(cidr("10.1.2.0/24").offset("10.1.2.9".parse().expect("an address")), Some(9));
        assert!(cidr("0.0.0.0/0").contains("255.1.2.3".parse().expect("an address")));
        assert!(!cidr("0.0.0.0/0").contains("::1".parse().expect("an address")));
        assert!(cidr("::/0").contains("ff::".parse().expect("an address")));
        assert_eq!(cidr("fd00::1:2/64").network().to_string(), "fd00::/64");
    }

    #[test]
    fn overlap_is_symmetric() {
        for (a, b, expected) in [
            ("10.0.0.0/8", "10.2.3.0/24", true),
            ("10.0.0.0/24", "10.0.1.0/24", false),
            ("0.0.0.0/0", "10.0.1.0/24", true),
            ("fd00::/48", "10.0.1.0/24", false),
            ("fd00::/48", "fd00:0:0:5::/64", true),
        ] {
            assert_eq!(cidr(a).overlaps(&cidr(b)), expected, "{a} {b}");
            assert_eq!(cidr(b).overlaps(&cidr(a)), expected, "{b} {a}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "10.0.0.0", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/+8", "fd00::/129", "x/8"] {
            assert!(text.parse::<Cidr>().is_err(), "{text}");
        }
    }
}
