//! Addresses that no Release may make the operator talk to: its own machine, link-local ones, and where clouds keep the
//! credentials of their machines. Whoever may write a Release chooses URLs, and the operator's place in the network must not
//! become theirs. Pure, apart from the look-up of names.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

/// Why an address may not be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Barred {
    Loopback,
    LinkLocal,
    Metadata,
    Unroutable,
}

impl fmt::Display for Barred {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Loopback => "an address of the operator's own pod",
            Self::LinkLocal => "a link-local address",
            Self::Metadata => "an address of a cloud's metadata service",
            Self::Unroutable => "no address of a single host",
        })
    }
}

/// A host that may not be reached.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{host} is {barred}, which no Release may use; name the service that is meant")]
pub struct Refused {
    host: String,
    barred: Barred,
}

/// Metadata services outside the link-local ranges: Azure's and Oracle's, Alibaba's, Amazon's and Google's for IPv6.
const METADATA_V4: [Ipv4Addr; 3] = [Ipv4Addr::new(168, 63, 129, 16), Ipv4Addr::new(192, 0, 0, 192), Ipv4Addr::new(100, 100, 100, 200)];
const METADATA_V6: [Ipv6Addr; 3] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23),
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
];

/// Whether the address is barred, and why. IPv6 forms that stand for an IPv4 address are judged as that.
pub fn barred(address: IpAddr) -> Option<Barred> {
    match address {
        IpAddr::V4(address) => barred_v4(address),
        IpAddr::V6(address) => embedded(address).map_or_else(|| barred_v6(address), barred_v4),
    }
}

fn barred_v4(address: Ipv4Addr) -> Option<Barred> {
    if address.is_loopback() {
        Some(Barred::Loopback)
    } else if address.is_link_local() {
        Some(Barred::LinkLocal)
    } else if METADATA_V4.contains(&address) {
        Some(Barred::Metadata)
    } else if address.octets()[0] == 0 || address.octets()[0] >= 224 {
        // "This host", which Linux takes for loopback; multicast, reserved and broadcast.
        Some(Barred::Unroutable)
    } else {
        None
    }
}

fn barred_v6(address: Ipv6Addr) -> Option<Barred> {
    if address.is_loopback() {
        Some(Barred::Loopback)
    } else if address.is_unicast_link_local() {
        Some(Barred::LinkLocal)
    } else if METADATA_V6.contains(&address) {
        Some(Barred::Metadata)
    } else if address.is_unspecified() || address.is_multicast() {
        Some(Barred::Unroutable)
    } else {
        None
    }
}

/// The IPv4 address inside: mapped, compatible, NAT64 (RFC 6052, RFC 8215) and 6to4.
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let v4 = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Some(Ipv4Addr::new(a, b, c, d))
    };
    match address.segments() {
        // `::` and `::1` are IPv6's own.
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => None,
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] | [0x64, 0xff9b, 0 | 1, 0, 0, 0, high, low] | [0x2002, high, low, ..] => v4(high, low),
        _ => None,
    }
}

/// Refuses a URL whose host is a barred address by itself. Names are refused by [`Resolver`], when it is known what they mean.
pub fn literal(url: &Url) -> Result<(), Refused> {
    let address = match url.host() {
        Some(Host::Ipv4(address)) => IpAddr::V4(address),
        Some(Host::Ipv6(address)) => IpAddr::V6(address),
        Some(Host::Domain(_)) | None => return Ok(()),
    };
    match barred(address) {
        Some(barred) => Err(Refused { host: address.to_string(), barred }),
        None => Ok(()),
    }
}

/// Looks names up for an HTTP client and leaves out barred addresses, so that what was judged is what is connected to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Resolver;

impl Resolver {
    pub fn shared() -> Arc<Self> {
        Arc::new(Self)
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move { Ok(Box::new(look_up(name.as_str()).await?.into_iter()) as Addrs) })
    }
}

