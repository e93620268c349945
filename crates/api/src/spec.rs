//! `--alloc-fn SPEC`: allocator functions that leaktap is told of.
//!
//! `[MODULE!]NAME:ROLE,...`, several of them separated by spaces; or `@PRESET`. In place of the
//! name, `0xOFFSET` is an address as in the file, which needs a module. `*` in a module or a name
//! stands for anything.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::Action;
use crate::presets::PRESETS;

/// Arguments that are in registers: System V psABI.
const ARGUMENTS: u8 = 6;

/// A function, or several that do the same, as a user describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// In which modules, if not in all: the file's name, or its path if there is a `/` in it.
    pub module: Option<String>,
    /// Which of their functions.
    pub place: Place,
    /// What a call does.
    pub call: Call,
}

impl fmt::Display for Described {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(module) = &self.module {
            write!(f, "{module}!")?;
        }
        match &self.place {
            Place::Name(name) => f.write_str(name),
            Place::Offset(at) => write!(f, "{at:#x}"),
        }
    }
}

/// Where a function is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Its symbol; `*` stands for anything.
    Name(String),
    /// Its address as in the module's file.
    Offset(u64),
}

/// What a call does, by its arguments, from 0 to 5.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// Makes a block.
    Allocate(Block),
    /// Makes a block in place of the one at `ptr`.
    Reallocate {
        /// The argument that is the old block.
        ptr: u8,
        /// The new one.
        block: Block,
    },
    /// Frees the block at `ptr`.
    Free {
        /// The argument that is the block.
        ptr: u8,
    },
}

impl Call {
    /// In the form that both engines know. An alignment changes nothing of what is counted.
    pub fn action(self) -> Action {
        match self {
            Call::Allocate(block) => match block.out {
                Some(out) => block.of(Action::ALLOCATE_INTO).at(out.into()),
                None => block.of(Action::ALLOCATE),
            },
            Call::Reallocate { ptr, block } => block.of(Action::REALLOCATE).at(ptr.into()),
            Call::Free { ptr } => Action::FREE.at(ptr.into()),
        }
        .takes(ARGUMENTS.into())
    }
}

impl Block {
    fn of(self, action: Action) -> Action {
        match (self.size, self.count) {
            (Some(size), Some(count)) => action.product(count.into(), size.into()),
            (Some(size), None) => action.sized(size.into()),
            (None, _) => action.unsized_block(),
        }
    }
}

/// A block that a call makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// The argument that is its size in bytes: of each of `count`, if there is that. Without one
    /// nobody knows the size.
    pub size: Option<u8>,
    /// The argument by which the size is multiplied.
    pub count: Option<u8>,
    /// The argument that is its alignment.
    pub align: Option<u8>,
    /// The argument that points to where the block is stored, with 0 for a result if there is one.
    /// Without it the result is the block, or null.
    pub out: Option<u8>,
}

/// Which word cannot be understood, and what was expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpecError {
    /// The word.
    pub word: String,
    /// What was expected there.
    pub expected: &'static str,
}

impl fmt::Display for SpecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: expected {}", self.word, self.expected)
    }
}

impl core::error::Error for SpecError {}

/// The functions that `spec` describes.
///
/// # Errors
/// [`SpecError`] for the first word that is wrong.
pub fn describe(spec: &str) -> Result<Vec<Described>, SpecError> {
    let mut all = Vec::new();
    for word in spec.split_ascii_whitespace() {
        match word.strip_prefix('@') {
            Some(name) => {
                let preset = PRESETS.iter().find(|(known, _)| *known == name);
                let (_, spec) = preset.ok_or_else(|| wrong(word, PRESET))?;
                all.extend(describe(spec)?);
            }
            None => all.push(function(word)?),
        }
    }
    match all.is_empty() {
        true => Err(wrong(spec, FUNCTION)),
        false => Ok(all),
    }
}

const FUNCTION: &str = "[MODULE!]NAME:ROLE,... or @PRESET";
const PRESET: &str = "@apr, @glib, @libxml2, @openssl or @python";
const NAME: &str = "a name before the colon, and a module before `!`";
const OFFSET: &str = "MODULE!0xOFFSET, with hexadecimal digits";
const ROLE: &str = "size=N, count=N, align=N, ptr=N, out=N or returns";
const NUMBER: &str = "an argument from 0 to 5";
const ONCE: &str = "each role once";
const DOES: &str = "ptr=N (a free), returns or out=N (an allocation), or both ptr=N and returns";
const SIZED: &str = "size=N beside count=N: what is counted has that size";
const IN_PLACE: &str = "returns beside ptr=N: a block in place of another one is the result";
const ONE_RESULT: &str = "returns or out=N, not both";

