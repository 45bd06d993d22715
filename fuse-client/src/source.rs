//! SOURCE of a mount: `host[:port][,host2[:port]]...[:/path]`, an IPv6 address in brackets, or
//! `asg:GROUP[:port][:/path]` for the nodes of an EC2 Auto Scaling group. Any node suffices; several are tried in turn.
//! The path names the directory of the namespace that becomes the root of the mount.

use std::{
    fmt,
    net::{SocketAddr, ToSocketAddrs},
};

use chordfs_identity::{IdentityError, InvitationToken};
use chordfs_types::namespace::EntryName;

use crate::exit::MountError;

pub const DEFAULT_PORT: u16 = 5057;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountSource {
    pub nodes: Nodes,
    /// Empty for the namespace's root.
    pub path: Vec<EntryName>,
    /// The text as typed; of an invitation only the addresses, because `mount` shows it to everybody.
    pub text: String,
    /// By which the mount comes into the ring.
    pub invitation: Option<InvitationToken>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Nodes {
    Named(Vec<NodeName>),
    /// The members of an Auto Scaling group at the time the mount starts.
    Group {
        name: String,
        port: u16,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeName {
    pub host: String,
    pub port: u16,
}

impl MountSource {
    pub fn parse(text: &str) -> Result<Self, MountError> {
        if InvitationToken::is_meant_by(text) {
            return Self::invited(text);
        }
        let wrong = |why: String| MountError::usage(format!("SOURCE {text:?} is not HOST[:PORT],...[:/PATH]: {why}"));
        let (nodes, path) = match text.find(":/") {
            Some(at) => (&text[..at], &text[at + 1..]),
            None => (text, ""),
        };
        let nodes = match nodes.strip_prefix(GROUP_PREFIX) {
            Some(group) => parse_group(group),
            None => nodes.split(',').map(parse_node).collect::<Result<_, _>>().map(Nodes::Named),
        };
        let nodes = nodes.map_err(wrong)?;
        let names = path.split('/').filter(|name| !name.is_empty());
        let path = names.map(|name| EntryName::new(name.as_bytes().to_vec())).collect::<Result<_, _>>();
        Ok(Self {
            nodes,
            path: path.map_err(|error| wrong(format!("{path_word} {error}", path_word = "its path:")))?,
            text: text.to_owned(),
            invitation: None,
        })
    }

    fn invited(text: &str) -> Result<Self, MountError> {
        let token: InvitationToken =
            text.parse().map_err(|error: IdentityError| MountError::usage(format!("SOURCE: {error}")))?;
        Ok(Self::invited_by(token))
    }

    /// The nodes that an invitation names.
    pub fn invited_by(token: InvitationToken) -> Self {
        let nodes = token.nodes.iter().map(|node| NodeName { host: node.ip().to_string(), port: node.port() });
        let addresses: Vec<String> = token.nodes.iter().map(SocketAddr::to_string).collect();
        let nodes = Nodes::Named(nodes.collect());
        Self { nodes, path: Vec::new(), text: addresses.join(","), invitation: Some(token) }
    }

    /// Returns all addresses of all nodes whose names can be resolved, or of the members of the group. Queries the
    /// resolver or AWS, so it may take a while.
    pub async fn resolve(&self) -> Result<Vec<SocketAddr>, MountError> {
        match &self.nodes {
            Nodes::Named(nodes) => {
                let (nodes, text) = (nodes.clone(), self.text.clone());
                tokio::task::spawn_blocking(move || resolve(&nodes, &text)).await.map_err(MountError::bug)?
            }
            Nodes::Group { name, port } => members(name, *port).await,
        }
    }

    /// The source as `mount` and `findmnt` show it. Commas are replaced, since a comma would end the mount option that
    /// carries it.
    pub fn fsname(&self) -> String {
        self.text.replace(',', ";")
    }
}

impl fmt::Display for MountSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn resolve(nodes: &[NodeName], source: &str) -> Result<Vec<SocketAddr>, MountError> {
    let mut addresses = Vec::new();
    let mut failures = Vec::new();
    for node in nodes {
        match (node.host.as_str(), node.port).to_socket_addrs() {
            Ok(found) => addresses.extend(found),
            Err(error) => failures.push(format!("{}: {error}", node.host)),
        }
    }
    addresses.dedup();
    if addresses.is_empty() {
        return Err(MountError::failure(format!("cannot resolve any node of {source}: {}", failures.join(", "))));
    }
    Ok(addresses)
}

#[cfg(feature = "aws")]
async fn members(group: &str, port: u16) -> Result<Vec<SocketAddr>, MountError> {
    let found = chordfs_asg::addresses(group).await.map_err(|error| MountError::failure(error.to_string()))?;
    let addresses: Vec<SocketAddr> = found.into_iter().map(|ip| SocketAddr::new(ip, port)).collect();
    if addresses.is_empty() {
        let message = format!("the Auto Scaling group {group} has no healthy member in service");
        return Err(MountError::failure(message));
    }
    Ok(addresses)
}

#[cfg(not(feature = "aws"))]
async fn members(group: &str, _: u16) -> Result<Vec<SocketAddr>, MountError> {
    let what = "this mount.chordfs was built without AWS and cannot look up the members of the Auto Scaling group";
    Err(MountError::failure(format!("{what} {group}; name nodes instead, or build it with the feature aws")))
}

const GROUP_PREFIX: &str = "asg:";

fn parse_group(text: &str) -> Result<Nodes, String> {
    let (name, port) = text.split_once(':').unwrap_or((text, ""));
    if name.is_empty() || name.contains(',') {
        return Err(format!("{name:?} is no valid name of an Auto Scaling group; write asg:GROUP"));
    }
    Ok(Nodes::Group { name: name.to_owned(), port: parse_port(port)? })
}

fn parse_node(text: &str) -> Result<NodeName, String> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']').ok_or_else(|| format!("{text:?} has no closing bracket"))?;
            (host, after.strip_prefix(':').or(after.is_empty().then_some("")).ok_or("after ] only :PORT may follow")?)
        }
        None => match text.split_once(':') {
            Some((_, port)) if port.contains(':') => return Err(format!("write the IPv6 address as [{text}]")),
            Some((_, "")) => return Err(format!("{text:?} has no port after the colon")),
            Some(parts) => parts,
            None => (text, ""),
        },
    };
    if host.is_empty() || host.contains(|c: char| c.is_whitespace() || c == '/') {
        return Err(format!("{host:?} is no host name or address"));
    }
    Ok(NodeName { host: host.to_owned(), port: parse_port(port)? })
}

