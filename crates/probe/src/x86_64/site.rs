use std::ops::Range;

use leaktap_arch::{ENDBR64, JUMP, LONGEST, RET};
use leaktap_memory::{Addr, ReadMemory};

use super::branches;
use super::jump::{jump, rel32};
use super::padding::is_padding;
use super::relocate::{Relocated, relocate};
use crate::Refusal;
use crate::detour::Moved;

/// Length of `jmp rel32` in bytes.
pub const JUMP_LEN: usize = 5;

/// Bytes of a block that are read for displaced instructions: four of one byte, and the longest.
const DISPLACED_AT_MOST: usize = 4 + LONGEST;

/// Where a function can be patched with a jump, and what the jump displaces.
///
/// Made by [`Site::find`], so that having one means: the displaced instructions are whole, can
/// be moved, and no branch of the function targets one other than the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    at: Addr,
    displaced: Vec<u8>,
    /// How many of them are instructions: what follows is padding.
    code: usize,
}

impl Site {
    /// Finds where `function`, all bytes of the function at `at`, can be patched. `memory` is
    /// read where the function may keep its jump tables.
    ///
    /// A function that ends within the displaced bytes by a jump (musl's malloc is one `jmp`) is
    /// fine, and so is a `call` as the last displaced instruction, see [`relocate`].
    ///
    /// # Errors
    /// - [`Refusal::TooShort`]: the function or its straight line of code ends before five bytes.
    /// - [`Refusal::NotRelocatable`]: as for [`relocate`].
    /// - [`Refusal::JumpIntoRegion`]: a branch targets a displaced instruction, or the function
    ///   is not plain code, so that nobody can tell.
    pub fn find(function: &[u8], at: Addr, memory: &impl ReadMemory) -> Result<Site, Refusal> {
        let (body, at_body) = after_landing(function, at);
        let bytes = body.get(..DISPLACED_AT_MOST).unwrap_or(body);
        // Moved to where it is, everything is in reach.
        let displaced = relocate(bytes, at_body, JUMP_LEN, at_body)?.displaced;
        let displaced = body.get(..displaced).ok_or(Refusal::TooShort)?.to_vec();
        let site = Site {
            at: at_body,
            code: displaced.len(),
            displaced,
        };
        branches::check(function, at, &site.inner(), memory)?;
        Ok(site)
    }

    /// Where a function that only returns can be patched: `code` is what is at `at`, up to the next
    /// function. Room for the jump is in the padding behind it.
    ///
    /// # Errors
    /// [`Refusal::NoPadding`]: it is something else, or another function, or anything but padding,
    /// comes too soon.
    pub fn of_return(code: &[u8], at: Addr) -> Result<Site, Refusal> {
        let (at, displaced) = room_of_return(code, at, JUMP_LEN)?;
        Ok(Site {
            at,
            displaced: displaced.to_vec(),
            code: 1,
        })
    }

    /// The address of the jump: the function's, or that behind its `endbr64`.
    pub fn at(&self) -> Addr {
        self.at
    }

    /// The original bytes of the displaced instructions, and of padding: five or more.
    pub fn displaced(&self) -> &[u8] {
        &self.displaced
    }

    /// The five bytes that the jump replaces.
    pub fn replaced(&self) -> &[u8] {
        self.displaced.get(..JUMP_LEN).unwrap_or_default()
    }

    /// The address behind the displaced instructions.
    pub fn end(&self) -> Addr {
        self.at.wrapping_offset(self.displaced.len() as i64)
    }

    /// The addresses that no thread may be at or return to while the jump is written: the
    /// displaced instructions but the first, which becomes the jump.
    pub fn inner(&self) -> Range<Addr> {
        self.at.wrapping_offset(1)..self.end()
    }

    /// The displaced instructions for `to`, and a jump to where the function goes on.
    ///
    /// # Errors
    /// [`Refusal::NoMemoryInReach`] if a rip-relative operand cannot be reached from `to`.
    pub fn moved(&self, to: Addr) -> Result<Moved, Refusal> {
        let relocated = relocate(&self.displaced, self.at, self.code, to)?;
        let Relocated {
            mut code,
            map,
            ends,
            ..
        } = relocated;
        if !ends {
            let from = to.wrapping_offset(code.len() as i64);
            code.extend(jump(from, self.end()));
        }
        Ok(Moved {
            from: self.at,
            code,
            map,
        })
    }

    /// The jump to `detour`.
    ///
    /// # Errors
    /// [`Refusal::NoMemoryInReach`] if `detour` is more than 2 GiB away.
    pub fn jump(&self, detour: Addr) -> Result<[u8; JUMP_LEN], Refusal> {
        let end = self.at.wrapping_offset(JUMP_LEN as i64);
        let distance = rel32(end, detour.get()).ok_or(Refusal::NoMemoryInReach)?;
        let [a, b, c, d] = distance.to_le_bytes();
        Ok([JUMP, a, b, c, d])
    }
}

/// For a function that only returns, as by [`Site::of_return`]: its `ret`, and what is there and in
/// the padding behind it, `len` bytes in all.
pub(crate) fn room_of_return(code: &[u8], at: Addr, len: usize) -> Result<(Addr, &[u8]), Refusal> {
    let (body, at) = after_landing(code, at);
    let room = body.get(..len).ok_or(Refusal::NoPadding)?;
    match body {
        [RET, rest @ ..] if is_padding(rest, len - 1) => Ok((at, room)),
        _ => Err(Refusal::NoPadding),
    }
}

/// The code at `at` without the landing pad that it may begin with, which stays where it is.
fn after_landing(code: &[u8], at: Addr) -> (&[u8], Addr) {
    let body = code.strip_prefix(&ENDBR64).unwrap_or(code);
    let skipped = code.len() - body.len();
    (body, at.wrapping_offset(skipped as i64))
}

#[cfg(test)]
#[path = "site_tests.rs"]
mod tests;
