//! The program that `leaktap demo` attaches to: a server with a cache that it never empties. It
//! ends when its standard input is closed.
//!
//! build.rs compiles it, with line tables, for itself: with the standard library these would be
//! megabytes.

#![no_std]
#![no_main]

use core::ffi::{c_char, c_int, c_void};
use core::hint::black_box;
use core::panic::PanicInfo;
use core::ptr;

#[link(name = "c")]
unsafe extern "C" {
    fn malloc(size: usize) -> *mut c_void;
    fn calloc(count: usize, size: usize) -> *mut c_void;
    fn free(block: *mut c_void);
    fn memcpy(to: *mut c_void, from: *const c_void, size: usize) -> *mut c_void;
    fn poll(files: *mut Polled, count: u64, milliseconds: c_int) -> c_int;
    fn setsid() -> c_int;
    fn write(file: c_int, from: *const c_void, size: usize) -> isize;
}

/// Milliseconds between two requests.
const PERIOD: c_int = 2;

/// `struct pollfd` of poll(2).
#[repr(C)]
struct Polled {
    file: c_int,
    events: i16,
    found: i16,
}

/// A session, in a list of all of them.
#[repr(C)]
struct Session {
    before: *mut Session,
    token: [u8; 40],
}

struct Server {
    requests: usize,
    sessions: *mut Session,
}

/// What every answer is like.
const PAGE: &[u8] = b"<html><body>the answer to a request</body></html>";

#[unsafe(no_mangle)]
extern "C" fn main(_: c_int, _: *const *const c_char) -> c_int {
    let mut server = Server {
        requests: 0,
        sessions: ptr::null_mut(),
    };
    // SAFETY: no pointers but to a byte. The terminal is leaktap's: Ctrl-C asks for the report.
    unsafe {
        setsid();
        write(1, ptr::from_ref(&b'\n').cast(), 1);
    }
    while !stdin_closed() {
        server.handle_request();
    }
    0
}

impl Server {
    #[inline(never)]
    fn handle_request(&mut self) {
        self.requests += 1;
        let answer = render_page();
        if self.requests % 3 == 0 {
            self.open_session();
        }
        if self.requests % 10 == 0 {
            log_line(answer);
        }
        // SAFETY: it is this function's alone.
        unsafe { free(answer) };
    }

    /// The first leak: sessions are opened and never closed.
    #[inline(never)]
    fn open_session(&mut self) {
        // SAFETY: zeroes are a session.
        unsafe {
            let session: *mut Session = calloc(1, size_of::<Session>()).cast();
            if let Some(opened) = session.as_mut() {
                opened.before = self.sessions;
                opened.token[0] = 1;
                self.sessions = black_box(session);
            }
        }
    }
}

/// No leak: the page is freed by its caller.
#[inline(never)]
fn render_page() -> *mut c_void {
    copy(PAGE.as_ptr().cast())
}

/// The second leak: a buffer that is forgotten.
#[inline(never)]
fn log_line(answer: *const c_void) {
    black_box(copy(answer));
}

#[inline(always)]
fn copy(page: *const c_void) -> *mut c_void {
    // SAFETY: both are as long as a page, if there is memory for one.
    unsafe {
        let copy = malloc(PAGE.len());
        if copy.is_null() || page.is_null() {
            return copy;
        }
        memcpy(copy, page, PAGE.len())
    }
}

/// True once nobody holds the other end of standard input; waits a little.
fn stdin_closed() -> bool {
    let mut stdin = Polled {
        file: 0,
        events: 1, // POLLIN
        found: 0,
    };
    // SAFETY: one file, as said.
    unsafe { poll(&raw mut stdin, 1, PERIOD) > 0 }
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    loop {}
}
