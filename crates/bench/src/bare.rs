//! A tracer that does nothing: what ptrace(2) itself costs a program.

use std::error::Error;
use std::sync::mpsc::{Sender, channel};
use std::thread;

use leaktap_tracee::{AttachError, Died, Event, Options, Stopped, Tid, Tracer};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// So many looks for an event before it sleeps: as many as leaktap makes.
const SPINS: u32 = 100;

/// Traces a process, in a thread of its own, until it is gone. Forked children are let go.
pub(crate) fn trace(pid: i32) -> Result<()> {
    let (attached, is_attached) = channel();
    thread::spawn(move || follow(Tid::new(pid), &attached));
    Ok(is_attached.recv()??)
}

fn follow(process: Tid, attached: &Sender<std::result::Result<(), AttachError>>) {
    let mut tracer = Tracer::new();
    let found = tracer.attach(process, Options::follow());
    let found = found.map(|found| {
        for stopped in found.stopped {
            let _ = go_on(stopped, process); // it has been killed
        }
    });
    let _ = attached.send(found); // nobody waits any longer
    loop {
        match tracer.wait(SPINS) {
            Event::NoChildren => return,
            Event::Stopped(stopped) => {
                let _ = go_on(stopped, process); // as above
            }
            Event::Exited { .. } | Event::Killed { .. } | Event::Interrupted => {}
        }
    }
}

fn go_on(stopped: Stopped, process: Tid) -> std::result::Result<(), Died> {
    match stopped.tid().is_of(process) {
        true => stopped.resume().map(drop),
        false => stopped.detach(),
    }
}

/// Stops all threads of a process once, and lets them go.
pub(crate) fn stop(pid: i32) -> Result<()> {
    let stopping = move || {
        let mut tracer = Tracer::new();
        let attached = tracer.attach(Tid::new(pid), Options::follow())?;
        attached.let_go(&mut tracer);
        Ok::<(), AttachError>(())
    };
    let stopped = thread::spawn(stopping).join();
    Ok(stopped.map_err(|_| "a panic")??)
}
