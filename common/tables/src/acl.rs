//! POSIX access control lists, as Linux keeps them in the extended attributes `system.posix_acl_access` and
//! `system.posix_acl_default`: a version, and entries of 8 bytes each, in a fixed order.
//!
//! The kernels check permissions by these lists. What the lists have to do with the permission bits is decided here,
//! because a kernel leaves it to the file system: a list sets the bits, a change of the bits changes the list, and what
//! is created in a directory begins with the directory's default list.

use bytes::{BufMut, Bytes, BytesMut};
use chordfs_types::fs_error::FsError;

use super::invalid;

pub(super) const ACCESS_ACL: &[u8] = b"system.posix_acl_access";
pub(super) const DEFAULT_ACL: &[u8] = b"system.posix_acl_default";

const VERSION: u32 = 2;
const HEADER_BYTES: usize = 4;
const ENTRY_BYTES: usize = 8;
/// The id of entries that name nobody.
const NO_ID: u32 = u32::MAX;

/// For whom an entry is. The numbers are Linux's, and entries are in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum AclTag {
    Owner = 0x01,
    User = 0x02,
    OwningGroup = 0x04,
    Group = 0x08,
    Mask = 0x10,
    Others = 0x20,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct AclEntry {
    tag: AclTag,
    /// Read, write and execute, as those of others in a mode.
    bits: u16,
    /// The user or the group, if the tag names one.
    id: u32,
}

/// A valid list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Acl {
    entries: Vec<AclEntry>,
}

impl Acl {
    /// `None` for a list without entries, which stands for no list.
    pub(super) fn decode(value: &[u8]) -> Result<Option<Self>, FsError> {
        let Some((version, entries)) = value.split_first_chunk::<HEADER_BYTES>() else {
            return Err(invalid("an access control list ends before its version"));
        };
        let version = u32::from_le_bytes(*version);
        if version != VERSION {
            return Err(FsError::Unsupported { what: format!("access control lists of version {version}") });
        }
        let (entries, rest) = entries.as_chunks::<ENTRY_BYTES>();
        if !rest.is_empty() {
            return Err(invalid("an access control list ends within an entry"));
        }
        let entries: Vec<AclEntry> = entries.iter().map(decode_entry).collect::<Result<_, _>>()?;
        if entries.is_empty() {
            return Ok(None);
        }
        let acl = Self { entries };
        acl.check().map(|()| Some(acl))
    }

    pub(super) fn encode(&self) -> Bytes {
        let mut value = BytesMut::with_capacity(HEADER_BYTES + ENTRY_BYTES * self.entries.len());
        value.put_u32_le(VERSION);
        for AclEntry { tag, bits, id } in &self.entries {
            value.put_u16_le(*tag as u16);
            value.put_u16_le(*bits);
            value.put_u32_le(*id);
        }
        value.freeze()
    }

    /// The permission bits that the list amounts to.
    pub(super) fn mode(&self) -> u16 {
        let group = self.bits(AclTag::Mask).unwrap_or_else(|| self.required(AclTag::OwningGroup));
        self.required(AclTag::Owner) << 6 | group << 3 | self.required(AclTag::Others)
    }

    /// Whether the list says no more than its permission bits.
    pub(super) fn is_only_mode(&self) -> bool {
        self.entries.iter().all(|entry| matches!(entry.tag, AclTag::Owner | AclTag::OwningGroup | AclTag::Others))
    }

    /// The list after the permission bits were set.
    pub(super) fn with_mode(mut self, mode: u16) -> Self {
        let group = self.group_class();
        for entry in &mut self.entries {
            match entry.tag {
                AclTag::Owner => entry.bits = mode >> 6 & 7,
                AclTag::Others => entry.bits = mode & 7,
                tag if tag == group => entry.bits = mode >> 3 & 7,
                _ => {}
            }
        }
        self
    }

    /// The list of something that is created with this mode where this is the default list.
    pub(super) fn masked(self, mode: u16) -> Self {
        let both = self.mode() & mode;
        self.with_mode(both)
    }

    /// Whether somebody has these permissions who is neither root nor in root's group. The owner is root, and `group`
    /// the owning group.
    pub(super) fn permits_without_root(&self, bits: u16, group: u32) -> bool {
        let mask = self.bits(AclTag::Mask).unwrap_or(7);
        self.entries.iter().any(|entry| match entry.tag {
            AclTag::User | AclTag::Group => entry.id != 0 && entry.bits & mask & bits == bits,
            AclTag::OwningGroup => group != 0 && entry.bits & mask & bits == bits,
            AclTag::Others => entry.bits & bits == bits,
            AclTag::Owner | AclTag::Mask => false,
        })
    }

    /// The entry that the bits of the group stand for.
    fn group_class(&self) -> AclTag {
        if self.bits(AclTag::Mask).is_some() { AclTag::Mask } else { AclTag::OwningGroup }
    }

    fn bits(&self, tag: AclTag) -> Option<u16> {
        self.entries.iter().find(|entry| entry.tag == tag).map(|entry| entry.bits)
    }

    fn required(&self, tag: AclTag) -> u16 {
        self.bits(tag).expect("the list has been checked")
    }

