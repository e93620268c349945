//! Text that a function does nothing but return.

use leaktap_memory::Svma;

use super::ElfFile;

/// Bytes of the longest such function.
const CODE: usize = 32;

/// Bytes of the longest such text.
const LONGEST: usize = 1 << 16;

/// Bytes of it that are read at a time.
const PIECE: usize = 1024;

const ENDBR: &[u8] = &[0xf3, 0x0f, 0x1e, 0xfa];
/// `push %rbp; mov %rsp, %rbp`
const FRAME: &[u8] = &[0x55, 0x48, 0x89, 0xe5];
/// `lea REL32(%rip), %rax`
const LEA: &[u8] = &[0x48, 0x8d, 0x05];
/// `mov $IMM32, %eax`: a program that is linked to a fixed place.
const MOV: &[u8] = &[0xb8];
/// `xor %eax, %eax`: no text.
const ZERO: &[u8] = &[0x31, 0xc0];
const POP: &[u8] = &[0x5d];
const RET: &[u8] = &[0xc3];

impl ElfFile {
    /// The text that the function at `at` returns, of which it does no more than to load the
    /// address: `const char *f() { return "text"; }`. `None` if it is another function.
    pub fn text_returned_by(&self, at: Svma) -> Option<String> {
        let code = self.up_to(CODE, at)?;
        let length = code.len();
        let begin = after(&code, ENDBR);
        let begin = after(begin, FRAME);
        let (text, rest) = match (begin.strip_prefix(LEA), begin.strip_prefix(MOV)) {
            (Some(rest), _) => {
                let (offset, rest) = rest.split_first_chunk()?;
                let behind = at.0.wrapping_add((length - rest.len()) as u64);
                let offset = i64::from(i32::from_le_bytes(*offset));
                (Some(behind.wrapping_add_signed(offset)), rest)
            }
            (None, Some(rest)) => {
                let (address, rest) = rest.split_first_chunk()?;
                let address = u64::from(u32::from_le_bytes(*address));
                (Some(address).filter(|&address| address != 0), rest)
            }
            (None, None) => (None, begin.strip_prefix(ZERO)?),
        };
        if !after(rest, POP).starts_with(RET) {
            return None;
        }
        text.map_or(Some(String::new()), |text| self.text_at(Svma(text)))
    }

    /// What is there in the file up to a zero.
    fn text_at(&self, at: Svma) -> Option<String> {
        let mut text: Vec<u8> = Vec::new();
        while text.len() < LONGEST {
            let next = at.0.checked_add(text.len() as u64)?;
            let piece = self.up_to(PIECE, Svma(next))?;
            if let Some(end) = piece.iter().position(|&byte| byte == 0) {
                text.extend(piece.get(..end)?);
                return String::from_utf8(text).ok();
            }
            text.extend(piece);
        }
        None
    }

    /// As many bytes at `at` as the file has there: at least half of what it has, or `most`.
    fn up_to(&self, most: usize, at: Svma) -> Option<Vec<u8>> {
        let lengths = std::iter::successors(Some(most), |length| Some(length / 2));
        let mut lengths = lengths.take_while(|&length| length > 0);
        lengths.find_map(|length| self.bytes_at(at, length))
    }
}

/// `code` behind what it may begin with.
fn after<'c>(code: &'c [u8], what: &[u8]) -> &'c [u8] {
    code.strip_prefix(what).unwrap_or(code)
}
