//! Key to owner and holders: the arcs learnt from the nodes, and when to ask again.

use std::{net::SocketAddr, time::Duration};

pub struct Router {}

impl Router {
    /// `nodes`: ring addresses of any members, asked while nothing better is known.
    pub fn new(_nodes: Vec<SocketAddr>, _deadline: Duration) -> Self {
        unimplemented!()
    }
}
