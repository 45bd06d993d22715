//! Extended attributes, and access control lists beside the permission bits.

use chordfs_types::namespace::{InodeFlags, MAX_XATTR_VALUE_BYTES, XattrMode, XattrName};

use super::*;

const ACCESS: &str = "system.posix_acl_access";
const DEFAULT: &str = "system.posix_acl_default";

fn xattr(name: &str) -> XattrName {
    XattrName::new(name.as_bytes().to_vec()).unwrap()
}

/// A list with the owner, the owning group, others, and with `user` a mask and an entry for user 1000.
fn acl(owner: u16, user: Option<u16>, group: u16, mask: u16, others: u16) -> Bytes {
    let mut value = 2_u32.to_le_bytes().to_vec();
    let mut add = |tag: u16, bits: u16, id: u32| {
        value.extend([tag.to_le_bytes(), bits.to_le_bytes()].concat());
        value.extend(id.to_le_bytes());
    };
    add(1, owner, u32::MAX);
    user.into_iter().for_each(|bits| add(2, bits, 1000));
    add(4, group, u32::MAX);
    user.into_iter().for_each(|_| add(16, mask, u32::MAX));
    add(32, others, u32::MAX);
    value.into()
}

impl Fixture {
    fn set(&mut self, ino: Ino, name: &str, value: impl Into<Bytes>, mode: XattrMode) -> Result<Reply, FsError> {
        self.run(Change::SetXattr { ino, name: xattr(name), value: value.into(), mode })
    }

    fn put(&mut self, ino: Ino, name: &str, value: impl Into<Bytes>) {
        self.set(ino, name, value, XattrMode::Any).unwrap();
    }

    fn remove(&mut self, ino: Ino, name: &str) -> Result<Reply, FsError> {
        self.run(Change::RemoveXattr { ino, name: xattr(name) })
    }

