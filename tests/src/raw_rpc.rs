//! MessagePack-RPC as an independent implementation speaks it: directly on a socket, without our own code.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::Duration,
};

use rmpv::Value;

const DEADLINE: Duration = Duration::from_secs(5);

pub struct RawRpc {
    stream: TcpStream,
    next_id: u32,
}

/// `[ip, port, id]`, the ip as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawNode {
    pub ip: String,
    pub port: u64,
    pub id: u64,
}

impl RawRpc {
    pub fn connect(ip: Ipv4Addr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&SocketAddr::from((ip, 5057)), DEADLINE)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.set_write_timeout(Some(DEADLINE))?;
        Ok(Self { stream, next_id: 0 })
    }

    pub fn send_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    pub fn send_request(&mut self, method: Value, params: Vec<Value>) -> io::Result<u32> {
        self.next_id += 1;
        let request = Value::Array(vec![0.into(), self.next_id.into(), method, Value::Array(params)]);
        let mut bytes = Vec::new();
        rmpv::encode::write_value(&mut bytes, &request).map_err(io::Error::other)?;
        self.send_bytes(&bytes)?;
        Ok(self.next_id)
    }

    /// Receives the next message of any kind.
    pub fn receive(&mut self) -> io::Result<Value> {
        rmpv::decode::read_value(&mut self.stream).map_err(io::Error::other)
    }

    /// Whether the peer closes the connection within the deadline without sending anything more.
    pub fn is_closed_by_peer(&mut self) -> bool {
        matches!(self.stream.read(&mut [0; 1]), Ok(0)) || self.stream.take_error().is_ok_and(|error| error.is_some())
    }

    /// Calls a method; returns its result or the error value that the node answered.
    pub fn call(&mut self, method: &str, params: Vec<Value>) -> io::Result<Result<Value, Value>> {
        let id = self.send_request(method.into(), params)?;
        let Value::Array(mut message) = self.receive()? else { return Err(io::Error::other("no RPC message")) };
        assert_eq!(message[..2], [Value::from(1), Value::from(id)], "the response to {method}");
        let (result, error) = (message.remove(3), message.remove(2));
        Ok(if error.is_nil() { Ok(result) } else { Err(error) })
    }

    pub fn node(&mut self, method: &str, params: Vec<Value>) -> io::Result<RawNode> {
        let value = self.call(method, params)?.map_err(|error| io::Error::other(error.to_string()))?;
        raw_node(&value).ok_or_else(|| io::Error::other(format!("{method} answered {value}, which is no node")))
    }

    /// The node itself, its successor and its predecessor.
    pub fn neighbours(&mut self) -> io::Result<[RawNode; 3]> {
        let own = self.node("get_info", vec![])?;
        let successor = self.node("get_successor", vec![0.into()])?;
        Ok([own, successor, self.node("get_predecessor", vec![])?])
    }
}

fn raw_node(value: &Value) -> Option<RawNode> {
    let [ip, port, id] = &value.as_array()?[..] else { return None };
    Some(RawNode { ip: ip.as_str()?.to_owned(), port: port.as_u64()?, id: id.as_u64()? })
}
