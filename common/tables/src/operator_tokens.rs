//! The tokens of operators: at most one for each node. A revoked one stays in the table until its node has made
//! another, so that a node which was away when its token was revoked learns of it.

use std::net::SocketAddr;

use chordfs_types::{
    fs_error::FsError,
    namespace::{AcceptedToken, Reply},
    operator::{MAX_ACCEPTED_TOKENS, TokenHash},
};

use super::{Tables, Transaction, invalid};

impl Tables {
    pub(super) fn operator_tokens(&self) -> Vec<AcceptedToken> {
        self.operator_tokens.values().copied().collect()
    }
}

impl Transaction<'_> {
    /// Accepts a node's token instead of its former one. A token that was revoked stays so.
    pub(super) fn accept_operator_token(
        &mut self,
        node_uid: u64,
        node: SocketAddr,
        hash: TokenHash,
    ) -> Result<Reply, FsError> {
        let tokens = &mut self.tables.operator_tokens;
        let since = match tokens.get(&node_uid) {
            Some(token) if token.hash == hash => {
                tokens.insert(node_uid, AcceptedToken { node, ..*token });
                return Ok(Reply::Done);
            }
            None if tokens.len() == MAX_ACCEPTED_TOKENS => {
                return Err(invalid(format!(
                    "the ring accepts {MAX_ACCEPTED_TOKENS} operators' tokens already; revoke those of nodes that left"
                )));
            }
            _ => self.now,
        };
        tokens.insert(node_uid, AcceptedToken { node_uid, node, hash, since, revoked: false });
        Ok(Reply::Done)
    }

    pub(super) fn revoke_operator_token(&mut self, node_uid: u64, forget: bool) -> Result<Reply, FsError> {
        let tokens = &mut self.tables.operator_tokens;
        if forget {
            tokens.remove(&node_uid);
        } else if let Some(token) = tokens.get_mut(&node_uid) {
            token.revoked = true;
        }
        Ok(Reply::Done)
    }
}
