/// CRC-32 as in ISO-HDLC (zlib, `.gnu_debuglink`), polynomial 0xedb88320.
#[derive(Debug)]
pub(crate) struct Crc32 {
    table: [u32; 256],
    state: u32,
}

impl Crc32 {
    pub(crate) fn new() -> Crc32 {
        let mut table = [0; 256];
        for (byte, entry) in (0_u32..).zip(&mut table) {
            *entry = (0..8).fold(byte, |crc, _| match crc & 1 {
                1 => (crc >> 1) ^ 0xedb8_8320,
                _ => crc >> 1,
            });
        }
        Crc32 {
            table,
            state: u32::MAX,
        }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        for byte in bytes {
            let index = (self.state ^ u32::from(*byte)) & 0xff;
            self.state = (self.state >> 8) ^ self.table[index as usize];
        }
    }

    pub(crate) fn value(&self) -> u32 {
        !self.state
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_value() {
        let mut crc = Crc32::new();
        crc.update(b"1234");
        crc.update(b"56789");
        assert_eq!(crc.value(), 0xcbf4_3926);
    }
}
