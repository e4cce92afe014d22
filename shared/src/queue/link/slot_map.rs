//! Which primary of a Redis Cluster owns which slots.

use std::collections::BTreeSet;

use redis::Value;

use crate::queue::{error::StoreError, link::place::NodeAddress};

/// The answer to CLUSTER SLOTS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SlotMap {
    /// First and last slot, and their primary, in order.
    ranges: Vec<(u16, u16, NodeAddress)>,
    replicas: BTreeSet<NodeAddress>,
}

impl SlotMap {
    pub(super) fn owner(&self, slot: u16) -> Option<&NodeAddress> {
        let after = self.ranges.partition_point(|(first, ..)| *first <= slot);
        let (_, last, owner) = self.ranges.get(after.checked_sub(1)?)?;
        (slot <= *last).then_some(owner)
    }

    /// All nodes, replicas included.
    pub(super) fn nodes(&self) -> impl Iterator<Item = &NodeAddress> {
        self.ranges.iter().map(|(.., owner)| owner).chain(&self.replicas)
    }

    /// Reads the reply of the node at the host `asked`.
    pub(super) fn parse(reply: Value, asked: &str) -> Result<Self, StoreError> {
        let ranges: Vec<Vec<Value>> = redis::from_redis_value(reply).map_err(StoreError::unread)?;
        let mut map = Self::default();
        for range in ranges {
            let mut parts = range.into_iter();
            let mut number = || redis::from_redis_value::<u16>(parts.next().unwrap_or(Value::Nil));
            let (first, last) =
                (number().map_err(StoreError::unread)?, number().map_err(StoreError::unread)?);
            let mut nodes = parts.map(|node| address_of(node, asked));
            let Some(primary) = nodes.next().transpose()? else { continue };
            map.ranges.push((first, last, primary));
            for replica in nodes {
                map.replicas.insert(replica?);
            }
        }
        map.ranges.sort_unstable();
        Ok(map)
    }
}

/// Reads a node: its host, its port, its id and more. Without a host, it is that of the node that was asked.
fn address_of(node: Value, asked: &str) -> Result<NodeAddress, StoreError> {
    let mut parts = redis::from_redis_value::<Vec<Value>>(node).map_err(StoreError::unread)?.into_iter();
    let host: Option<String> =
        redis::from_redis_value(parts.next().unwrap_or(Value::Nil)).map_err(StoreError::unread)?;
    let port: u16 =
        redis::from_redis_value(parts.next().unwrap_or(Value::Nil)).map_err(StoreError::unread)?;
    let host = host.filter(|host| !host.is_empty() && host != "?");
    Ok(NodeAddress { host: host.unwrap_or_else(|| asked.to_owned()), port })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(host: Value, port: i64) -> Value {
        Value::Array(vec![
            host,
            Value::Int(port),
            Value::BulkString(b"id".to_vec()),
            Value::Array(Vec::new()),
        ])
    }

    #[test]
    fn the_slots_of_each_primary_are_read() {
        let named = |host: &str| Value::BulkString(host.as_bytes().to_vec());
        let range = |first, last, nodes: Vec<Value>| {
            Value::Array([vec![Value::Int(first), Value::Int(last)], nodes].concat())
        };
        let reply = Value::Array(vec![
            range(100, 200, vec![node(named("b"), 2), node(named("c"), 3)]),
            range(0, 9, vec![node(Value::Nil, 1)]),
        ]);
        let map = SlotMap::parse(reply, "asked").unwrap();
        let owner = |slot| map.owner(slot).map(ToString::to_string);
        assert_eq!(owner(0).as_deref(), Some("asked:1"));
        assert_eq!(owner(9).as_deref(), Some("asked:1"));
        assert_eq!(owner(10), None);
        assert_eq!(owner(200).as_deref(), Some("b:2"));
        assert_eq!(owner(201), None);
        assert_eq!(map.nodes().map(ToString::to_string).collect::<Vec<_>>(), ["asked:1", "b:2", "c:3"]);
        assert!(SlotMap::parse(Value::Okay, "asked").is_err());
    }
}
