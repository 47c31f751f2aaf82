# The five functions that compiled code expects of its environment, for SSE without alignment.
# They are assembly because a compiler would turn such loops, written in Rust, into calls of
# themselves. System V ABI: rdi, rsi, rdx in; rax out; rcx, r8-r11, xmm0-1 are ours to use.

    .text
    .balign 16
    .globl memcpy
    .type memcpy, @function
memcpy:
# Below 16 bytes everything is loaded before anything is stored; from 16 on the tail is loaded
# first and the rest goes upwards. So overlap with dst < src is fine too, and memmove uses it.
    mov rax, rdi
    cmp rdx, 16
    jb .Lpvh_copy_small
    movups xmm0, [rsi + rdx - 16]
    lea rcx, [rdi + rdx - 16]
.Lpvh_copy_16:
    movups xmm1, [rsi]
    movups [rdi], xmm1
    add rsi, 16
    add rdi, 16
    cmp rdi, rcx
    jb .Lpvh_copy_16
    movups [rcx], xmm0
    ret
.Lpvh_copy_small:
    cmp edx, 8
    jb .Lpvh_copy_below_8
    mov rcx, [rsi]
    mov r8, [rsi + rdx - 8]
    mov [rdi], rcx
    mov [rdi + rdx - 8], r8
    ret
.Lpvh_copy_below_8:
    cmp edx, 4
    jb .Lpvh_copy_below_4
    mov ecx, [rsi]
    mov r8d, [rsi + rdx - 4]
    mov [rdi], ecx
    mov [rdi + rdx - 4], r8d
    ret
.Lpvh_copy_below_4:
    test edx, edx
    jz .Lpvh_copy_done
    # 1 to 3 bytes: first, middle, last.
    mov r9d, edx
    shr r9d, 1
    movzx ecx, byte ptr [rsi]
    movzx r8d, byte ptr [rsi + r9]
    movzx r10d, byte ptr [rsi + rdx - 1]
    mov [rdi], cl
    mov [rdi + r9], r8b
    mov [rdi + rdx - 1], r10b
.Lpvh_copy_done:
    ret

    .balign 16
    .globl memmove
    .type memmove, @function
memmove:
    mov rcx, rdi
    sub rcx, rsi
    cmp rcx, rdx
    jae memcpy                      # dst below src (wraps to huge), or clear of it
    cmp rdx, 16
    jb memcpy
    mov rax, rdi
    movups xmm0, [rsi]
.Lpvh_move_16:
    movups xmm1, [rsi + rdx - 16]
    movups [rdi + rdx - 16], xmm1
    sub rdx, 16
    cmp rdx, 16
    ja .Lpvh_move_16
    movups [rdi], xmm0
    ret

    .balign 16
    .globl memset
    .type memset, @function
memset:
    mov rax, rdi
    movzx ecx, sil
    mov r8, 0x0101010101010101
    imul rcx, r8
    cmp rdx, 16
    jb .Lpvh_set_small
    movq xmm0, rcx
    punpcklqdq xmm0, xmm0
    lea r8, [rdi + rdx - 16]
.Lpvh_set_16:
    movups [rdi], xmm0
    add rdi, 16
    cmp rdi, r8
    jb .Lpvh_set_16
    movups [r8], xmm0
    ret
.Lpvh_set_small:
    cmp edx, 8
    jb .Lpvh_set_below_8
    mov [rdi], rcx
    mov [rdi + rdx - 8], rcx
    ret
.Lpvh_set_below_8:
    cmp edx, 4
    jb .Lpvh_set_below_4
    mov [rdi], ecx
    mov [rdi + rdx - 4], ecx
    ret
.Lpvh_set_below_4:
    test edx, edx
    jz .Lpvh_set_done
    mov r9d, edx
    shr r9d, 1
    mov [rdi], cl
    mov [rdi + r9], cl
    mov [rdi + rdx - 1], cl
.Lpvh_set_done:
    ret

    .balign 16
    .globl memcmp
    .type memcmp, @function
    .globl bcmp
    .type bcmp, @function
memcmp:
bcmp:
    cmp rdx, 8
    jb .Lpvh_compare_bytes
.Lpvh_compare_8:
    mov rcx, [rdi]
    mov r8, [rsi]
    cmp rcx, r8
    jne .Lpvh_compare_words
    add rdi, 8
    add rsi, 8
    sub rdx, 8
    cmp rdx, 8
    jae .Lpvh_compare_8
.Lpvh_compare_bytes:
    test rdx, rdx
    jz .Lpvh_compare_equal
    movzx eax, byte ptr [rdi]
    movzx ecx, byte ptr [rsi]
    sub eax, ecx
    jne .Lpvh_compare_done
    inc rdi
    inc rsi
    dec rdx
    jmp .Lpvh_compare_bytes
.Lpvh_compare_equal:
    xor eax, eax
.Lpvh_compare_done:
    ret
.Lpvh_compare_words:
    # The first differing byte is the most significant once both are big-endian.
    bswap rcx
    bswap r8
    xor eax, eax
    cmp rcx, r8
    seta al
    sbb eax, 0
    ret
