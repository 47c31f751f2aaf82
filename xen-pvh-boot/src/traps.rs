//! The processor's tables, and what a fault does: a report on port 0xe9, then the end.
//!
//! A fault is a bug of ours. Nothing is repaired: the report says where, and the domain crashes, so
//! that `xl list` shows it and `xl dmesg` has the report. It allocates nothing and takes no lock
//! that the interrupted code could hold.

use core::fmt::Write;
use core::sync::atomic::{AtomicBool, Ordering};

use spin::Once;
use x86_64::VirtAddr;
use x86_64::instructions::segmentation::{CS, DS, ES, SS, Segment};
use x86_64::instructions::tables::load_tss;
use x86_64::registers::control::{Cr2, Cr3};
use x86_64::structures::gdt::{Descriptor, GlobalDescriptorTable};
use x86_64::structures::idt::InterruptDescriptorTable;
use x86_64::structures::tss::TaskStateSegment;

use crate::debug_port::DebugPort;
use crate::{UPCALL_VECTOR, paging, start};

/// Bytes of each fault stack: enough for formatting a report.
const FAULT_STACK: usize = 16 * 1024;

#[repr(C, align(16))]
struct Stack([u8; FAULT_STACK]);

/// What runs on a stack of its own. A double fault has another one than the fault it doubles.
static mut FAULT_STACKS: [Stack; 2] = [const { Stack([0; FAULT_STACK]) }; 2];
const FAULT: u16 = 0;
const DOUBLE_FAULT: u16 = 1;

/// Where the processor saves what an upcall interrupts; its handler pushes nothing (`entry.s`).
static mut UPCALL_STACK: UpcallStack = UpcallStack([0; 64]);
const UPCALL: u16 = 2;

#[repr(C, align(16))]
struct UpcallStack([u8; 64]);

static TSS: Once<TaskStateSegment> = Once::new();
static GDT: Once<GlobalDescriptorTable> = Once::new();
static IDT: Once<InterruptDescriptorTable> = Once::new();

unsafe extern "C" {
    /// 32 entry points of 16 bytes (`entry.s`).
    static pvh_exceptions: [[u8; 16]; 32];
    fn pvh_upcall();
}

/// Loads GDT, TSS and IDT.
pub(crate) fn load() {
    let tss = TSS.call_once(|| {
        let mut tss = TaskStateSegment::new();
        let stacks = VirtAddr::from_ptr(&raw const FAULT_STACKS);
        // The structure is packed: its array is replaced as a whole, nothing refers into it.
        let mut table = tss.interrupt_stack_table;
        table[usize::from(FAULT)] = stacks + FAULT_STACK as u64;
        table[usize::from(DOUBLE_FAULT)] = stacks + 2 * FAULT_STACK as u64;
        let stack = VirtAddr::from_ptr(&raw const UPCALL_STACK);
        table[usize::from(UPCALL)] = stack + size_of::<UpcallStack>() as u64;
        tss.interrupt_stack_table = table;
        tss
    });

    let mut gdt = GlobalDescriptorTable::new();
    let code = gdt.append(Descriptor::kernel_code_segment());
    let data = gdt.append(Descriptor::kernel_data_segment());
    let task = gdt.append(Descriptor::tss_segment(tss));
    GDT.call_once(|| gdt).load();
    // SAFETY: the selectors are those of the table just loaded: 64-bit code, flat data, a TSS that
    // lives for ever.
    #[expect(clippy::multiple_unsafe_ops_per_block, reason = "one step: the segments of one table")]
    unsafe {
        CS::set_reg(code);
        SS::set_reg(data);
        DS::set_reg(data);
        ES::set_reg(data);
        load_tss(task);
    }

    IDT.call_once(descriptor_table).load();
}

fn descriptor_table() -> InterruptDescriptorTable {
    let mut idt = InterruptDescriptorTable::new();
    let address = |vector: usize| {
        VirtAddr::new(core::ptr::addr_of!(pvh_exceptions) as u64 + 16 * vector as u64)
    };
    // SAFETY: each address is the entry point for its vector. Those of exceptions even out the error
    // code and never return; that of the upcall returns to what it interrupted, or for pvh_idle to
    // its caller. The stacks are used by nothing else.
    #[expect(clippy::multiple_unsafe_ops_per_block, reason = "the same argument thirty times")]
    unsafe {
        macro_rules! catch {
            ($($name:ident = $vector:literal),*) => {
                $(idt.$name.set_handler_addr(address($vector)).set_stack_index(FAULT);)*
            };
        }
        catch!(
            divide_error = 0,
            debug = 1,
            non_maskable_interrupt = 2,
            breakpoint = 3,
            overflow = 4,
            bound_range_exceeded = 5,
            invalid_opcode = 6,
            device_not_available = 7,
            invalid_tss = 10,
            segment_not_present = 11,
            stack_segment_fault = 12,
            general_protection_fault = 13,
            page_fault = 14,
            x87_floating_point = 16,
            alignment_check = 17,
            machine_check = 18,
            simd_floating_point = 19,
            virtualization = 20,
            cp_protection_exception = 21,
            hv_injection_exception = 28,
            vmm_communication_exception = 29,
            security_exception = 30
        );
        idt.double_fault.set_handler_addr(address(8)).set_stack_index(DOUBLE_FAULT);
        idt[UPCALL_VECTOR]
            .set_handler_addr(VirtAddr::from_ptr(pvh_upcall as *const ()))
            .set_stack_index(UPCALL);
    }
    idt
}

