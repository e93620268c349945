//! Two attaches in succession to a busy Python, many times: once, in some 54 tries, that was the
//! death of one.

use std::path::Path;
use std::time::Duration;

use crate::draw::Engine;
use crate::kit::Kit;
use crate::leaktap::{Leaktap, Start};
use crate::{report, subjects};

/// How long each attach lasts.
const STAYS: Duration = Duration::from_millis(20);

/// `count` times for each Python and each of its allocators; 1 if one was harmed.
pub(crate) fn run(count: u32, kit: &Kit) -> Result<u8, String> {
    let mut failures = 0;
    for python in &kit.pythons {
        for with_malloc in [true, false] {
            let mut failed = 0;
            for try_number in 0..count {
                if let Err(error) = attach_twice(python, with_malloc, kit) {
                    println!("  try {try_number}: {error}");
                    failed += 1;
                }
            }
            let allocator = if with_malloc { "malloc" } else { "default" };
            let python = python.display();
            println!("twice: {python}, PYTHONMALLOC {allocator}: {failed} of {count} failed");
            failures += failed;
        }
    }
    Ok(u8::from(failures > 0))
}

fn attach_twice(python: &Path, with_malloc: bool, kit: &Kit) -> Result<(), String> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let command = subjects::python(python, with_malloc);
    let mut target = subjects::start_counted(command, folder.path())?;
    let start = Start {
        duration: Some(STAYS),
        ..Start::default()
    };
    for number in 0..2 {
        let pid = target.pid();
        let mut leaktap = Leaktap::attach(kit, folder.path(), number, Engine::Auto, pid, &start)?;
        let status = leaktap.await_end().ok_or("leaktap does not end")?;
        let wrong = report::wrong(&leaktap, status, false, false, None);
        if !wrong.is_empty() {
            return Err(format!(
                "attach {number}: {wrong:?}: {}",
                leaktap.child.said()
            ));
        }
    }
    target.progresses()?;
    target.finish()
}
