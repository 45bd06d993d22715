//! `storage-node recover --sole-survivor`: the operator declares that the other voters are gone for good. The command
//! prints the consequences, asks for confirmation, and works on the folder of a stopped node.

use std::{
    io::{BufRead, IsTerminal, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use chordfs_namespace::{DamagePolicy, NamespaceSettings, Recovered, Recovery};
use chordfs_store::DataFolder;
use clap::Args;

use crate::{node_arg::ring_address, output::runtime};

#[derive(Args)]
pub struct RecoverArgs {
    /// Make this node the only voter; prints what may be lost, and asks for confirmation
    #[arg(long, required = true)]
    sole_survivor: bool,
    /// The stopped node's folder
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// The node's ring address from now on [IP:PORT, or IP for port 5057; default: as before]
    #[arg(long, value_name = "ADDRESS", value_parser = ring_address)]
    address: Option<SocketAddr>,
    /// Where this node's log is damaged and there is no other copy: continue with what precedes the damage. A copy of
    /// the log as it was is kept
    #[arg(long)]
    cut_damage: bool,
    /// Do not ask for confirmation
    #[arg(long)]
    yes: bool,
}

pub fn run(args: RecoverArgs) -> Result<()> {
    runtime(None)?.block_on(sole_survivor(&args))
}

async fn sole_survivor(args: &RecoverArgs) -> Result<()> {
    let data = args.data.as_path();
    // `DataFolder::open` would create a missing folder.
    if !data.join("FORMAT").is_file() || !data.join("namespace").is_dir() {
        bail!(
            "{}: no data folder of a node that has run; name the folder that was given to `run --data`",
            data.display()
        );
    }
    let folder = DataFolder::open(data)
        .context("cannot open the folder; recovery works only on the folder of a stopped node")?;
    if args.cut_damage && !args.yes {
        println!("{CUT_DAMAGE}");
        confirm("recover")?;
    }
    let policy = if args.cut_damage { DamagePolicy::Cut } else { DamagePolicy::Refuse };
    let recovery = Recovery::open(data, folder.node_uid(), NamespaceSettings::default().log_file_bytes, policy)
        .await
        .with_context(|| format!("cannot recover from {}", data.display()))?;
    let outlook = recovery.outlook();
    if outlook.former_voters.len() == 1 && !args.cut_damage {
        println!("This node is the only voter already; there is nothing to do. Start it as usual.");
        return Ok(());
    }
    if outlook.former_voters.len() > 1 {
        println!("{}", consequences(data, folder.node_uid(), &outlook));
        if !args.yes {
            confirm("recover")?;
        }
    }
    recovery.carry_out(args.address).await.context("recovery is incomplete; run it again")?;
    println!("Done. Start this node with `storage-node run` and without --join, then the others with empty folders.");
    Ok(())
}

fn consequences(data: &Path, uid: u64, outlook: &Recovered) -> String {
    let others: Vec<String> =
        outlook.former_voters.iter().filter(|(voter, _)| **voter != uid).map(|(_, ring)| ring.to_string()).collect();
    let loss = if outlook.may_have_lost {
        "  - The latest changes to names and files that the others agreed on without this node are lost, even if\n    \
         they were acknowledged to a program. It is not known which. Their chunks are kept for 30 days.\n"
    } else {
        "  - No change that was acknowledged is lost: each of two voters has all of them.\n"
    };
    format!(
        "{data} holds a vote on the namespace, together with {others}.\n\
         To recover from this node alone means:\n\
         \x20 - From now on this node alone decides on names and files; others become voters again as they join.\n\
         {loss}\
         \x20 - Chunks of which no remaining node has a copy stay lost; reading them is an error.\n\
         \x20 - {others} must never again run with the folders they have now: remove their `namespace` folders first.\n\
         Do this only if they are gone for good. If enough of them can be started for a majority, start them instead.",
        data = data.display(),
        others = others.join(", "),
    )
}

const CUT_DAMAGE: &str = "Changes to names and files behind the damage in this node's log are lost, also those that were \
                          acknowledged to a program. Do it only if no other voter has them.";

/// Asks for confirmation by typing `word`, only on a terminal; a script confirms with --yes.
pub(crate) fn confirm(word: &str) -> Result<()> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        bail!("nothing was changed: there is no terminal to ask for confirmation; add --yes to confirm");
    }
    print!("Type `{word}` to continue: ");
    std::io::stdout().flush()?;
    let mut line = String::new();
    stdin.lock().read_line(&mut line)?;
    if line.trim() != word {
        bail!("nothing was changed");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn outlook(voters: u64) -> Recovered {
        let address = |uid| (uid, SocketAddr::from(([10, 0, 0, uid as u8], 5057)));
        let former_voters: BTreeMap<_, _> = (1..=voters).map(address).collect();
        Recovered { may_have_lost: voters > 2, former_voters, last_log_index: 7 }
    }

    #[test]
    fn possible_losses_and_the_nodes_that_must_not_return_are_named() {
        let two = consequences(Path::new("/data"), 1, &outlook(2));
        assert!(two.contains("No change that was acknowledged is lost") && two.contains("10.0.0.2:5057"), "{two}");
        assert!(!two.contains("10.0.0.1"), "{two}");
        let three = consequences(Path::new("/data"), 1, &outlook(3));
        assert!(three.contains("are lost") && three.contains("10.0.0.2:5057, 10.0.0.3:5057"), "{three}");
    }

    #[tokio::test]
    async fn a_folder_without_the_data_of_a_node_is_left_unchanged() {
        let dir = tempfile::tempdir().unwrap();
        for data in [dir.path().to_owned(), dir.path().join("missing")] {
            let args = RecoverArgs { sole_survivor: true, data, address: None, cut_damage: false, yes: true };
            let error = sole_survivor(&args).await.unwrap_err().to_string();
            assert!(error.contains("no data folder"), "{error}");
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
