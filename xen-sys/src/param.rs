//! Parameters of this domain (xen/include/public/hvm/{params,hvm_op}.h).

use crate::hypercall::{self, Op};
use crate::ids::{DOMID_SELF, Errno, Gfn, Port};
use crate::page::SpecialPage;

const HVMOP_SET_PARAM: u64 = 0;
const HVMOP_GET_PARAM: u64 = 1;

/// A parameter's index, `HVM_PARAM_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Param {
    /// How event upcalls are delivered; write only.
    CallbackIrq = 0,
    /// The frame of the Xenstore ring.
    StorePfn = 1,
    /// The local port of the Xenstore ring.
    StoreEvtchn = 2,
    /// The frame of the console ring.
    ConsolePfn = 17,
    /// The local port of the console ring.
    ConsoleEvtchn = 18,
}

#[repr(C)]
struct Argument {
    domid: u16,
    index: u32,
    value: u64,
}

const _: () = assert!(size_of::<Argument>() == 16);

/// Reads a parameter.
///
/// # Errors
/// As Xen refuses: `EINVAL` for one this version does not have.
pub fn read(param: Param) -> Result<u64, Errno> {
    let mut argument = Argument { domid: DOMID_SELF, index: param as u32, value: 0 };
    // SAFETY: `struct xen_hvm_param`.
    unsafe { hypercall::command(Op::Hvm, HVMOP_GET_PARAM, &mut argument) }?;
    Ok(argument.value)
}

/// Has Xen announce pending events by an interrupt at `vector`, on whichever vCPU they are
/// bound to, without a local APIC and without an end-of-interrupt.
///
/// The announcement is a level: it repeats for as long as interrupts are open and nobody has
/// cleared the pending flag, which [`crate::event::Events::next`] does. The handler
/// must therefore return with interrupts off. Also makes Xen take the current CPU mode for
/// the layout of shared_info, and fills in its wall clock.
///
/// # Errors
/// As Xen refuses; it has no reason to.
pub fn announce_events_at(vector: u8) -> Result<(), Errno> {
    // HVM_PARAM_CALLBACK_TYPE_VECTOR in the top byte.
    let value = 2 << 56 | u64::from(vector);
    let mut argument = Argument { domid: DOMID_SELF, index: Param::CallbackIrq as u32, value };
    // SAFETY: `struct xen_hvm_param`; an interrupt at the vector is the whole effect.
    unsafe { hypercall::command(Op::Hvm, HVMOP_SET_PARAM, &mut argument) }.map(drop)
}

/// The page of this domain's own Xenstore ring, where it has one.
#[must_use]
pub fn store_page() -> Option<SpecialPage> {
    special_page(Param::StorePfn)
}

/// The page of this domain's own console ring, where it has one.
#[must_use]
pub fn console_page() -> Option<SpecialPage> {
    special_page(Param::ConsolePfn)
}

/// The local port of this domain's own Xenstore ring. A Xenstore domain has one from Xen
/// 4.19 on.
#[must_use]
pub fn store_port() -> Option<Port> {
    port(Param::StoreEvtchn)
}

/// The local port of this domain's own console ring.
#[must_use]
pub fn console_port() -> Option<Port> {
    port(Param::ConsoleEvtchn)
}

fn special_page(param: Param) -> Option<SpecialPage> {
    let gfn = Gfn(read(param).ok()?);
    // SAFETY: the domain builder reserved the frame for this ring.
    unsafe { SpecialPage::at(gfn) }
}

fn port(param: Param) -> Option<Port> {
    let value = u32::try_from(read(param).ok()?).ok()?;
    (value != 0).then_some(Port(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hypercall::fake;

    /// A domain whose parameters all have the same value.
    fn domain(value: u64) {
        fake::install(move |op, [command, arg, _]| {
            assert_eq!((op, command), (Op::Hvm, HVMOP_GET_PARAM));
            // SAFETY: `read` passes a live structure.
            unsafe { (*(arg as *mut Argument)).value = value };
            0
        });
    }

    #[test]
    fn a_missing_ring_is_none() {
        domain(0);
        assert!(store_page().is_none(), "frame 0 is no ring");
        assert_eq!(store_port(), None, "port 0 is no port");
    }

    #[test]
    fn a_frame_beyond_the_map_is_refused() {
        domain(0xf_effc);
        assert_eq!(store_page().map(|page| page.gfn()), Some(Gfn(0xf_effc)));
        domain(1 << 20);
        assert!(console_page().is_none(), "above 4 GiB nothing is identity-mapped");
        domain(u64::MAX);
        assert!(console_page().is_none());
        assert_eq!(console_port(), None, "no port has 64 bits");
    }

    #[test]
    fn the_callback_is_a_vector() {
        fake::install(|op, [command, arg, _]| {
            assert_eq!((op, command), (Op::Hvm, HVMOP_SET_PARAM));
            // SAFETY: a live structure.
            let argument = unsafe { &*(arg as *const Argument) };
            assert_eq!((argument.index, argument.value), (0, 0x0200_0000_0000_0030));
            0
        });
        assert_eq!(announce_events_at(0x30), Ok(()));
    }
}