fn wrong(word: &str, expected: &'static str) -> SpecError {
    SpecError {
        word: word.to_owned(),
        expected,
    }
}

fn function(word: &str) -> Result<Described, SpecError> {
    let (place, roles) = word.rsplit_once(':').ok_or_else(|| wrong(word, FUNCTION))?;
    let (module, name) = match place.split_once('!') {
        Some((module, name)) => (Some(module), name),
        None => (None, place),
    };
    if name.is_empty() || name.contains('!') || module.is_some_and(str::is_empty) {
        return Err(wrong(word, NAME));
    }
    let place = match name.strip_prefix("0x") {
        None => Place::Name(name.to_owned()),
        Some(digits) => {
            let offset = u64::from_str_radix(digits, 16).ok();
            let offset = offset.filter(|_| module.is_some_and(|_| !digits.starts_with('+')));
            Place::Offset(offset.ok_or_else(|| wrong(word, OFFSET))?)
        }
    };
    Ok(Described {
        module: module.map(str::to_owned),
        place,
        call: Roles::read(word, roles)?.call(word)?,
    })
}

#[derive(Default)]
struct Roles {
    size: Option<u8>,
    count: Option<u8>,
    align: Option<u8>,
    ptr: Option<u8>,
    out: Option<u8>,
    returns: Option<u8>,
}

impl Roles {
    /// The roles that `words` name, of the function that `whole` describes.
    fn read(whole: &str, words: &str) -> Result<Roles, SpecError> {
        let mut roles = Roles::default();
        for word in words.split(',') {
            let (role, number) = match word.split_once('=') {
                Some((role, number)) => (role, Some(number)),
                None => (word, None),
            };
            let place = match (role, number) {
                ("returns", None) => &mut roles.returns,
                ("size", Some(_)) => &mut roles.size,
                ("count", Some(_)) => &mut roles.count,
                ("align", Some(_)) => &mut roles.align,
                ("ptr", Some(_)) => &mut roles.ptr,
                ("out", Some(_)) => &mut roles.out,
                ("", None) => return Err(wrong(whole, ROLE)),
                _ => return Err(wrong(word, ROLE)),
            };
            let argument = match number.map(str::as_bytes) {
                None => 0,
                Some([digit @ b'0'..=b'9']) if digit - b'0' < ARGUMENTS => digit - b'0',
                Some(_) => return Err(wrong(word, NUMBER)),
            };
            if place.replace(argument).is_some() {
                return Err(wrong(word, ONCE));
            }
        }
        Ok(roles)
    }

