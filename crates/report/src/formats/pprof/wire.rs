//! Protocol Buffers, as far as a profile needs them:
//! <https://protobuf.dev/programming-guides/encoding/>.

/// A message that is being written. What is 0 is left out, as proto3 does.
#[derive(Debug, Default)]
pub(super) struct Message(Vec<u8>);

/// Types of the wire.
const VARINT: u64 = 0;
const LENGTH: u64 = 2;

impl Message {
    pub(super) fn number(&mut self, field: u64, value: u64) -> &mut Message {
        if value != 0 {
            varint(&mut self.0, field << 3 | VARINT);
            varint(&mut self.0, value);
        }
        self
    }

    /// Text, or whatever is as long as it says. Also if it is empty: in a list it has its place.
    pub(super) fn bytes(&mut self, field: u64, bytes: &[u8]) -> &mut Message {
        varint(&mut self.0, field << 3 | LENGTH);
        varint(&mut self.0, bytes.len() as u64);
        self.0.extend_from_slice(bytes);
        self
    }

    pub(super) fn message(&mut self, field: u64, message: &Message) -> &mut Message {
        self.bytes(field, &message.0)
    }

    /// A packed list of numbers.
    pub(super) fn numbers(&mut self, field: u64, values: &[u64]) -> &mut Message {
        let mut packed = Vec::new();
        for &value in values {
            varint(&mut packed, value);
        }
        self.bytes(field, &packed)
    }

    /// The fields of `other`, too.
    pub(super) fn append(&mut self, other: Message) {
        self.0.extend(other.0);
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of the specification.
    #[test]
    fn is_as_the_specification_says() {
        let mut message = Message::default();
        message.number(1, 150).number(9, 0);
        let mut outer = Message::default();
        outer.bytes(2, b"testing").message(3, &message);
        outer.numbers(6, &[3, 270, 86_942]);
        let expected = [
            &[0x12, 7][..],
            b"testing",
            &[0x1a, 3, 0x08, 0x96, 0x01],
            &[0x32, 6, 0x03, 0x8e, 0x02, 0x9e, 0xa7, 0x05],
        ];
        assert_eq!(outer.into_bytes(), expected.concat());
    }
}
