//! A short form of the load table, with bounds that random ids, and halving the widest arc, exceed.

use ring_tests::tables::load::{Ids, Row, measure, table};

const SIZES: [usize; 4] = [5, 10, 100, 300];
const KEYS: usize = 300_000;

fn rows(seed: u64) -> Vec<Row> {
    measure(seed, &SIZES, KEYS)
}

#[test]
fn chosen_positions_keep_the_fullest_near_the_mean() {
    for seed in 1..=3 {
        for row in rows(seed).iter().filter(|row| row.ids == Ids::Chosen && row.copies == 3) {
            let bound = if row.nodes <= 10 { 1.28 } else { 1.4 };
            assert!(row.max <= bound && row.percentile_1 >= 0.6, "seed {seed}: {row:?}, not {bound}");
        }
    }
}

#[test]
fn random_ids_exceed_these_bounds() {
    let worst = |nodes| {
        let of =
            |seed| rows(seed).into_iter().find(|row| row.ids == Ids::Random && row.copies == 3 && row.nodes == nodes);
        (1..=3).filter_map(of).map(|row| row.max).fold(0.0, f64::max)
    };
    assert!(worst(5) > 1.3 && worst(10) > 1.4 && worst(100) > 2.0);
}

#[test]
fn every_row_is_in_the_table() {
    let lines = table(&measure(1, &[5, 10], 1000)).lines();
    assert_eq!(lines.len(), 1 + 3 + 1 + 2 * 2 * 2);
    assert!(lines.iter().any(|line| line.contains("9.1")));
}