/// The addresses of a name that may be reached.
///
/// # Errors
/// The look-up's, or [`Refused`] where there are only others.
pub async fn look_up(name: &str) -> Result<Vec<SocketAddr>, Box<dyn std::error::Error + Send + Sync>> {
    let found: Vec<SocketAddr> = tokio::net::lookup_host((name, 0)).await?.collect();
    Ok(allowed(name, found)?)
}

/// The addresses that may be reached; a refusal where there were only others.
fn allowed(name: &str, found: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, Refused> {
    let first = found.iter().find_map(|address| barred(address.ip()));
    let left: Vec<SocketAddr> = found.into_iter().filter(|address| barred(address.ip()).is_none()).collect();
    match first {
        Some(barred) if left.is_empty() => Err(Refused { host: name.to_owned(), barred }),
        Some(_) | None => Ok(left),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_belongs_to_the_machine_or_its_cloud_is_barred_in_every_spelling() {
        for (host, expected) in [
            ("127.0.0.1", Some(Barred::Loopback)),
            ("127.8.9.10", Some(Barred::Loopback)),
            ("2130706433", Some(Barred::Loopback)),
            ("0x7f.1", Some(Barred::Loopback)),
            ("[::1]", Some(Barred::Loopback)),
            ("[::ffff:127.0.0.1]", Some(Barred::Loopback)),
            ("[64:ff9b::7f00:1]", Some(Barred::Loopback)),
            ("169.254.169.254", Some(Barred::LinkLocal)),
            ("169.254.170.2", Some(Barred::LinkLocal)),
            ("[fe80::1]", Some(Barred::LinkLocal)),
            ("[febf::1]", Some(Barred::LinkLocal)),
            ("[::ffff:169.254.169.254]", Some(Barred::LinkLocal)),
            ("[::169.254.169.254]", Some(Barred::LinkLocal)),
            ("[64:ff9b::a9fe:a9fe]", Some(Barred::LinkLocal)),
            ("[64:ff9b:1::a9fe:a9fe]", Some(Barred::LinkLocal)),
            ("[2002:a9fe:a9fe::1]", Some(Barred::LinkLocal)),
            ("[fd00:ec2::254]", Some(Barred::Metadata)),
            ("[fd20:ce::254]", Some(Barred::Metadata)),
            ("100.100.100.200", Some(Barred::Metadata)),
            ("168.63.129.16", Some(Barred::Metadata)),
            ("0.0.0.0", Some(Barred::Unroutable)),
            ("0.1.2.3", Some(Barred::Unroutable)),
            ("[::]", Some(Barred::Unroutable)),
            ("255.255.255.255", Some(Barred::Unroutable)),
            ("224.0.0.1", Some(Barred::Unroutable)),
            ("[ff02::1]", Some(Barred::Unroutable)),
            ("10.0.0.1", None),
            ("172.16.0.1", None),
            ("192.168.1.1", None),
            ("100.64.0.1", None),
            ("8.8.8.8", None),
            ("[fd00::1]", None),
            ("[2001:db8::1]", None),
            ("[::ffff:10.0.0.1]", None),
        ] {
            let url = Url::parse(&format!("http://{host}:8080/health")).unwrap();
            let found = literal(&url).err().map(|refused| refused.barred);
            assert_eq!(found, expected, "{host}");
        }
    }

    #[test]
    fn a_name_keeps_only_the_addresses_that_may_be_reached() {
        let address = |text: &str| SocketAddr::new(text.parse().unwrap(), 0);
        let mixed = allowed("api", vec![address("169.254.169.254"), address("10.0.0.1")]);
        assert_eq!(mixed, Ok(vec![address("10.0.0.1")]));
        let refused = allowed("metadata", vec![address("169.254.169.254")]).unwrap_err();
        assert_eq!(refused.to_string(), "metadata is a link-local address, which no Release may use; name the service that is meant");
        assert_eq!(allowed("nothing", Vec::new()), Ok(Vec::new()));
    }
}
