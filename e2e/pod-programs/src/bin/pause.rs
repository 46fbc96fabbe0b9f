//! Holds the namespaces of a Pod and does nothing.
//!
//! The container runtime ends it with SIGKILL, so it needs no signal handler.

fn main() {
    loop {
        std::thread::park();
    }
}
