//! Invitations, and the identities that the ring has let in.
//!
//! An identity is remembered as long as its newest certificate is valid or may be renewed, and with it whether it is
//! revoked: afterwards nobody lets it in anyway.

use chordfs_types::{
    fs_error::FsError,
    identity::{Identity, IdentityId, RENEWABLE_FOR},
    namespace::{
        AdmissionReason, Answer, Invitation, InvitationHash, KeyHash, KnownIdentity, MAX_IDENTITIES, MAX_INVITATIONS,
        Reply, Time,
    },
};
use imbl::OrdMap;
use serde::{Deserialize, Serialize};

use super::{Transaction, invalid, map};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Identities {
    #[serde(with = "map")]
    invitations: OrdMap<IdentityId, Invitation>,
    #[serde(with = "map")]
    known: OrdMap<IdentityId, KnownIdentity>,
}

impl Identities {
    pub(crate) fn list(&self) -> Answer {
        let (invitations, known) = (self.invitations.values().cloned(), self.known.values().cloned());
        Answer::Identities { invitations: invitations.collect(), known: known.collect() }
    }

    pub(crate) fn get(&self, id: IdentityId) -> Option<&Identity> {
        self.known.get(&id).map(|known| &known.identity)
    }

    pub(crate) fn revoked(&self) -> Vec<IdentityId> {
        self.known.values().filter(|known| known.revoked).map(|known| known.identity.id).collect()
    }

    /// Forgets what has expired at `now`.
    fn expire(&mut self, now: Time) {
        let expired = self.invitations.iter().filter(|(_, invitation)| invitation.expires <= now);
        let expired: Vec<IdentityId> = expired.map(|(id, _)| *id).collect();
        expired.iter().for_each(|id| drop(self.invitations.remove(id)));
        let renewable = Time { secs: now.secs - RENEWABLE_FOR.as_secs() as i64, ..now };
        self.forget_expired(renewable);
    }

    /// Forgets the identities whose certificates ended at `end` or before.
    fn forget_expired(&mut self, end: Time) {
        let expired = self.known.iter().filter(|(_, known)| known.expires <= end);
        let expired: Vec<IdentityId> = expired.map(|(id, _)| *id).collect();
        expired.iter().for_each(|id| drop(self.known.remove(id)));
    }
}

impl Transaction<'_> {
    pub(super) fn invite(&mut self, invitation: &Invitation) -> Result<Reply, FsError> {
        let now = self.logged;
        let identities = &mut self.tables.identities;
        identities.expire(now);
        invitation.identity.check().map_err(invalid)?;
        let id = invitation.identity.id;
        let is_used = |other: &Invitation| other.hash == invitation.hash;
        if identities.known.contains_key(&id)
            || identities.invitations.contains_key(&id)
            || identities.invitations.values().any(is_used)
        {
            return Err(FsError::Exists);
        }
        if identities.invitations.len() >= MAX_INVITATIONS {
            return Err(invalid(format!("{MAX_INVITATIONS} invitations are open already; revoke some of them")));
        }
        identities.invitations.insert(id, invitation.clone());
        Ok(Reply::Done)
    }

    pub(super) fn admit(&mut self, admission: &AdmissionReason, key: KeyHash, expires: Time) -> Result<Reply, FsError> {
        let now = self.logged;
        self.tables.identities.expire(now);
        let identity = match admission {
            AdmissionReason::Invited(hash) => self.admit_invited(*hash, key, expires)?,
            AdmissionReason::Vouched(identity) => self.admit_vouched(identity, key, expires)?,
            AdmissionReason::Renewed(id) => self.renew_identity(*id, key, expires)?,
        };
        Ok(Reply::Admitted(identity))
    }

    fn admit_invited(&mut self, hash: InvitationHash, key: KeyHash, expires: Time) -> Result<Identity, FsError> {
        let identities = &mut self.tables.identities;
        let invited = identities.invitations.values().find(|invitation| invitation.hash == hash);
        if let Some(identity) = invited.map(|invitation| invitation.identity.clone()) {
            identities.invitations.remove(&identity.id);
            self.insert_identity(&identity, key, expires, Some(hash))?;
            return Ok(identity);
        }
        let again = identities.known.values().find(|known| known.invitation == Some(hash) && known.key == key);
        match again {
            Some(known) if !known.revoked => Ok(known.identity.clone()),
            _ => Err(refused("the invitation is not known: it was used, has expired, or was withdrawn")),
        }
    }

    fn admit_vouched(&mut self, identity: &Identity, key: KeyHash, expires: Time) -> Result<Identity, FsError> {
        identity.check().map_err(invalid)?;
        match self.tables.identities.known.get(&identity.id) {
            Some(known) if known.revoked => Err(refused("the identity is revoked")),
            Some(known) if known.identity != *identity => Err(FsError::Exists),
            _ => {
                self.insert_identity(identity, key, expires, None)?;
                Ok(identity.clone())
            }
        }
    }

    fn renew_identity(&mut self, id: IdentityId, key: KeyHash, expires: Time) -> Result<Identity, FsError> {
        match self.tables.identities.known.get_mut(&id) {
            None => Err(refused("the identity is not known any longer")),
            Some(known) if known.revoked => Err(refused("the identity is revoked")),
            Some(known) => {
                (known.key, known.expires) = (key, expires.max(known.expires));
                Ok(known.identity.clone())
            }
        }
    }

    fn insert_identity(
        &mut self,
        identity: &Identity,
        key: KeyHash,
        expires: Time,
        invitation: Option<InvitationHash>,
    ) -> Result<(), FsError> {
        let since = self.logged;
        if self.tables.identities.known.len() >= MAX_IDENTITIES {
            // Those that could be renewed give way to those that are here.
            self.tables.identities.forget_expired(since);
        }
        let known = &mut self.tables.identities.known;
        if known.len() >= MAX_IDENTITIES && !known.contains_key(&identity.id) {
            return Err(invalid(format!("the ring has {MAX_IDENTITIES} identities already")));
        }
        let since = known.get(&identity.id).map_or(since, |former| former.since);
        let (id, identity) = (identity.id, identity.clone());
        known.insert(id, KnownIdentity { identity, key, since, expires, invitation, revoked: false });
        Ok(())
    }

    pub(super) fn revoke_identity(&mut self, id: IdentityId) -> Result<Reply, FsError> {
        let identities = &mut self.tables.identities;
        let withdrawn = identities.invitations.remove(&id).is_some();
        match identities.known.get_mut(&id) {
            Some(known) => known.revoked = true,
            None if withdrawn => {}
            None => return Err(FsError::NoEntry),
        }
        Ok(Reply::Done)
    }
}

fn refused(reason: &str) -> FsError {
    FsError::NotPermitted { reason: reason.into() }
}
