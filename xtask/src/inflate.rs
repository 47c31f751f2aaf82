//! The compressed files of a Debian system, made plain.

use std::io::Read;

use anyhow::{Context, Result, ensure};
use flate2::read::GzDecoder;
use liblzma::read::XzDecoder;
use ruzstd::decoding::StreamingDecoder;

/// `bytes` without their compression (gzip, xz or zstd), or as they are if they have none.
pub(crate) fn plain(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    if bytes.starts_with(b"\x1f\x8b") {
        GzDecoder::new(bytes).read_to_end(&mut out)?;
    } else if bytes.starts_with(b"\xfd7zXZ") {
        XzDecoder::new(bytes).read_to_end(&mut out)?;
    } else if bytes.starts_with(b"\x28\xb5\x2f\xfd") {
        StreamingDecoder::new(bytes)?.read_to_end(&mut out)?;
    } else {
        out.extend_from_slice(bytes);
    }
    Ok(out)
}

/// The compressed ELF file in a `vmlinuz`.
///
/// Where it lies is in the header of the boot protocol (Documentation/arch/x86/boot.rst).
pub(crate) fn linux_payload(vmlinuz: &[u8]) -> Result<&[u8]> {
    ensure!(vmlinuz.get(0x202..0x206) == Some(b"HdrS"), "no Linux boot header");
    let word = |at: usize| -> Result<usize> {
        let bytes = vmlinuz.get(at..at + 4).context("a vmlinuz cut short")?;
        Ok(u32::from_le_bytes(bytes.try_into()?).try_into()?)
    };
    let sectors = match vmlinuz.get(0x1f1).context("a vmlinuz cut short")? {
        0 => 4,
        &sectors => usize::from(sectors),
    };
    let start = (sectors + 1) * 512 + word(0x248)?;
    // The last four bytes are the plain size, which only the kernel's own loader wants.
    let length = word(0x24c)?.checked_sub(4).context("an empty payload")?;
    vmlinuz.get(start..start + length).context("a vmlinuz cut short")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_compressed_stays_as_it_is() {
        assert_eq!(plain(b"\x7fELF").unwrap(), b"\x7fELF");
    }

    #[test]
    fn the_payload_is_where_the_boot_header_says() {
        let mut vmlinuz = vec![0; 0x400];
        vmlinuz[0x1f1] = 1;
        vmlinuz[0x202..0x206].copy_from_slice(b"HdrS");
        vmlinuz[0x248] = 3;
        vmlinuz[0x24c] = 9;
        vmlinuz.extend_from_slice(b"...plain....");
        assert_eq!(linux_payload(&vmlinuz).unwrap(), b"plain");
        vmlinuz.truncate(0x405);
        assert!(linux_payload(&vmlinuz).is_err(), "a payload beyond the end was accepted");
    }
}
