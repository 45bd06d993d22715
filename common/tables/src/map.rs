//! Serde for an ordered map: its length, then the pairs in order.
//!
//! It is written by hand because a length read from a damaged snapshot must not be trusted: pairs are inserted as they
//! are read, and no memory is reserved for them in advance. And because a B-tree that is filled in ascending order
//! splits each full leaf into two halves and never returns to the first: every second pair is inserted before the
//! others, which then fill the halves. That saves a quarter of the memory of a large namespace.

use std::{fmt, marker::PhantomData};

use imbl::OrdMap;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, Visitor},
};

/// How many pairs are read before the gaps between them are filled.
const BATCH: usize = 4096;

pub(crate) fn serialize<K, V, S>(map: &OrdMap<K, V>, serializer: S) -> Result<S::Ok, S::Error>
where
    K: Serialize + Ord,
    V: Serialize,
    S: Serializer,
{
    serializer.collect_map(map.iter())
}

pub(crate) fn deserialize<'de, K, V, D>(deserializer: D) -> Result<OrdMap<K, V>, D::Error>
where
    K: Deserialize<'de> + Ord + Clone,
    V: Deserialize<'de> + Clone,
    D: Deserializer<'de>,
{
    deserializer.deserialize_map(Pairs(PhantomData))
}

struct Pairs<K, V>(PhantomData<(K, V)>);

impl<'de, K, V> Visitor<'de> for Pairs<K, V>
where
    K: Deserialize<'de> + Ord + Clone,
    V: Deserialize<'de> + Clone,
{
    type Value = OrdMap<K, V>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the pairs of a map")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        let (mut map, mut others) = (OrdMap::new(), Vec::with_capacity(BATCH / 2));
        let mut is_other = false;
        while let Some((key, value)) = access.next_entry()? {
            if is_other {
                others.push((key, value));
            } else {
                map.insert(key, value);
            }
            is_other = !is_other;
            if others.len() == BATCH / 2 {
                map.extend(others.drain(..));
            }
        }
        map.extend(others);
        Ok(map)
    }
}
