//! `storage-node rejoin`: puts a damaged log aside and gives the stopped node a new id, so that it joins the namespace
//! again as a new node and the other voters fill it. Nothing is deleted.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use chordfs_namespace::set_log_aside;
use chordfs_store::DataFolder;
use clap::Args;

use crate::recover::confirm;

#[derive(Args)]
pub struct RejoinArgs {
    /// The stopped node's folder
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

const MEANING: &str = "This node's part of the namespace's log is put aside, and the node gets a new id. When it runs \
                       again, the other voters give it the namespace; its chunks stay. Do it only if other voters run: \
                       if this node is the only voter, what it puts aside is the only copy of all names.";

pub fn run(args: &RejoinArgs) -> Result<()> {
    if !args.data.join("FORMAT").is_file() {
        bail!("{}: no data folder of a node; name the one that was given to `run --data`", args.data.display());
    }
    let folder = DataFolder::open(&args.data).context("rejoining works on the folder of a stopped node")?;
    if !args.yes {
        println!("{MEANING}");
        confirm("rejoin")?;
    }
    let aside = set_log_aside(folder.path()).context("put the namespace's folder aside")?;
    let uid = folder.renew_uid()?;
    match aside {
        Some(aside) => println!("The log is now {}.", aside.display()),
        None => println!("There was no log."),
    }
    println!("Done. Start the node as usual; to the others it is the new node {uid:016x}.");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_put_aside_and_the_id_is_new() {
        let data = tempfile::tempdir().unwrap();
        let args = RejoinArgs { data: data.path().to_owned(), yes: true };
        assert!(run(&args).unwrap_err().to_string().contains("no data folder"));
        let uid = DataFolder::open(data.path()).unwrap().node_uid();
        std::fs::create_dir(data.path().join("namespace")).unwrap();
        std::fs::write(data.path().join("namespace/log"), "damaged").unwrap();
        run(&args).unwrap();
        assert_ne!(DataFolder::open(data.path()).unwrap().node_uid(), uid);
        assert!(!data.path().join("namespace").exists());
        assert_eq!(std::fs::read(data.path().join("namespace.damaged-1/log")).unwrap(), b"damaged");
    }
}
