//! Functions that only return, such as the dynamic linker's `r_brk`.

use std::ops::Range;

use leaktap_arch::{ENDBR64, LONGEST};
use leaktap_image::Image;
use leaktap_memory::{Addr, ReadMemory, Svma};

use crate::extents::functions_at;
use crate::refusal::Refusal;

/// What is at `at`, up to the next function, so far that one sees whether `room` bytes for other
/// code begin at the `ret`.
pub(crate) fn code(
    image: &Image,
    memory: &impl ReadMemory,
    at: Addr,
    room: usize,
) -> Result<Vec<u8>, Refusal> {
    let needed = ENDBR64.len() + room;
    let module = image.module_at(at).ok_or(Refusal::NoPadding)?;
    let inner: Vec<Svma> = (1..needed)
        .map(|n| module.svma(at.wrapping_offset(n as i64)))
        .collect();
    let functions = functions_at(module, &inner);
    let is_another = |function: &Option<Range<Svma>>| {
        let function = function.as_ref();
        function.is_some_and(|function| function.start != module.svma(at))
    };
    let len = functions.iter().position(is_another);
    // The last instruction of padding may go on behind that.
    let len = len.map_or(needed + LONGEST, |others| 1 + others);
    let mut code = vec![0; len];
    memory.read(at, &mut code).map_err(|_| Refusal::NoPadding)?;
    Ok(code)
}