    fn xattrs(&self, ino: Ino) -> Vec<(String, Bytes)> {
        match self.tables.query(&Query::Xattrs { ino }) {
            Ok(Answer::Xattrs { attr, xattrs }) => {
                assert_eq!(attr, self.attr(ino));
                xattrs.into_iter().map(|(name, value)| (name.to_string(), value)).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    fn value(&self, ino: Ino, name: &str) -> Option<Bytes> {
        self.xattrs(ino).into_iter().find(|(other, _)| other == name).map(|(_, value)| value)
    }

    fn chmod(&mut self, ino: Ino, mode: u16) {
        self.run(Change::SetAttr { ino, set: SetAttr { mode: Some(mode), ..SetAttr::default() } }).unwrap();
    }

    fn make_masked(&mut self, parent: Ino, name: &str, kind: FileKind, mode: u16, umask: u16) -> Attr {
        let node = NewNode { mode, ..node(kind) };
        match self.run(Change::MakeMasked { parent, name: entry(name), node, umask, exclusive: true }) {
            Ok(Reply::Entry { attr, created: true }) => attr,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn attributes_are_set_replaced_listed_and_removed() {
    let mut fixture = Fixture::new();
    let ino = fixture.file("a");
    assert_eq!(fixture.xattrs(ino), []);
    assert_eq!(fixture.set(ino, "user.x", "1", XattrMode::Replace), Err(FsError::NoXattr));
    let before = fixture.attr(ino);
    assert_eq!(fixture.set(ino, "user.x", "1", XattrMode::Create), Ok(Reply::Attr(fixture.attr(ino))));
    assert_eq!(fixture.feed, [FeedEvent::Inode { ino, contents: false }]);
    let after = fixture.attr(ino);
    assert_eq!((after.ctime, after.mtime), (at(fixture.clock), before.mtime));
    assert!(after.change > before.change);
    assert_eq!(after.flags, InodeFlags { has_xattrs: true, has_acl: false });
    assert_eq!(fixture.set(ino, "user.x", "2", XattrMode::Create), Err(FsError::Exists));
    fixture.put(ino, "trusted.y", "");
    fixture.put(ino, "user.x", "3");
    let expected = [("trusted.y".to_owned(), Bytes::new()), ("user.x".to_owned(), "3".into())];
    assert_eq!(fixture.xattrs(ino), expected);
    fixture.remove(ino, "user.x").unwrap();
    assert_eq!(fixture.remove(ino, "user.x"), Err(FsError::NoXattr));
    fixture.remove(ino, "trusted.y").unwrap();
    assert_eq!(fixture.attr(ino).flags, InodeFlags::default());
    assert_eq!(fixture.set(Ino(77), "user.x", "1", XattrMode::Any), Err(FsError::Stale { ino: Ino(77) }));
}

#[test]
fn attributes_end_with_their_inode() {
    let mut fixture = Fixture::new();
    let (file, dir, link) = (fixture.file("a"), fixture.dir(Ino::ROOT, "d"), Ino(0));
    let symlink = fixture.make(Ino::ROOT, "s", node(FileKind::Symlink)).unwrap().ino;
    assert_ne!(link, symlink);
    for ino in [file, dir, symlink] {
        fixture.put(ino, "trusted.x", "1");
    }
    fixture.unlink("a", false).unwrap();
    assert_eq!(fixture.xattrs(file).len(), 1, "it may still be open");
    fixture.purge(i64::MAX);
    fixture.unlink("s", false).unwrap();
    fixture.run(Change::Rmdir { parent: Ino::ROOT, name: entry("d") }).unwrap();
    assert!(fixture.tables.xattrs.is_empty());
}

#[test]
fn values_and_their_sum_have_limits() {
    let mut fixture = Fixture::new();
    let ino = fixture.file("a");
    let too_large = |reply| matches!(reply, Err(FsError::XattrsTooLarge { .. }));
    let largest = vec![7; MAX_XATTR_VALUE_BYTES];
    assert!(too_large(fixture.set(ino, "user.a", [&largest[..], &[7]].concat(), XattrMode::Any)));
    fixture.put(ino, "user.a", largest.clone());
    assert!(too_large(fixture.set(ino, "user.b", largest.clone(), XattrMode::Any)), "two such values and their names");
    fixture.put(ino, "user.b", largest[100..].to_vec());
    fixture.put(ino, "user.b", largest[99..].to_vec());
    assert!(matches!(fixture.set(ino, "system.x", "1", XattrMode::Any), Err(FsError::Unsupported { .. })));
}

#[test]
fn a_list_sets_the_bits_and_the_bits_change_the_list() {
    let mut fixture = Fixture::new();
    let ino = fixture.file("a");
    fixture.chmod(ino, 0o4755);
    fixture.put(ino, ACCESS, acl(6, Some(7), 4, 5, 0));
    assert_eq!((fixture.attr(ino).mode, fixture.attr(ino).flags.has_acl), (0o4650, true));
    fixture.chmod(ino, 0o764);
    assert_eq!(fixture.value(ino, ACCESS), Some(acl(7, Some(7), 4, 6, 4)));
    let set = SetAttr { mode: Some(0o700), ..SetAttr::default() };
    fixture.commit(ino, Commit { set, ..Commit::default() }).unwrap();
    assert_eq!(fixture.value(ino, ACCESS), Some(acl(7, Some(7), 4, 0, 0)), "a commit sets bits as well");
    fixture.put(ino, ACCESS, acl(6, None, 4, 0, 4));
    assert_eq!((fixture.attr(ino).mode, fixture.xattrs(ino)), (0o644, vec![]), "the bits say it all");
    assert!(is_invalid(fixture.set(ino, ACCESS, "\x02\0", XattrMode::Any)));
    assert!(is_invalid(fixture.set(ino, DEFAULT, acl(7, None, 5, 0, 5), XattrMode::Any)), "not a directory");
    let symlink = fixture.make(Ino::ROOT, "s", node(FileKind::Symlink)).unwrap().ino;
    let refused = fixture.set(symlink, ACCESS, acl(7, Some(7), 7, 7, 7), XattrMode::Any);
    assert!(matches!(refused, Err(FsError::Unsupported { .. })));
}

#[test]
fn what_is_created_in_a_directory_begins_with_its_default_list() {
    let mut fixture = Fixture::new();
    let dir = fixture.dir(Ino::ROOT, "d");
    fixture.put(dir, DEFAULT, acl(7, Some(6), 5, 7, 0));
    let file = fixture.make_masked(dir, "f", FileKind::File, 0o666, 0o077);
    assert_eq!(file.mode, 0o660, "the list takes the place of the umask");
    assert_eq!(fixture.xattrs(file.ino), [(ACCESS.to_owned(), acl(6, Some(6), 5, 6, 0))]);
    let below = fixture.make_masked(dir, "below", FileKind::Directory, 0o777, 0o022);
    assert_eq!(fixture.value(below.ino, ACCESS), Some(acl(7, Some(6), 5, 7, 0)));
    assert_eq!(fixture.value(below.ino, DEFAULT), Some(acl(7, Some(6), 5, 7, 0)));
    let link = fixture.make_masked(dir, "s", FileKind::Symlink, 0o777, 0o022);
    assert_eq!((link.mode, link.flags), (0o777, InodeFlags::default()));
    // A list that says no more than bits leaves bits, and is handed on all the same.
    fixture.put(dir, DEFAULT, acl(7, None, 5, 0, 0));
    let plain = fixture.make_masked(dir, "plain", FileKind::File, 0o666, 0o077);
    assert_eq!((plain.mode, plain.flags), (0o640, InodeFlags::default()));
    fixture.remove(dir, DEFAULT).unwrap();
    assert_eq!(fixture.make_masked(dir, "masked", FileKind::File, 0o666, 0o077).mode, 0o600);
}
