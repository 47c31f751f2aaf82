//! The instructions that call Xen.
//!
//! A PVH guest calls Xen by `vmcall` (Intel and its kin) or `vmmcall` (AMD and its kin), or
//! through a page of stubs that Xen fills on request; all three take the number in `rax` and
//! arguments in `rdi`, `rsi`, `rdx`, `r10`, `r8`. Nothing needs to be set up first: the
//! first call asks CPUID for the vendor, so that a fault handler may call at any time.
//!
//! The operations themselves are in the modules that own their meaning; they reach Xen
//! through this one only.

use core::fmt;
use core::sync::atomic::{AtomicU8, Ordering};

use crate::ids::Errno;

/// How the CPU is made to enter Xen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Method {
    /// The `vmcall` instruction: Intel, Centaur, Shanghai.
    Vmcall = 1,
    /// The `vmmcall` instruction: AMD, Hygon.
    Vmmcall = 2,
    /// A call into the hypercall page, which holds whichever of the two fits.
    Page = 3,
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Vmcall => "vmcall",
            Self::Vmmcall => "vmmcall",
            Self::Page => "page",
        })
    }
}

impl Method {
    /// The instruction that this CPU's vendor implements (CPUID leaf 0).
    #[must_use]
    pub fn of_cpu() -> Self {
        let vendor = core::arch::x86_64::__cpuid(0);
        let name = [vendor.ebx, vendor.edx, vendor.ecx].map(u32::to_le_bytes);
        match name.as_flattened() {
            b"AuthenticAMD" | b"HygonGenuine" => Self::Vmmcall,
            _ => Self::Vmcall,
        }
    }
}

/// The method in use, 0 before anyone asked.
static METHOD: AtomicU8 = AtomicU8::new(0);

/// The method in use; chosen by the CPU's vendor until [`select`] says otherwise.
#[must_use]
pub fn method() -> Method {
    match METHOD.load(Ordering::Relaxed) {
        1 => Method::Vmcall,
        2 => Method::Vmmcall,
        3 => Method::Page,
        _ => {
            let method = Method::of_cpu();
            METHOD.store(method as u8, Ordering::Relaxed);
            method
        }
    }
}

/// An error returned by [`select`]: CPUID shows no Xen that could fill a hypercall page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoPage;

/// Switches every later hypercall to `method`.
///
/// [`Method::Page`] has Xen fill the page first. That write also makes Xen take the current
/// CPU mode for the layout of shared_info and refresh its wall clock; it belongs after the
/// switch to long mode, and must be repeated by whoever resumes in another host.
///
/// # Errors
/// [`NoPage`] where CPUID shows no Xen; nothing has changed then.
pub fn select(method: Method) -> Result<(), NoPage> {
    if method == Method::Page {
        page::fill()?;
    }
    METHOD.store(method as u8, Ordering::Relaxed);
    Ok(())
}

/// A hypercall's number, `__HYPERVISOR_*` in xen/include/public/xen.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub(crate) enum Op {
    Memory = 12,
    SetTimer = 15,
    XenVersion = 17,
    GrantTable = 20,
    Sched = 29,
    EventChannel = 32,
    Hvm = 34,
    Domctl = 36,
}

/// Enters Xen with up to three arguments; no operation this crate uses takes more.
///
/// # Safety
/// Whatever `op` does with `args` must be sound for the caller: addresses among them are
/// valid for what Xen reads and writes there, and no memory in use changes its meaning.
pub(crate) unsafe fn call(op: Op, args: [u64; 3]) -> Result<u64, Errno> {
    // SAFETY: the caller answers for the operation, `enter` for the registers.
    Errno::check(unsafe { enter(op, args) })
}

/// Enters Xen for an operation of the common shape: a command and one structure.
///
/// # Safety
/// As [`call`]; `T` must be the structure that `op` and `command` name.
pub(crate) unsafe fn command<T>(op: Op, command: u64, arg: &mut T) -> Result<u64, Errno> {
    // SAFETY: the structure is exclusively ours for the call; the caller answers for the rest.
    unsafe { call(op, [command, core::ptr::from_mut(arg) as u64, 0]) }
}

