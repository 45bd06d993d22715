//! The node's answers to other programs: the calls on port 5057, and its administration.
//!
//! | file | what |
//! |---|---|
//! | `stage.rs` | the state of the node, from starting to gone |
//! | `own_session.rs` | the node's own session with the namespace |
//! | `ring_port.rs` | the calls on 5057 |
//! | `disk_watch.rs` | whether the data folder can be written |
//! | `admin.rs` | what the administration port reports of the node |
//! | `arc_hand_over.rs` | sending a joined node its chunks, as the old call requests it |

pub mod admin;
pub mod arc_hand_over;
pub mod disk_watch;
pub mod own_session;
pub mod ring_port;
pub mod stage;