    /// What a call of the function that `word` describes does.
    fn call(&self, word: &str) -> Result<Call, SpecError> {
        if self.returns.is_some() && self.out.is_some() {
            return Err(wrong(word, ONE_RESULT));
        }
        if self.ptr.is_some() && self.out.is_some() {
            return Err(wrong(word, IN_PLACE));
        }
        let makes = self.returns.is_some() || self.out.is_some();
        if self.count.is_some() && self.size.is_none() {
            return Err(wrong(word, SIZED));
        }
        let block = Block {
            size: self.size,
            count: self.count,
            align: self.align,
            out: self.out,
        };
        match (self.ptr, makes) {
            (None, true) => Ok(Call::Allocate(block)),
            (Some(ptr), true) => Ok(Call::Reallocate { ptr, block }),
            (Some(ptr), false) => Ok(Call::Free { ptr }),
            (None, false) => Err(wrong(word, DOES)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;
    use std::vec;

    const RETURNED: Block = Block {
        size: Some(0),
        count: None,
        align: None,
        out: None,
    };

    fn named(module: Option<&str>, name: &str, call: Call) -> Described {
        Described {
            module: module.map(str::to_owned),
            place: Place::Name(name.to_owned()),
            call,
        }
    }

    #[test]
    fn functions_are_what_they_are_said_to_be() {
        let sized = |size| Block {
            size: Some(size),
            ..RETURNED
        };
        let calls = [
            ("size=1,returns", Call::Allocate(sized(1))),
            ("ptr=0", Call::Free { ptr: 0 }),
            ("size=0,ptr=1", Call::Free { ptr: 1 }),
            (
                "returns,ptr=0,size=5",
                Call::Reallocate {
                    ptr: 0,
                    block: sized(5),
                },
            ),
            (
                "count=0,size=1,returns",
                Call::Allocate(Block {
                    count: Some(0),
                    ..sized(1)
                }),
            ),
            (
                "out=0,align=1,size=2",
                Call::Allocate(Block {
                    align: Some(1),
                    out: Some(0),
                    ..sized(2)
                }),
            ),
            (
                "returns",
                Call::Allocate(Block {
                    size: None,
                    ..RETURNED
                }),
            ),
            (
                "out=3",
                Call::Allocate(Block {
                    size: None,
                    out: Some(3),
                    ..RETURNED
                }),
            ),
        ];
        for (roles, call) in calls {
            let spec = std::format!("get:{roles}");
            assert_eq!(
                describe(&spec),
                Ok(vec![named(None, "get", call)]),
                "{spec}"
            );
        }
    }

    #[test]
    fn functions_are_where_they_are_said_to_be() {
        let free = Call::Free { ptr: 0 };
        let put = |module, name| Ok(vec![named(module, name, free)]);
        assert_eq!(describe("put:ptr=0"), put(None, "put"));
        assert_eq!(
            describe("lib*.so!*_put:ptr=0"),
            put(Some("lib*.so"), "*_put")
        );
        assert_eq!(describe("a::put:ptr=0"), put(None, "a::put"));
        let by_offset = Described {
            place: Place::Offset(0x1a0),
            ..named(Some("libx.so"), "", free)
        };
        assert_eq!(describe("libx.so!0x1a0:ptr=0"), Ok(vec![by_offset]));
        let both = describe("get:size=0,returns  put:ptr=0").map(|all| all.len());
        assert_eq!(both, Ok(2));
    }

    #[test]
    fn what_is_wrong_is_named_with_what_was_expected() {
        for (spec, word, expected) in [
            ("", "", FUNCTION),
            ("get", "get", FUNCTION),
            ("a:ptr=0 get", "get", FUNCTION),
            ("@gtk", "@gtk", PRESET),
            (":ptr=0", ":ptr=0", NAME),
            ("!put:ptr=0", "!put:ptr=0", NAME),
            ("x!:ptr=0", "x!:ptr=0", NAME),
            ("x!y!put:ptr=0", "x!y!put:ptr=0", NAME),
            ("0x10:ptr=0", "0x10:ptr=0", OFFSET),
            ("x!0x:ptr=0", "x!0x:ptr=0", OFFSET),
            ("x!0x+1:ptr=0", "x!0x+1:ptr=0", OFFSET),
            (
                "x!0xfffffffffffffffff:ptr=0",
                "x!0xfffffffffffffffff:ptr=0",
                OFFSET,
            ),
            ("put:", "put:", ROLE),
            ("put:ptr", "ptr", ROLE),
            ("put:ptr=0,", "put:ptr=0,", ROLE),
            ("get:returns=0,size=0", "returns=0", ROLE),
            ("put:ptr=6", "ptr=6", NUMBER),
            ("put:ptr=-1", "ptr=-1", NUMBER),
            ("put:ptr=", "ptr=", NUMBER),
            ("put:ptr=00", "ptr=00", NUMBER),
            ("put:ptr=0,ptr=1", "ptr=1", ONCE),
            ("get:size=0", "get:size=0", DOES),
            ("get:count=0,out=1", "get:count=0,out=1", SIZED),
            ("get:ptr=0,out=1", "get:ptr=0,out=1", IN_PLACE),
            (
                "get:returns,out=1,size=0",
                "get:returns,out=1,size=0",
                ONE_RESULT,
            ),
        ] {
            let error = wrong(word, expected);
            assert_eq!(describe(spec), Err(error), "{spec}");
        }
        let error = wrong("ptr=6", NUMBER).to_string();
        assert_eq!(error, "`ptr=6`: expected an argument from 0 to 5");
    }

    #[test]
    fn presets_are_specs_that_allocate_and_free() {
        for (name, _) in PRESETS {
            assert!(PRESET.contains(&std::format!("@{name}")), "{name}");
            let all = describe(&std::format!("@{name}")).expect(name);
            let frees = |told: &Described| matches!(told.call, Call::Free { .. });
            assert!(all.iter().any(frees) && !all.iter().all(frees), "{name}");
        }
    }
}
