//! Giving the CPU away, for a moment or for good (xen/include/public/sched.h).

use crate::clock::SystemTime;
use crate::hypercall::{self, Op};
use crate::ids::{Errno, Port};

/// Why a domain stops, `SHUTDOWN_*`; what happens next is the toolstack's business.
///
/// Suspend is absent: it returns, in a domain whose every page and port must be set up anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Reason {
    /// It ended as intended.
    Poweroff = 0,
    /// It asks to be started again.
    Reboot = 1,
    /// It failed; `xl list` shows it as crashed.
    Crash = 3,
    /// It hung.
    Watchdog = 4,
}

const SCHEDOP_YIELD: u64 = 0;
const SCHEDOP_SHUTDOWN: u64 = 2;
const SCHEDOP_POLL: u64 = 3;

/// Ends this domain. Takes no lock and no memory, so a fault handler may call it.
pub fn shutdown(reason: Reason) -> ! {
    loop {
        let mut code = reason as u32;
        // SAFETY: `struct sched_shutdown` is one u32, which Xen only reads.
        let _ = unsafe { hypercall::command(Op::Sched, SCHEDOP_SHUTDOWN, &mut code) };
        // Xen stops the CPU inside the call. Should it ever refuse, a halt with interrupts off
        // is the other way to end a domain, less telling.
        halt();
    }
}

/// Lets other vCPUs of the host run first.
pub fn yield_now() {
    // SAFETY: the operation has no argument.
    let _ = unsafe { hypercall::call(Op::Sched, [SCHEDOP_YIELD, 0, 0]) };
}

#[repr(C)]
struct Poll {
    ports: *const Port,
    nr_ports: u32,
    timeout: u64,
}

const _: () = assert!(size_of::<Poll>() == 24 && core::mem::offset_of!(Poll, timeout) == 16);

/// Sleeps until one of `ports` is pending, or until `deadline`.
///
/// Needs no interrupt, so it serves before the upcall is set up. List every port that may be
/// pending already: one that is and is not listed does not wake the sleeper.
///
/// # Errors
/// `EINVAL` for more than 128 ports.
pub fn poll(ports: &[Port], deadline: Option<SystemTime>) -> Result<(), Errno> {
    let nr_ports = u32::try_from(ports.len()).map_err(|_| Errno::EINVAL)?;
    // Zero means no time-out, and no deadline of this host lies at zero.
    let timeout = deadline.map_or(0, |at| at.0.max(1));
    let mut poll = Poll { ports: ports.as_ptr(), nr_ports, timeout };
    // SAFETY: `struct sched_poll`; `Port` is a transparent u32 and the slice outlives the call.
    unsafe { hypercall::command(Op::Sched, SCHEDOP_POLL, &mut poll) }.map(drop)
}

#[cfg(not(test))]
fn halt() {
    // SAFETY: stops the CPU with interrupts off; for the last vCPU Xen takes it as power-off.
    unsafe { core::arch::asm!("cli", "hlt", options(nomem, nostack)) };
}

#[cfg(test)]
fn halt() {
    panic!("Xen refused to shut the domain down");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hypercall::fake;

    #[test]
    fn a_poll_lists_its_ports_and_its_deadline() {
        fake::install(|op, [command, arg, _]| {
            assert_eq!((op, command), (Op::Sched, SCHEDOP_POLL));
            // SAFETY: `poll` passes a live `Poll`.
            let poll = unsafe { &*(arg as *const Poll) };
            // SAFETY: with the ports it was given.
            let ports = unsafe { core::slice::from_raw_parts(poll.ports, 2) };
            assert_eq!((ports, poll.nr_ports, poll.timeout), (&[Port(4), Port(9)][..], 2, 77));
            0
        });
        assert_eq!(poll(&[Port(4), Port(9)], Some(SystemTime(77))), Ok(()));
    }

    #[test]
    #[should_panic = "reason 3"]
    fn a_shutdown_tells_its_reason() {
        fake::install(|op, [command, arg, _]| {
            assert_eq!((op, command), (Op::Sched, SCHEDOP_SHUTDOWN));
            // SAFETY: `shutdown` passes a live u32.
            panic!("reason {}", unsafe { *(arg as *const u32) });
        });
        shutdown(Reason::Crash);
    }
}
