use crate::{Attached, Stopped, Tid};

/// Proof that no thread runs in a memory: each is stopped by us, or asleep in the kernel, which it
/// does not leave for the program before it has stopped.
///
/// Whatever changes code of a process asks for this. It borrows the threads, and to let one run
/// takes that thread itself: so nobody can, as long as the proof is of use.
///
/// ```compile_fail,E0505
/// use leaktap_tracee::{AllStopped, Attached};
///
/// fn patch(_: &AllStopped<'_>) {}
///
/// fn too_early(mut attached: Attached) {
///     let stopped = attached.all_stopped();
///     for thread in attached.stopped {
///         thread.resume().ok();
///     }
///     patch(&stopped);
/// }
/// ```
#[derive(Debug)]
pub struct AllStopped<'a> {
    threads: Vec<&'a mut Stopped>,
    asleep: Vec<Tid>,
}

impl<'a> AllStopped<'a> {
    /// For whoever stops all threads himself: `threads` have stopped, those `asleep` are
    /// interrupted, and there is no other in that memory, nor will be before one of these runs.
    pub fn of(threads: Vec<&'a mut Stopped>, asleep: Vec<Tid>) -> AllStopped<'a> {
        AllStopped { threads, asleep }
    }

    /// A memory in which `thread` alone can run: of a program that has just been executed, of a
    /// fork's child at its first stop, or of a process that has made no other thread yet.
    pub fn only(thread: &'a mut Stopped) -> AllStopped<'a> {
        AllStopped::of(vec![thread], Vec::new())
    }

    /// Those that have stopped.
    pub fn threads(&self) -> &[&'a mut Stopped] {
        &self.threads
    }

    /// The same, to make system calls in their place, or to be put in another order.
    pub fn threads_mut(&mut self) -> &mut [&'a mut Stopped] {
        &mut self.threads
    }

    /// Those that will stop as soon as they wake up.
    pub fn asleep(&self) -> &[Tid] {
        &self.asleep
    }
}

impl Attached {
    /// All of its threads are stopped until it is taken apart.
    pub fn all_stopped(&mut self) -> AllStopped<'_> {
        let asleep = self.late.iter().map(|thread| thread.tid()).collect();
        AllStopped::of(self.stopped.iter_mut().collect(), asleep)
    }
}