    fn check(&self) -> Result<(), FsError> {
        let count = |tag| self.entries.iter().filter(|entry| entry.tag == tag).count();
        let once = [AclTag::Owner, AclTag::OwningGroup, AclTag::Others];
        let names_somebody = count(AclTag::User) + count(AclTag::Group) > 0;
        let is_complete = once.into_iter().all(|tag| count(tag) == 1)
            && count(AclTag::Mask) <= 1
            && (!names_somebody || count(AclTag::Mask) == 1);
        if is_complete && self.entries.is_sorted_by_key(|entry| entry.tag) {
            return Ok(());
        }
        Err(invalid("an access control list lacks an entry, repeats one, or is out of order"))
    }
}

fn decode_entry(entry: &[u8; ENTRY_BYTES]) -> Result<AclEntry, FsError> {
    let [tag_low, tag_high, bits_low, bits_high, id @ ..] = *entry;
    let (tag, bits) = (u16::from_le_bytes([tag_low, tag_high]), u16::from_le_bytes([bits_low, bits_high]));
    let known = [AclTag::Owner, AclTag::User, AclTag::OwningGroup, AclTag::Group, AclTag::Mask, AclTag::Others];
    let Some(tag) = known.into_iter().find(|known| *known as u16 == tag) else {
        return Err(invalid(format!("an access control list has an entry of the unknown kind {tag:#x}")));
    };
    if bits > 7 {
        return Err(invalid(format!("an access control list has an entry with the permissions {bits:#o}")));
    }
    let id = if matches!(tag, AclTag::User | AclTag::Group) { u32::from_le_bytes(id) } else { NO_ID };
    Ok(AclEntry { tag, bits, id })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acl(entries: &[(AclTag, u16, u32)]) -> Acl {
        let entries = entries.iter().map(|(tag, bits, id)| AclEntry { tag: *tag, bits: *bits, id: *id }).collect();
        Acl { entries }
    }

    /// `u::rw-, u:1000:rwx, g::r--, m::rwx, o::---`
    fn shared() -> Acl {
        acl(&[
            (AclTag::Owner, 6, NO_ID),
            (AclTag::User, 7, 1000),
            (AclTag::OwningGroup, 4, NO_ID),
            (AclTag::Mask, 7, NO_ID),
            (AclTag::Others, 0, NO_ID),
        ])
    }

    #[test]
    fn a_list_has_the_bytes_that_linux_gives_it() {
        let minimal = acl(&[(AclTag::Owner, 6, NO_ID), (AclTag::OwningGroup, 4, NO_ID), (AclTag::Others, 0, NO_ID)]);
        let bytes = [
            2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 4, 0, 4, 0, 255, 255, 255, 255, 32, 0, 0, 0, 255, 255, 255, 255,
        ];
        assert_eq!(minimal.encode()[..], bytes);
        assert_eq!(Acl::decode(&bytes).unwrap(), Some(minimal));
        assert_eq!(Acl::decode(&shared().encode()).unwrap(), Some(shared()));
        assert_eq!(Acl::decode(&[2, 0, 0, 0]).unwrap(), None);
    }

    #[test]
    fn the_mask_is_what_the_bits_of_the_group_show() {
        assert_eq!(shared().mode(), 0o670);
        assert!(!shared().is_only_mode());
        let changed = shared().with_mode(0o741);
        assert_eq!((changed.mode(), changed.bits(AclTag::OwningGroup)), (0o741, Some(4)));
    }

    #[test]
    fn what_is_created_gets_what_both_the_list_and_the_program_allow() {
        assert_eq!(shared().masked(0o644).mode(), 0o640);
        assert_eq!(shared().masked(0o777).mode(), 0o670);
    }

    #[test]
    fn a_list_permits_what_somebody_other_than_root_may() {
        assert!(shared().permits_without_root(7, 0), "user 1000 may");
        assert!(!shared().with_mode(0o710).permits_without_root(4, 9), "the mask does not let anybody read");
        let of_root = acl(&[
            (AclTag::Owner, 7, NO_ID),
            (AclTag::OwningGroup, 4, NO_ID),
            (AclTag::Group, 7, 0),
            (AclTag::Mask, 7, NO_ID),
            (AclTag::Others, 1, NO_ID),
        ]);
        let permitted = |group| [4, 1, 2].map(|bits| of_root.permits_without_root(bits, group));
        assert_eq!(permitted(0), [false, true, false]);
        assert_eq!(permitted(9), [true, true, false]);
    }

    #[test]
    fn lists_that_linux_refuses_are_refused() {
        let without_mask = acl(&[
            (AclTag::Owner, 6, NO_ID),
            (AclTag::User, 7, 1000),
            (AclTag::OwningGroup, 4, NO_ID),
            (AclTag::Others, 0, NO_ID),
        ]);
        let mut reversed = shared();
        reversed.entries.reverse();
        let mut strange = shared().encode().to_vec();
        strange[4] = 3;
        let mut generous = shared().encode().to_vec();
        generous[6] = 8;
        let values =
            [&without_mask.encode()[..], &reversed.encode(), &strange, &generous, &shared().encode()[..10], &[2, 0]];
        for value in values {
            assert!(matches!(Acl::decode(value), Err(FsError::Invalid { .. })), "{value:?}");
        }
        assert!(matches!(Acl::decode(&[1, 0, 0, 0]), Err(FsError::Unsupported { .. })));
    }
}
