//! What a block is known by.

/// A heap, as the tracer numbers those of a process: blocks of two may be at one address, as a
/// pool's first object and the chunk that it lies in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(transparent)]
pub struct FamilyId(u8);

impl FamilyId {
    /// How many there may be.
    pub const MOST: usize = 16;

    /// The first one, which most processes have alone.
    pub const FIRST: FamilyId = FamilyId(0);

    /// Number `number`; the first, if that is none.
    #[inline]
    pub const fn new(number: usize) -> FamilyId {
        match number < FamilyId::MOST {
            true => FamilyId(number as u8),
            false => FamilyId::FIRST,
        }
    }

    /// Its number.
    #[inline]
    pub const fn number(self) -> usize {
        self.0 as usize
    }

    /// Those that have numbers below `count`.
    pub fn all(count: usize) -> impl DoubleEndedIterator<Item = FamilyId> {
        (0..count.min(FamilyId::MOST)).map(FamilyId::new)
    }
}

/// Bits of an address: five levels of page tables.
const ADDR_BITS: u32 = 57;

/// Family and address of a block, in one word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(transparent)]
pub struct Key(pub(crate) u64);

impl Key {
    /// The block of `family` at `addr`. Bits that no address has are not looked at.
    #[inline(always)]
    pub const fn new(family: FamilyId, addr: u64) -> Key {
        Key(addr & ((1 << ADDR_BITS) - 1) | (family.0 as u64) << ADDR_BITS)
    }

    /// Where the block is.
    #[inline]
    pub const fn addr(self) -> u64 {
        self.0 & ((1 << ADDR_BITS) - 1)
    }

    /// Whose it is.
    #[inline]
    pub const fn family(self) -> FamilyId {
        FamilyId((self.0 >> ADDR_BITS) as u8 % FamilyId::MOST as u8)
    }

    /// As one word; 0 is no block's.
    #[inline]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// The same back.
    #[inline]
    pub const fn from_bits(bits: u64) -> Key {
        Key(bits)
    }
}

/// Of the first family.
impl From<u64> for Key {
    fn from(addr: u64) -> Key {
        Key::new(FamilyId::FIRST, addr)
    }
}

const _: () = assert!(FamilyId::MOST <= 1 << (u64::BITS - ADDR_BITS));

/// So that [`Key::family`] is a mask.
const _: () = assert!(FamilyId::MOST.is_power_of_two());
