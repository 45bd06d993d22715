//! `--root-owner USER[:GROUP]`, names or numbers, as chown(1) takes them.

use chordfs_namespace::RootOwner;
use nix::unistd::{Gid, Group, Uid, User};

/// Without a group it is the user's own; a number that no user of this machine has is also the group's number.
pub(crate) fn parse(text: &str) -> Result<RootOwner, String> {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let (uid, own_group) = user_number(user)?;
    let gid = group.map_or(Ok(own_group), group_number)?;
    Ok(RootOwner { uid, gid })
}

fn user_number(text: &str) -> Result<(u32, u32), String> {
    let found = match text.parse::<u32>() {
        Ok(number) => match User::from_uid(Uid::from_raw(number)) {
            Ok(None) => return Ok((number, number)),
            found => found,
        },
        Err(_) => User::from_name(text),
    };
    match found {
        Ok(Some(user)) => Ok((user.uid.as_raw(), user.gid.as_raw())),
        Ok(None) => Err(format!("this machine has no user {text:?}; a number is taken as it is")),
        Err(error) => Err(format!("look up user {text:?}: {error}")),
    }
}

fn group_number(text: &str) -> Result<u32, String> {
    if let Ok(number) = text.parse() {
        return Ok(number);
    }
    match Group::from_name(text).map(|group| group.map(|group: Group| Gid::as_raw(group.gid))) {
        Ok(Some(number)) => Ok(number),
        Ok(None) => Err(format!("this machine has no group {text:?}; a number is taken as it is")),
        Err(error) => Err(format!("look up group {text:?}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_and_groups_by_name_and_by_number() {
        let owner = |uid, gid| Ok(RootOwner { uid, gid });
        assert_eq!(parse("root"), owner(0, 0));
        assert_eq!(parse("0"), owner(0, 0));
        assert_eq!(parse("4000000000"), owner(4_000_000_000, 4_000_000_000));
        assert_eq!(parse("4000000000:7"), owner(4_000_000_000, 7));
        assert_eq!(parse("root:root"), owner(0, 0));
        for (text, part) in [("no such user", "user"), ("0:no such group", "group"), ("", "user"), ("0:", "group")] {
            assert!(parse(text).unwrap_err().contains(part), "{text:?}");
        }
    }
}
