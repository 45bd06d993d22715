//! `storage-node recover --sole-survivor`: the operator's word that the other voters are gone for good. It says what that
//! means, asks, and works on the folder of a node that does not run.

use std::{
    io::{BufRead, IsTerminal, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use chordfs_namespace::{Recovered, Recovery, Settings};
use chordfs_store::DataFolder;

pub struct RecoverOptions {
    pub data: PathBuf,
    /// The node's ring address from now on, if it is another than before.
    pub address: Option<SocketAddr>,
    /// The operator has answered already.
    pub yes: bool,
}

pub async fn sole_survivor(options: RecoverOptions) -> Result<()> {
    let data = &options.data;
    // Opening would make a new folder where there is none.
    if !data.join("FORMAT").is_file() || !data.join("namespace").is_dir() {
        bail!("{}: no data folder of a node that has run; name the one that was given to `run --data`", data.display());
    }
    let folder = DataFolder::open(data).context("recovering works on the folder of a stopped node")?;
    let recovery = Recovery::open(data, folder.node_uid(), Settings::default().log_file_bytes)
        .await
        .with_context(|| format!("cannot recover from {}", data.display()))?;
    let outlook = recovery.outlook();
    if outlook.former_voters.len() == 1 {
        println!("This node is the only voter already; nothing is to be done. Start it as usual.");
        return Ok(());
    }
    println!("{}", meaning(data, folder.node_uid(), &outlook));
    if !options.yes {
        confirm()?;
    }
    recovery.carry_out(options.address).await.context("recovering broke off; run it again")?;
    println!("Done. Start this node with `storage-node run` and without --join, then the others with empty folders.");
    Ok(())
}

fn meaning(data: &Path, uid: u64, outlook: &Recovered) -> String {
    let others: Vec<String> =
        outlook.former_voters.iter().filter(|(voter, _)| **voter != uid).map(|(_, ring)| ring.to_string()).collect();
    let loss = match outlook.may_have_lost {
        true => {
            "  - Changes to names and files that the others agreed on in the last moments, without this node, are lost, \
             also\n    such as were acknowledged to a program. Nothing tells which those were. Their chunks are kept for 30 days.\n"
        }
        false => "  - No change that was acknowledged is lost: each of two voters has all of them.\n",
    };
    format!(
        "{data} holds a vote on the namespace, together with {others}.\n\
         To recover from this node alone means:\n\
         \x20 - This node decides from now on alone who is called what; others become voters again as they join.\n\
         {loss}\
         \x20 - Chunks of which no node that is left has a copy stay lost; reading them is an error.\n\
         \x20 - {others} must never again run with the folders they have now: remove their `namespace` folders first.\n\
         Do it only if they are gone for good. If enough of them can be started for a majority, start them instead.",
        data = data.display(),
        others = others.join(", "),
    )
}

/// Only at a terminal can somebody be asked; a script has to have decided.
fn confirm() -> Result<()> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        bail!("nothing was changed: there is no terminal to ask at; add --yes if this is what you want");
    }
    print!("Type `recover` to go on: ");
    std::io::stdout().flush()?;
    let mut line = String::new();
    stdin.lock().read_line(&mut line)?;
    if line.trim() != "recover" {
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
    fn what_may_be_lost_is_said_and_who_must_not_come_back() {
        let two = meaning(Path::new("/data"), 1, &outlook(2));
        assert!(two.contains("No change that was acknowledged is lost") && two.contains("10.0.0.2:5057"), "{two}");
        assert!(!two.contains("10.0.0.1"), "{two}");
        let three = meaning(Path::new("/data"), 1, &outlook(3));
        assert!(three.contains("are lost") && three.contains("10.0.0.2:5057, 10.0.0.3:5057"), "{three}");
    }

    #[tokio::test]
    async fn a_folder_that_is_none_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        for data in [dir.path().to_owned(), dir.path().join("missing")] {
            let options = RecoverOptions { data, address: None, yes: true };
            let error = sole_survivor(options).await.unwrap_err().to_string();
            assert!(error.contains("no data folder"), "{error}");
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
