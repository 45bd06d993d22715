//! What this node is for others: the answers on port 5057, and its administration.
//!
//! | file | what |
//! |---|---|
//! | `stage.rs` | how far the node is in its life |
//! | `own_session.rs` | the node's own session with the namespace |
//! | `ring_port.rs` | the calls on 5057 |
//! | `admin.rs` | what the administration port reports of the node |
//! | `arc_hand_over.rs` | the chunks that a node which has joined asks for by the old call |

pub mod admin;
pub mod arc_hand_over;
pub mod own_session;
pub mod ring_port;
pub mod stage;
