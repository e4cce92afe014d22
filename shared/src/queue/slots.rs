//! The hash slots of a Redis Cluster.

const SLOTS: u16 = 16_384;

/// The slot of a key (Redis Cluster specification, "Key distribution model" and "Hash tags").
pub(crate) fn slot_of(key: &str) -> u16 {
    let tag = key.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map(|(tag, _)| tag);
    crc16(tag.filter(|tag| !tag.is_empty()).unwrap_or(key)) % SLOTS
}

/// CRC-16/XMODEM, as in appendix A of the specification.
fn crc16(text: &str) -> u16 {
    text.bytes().fold(0, |crc, byte| {
        let crc = crc ^ (u16::from(byte) << 8);
        (0..8).fold(crc, |crc, _| if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_in_the_slots_that_redis_computes() {
        // The specification's check value, and slots from CLUSTER KEYSLOT.
        assert_eq!(crc16("123456789"), 0x31c3);
        assert_eq!(slot_of("predict_queue:workers"), 6807);
        assert_eq!(slot_of("{predict_queue:0}:log"), 12_034);
        assert_eq!(slot_of("foo{}{bar}"), crc16("foo{}{bar}") % SLOTS, "an empty tag is none");
        assert_eq!(slot_of("foo{bar}{zap}"), slot_of("bar"));
    }
}
