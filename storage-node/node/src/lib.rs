//! A storage node as a library. The modules from bottom to top; each imports only modules above it in this table:
//!
//! | room | what |
//! |---|---|
//! | `blocking` | calls of the store from asynchronous code |
//! | `mutual_exclusion` | pure: mutual exclusion among nodes that can only ask each other |
//! | `driver` | the task that owns the ring, and its calls between nodes |
//! | `replica` | three holders of every chunk: writes, repair, the state of drains |
//! | `files` | whole files and chunks of files, for scripts and browsers |
//! | `http` | the servers on 5058 and 5059 |
//! | `scrub` | damaged records and orphans |
//! | `config` | the ring's configuration on this node, and its cache of chunks |
//! | `operator` | who may change the ring: tokens, the check of requests, log-in |
//! | `identity` | this node's certificate, and those that it issues |
//! | `access` | who may make which call |
//! | `node` | the calls on 5057, and the status of this node |
//! | `status` | the status of the whole ring |
//! | `pool_size` | how many nodes there shall be: deciding it, and showing it beside those that there are |
//! | `sessions` | the open sessions of mounts and nodes |
//! | `history` | the last half hour of this node and of the ring |
//! | `console` | the console: what its page shows, and its live events |
//! | `drain` | leaving the ring while still serving |
//! | `lifecycle` | assembles the node: start, join, serve, stop |

pub mod access;
mod blocking;
pub mod config;
pub mod console;
pub mod drain;
pub mod driver;
pub mod files;
pub mod history;
pub mod http;
pub mod identity;
pub mod lifecycle;
pub mod mutual_exclusion;
pub mod node;
mod operator;
pub(crate) mod pool_size;
pub mod replica;
pub mod scrub;
pub mod sessions;
pub mod status;
