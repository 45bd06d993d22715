//! Writes the good inputs of all targets to a folder, each to a folder of its target: `corpus FOLDER`.

use std::{env, fs, path::PathBuf};

use chordfs_fuzz::TARGETS;

fn main() -> std::io::Result<()> {
    let folder = PathBuf::from(env::args().nth(1).expect("usage: corpus FOLDER"));
    for target in TARGETS {
        let own = folder.join(target.name);
        fs::create_dir_all(&own)?;
        for (number, input) in (target.corpus)().iter().enumerate() {
            fs::write(own.join(format!("good-{number}")), input)?;
        }
        println!("{}", target.name);
    }
    Ok(())
}
