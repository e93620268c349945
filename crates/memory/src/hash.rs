/// 2^64 by the golden ratio: odd, and as good as random. The top bits of a product with it depend
/// on all bits of the other factor (Fibonacci hashing).
pub const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