fn parse_port(text: &str) -> Result<u16, String> {
    match text {
        "" => Ok(DEFAULT_PORT),
        digits => match digits.parse() {
            Ok(port) if port > 0 => Ok(port),
            _ => Err(format!("{digits:?} is no port number from 1 to 65535")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> String {
        match MountSource::parse(text) {
            Ok(source) => {
                let nodes: Vec<_> = match &source.nodes {
                    Nodes::Named(nodes) => nodes.iter().map(|node| format!("{} {}", node.host, node.port)).collect(),
                    Nodes::Group { name, port } => vec![format!("group {name} {port}")],
                };
                let path: Vec<_> = source.path.iter().map(EntryName::to_string).collect();
                format!("{} | {}", nodes.join(", "), path.join(" "))
            }
            Err(error) => {
                assert_eq!(error.code as u8, 1);
                error.message
            }
        }
    }

    #[test]
    fn hosts_ports_and_paths() {
        assert_eq!(parsed("a"), "a 5057 | ");
        assert_eq!(parsed("a:6000"), "a 6000 | ");
        assert_eq!(parsed("a,b:1,10.0.0.3"), "a 5057, b 1, 10.0.0.3 5057 | ");
        assert_eq!(parsed("a:/"), "a 5057 | ");
        assert_eq!(parsed("a,b:6000:/home//me/"), "a 5057, b 6000 | home me");
        assert_eq!(parsed("[::1]"), "::1 5057 | ");
        assert_eq!(parsed("[fe80::1]:7,[::1]:/x"), "fe80::1 7, ::1 5057 | x");
    }

    #[test]
    fn a_group_stands_for_its_members() {
        assert_eq!(parsed("asg:My Group"), "group My Group 5057 | ");
        assert_eq!(parsed("asg:G:6000:/home"), "group G 6000 | home");
        assert_eq!(parsed("asg:G:/home"), "group G 5057 | home");
        for text in ["asg:", "asg:,b", "asg:a,b", "asg:G:x"] {
            assert!(parsed(text).contains("is no"), "{text}: {}", parsed(text));
        }
        assert_eq!(parsed("asg"), "asg 5057 | ", "also a valid host name");
    }

    #[test]
    fn an_error_names_the_part_that_is_wrong() {
        for (text, why) in [
            ("", "is no host"),
            ("/mnt", "is no host"),
            ("a,,b", "is no host"),
            ("a:", "no port after the colon"),
            ("a:0", "is no port"),
            ("a:65536", "is no port"),
            ("a:x", "is no port"),
            ("::1", "write the IPv6 address as [::1]"),
            ("[::1", "no closing bracket"),
            ("[::1]x", "after ]"),
            ("a:/x/../y", "name directories"),
        ] {
            let message = parsed(text);
            assert!(message.contains(why), "{text:?}: {message}");
            assert!(!message.contains('\n'));
        }
    }

    #[test]
    fn a_comma_cannot_inject_an_option() {
        assert_eq!(MountSource::parse("a,allow_other").map(|source| source.fsname()), Ok("a;allow_other".to_owned()));
    }

    #[tokio::test]
    async fn addresses_are_resolved_and_failures_reported() {
        let resolve = |text| async move { MountSource::parse(text)?.resolve().await };
        assert_eq!(resolve("127.0.0.1,[::1]:7").await.map(|found| found.len()), Ok(2));
        let error = resolve("no-such-host.invalid").await.unwrap_err();
        assert!(error.message.contains("no-such-host.invalid"), "{error}");
        assert_eq!(error.code as u8, 32);
    }
}
