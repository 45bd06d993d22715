//! The configuration of the ring.

use chordfs_types::ring_config::{CacheCapacity, RingConfig};

use super::*;

fn config_of(fixture: &Fixture) -> RingConfig {
    match fixture.tables.query(&Query::RingConfig) {
        Ok(Answer::RingConfig(config)) => config,
        other => panic!("{other:?}"),
    }
}

fn off(version: u64) -> RingConfig {
    let mut config = RingConfig { version, ..RingConfig::default() };
    config.cache.capacity = CacheCapacity::Off;
    config
}

#[test]
fn of_two_changes_from_the_same_version_the_second_is_refused() {
    let mut fixture = Fixture::new();
    assert_eq!(config_of(&fixture), RingConfig::default());
    let first = fixture.run(Change::Configure { config: off(0) });
    assert_eq!(first, Ok(Reply::Configured { config: off(1), changed: true }));
    let second = fixture.run(Change::Configure { config: RingConfig::default() });
    assert_eq!(second, Ok(Reply::Configured { config: off(1), changed: false }));
    assert_eq!(config_of(&fixture), off(1));
    let again = fixture.run(Change::Configure { config: RingConfig { version: 1, ..RingConfig::default() } });
    assert!(matches!(again, Ok(Reply::Configured { config: RingConfig { version: 2, .. }, changed: true })));
}

#[test]
fn a_configuration_that_is_wrong_changes_nothing() {
    let mut fixture = Fixture::new();
    let mut wrong = RingConfig::default();
    wrong.pool.smallest = wrong.pool.largest + 1;
    assert!(is_invalid(fixture.run(Change::Configure { config: wrong })));
    assert_eq!(config_of(&fixture), RingConfig::default());
}

#[test]
fn the_configuration_survives_a_snapshot() {
    let mut fixture = Fixture::new();
    fixture.run(Change::Configure { config: off(0) }).unwrap();
    let bytes = postcard::to_allocvec(&fixture.tables).unwrap();
    let restored: Tables = postcard::from_bytes(&bytes).unwrap();
    assert_eq!(restored.query(&Query::RingConfig), Ok(Answer::RingConfig(off(1))));
}
