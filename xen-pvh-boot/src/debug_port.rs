//! Port 0xe9: Xen prints what an HVM or PVH domain writes there, line by line, as `(dN) text`.
//!
//! It needs no ring, no event and no memory, so it is the voice of faults and of the first steps.
//! Source: xen/arch/x86/hvm/hvm.c, `hvm_print_line`; shown with `guest_loglvl=all`.

use core::fmt;

/// The port as a text sink. Never fails, never blocks.
#[derive(Debug, Clone, Copy)]
pub struct DebugPort;

impl fmt::Write for DebugPort {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            put(byte);
        }
        Ok(())
    }
}

#[cfg(not(test))]
fn put(byte: u8) {
    let mut port = x86_64::instructions::port::Port::<u8>::new(0xe9);
    // SAFETY: writing a byte to this port has no effect but Xen's log line.
    unsafe { port.write(byte) }
}

/// A host process may not touch ports.
#[cfg(test)]
fn put(_byte: u8) {}
