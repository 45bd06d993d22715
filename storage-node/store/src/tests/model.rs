//! Random operations against a plain set, and the set of what was deleted since the open, which is not put again.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Put { version: u64, first: u32, count: u32, durable: bool },
    Delete { version: u64, first: u32, count: u32 },
    Forget { version: u64, index: u32 },
    Compact,
    Sync,
    Reopen,
    ReopenWithoutHints,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let run = (1..10u64, 1..12u32, 1..6u32);
    let step = prop_oneof![
        6 => (run.clone(), any::<bool>()).prop_map(|((version, first, count), durable)| Step::Put { version, first, count, durable }),
        4 => run.prop_map(|(version, first, count)| Step::Delete { version, first, count }),
        2 => (1..10u64, 1..12u32).prop_map(|(version, index)| Step::Forget { version, index }),
        2 => Just(Step::Compact),
        1 => Just(Step::Sync),
        1 => Just(Step::Reopen),
        1 => Just(Step::ReopenWithoutHints),
    ];
    proptest::collection::vec(step, 1..60)
}

type Chunks = BTreeSet<(u64, u32)>;

fn apply(fixture: &mut Fixture, model: &mut Chunks, tombstones: &mut Chunks, step: &Step) {
    match *step {
        Step::Put { version, first, count, durable } => {
            let outcome = fixture
                .store()
                .put(&batch(&numbered("m", first..first + count, version), 300), durable.into())
                .unwrap();
            let fresh = (first..first + count)
                .filter(|index| !tombstones.contains(&(version, *index)) && model.insert((version, *index)))
                .count();
            assert_eq!((outcome.stored, outcome.already), (fresh, count as usize - fresh));
        }
        Step::Delete { version, first, count } => {
            tombstones.extend((first..first + count).map(|index| (version, index)));
            let gone = (first..first + count).filter(|index| model.remove(&(version, *index))).count();
            assert_eq!(fixture.store().delete(&[run("m", first, count, version)]).unwrap(), gone as u64);
        }
        Step::Forget { version, index } => {
            let gone = u64::from(model.remove(&(version, index)));
            assert_eq!(fixture.store().forget(&[chunk("m", index, version)]).unwrap(), gone);
        }
        Step::Compact => assert!(fixture.store().compact_step().is_ok()),
        Step::Sync => fixture.store().sync().unwrap(),
        Step::Reopen => {
            tombstones.clear();
            fixture.reopen();
        }
        Step::ReopenWithoutHints => {
            tombstones.clear();
            fixture.close();
            for hint in fixture.files().iter().filter(|name| name.ends_with("idx")) {
                std::fs::remove_file(fixture.chunks().join(hint)).unwrap();
            }
            fixture.reopen();
        }
    }
}

fn check(fixture: &Fixture, model: &Chunks) {
    let store = fixture.store();
    let all: Vec<_> = (1..10).flat_map(|version| numbered("m", 1..20, version)).collect();
    let expected: Vec<bool> = all.iter().map(|chunk| model.contains(&(chunk.id.version.0, chunk.id.index))).collect();
    assert_eq!(present(store, &all), expected);
    assert_eq!(store.has(&all), expected);
    assert_eq!(list_all(store, whole(), 4).len(), model.len());
    let stats = store.stats();
    assert_eq!((stats.chunks, stats.damaged), (model.len() as u64, 0));
    let on_disk: u64 = fixture
        .files()
        .iter()
        .filter(|name| name.ends_with("seg"))
        .map(|name| std::fs::metadata(fixture.chunks().join(name)).unwrap().len())
        .sum();
    assert_eq!(stats.live_bytes + stats.dead_bytes, on_disk);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_store_is_a_set(steps in steps(), segment_bytes in 500..5000u64, segment_writers in 1..3usize) {
        let mut fixture = Fixture::new(StoreOptions { segment_bytes, segment_writers, ..plain_options() });
        let (mut model, mut tombstones) = (BTreeSet::new(), BTreeSet::new());
        for step in &steps {
            apply(&mut fixture, &mut model, &mut tombstones, step);
            check(&fixture, &model);
        }
        fixture.reopen();
        check(&fixture, &model);
    }
}
