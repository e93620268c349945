//! Names of C++ as the Itanium C++ ABI mangles them, spelled as binutils spell them.
//!
//! Names are the target's own: time, depth and length of what is printed are bounded, whatever they
//! say.

mod expressions;
mod names;
mod node;
mod operators;
mod packs;
mod parser;
mod printer;
mod special;
mod templates;
mod types;
mod unnamed;
mod unresolved;

use self::parser::Parser;

/// Bytes of a symbol that is read: compilers make such of some thousand.
const LONGEST: usize = 32 << 10;

/// The name that is mangled in `symbol`, as far as it is to be printed. None if this is no such
/// name, or one that cannot be understood.
pub(crate) fn demangle(symbol: &str) -> Option<String> {
    let mangled = symbol.strip_prefix("_Z")?;
    (symbol.len() <= LONGEST).then_some(())?;
    let mut parser = Parser::new(mangled);
    let encoding = parser.encoding(true)?;
    let suffix = suffix(parser.rest())?;
    Some(printer::print(&parser.nodes, encoding) + &suffix)
}

/// What a compiler adds to the name of a copy of a function: ` [clone .isra.0]`.
fn suffix(mut rest: &str) -> Option<String> {
    let mut suffix = String::new();
    while !rest.is_empty() {
        let after = rest.strip_prefix('.')?;
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$';
        let mut len = 1 + after.bytes().take_while(|byte| is_word(*byte)).count();
        // Numbers belong to the word before them.
        while let Some(digits) = rest.get(len..)?.strip_prefix('.') {
            match digits.bytes().take_while(u8::is_ascii_digit).count() {
                0 => break,
                count => len += 1 + count,
            }
        }
        if len == 1 {
            return None;
        }
        let (clone, others) = rest.split_at(len);
        suffix.push_str(&format!(" [clone {clone}]"));
        rest = others;
    }
    Some(suffix)
}

#[cfg(test)]
#[path = "itanium/tests.rs"]
mod tests;
