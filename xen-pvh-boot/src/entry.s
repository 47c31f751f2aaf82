# From the PVH entry point (xen/docs/misc/pvh.pandoc) to Rust.
#
# Xen hands over: 32-bit protected mode, paging off, flat segments but *no* GDT loaded (selectors
# are 0), no stack, interrupts off, ebx = physical address of the start_info page.

# The note that tells Xen's domain builder where to enter: XEN_ELFNOTE_PHYS32_ENTRY (18).
    .section .note.Xen, "a", @note
    .balign 4
    .long 4, 8, 18
    .asciz "Xen"
    .quad pvh_entry

    .section .text.pvh_entry, "ax"
    .code32
    .balign 16
    .globl pvh_entry
    .type pvh_entry, @function
pvh_entry:
    # When this was, for whoever wants to know how long the start took.
    rdtsc
    mov [pvh_entry_counter], eax
    mov [pvh_entry_counter + 4], edx

    cld
    mov esp, offset pvh_stack_top

    # Page directories: 0..4 GiB onto itself by 2048 pages of 2 MiB, present | writable | large.
    # .bss is zero, so the high halves of the entries are right already.
    mov edi, offset pvh_page_directories
    mov eax, 0x83
    xor ecx, ecx
.Lpvh_directory:
    mov [edi + ecx * 8], eax
    add eax, 0x200000
    inc ecx
    cmp ecx, 2048
    jne .Lpvh_directory

    # Pointer table: one entry a directory. Then the root.
    mov edi, offset pvh_page_pointers
    mov eax, offset pvh_page_directories + 3
    xor ecx, ecx
.Lpvh_pointer:
    mov [edi + ecx * 8], eax
    add eax, 4096
    inc ecx
    cmp ecx, 4
    jne .Lpvh_pointer
    mov edi, offset pvh_page_root
    mov eax, offset pvh_page_pointers + 3
    mov [edi], eax

    # CR4: PAE (5), and OSFXSR (9), OSXMMEXCPT (10) because compiled Rust uses SSE from its first
    # instruction on.
    mov eax, cr4
    or eax, 0x620
    mov cr4, eax
    mov cr3, edi

    # EFER.LME (8).
    mov ecx, 0xc0000080
    rdmsr
    or eax, 0x100
    wrmsr

    # CR0: PG (31), WP (16), NE (5), ET (4), MP (1), PE (0); EM and TS clear.
    mov eax, 0x80010033
    mov cr0, eax
    lgdt [pvh_boot_gdt_pointer]
    mov eax, 8
    push eax
    mov eax, offset pvh_long_mode
    push eax
    retf

    .code64
    .type pvh_long_mode, @function
pvh_long_mode:
    mov eax, 16
    mov ds, eax
    mov es, eax
    mov ss, eax
    xor eax, eax
    mov fs, eax
    mov gs, eax
    # The stack is aligned to 16 before the call, as the ABI wants it.
    mov esp, offset pvh_stack_top
    xor ebp, ebp
    fninit
    mov edi, ebx
    call pvh_start
    ud2

# Waiting, and the event upcall (HVM_PARAM_CALLBACK_IRQ vector). Interrupts are open from sti to cli
# and nowhere else, so an upcall arrives there, and then pvh_idle returns at once, with interrupts off
# as the gate left them. Xen raises it again for as long as upcall_pending is set and they are open:
# the main loop looks for itself what happened. Nothing is acknowledged here, nothing runs
# concurrently.
#
# The shadow of sti should keep it from arriving before hlt has begun. But a hypervisor may lose
# the shadow when it takes the processor away between the two (QEMU's emulation of SVM does), and a
# hlt with interrupts off would power the domain off. So a hlt that has not begun is never begun.
#
# QEMU's emulation of SVM also delivers one upcall in some ten thousand a second time, whenever it
# next leaves its loop: at the first instruction of the handler, or anywhere in other code, although
# interrupts are off. So the handler has a stack of its own, where its frame meets no red zone. A
# second one that interrupts the first replaces its frame, and returns from pvh_idle as it would
# have; one that interrupts other code leaves no trace.
    .balign 16
    .globl pvh_idle
    .type pvh_idle, @function
pvh_idle:
    mov [pvh_idle_stack], rsp
.Lpvh_wait:
    sti
    hlt
    cli
    ret

    .globl pvh_upcall
    .type pvh_upcall, @function
pvh_upcall:
    cmp qword ptr [rsp], offset .Lpvh_wait
    jb .Lpvh_upcall_elsewhere
    cmp qword ptr [rsp], offset .Lpvh_upcall_elsewhere
    jae .Lpvh_upcall_elsewhere
    mov rsp, [pvh_idle_stack]
    ret
.Lpvh_upcall_elsewhere:
    iretq

# Says in eax whether an upcall that comes where none should leaves no trace: in other code, with its
# flags and its red zone, and at the first instruction of the handler. For tests.
    .section .text.pvh_try_upcalls, "ax"
    .balign 16
    .globl pvh_try_upcalls
    .type pvh_try_upcalls, @function
pvh_try_upcalls:
    mov r8, rsp
    xor r9d, r9d
    mov rax, 0x5a5a5a5a5a5a5a5a
    lea rdi, [rsp - 128]
    mov ecx, 16
    rep stosq
    stc
    int 0x20
    jnc .Lpvh_tried
    lea rdi, [rsp - 128]
    mov ecx, 16
    repe scasq
    jne .Lpvh_tried
    call .Lpvh_second_upcall
    cmp rsp, r8
    sete r9b
.Lpvh_tried:
    mov eax, r9d
    ret
.Lpvh_second_upcall:
    mov [pvh_idle_stack], rsp
    push offset pvh_upcall
    jmp pvh_upcall

    .section .text.pvh_entry, "ax"
# Exceptions 0..31, 16 bytes each, so that paging in the table is arithmetic. Vectors for which the
# processor pushes no error code push 0; then all stacks look alike.
    .balign 16
    .globl pvh_exceptions
pvh_exceptions:
    .set pvh_vector, 0
    .rept 32
    .balign 16
    .if ((0x60227d00 >> pvh_vector) & 1) == 0
    .byte 0x6a, 0
    .endif
    .byte 0x6a, pvh_vector
    jmp pvh_exception
    .set pvh_vector, pvh_vector + 1
    .endr

    .balign 16
    .type pvh_exception, @function
pvh_exception:
    push rax
    push rbx
    push rcx
    push rdx
    push rsi
    push rdi
    push rbp
    push r8
    push r9
    push r10
    push r11
    push r12
    push r13
    push r14
    push r15
    cld
    mov rdi, rsp
    and rsp, -16
    call pvh_fault
    ud2

    .section .rodata.pvh_boot_gdt, "a"
    .balign 8
pvh_boot_gdt:
    .quad 0
    .quad 0x00af9b000000ffff    # 8: 64-bit code
    .quad 0x00cf93000000ffff    # 16: data
pvh_boot_gdt_pointer:
    .word 23
    .long pvh_boot_gdt

    .section .bss.pvh_entry_counter, "aw", @nobits
    .balign 8
    .globl pvh_entry_counter
pvh_entry_counter:
    .skip 8

    .section .bss.pvh_idle_stack, "aw", @nobits
    .balign 8
    .globl pvh_idle_stack
pvh_idle_stack:
    .skip 8

    .section .bss.pvh_page_tables, "aw", @nobits
    .balign 4096
    .globl pvh_page_root
pvh_page_root:
    .skip 4096
pvh_page_pointers:
    .skip 4096
    .globl pvh_page_directories
pvh_page_directories:
    .skip 4 * 4096
    .text
