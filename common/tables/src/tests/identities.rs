//! Invitations and identities.

use chordfs_types::{
    identity::{Identity, IdentityId, Role},
    namespace::{AdmissionReason, Invitation, InvitationHash, KeyHash},
};

use super::*;

fn identity(id: u64) -> Identity {
    Identity { id: IdentityId(id), role: Role::Client, name: format!("host-{id}"), path: None }
}

fn at(secs: i64) -> Time {
    Time { secs, nanos: 0 }
}

fn invite(id: u64, expires: i64) -> Change {
    let hash = InvitationHash([id as u8; 32]);
    Change::Invite { invitation: Invitation { identity: identity(id), hash, expires: at(expires) } }
}

fn admit(admission: AdmissionReason, key: u8, expires: i64) -> Change {
    Change::Admit { admission, key: KeyHash([key; 32]), expires: at(expires) }
}

fn invited(id: u8) -> AdmissionReason {
    AdmissionReason::Invited(InvitationHash([id; 32]))
}

fn counts(fixture: &Fixture) -> (usize, usize) {
    match fixture.tables.query(&Query::Identities) {
        Ok(Answer::Identities { invitations, known }) => (invitations.len(), known.len()),
        other => panic!("{other:?}"),
    }
}

fn revoked(fixture: &Fixture) -> Vec<IdentityId> {
    match fixture.tables.query(&Query::RevokedIdentities) {
        Ok(Answer::RevokedIdentities(ids)) => ids,
        other => panic!("{other:?}"),
    }
}

fn is_refused<T>(result: Result<T, FsError>) -> bool {
    matches!(result, Err(FsError::NotPermitted { .. }))
}

/// Later than any time of the fixture.
const LATE: i64 = 1 << 40;

#[test]
fn an_invitation_lets_one_key_in() {
    let mut fixture = Fixture::new();
    assert!(is_refused(fixture.run(admit(invited(1), 1, LATE))), "nobody is invited");
    fixture.run(invite(1, LATE)).unwrap();
    assert_eq!(fixture.run(invite(1, LATE)), Err(FsError::Exists));
    assert_eq!(counts(&fixture), (1, 0));
    assert_eq!(fixture.run(admit(invited(1), 7, LATE)), Ok(Reply::Admitted(identity(1))));
    assert_eq!(counts(&fixture), (0, 1));
    assert_eq!(fixture.run(admit(invited(1), 7, LATE)), Ok(Reply::Admitted(identity(1))), "the answer was lost");
    assert!(is_refused(fixture.run(admit(invited(1), 8, LATE))), "somebody else has the same invitation");
}

#[test]
fn what_is_revoked_stays_out() {
    let mut fixture = Fixture::new();
    fixture.run(invite(1, LATE)).unwrap();
    fixture.run(invite(2, LATE)).unwrap();
    fixture.run(admit(invited(1), 7, LATE)).unwrap();
    fixture.run(admit(AdmissionReason::Renewed(IdentityId(1)), 8, LATE)).unwrap();
    for id in [1, 2] {
        fixture.run(Change::RevokeIdentity { id: IdentityId(id) }).unwrap();
    }
    assert_eq!(fixture.run(Change::RevokeIdentity { id: IdentityId(3) }), Err(FsError::NoEntry));
    assert_eq!(revoked(&fixture), [IdentityId(1)]);
    for admission in
        [invited(1), invited(2), AdmissionReason::Renewed(IdentityId(1)), AdmissionReason::Vouched(identity(1))]
    {
        assert!(is_refused(fixture.run(admit(admission.clone(), 8, LATE))), "{admission:?}");
    }
    assert!(is_refused(fixture.run(admit(AdmissionReason::Renewed(IdentityId(9)), 8, LATE))), "nobody knows it");
}

#[test]
fn an_operator_vouches_for_new_identities_and_for_the_same_ones_again() {
    let mut fixture = Fixture::new();
    let vouched = |id| AdmissionReason::Vouched(identity(id));
    fixture.run(admit(vouched(1), 7, LATE)).unwrap();
    assert_eq!(fixture.run(admit(vouched(1), 8, LATE)), Ok(Reply::Admitted(identity(1))));
    let other = Identity { role: Role::Operator, ..identity(1) };
    assert_eq!(fixture.run(admit(AdmissionReason::Vouched(other), 8, LATE)), Err(FsError::Exists));
    let nameless = Identity { name: String::new(), ..identity(2) };
    assert!(is_invalid(fixture.run(admit(AdmissionReason::Vouched(nameless), 8, LATE))));
    assert_eq!(counts(&fixture), (0, 1));
}

#[test]
fn what_has_expired_is_forgotten_once_it_cannot_be_renewed() {
    let mut fixture = Fixture::new();
    fixture.run(invite(1, -5)).unwrap();
    assert!(is_refused(fixture.run(admit(invited(1), 7, LATE))), "it has expired before it was used");
    let day = 24 * 3600;
    for (id, expires) in [(2, -5), (3, -170 * day), (4, -190 * day)] {
        fixture.run(admit(AdmissionReason::Vouched(identity(id)), 7, expires)).unwrap();
        fixture.run(Change::RevokeIdentity { id: IdentityId(id) }).unwrap();
    }
    fixture.run(admit(AdmissionReason::Vouched(identity(5)), 7, -170 * day)).unwrap();
    fixture.run(invite(6, LATE)).unwrap();
    assert_eq!((counts(&fixture), revoked(&fixture)), ((1, 3), vec![IdentityId(2), IdentityId(3)]));
    assert_eq!(fixture.run(admit(AdmissionReason::Renewed(IdentityId(5)), 8, LATE)), Ok(Reply::Admitted(identity(5))));
}
