//! Decisions about the size of the pool.

use chordfs_types::{
    namespace::{MAX_POOL_REASON_BYTES, PoolDecider, PoolSize, PoolStep, REMEMBERED_POOL_DECISIONS},
    ring_config::{Decimal, RingConfig},
};

use super::*;

fn size(fixture: &Fixture) -> PoolSize {
    match fixture.tables.query(&Query::PoolSize) {
        Ok(Answer::PoolSize(size)) => size,
        other => panic!("{other:?}"),
    }
}

fn step(by: PoolDecider, to: Option<u32>) -> PoolStep {
    PoolStep { from: 2, to, by, reason: "because".into(), miss_rate: None, fullest_disk: None }
}

fn resize(expected: u64, by: PoolDecider, to: Option<u32>) -> Change {
    Change::ResizePool { expected, step: step(by, to) }
}

fn configure(fixture: &mut Fixture, settings: &[(&str, &str)]) {
    let Ok(Answer::RingConfig(config)) = fixture.tables.query(&Query::RingConfig) else { panic!("no configuration") };
    let config: RingConfig = config.with(settings.iter().copied()).unwrap();
    fixture.run(Change::Configure { config }).unwrap();
}

#[track_caller]
fn refused(fixture: &mut Fixture, change: Change, reason: &str) {
    let before = size(fixture);
    match fixture.run(change) {
        Err(FsError::Invalid { reason: found }) => assert!(found.contains(reason), "{found}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(size(fixture), before, "a refused decision changes nothing");
}

#[test]
fn of_two_decisions_from_the_same_serial_one_counts() {
    let mut fixture = Fixture::new();
    assert_eq!(size(&fixture), PoolSize::default());
    let first = fixture.run(resize(0, PoolDecider::Operator, Some(3)));
    assert_eq!(first, Ok(Reply::PoolResized { serial: 1, wanted: Some(3), changed: true }));
    let second = fixture.run(resize(0, PoolDecider::Operator, Some(4)));
    assert_eq!(second, Ok(Reply::PoolResized { serial: 1, wanted: Some(3), changed: false }));
    let now = size(&fixture);
    assert_eq!((now.serial, now.wanted, now.decisions.len()), (1, Some(3), 1));
    let decision = &now.decisions[0];
    assert_eq!((decision.serial, decision.at, &decision.step), (1, at(2), &step(PoolDecider::Operator, Some(3))));
    fixture.run(resize(1, PoolDecider::Operator, None)).unwrap();
    assert_eq!((size(&fixture).wanted, size(&fixture).serial), (None, 2), "released");
}

#[test]
fn the_mode_says_who_decides_and_the_limits_hold() {
    let mut fixture = Fixture::new();
    let (operator, scaler) = (PoolDecider::Operator, PoolDecider::Scaler);
    refused(&mut fixture, resize(0, scaler, Some(3)), "pool.mode is manual");
    refused(&mut fixture, resize(0, operator, Some(9)), "pool.largest is 8");
    refused(&mut fixture, resize(0, operator, Some(0)), "pool.smallest is 1");
    refused(&mut fixture, resize(0, operator, None), "nobody has chosen");
    configure(&mut fixture, &[("pool.mode", "automatic"), ("pool.smallest", "2"), ("pool.largest", "3")]);
    refused(&mut fixture, resize(0, operator, Some(3)), "set pool.mode to manual first");
    refused(&mut fixture, resize(0, scaler, Some(1)), "pool.smallest is 2");
    fixture.run(resize(0, scaler, Some(3))).unwrap();
    refused(&mut fixture, resize(1, operator, None), "set pool.mode to manual first");
    refused(&mut fixture, resize(1, scaler, None), "only an operator");
    refused(&mut fixture, resize(1, scaler, Some(3)), "3 nodes already");
    configure(&mut fixture, &[("pool.mode", "manual"), ("pool.largest", "2")]);
    refused(&mut fixture, resize(1, operator, Some(3)), "3 nodes already");
    fixture.run(resize(1, operator, Some(2))).unwrap();
}

#[test]
fn reasons_and_figures_are_bounded_and_old_decisions_are_forgotten() {
    let mut fixture = Fixture::new();
    let with = |step: PoolStep| Change::ResizePool { expected: 0, step };
    let plain = step(PoolDecider::Operator, Some(2));
    let long = "ä".repeat(MAX_POOL_REASON_BYTES / 2) + "x";
    refused(&mut fixture, with(PoolStep { reason: long, ..plain.clone() }), "201 bytes");
    refused(&mut fixture, with(PoolStep { reason: String::new(), ..plain.clone() }), "0 bytes");
    let much = Some(Decimal::from_millionths(1_000_001));
    refused(&mut fixture, with(PoolStep { miss_rate: much, ..plain.clone() }), "miss rate");
    refused(&mut fixture, with(PoolStep { fullest_disk: much, ..plain }), "fullest disk");
    let count = REMEMBERED_POOL_DECISIONS as u64 + 5;
    for serial in 0..count {
        fixture.run(resize(serial, PoolDecider::Operator, Some(2 + (serial % 2) as u32))).unwrap();
    }
    let size = size(&fixture);
    assert_eq!((size.serial, size.decisions.len()), (count, REMEMBERED_POOL_DECISIONS));
    assert_eq!((size.decisions[0].serial, size.decisions.last().unwrap().serial), (6, count));
}

#[test]
fn the_size_of_the_pool_survives_a_snapshot() {
    let mut fixture = Fixture::new();
    fixture.run(resize(0, PoolDecider::Operator, Some(3))).unwrap();
    let bytes = postcard::to_allocvec(&fixture.tables).unwrap();
    let restored: Tables = postcard::from_bytes(&bytes).unwrap();
    assert_eq!(restored.query(&Query::PoolSize), Ok(Answer::PoolSize(size(&fixture))));
}