/// What `pvh_exception` leaves on the fault stack, lowest address first.
#[repr(C)]
struct Frame {
    r15: u64,
    r14: u64,
    r13: u64,
    r12: u64,
    r11: u64,
    r10: u64,
    r9: u64,
    r8: u64,
    rbp: u64,
    rdi: u64,
    rsi: u64,
    rdx: u64,
    rcx: u64,
    rbx: u64,
    rax: u64,
    vector: u64,
    error: u64,
    rip: u64,
    cs: u64,
    rflags: u64,
    rsp: u64,
    ss: u64,
}

/// Reports a fault and crashes the domain. `entry.s` calls it.
#[unsafe(no_mangle)]
extern "C" fn pvh_fault(frame: &Frame) -> ! {
    static REPORTING: AtomicBool = AtomicBool::new(false);
    if !REPORTING.swap(true, Ordering::Relaxed) {
        report(frame);
    }
    start::crash()
}

fn report(f: &Frame) {
    let out = &mut DebugPort;
    // The sink cannot fail, so there is nothing to do with the results.
    let _ =
        writeln!(out, "\nFATAL: {} (vector {}, error {:#x})", name(f.vector), f.vector, f.error);
    if f.vector == 14
        && let Ok(address) = Cr2::read()
    {
        let _ = writeln!(out, "  at address {:#x}: {}", address, paging::describe(address));
    }
    let Frame { rip, cs, rflags, rsp, ss, .. } = f;
    let _ =
        writeln!(out, "  rip {rip:#018x} cs {cs:#x} rflags {rflags:#x} rsp {rsp:#018x} ss {ss:#x}");
    let _ = writeln!(
        out,
        "  rax {:016x} rbx {:016x} rcx {:016x} rdx {:016x}",
        f.rax, f.rbx, f.rcx, f.rdx
    );
    let _ = writeln!(
        out,
        "  rsi {:016x} rdi {:016x} rbp {:016x} r8  {:016x}",
        f.rsi, f.rdi, f.rbp, f.r8
    );
    let _ = writeln!(
        out,
        "  r9  {:016x} r10 {:016x} r11 {:016x} r12 {:016x}",
        f.r9, f.r10, f.r11, f.r12
    );
    let _ = writeln!(
        out,
        "  r13 {:016x} r14 {:016x} r15 {:016x} cr3 {:016x}",
        f.r13,
        f.r14,
        f.r15,
        Cr3::read().0.start_address()
    );
    call_sites(out, f.rsp);
}

/// Prints what looks like return addresses on the interrupted stack: no frame pointers are kept,
/// so some may be stale, but `addr2line` on them tells most of the story.
pub(crate) fn call_sites(out: &mut DebugPort, rsp: u64) {
    const WORDS: u64 = 512;
    const SITES: usize = 16;
    let stack = paging::stack();
    let from = rsp.max(stack.start).next_multiple_of(8);
    let end = stack.end.min(from + 8 * WORDS);
    let _ = write!(out, "  calls:");
    (from..end)
        .step_by(8)
        // SAFETY: inside the mapped stack, aligned; any bit pattern is a u64.
        .map(|address| unsafe { (address as *const u64).read_volatile() })
        .filter(|word| paging::text().contains(word))
        .take(SITES)
        .for_each(|word| {
            let _ = write!(out, " {word:#x}");
        });
    let _ = writeln!(out);
}

/// The processor's name for an exception (AMD64 Architecture Programmer's Manual, volume 2, ch. 8).
fn name(vector: u64) -> &'static str {
    const NAMES: [&str; 22] = [
        "divide error",
        "debug",
        "non-maskable interrupt",
        "breakpoint",
        "overflow",
        "bound range exceeded",
        "invalid opcode",
        "device not available",
        "double fault",
        "coprocessor segment overrun",
        "invalid TSS",
        "segment not present",
        "stack fault",
        "general protection fault",
        "page fault",
        "reserved",
        "x87 floating point",
        "alignment check",
        "machine check",
        "SIMD floating point",
        "virtualization",
        "control protection",
    ];
    usize::try_from(vector).ok().and_then(|v| NAMES.get(v)).copied().unwrap_or("unknown exception")
}
