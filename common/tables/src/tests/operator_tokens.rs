//! The tokens of operators.

use chordfs_types::{
    namespace::AcceptedToken,
    operator::{MAX_ACCEPTED_TOKENS, TokenHash},
};

use super::*;

fn tokens(fixture: &Fixture) -> Vec<AcceptedToken> {
    match fixture.tables.query(&Query::OperatorTokens) {
        Ok(Answer::OperatorTokens(tokens)) => tokens,
        other => panic!("{other:?}"),
    }
}

fn accept(node_uid: u64, hash: u8) -> Change {
    Change::AcceptOperatorToken { node_uid, node: ([10, 0, 0, 1], 5057).into(), hash: TokenHash([hash; 32]) }
}

#[test]
fn a_node_has_one_token_and_a_revoked_one_is_not_accepted_again() {
    let mut fixture = Fixture::new();
    fixture.run(accept(1, 7)).unwrap();
    fixture.run(accept(2, 8)).unwrap();
    fixture.run(Change::RevokeOperatorToken { node_uid: 1, forget: false }).unwrap();
    fixture.run(accept(1, 7)).unwrap();
    let revoked: Vec<bool> = tokens(&fixture).iter().map(|token| token.revoked).collect();
    assert_eq!(revoked, [true, false]);
    fixture.run(accept(1, 9)).unwrap();
    let listed = tokens(&fixture);
    assert_eq!((listed.len(), listed[0].hash, listed[0].revoked), (2, TokenHash([9; 32]), false));
    fixture.run(Change::RevokeOperatorToken { node_uid: 2, forget: true }).unwrap();
    fixture.run(Change::RevokeOperatorToken { node_uid: 3, forget: false }).unwrap();
    assert_eq!(tokens(&fixture), listed[..1]);
}

#[test]
fn the_number_of_tokens_is_bounded() {
    let mut fixture = Fixture::new();
    for node in 0..MAX_ACCEPTED_TOKENS as u64 {
        fixture.run(accept(node, 1)).unwrap();
    }
    assert!(is_invalid(fixture.run(accept(5000, 1))));
    fixture.run(accept(5, 2)).unwrap();
    fixture.run(Change::RevokeOperatorToken { node_uid: 5, forget: true }).unwrap();
    fixture.run(accept(5000, 1)).unwrap();
    assert_eq!(tokens(&fixture).len(), MAX_ACCEPTED_TOKENS);
}