/// Every argument register counts as lost: Xen rewrites them when it continues an
/// interrupted call, and poisons them in debug builds.
#[cfg(not(test))]
unsafe fn enter(op: Op, [a, b, c]: [u64; 3]) -> i64 {
    use core::arch::asm;

    let result: i64;
    match method() {
        // SAFETY: on a CPU of this vendor the instruction enters Xen and returns here with
        // only the named registers changed; memory is not declared untouched.
        Method::Vmcall => unsafe {
            asm!("vmcall", inlateout("rax") op as u64 => result, inlateout("rdi") a => _,
                 inlateout("rsi") b => _, inlateout("rdx") c => _, lateout("r10") _,
                 lateout("r8") _, lateout("r9") _, options(nostack));
        },
        // SAFETY: as above for the other vendor.
        Method::Vmmcall => unsafe {
            asm!("vmmcall", inlateout("rax") op as u64 => result, inlateout("rdi") a => _,
                 inlateout("rsi") b => _, inlateout("rdx") c => _, lateout("r10") _,
                 lateout("r8") _, lateout("r9") _, options(nostack));
        },
        // SAFETY: `select` had Xen fill the page before anyone could come here; stub `op` is
        // a `mov eax`, the entering instruction and a `ret`. The call uses the stack, so
        // `nostack` is absent and the compiler keeps the red zone out of the way.
        Method::Page => unsafe {
            asm!("call {stub}", stub = in(reg) page::stub(op),
                 lateout("rax") result, inlateout("rdi") a => _,
                 inlateout("rsi") b => _, inlateout("rdx") c => _, lateout("r10") _,
                 lateout("r8") _, lateout("r9") _);
        },
    }
    result
}

#[cfg(test)]
unsafe fn enter(op: Op, args: [u64; 3]) -> i64 {
    fake::answer(op, args)
}

/// The page of stubs, in `.text` so that it is executable wherever code is.
mod page {
    use super::{NoPage, Op};

    core::arch::global_asm!(
        ".pushsection .text.xen_hypercall_page, \"ax\", @progbits",
        ".balign 4096",
        ".globl xen_hypercall_page",
        ".type xen_hypercall_page, @object",
        "xen_hypercall_page:",
        // Until Xen fills it, a call into it traps.
        ".skip 4096, 0xcc",
        ".size xen_hypercall_page, 4096",
        ".popsection",
    );

    unsafe extern "C" {
        static xen_hypercall_page: [u8; 4096];
    }

    #[cfg_attr(test, expect(dead_code, reason = "host tests never enter Xen"))]
    pub(super) fn stub(op: Op) -> u64 {
        &raw const xen_hypercall_page as u64 + op as u64 * 32
    }

    pub(super) fn fill() -> Result<(), NoPage> {
        let msr = crate::cpuid::Xen::find().and_then(|xen| xen.hypercall_msr()).ok_or(NoPage)?;
        let gpa = &raw const xen_hypercall_page as u64;
        // The halves of a 64-bit register pair.
        let [low, high] = [gpa & 0xffff_ffff, gpa >> 32];
        // SAFETY: CPUID named this MSR for a guest page of stubs; the page is ours, page
        // aligned, identity-mapped, and holds nothing but the room for them.
        unsafe {
            core::arch::asm!("wrmsr", in("ecx") msr, in("rax") low, in("rdx") high,
                             options(nostack));
        }
        Ok(())
    }
}

/// In host tests a closure of the test's plays Xen, one per thread.
#[cfg(test)]
pub(crate) mod fake {
    use core::cell::RefCell;

    use super::Op;

    type Xen = Box<dyn FnMut(Op, [u64; 3]) -> i64>;

    std::thread_local! {
        static XEN: RefCell<Option<Xen>> = const { RefCell::new(None) };
    }

    /// Has `xen` answer this thread's hypercalls from now on.
    pub(crate) fn install(xen: impl FnMut(Op, [u64; 3]) -> i64 + 'static) {
        XEN.with(|slot| *slot.borrow_mut() = Some(Box::new(xen)));
    }

    pub(super) fn answer(op: Op, args: [u64; 3]) -> i64 {
        XEN.with(|slot| match slot.borrow_mut().as_mut() {
            Some(xen) => xen(op, args),
            None => -38,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_parted_into_value_and_error() {
        fake::install(|op, args| {
            assert_eq!((op, args), (Op::Memory, [3, 0, 0]), "arguments arrive as given");
            -12
        });
        // SAFETY: the fake touches nothing.
        assert_eq!(unsafe { call(Op::Memory, [3, 0, 0]) }, Err(Errno::ENOMEM));
        fake::install(|_, _| 2056);
        // SAFETY: as above.
        assert_eq!(unsafe { call(Op::Memory, [3, 0, 0]) }, Ok(2056));
    }

    #[test]
    fn without_a_choice_the_vendor_decides() {
        assert_eq!(method(), Method::of_cpu());
        assert_ne!(Method::of_cpu(), Method::Page);
    }
}
