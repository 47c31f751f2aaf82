//! `memcpy`, `memmove`, `memset`, `memcmp` and `bcmp`, which the C library gives on a host.

// Host tests take them too: there the definitions shadow those of the C library, so the whole test
// process runs on them. Fuzzers have some of their own, to see what is compared with what.
#[cfg(not(fuzzing))]
core::arch::global_asm!(include_str!("memory.s"));

#[cfg(test)]
mod tests {
    unsafe extern "C" {
        fn memcpy(to: *mut u8, from: *const u8, count: usize) -> *mut u8;
        fn memmove(to: *mut u8, from: *const u8, count: usize) -> *mut u8;
        fn memset(to: *mut u8, byte: i32, count: usize) -> *mut u8;
        fn memcmp(a: *const u8, b: *const u8, count: usize) -> i32;
    }

    fn pattern() -> Vec<u8> {
        (0..200u8).map(|i| i.wrapping_mul(37).wrapping_add(11)).collect()
    }

    /// What a move must leave, through a copy.
    fn moved(bytes: &[u8], to: usize, from: usize, count: usize) -> Vec<u8> {
        let mut out = bytes.to_vec();
        out[to..to + count].copy_from_slice(&bytes[from..from + count]);
        out
    }

    #[test]
    fn memmove_agrees_with_the_naive_one_for_every_overlap() {
        for count in 0..70 {
            for from in 0..40 {
                for to in 0..40 {
                    let mut bytes = pattern();
                    let expected = moved(&bytes, to, from, count);
                    let base = bytes.as_mut_ptr();
                    // SAFETY: both ranges end below 40 + 70 of 200 bytes.
                    let result =
                        unsafe { memmove(base.wrapping_add(to), base.wrapping_add(from), count) };
                    assert_eq!(result as usize, base as usize + to, "memmove returns its target");
                    assert_eq!(bytes, expected, "memmove({to}, {from}, {count})");
                }
            }
        }
    }

    #[test]
    fn memcpy_and_memset_write_exactly_their_range() {
        let source = pattern();
        for count in 0..100 {
            for offset in 0..17 {
                let mut target = vec![0xaa; 200];
                let at = target.as_mut_ptr().wrapping_add(offset);
                // SAFETY: offset + count is below 117 of 200 bytes.
                unsafe { memcpy(at, source.as_ptr(), count) };
                assert!(target[..offset].iter().all(|&b| b == 0xaa), "before, {offset}+{count}");
                assert_eq!(target[offset..offset + count], source[..count], "{offset}+{count}");
                assert!(target[offset + count..].iter().all(|&b| b == 0xaa), "after");
                // SAFETY: as above.
                unsafe { memset(at, 0x1_5c, count) };
                assert!(target[..offset].iter().all(|&b| b == 0xaa), "set: before");
                assert!(target[offset..offset + count].iter().all(|&b| b == 0x5c), "set: in");
                assert!(target[offset + count..].iter().all(|&b| b == 0xaa), "set: after");
            }
        }
    }

    #[test]
    fn memcmp_orders_as_unsigned_bytes_do() {
        let bytes = pattern();
        for count in 0..40 {
            // SAFETY: count is below the length of both.
            assert_eq!(unsafe { memcmp(bytes.as_ptr(), bytes.as_ptr(), count) }, 0);
            for at in 0..count {
                for value in [0, 0x7f, 0x80, 0xff] {
                    let mut other = bytes.clone();
                    other[at] = value;
                    // SAFETY: count is below the length of both.
                    let order = unsafe { memcmp(bytes.as_ptr(), other.as_ptr(), count) };
                    let expected = bytes[..count].cmp(&other[..count]) as i32;
                    assert_eq!(order.signum(), expected, "{count} bytes, {value:#x} at {at}");
                }
            }
        }
    }
}
