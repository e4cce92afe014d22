//! The hash slots of a Redis Cluster.

const SLOTS: u16 = 16_384;

/// The slot of a key (Redis Cluster specification, "Key distribution model" and "Hash tags").
pub(crate) fn slot_of(key: &str) -> u16 {
    let tag = key.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map(|(tag, _)| tag);
    crc16(tag.filter(|tag| !tag.is_empty()).unwrap_or(key)) % SLOTS
}

/// The slots of the keys whose tags begin with this text: a function of the rest of the tag.
pub(crate) fn slots_of_tags(beginning: &str) -> impl Fn(&str) -> u16 + use<> {
    let crc = crc16(beginning);
    move |rest| continued(crc, rest) % SLOTS
}

/// CRC-16/XMODEM, as in appendix A of the specification.
fn crc16(text: &str) -> u16 {
    continued(0, text)
}

fn continued(crc: u16, text: &str) -> u16 {
    text.bytes().fold(crc, |crc, byte| (crc << 8) ^ OF_BYTES[usize::from((crc >> 8) as u8 ^ byte)])
}

/// The CRC of each byte. A queue searches thousands of tags when it is opened.
const OF_BYTES: [u16; 256] = {
    let mut of_bytes = [0; 256];
    let mut bits = 0;
    while bits < 8 * 256 {
        let (byte, bit) = (bits / 8, bits % 8);
        let crc = if bit == 0 { (byte as u16) << 8 } else { of_bytes[byte] };
        of_bytes[byte] = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
        bits += 1;
    }
    of_bytes
};

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
        assert_eq!(slots_of_tags("predict_")("queue:0"), slot_of("{predict_queue:0}:log"));
    }
}
