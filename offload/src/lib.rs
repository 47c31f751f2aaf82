//! What the two ends of a network interface leave to each other: checksums of TCP and UDP that were
//! left blank, and frames of TCP that are yet to be cut (xen/include/public/io/netif.h).
//!
//! What is here reads whole frames, for whoever does not take them as they were sent.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

use xen_sys::ring::netif::{Gso, GsoKind};

/// The bytes of an Ethernet header: no frame is shorter.
pub const ETHERNET: usize = 14;

/// The kind of a frame with a tag of IEEE 802.1Q; its own kind is behind that.
pub const VLAN: u16 = 0x8100;
/// The kind of a frame of IPv4.
pub const IPV4: u16 = 0x0800;
/// The kind of a frame of IPv6.
pub const IPV6: u16 = 0x86dd;

/// The number of TCP as IP has it.
pub const TCP: u8 = 6;
/// The number of UDP.
pub const UDP: u8 = 17;

/// What a frame carries, and where that begins: behind a tag, or a tag within a tag, at most.
#[must_use]
pub fn carried(frame: &[u8]) -> Option<(u16, usize)> {
    let mut kind = ETHERNET - 2;
    for _ in 0..2 {
        if half_word(frame, kind)? == VLAN {
            kind += 4;
        }
    }
    Some((half_word(frame, kind)?, kind + 2))
}

/// Where TCP's or UDP's bytes are in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Transport {
    /// Where the IP header begins.
    ip: usize,
    is_v6: bool,
    protocol: u8,
    /// Where its own header begins.
    start: usize,
    /// Where its data ends.
    end: usize,
}

fn half_word(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..at + 2)?;
    Some(u16::from_be_bytes([bytes[0], bytes[1]]))
}

impl Transport {
    /// Finds them; `None` in a fragment, or if the headers are not what they say.
    fn find(frame: &[u8]) -> Option<Self> {
        let found = match carried(frame)? {
            (IPV4, at) => Self::in_v4(frame, at)?,
            (IPV6, at) => Self::in_v6(frame, at)?,
            _ => return None,
        };
        (found.start <= found.end && found.end <= frame.len()).then_some(found)
    }

    fn in_v4(frame: &[u8], ip: usize) -> Option<Self> {
        let header = usize::from(frame.get(ip)? & 0xf) * 4;
        let is_fragment = half_word(frame, ip + 6)? & 0x3fff != 0;
        let (protocol, end) = (*frame.get(ip + 9)?, ip + usize::from(half_word(frame, ip + 2)?));
        let found = Self { ip, is_v6: false, protocol, start: ip + header, end };
        (header >= 20 && !is_fragment).then_some(found)
    }

    fn in_v6(frame: &[u8], ip: usize) -> Option<Self> {
        const HOP_BY_HOP: u8 = 0;
        const ROUTING: u8 = 43;
        const OPTIONS: u8 = 60;
        let (mut protocol, mut start) = (*frame.get(ip + 6)?, ip + 40);
        let end = start + usize::from(half_word(frame, ip + 4)?);
        while let HOP_BY_HOP | ROUTING | OPTIONS = protocol {
            let header = frame.get(start..start + 2)?;
            protocol = header[0];
            start += (usize::from(header[1]) + 1) * 8;
        }
        Some(Self { ip, is_v6: true, protocol, start, end })
    }

    /// Where the checksum is.
    const fn checksum(&self) -> Option<usize> {
        match self.protocol {
            TCP => Some(self.start + 16),
            UDP => Some(self.start + 6),
            _ => None,
        }
    }

    /// The sum of what stands before TCP's and UDP's own bytes for the checksum.
    fn pseudo_header(&self, frame: &[u8]) -> u64 {
        let addresses =
            if self.is_v6 { self.ip + 8..self.ip + 40 } else { self.ip + 12..self.ip + 20 };
        let len = (self.end - self.start) as u64;
        sum(&frame[addresses]) + len + u64::from(self.protocol)
    }
}

/// The words of some bytes, added up.
fn sum(bytes: &[u8]) -> u64 {
    let mut words = bytes.chunks_exact(4);
    let mut sum = 0_u64;
    for word in &mut words {
        sum += u64::from(u32::from_be_bytes([word[0], word[1], word[2], word[3]]));
    }
    let mut last = [0; 4];
    last[..words.remainder().len()].copy_from_slice(words.remainder());
    sum + u64::from(u32::from_be_bytes(last))
}

/// The checksum that belongs to a sum.
fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    #[expect(clippy::cast_possible_truncation, reason = "just made to fit")]
    let folded = sum as u16;
    !folded
}

/// Writes the checksum of TCP or UDP where it was left blank; `false` if there is none to be: the frame
/// carries something else, or part of a packet, or its headers are not what they say.
pub fn fill_checksum(frame: &mut [u8]) -> bool {
    let Some(found) = Transport::find(frame) else { return false };
    let Some(at) = found.checksum().filter(|at| at + 2 <= found.end) else { return false };
    frame[at..at + 2].fill(0);
    let checksum = fold(found.pseudo_header(frame) + sum(&frame[found.start..found.end]));
    // Without a checksum is what UDP calls zero.
    let checksum = if checksum == 0 && found.protocol == UDP { 0xffff } else { checksum };
    frame[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
    true
}

/// A frame of TCP, to be cut.
#[derive(Clone, Copy, Debug)]
pub struct Segments<'a> {
    frame: &'a [u8],
    found: Transport,
    /// Where TCP's data begins.
    data: usize,
    /// Data of each segment but the last.
    size: usize,
}

impl<'a> Segments<'a> {
    /// `None` if it is not what it is said to be.
    pub fn of(frame: &'a [u8], gso: Gso) -> Option<Self> {
        let found = Transport::find(frame).filter(|found| found.protocol == TCP)?;
        let header = usize::from(frame.get(found.start + 12)? >> 4) * 4;
        let data = found.start + header;
        let fits = header >= 20 && data <= found.end;
        let as_said = found.is_v6 == (gso.kind == GsoKind::Tcp6);
        (fits && as_said).then_some(Self { frame, found, data, size: gso.size.into() })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        (self.found.end - self.data).div_ceil(self.size).max(1)
    }

    /// Bytes of the largest.
    pub fn largest(&self) -> usize {
        self.data + self.size.min(self.found.end - self.data)
    }

    /// Writes the n-th; says how long it is.
    ///
    /// # Panics
    /// If there is no room for the [largest](Self::largest).
    pub fn write(&self, number: usize, to: &mut [u8]) -> usize {
        const FIN_PSH: u8 = 0x09;
        const CWR: u8 = 0x80;
        let Self { frame, found, data, size } = *self;
        let skipped = number * size;
        let payload = &frame[data + skipped..found.end.min(data + skipped + size)];
        let len = data + payload.len();
        let to = &mut to[..len];
        to[..data].copy_from_slice(&frame[..data]);
        to[data..].copy_from_slice(payload);
        self.adjust_ip(number, to);
        let tcp = found.start;
        let sequence = [to[tcp + 4], to[tcp + 5], to[tcp + 6], to[tcp + 7]];
        #[expect(clippy::cast_possible_truncation, reason = "less than a frame, which is 64 KiB")]
        let sequence = u32::from_be_bytes(sequence).wrapping_add(skipped as u32);
        to[tcp + 4..tcp + 8].copy_from_slice(&sequence.to_be_bytes());
        if number + 1 < self.count() {
            to[tcp + 13] &= !FIN_PSH;
        }
        if number > 0 {
            to[tcp + 13] &= !CWR;
        }
        fill_checksum(to);
        len
    }

    /// Each segment is a packet of its own.
    #[expect(clippy::cast_possible_truncation, reason = "a frame has less than 64 KiB")]
    fn adjust_ip(&self, number: usize, to: &mut [u8]) {
        let ip = self.found.ip;
        let len = to.len() - ip;
        if self.found.is_v6 {
            to[ip + 4..ip + 6].copy_from_slice(&((len - 40) as u16).to_be_bytes());
            return;
        }
        to[ip + 2..ip + 4].copy_from_slice(&(len as u16).to_be_bytes());
        let id = u16::from_be_bytes([to[ip + 4], to[ip + 5]]).wrapping_add(number as u16);
        to[ip + 4..ip + 6].copy_from_slice(&id.to_be_bytes());
        to[ip + 10..ip + 12].fill(0);
        let checksum = fold(sum(&to[ip..self.found.start.min(ip + 60)]));
        to[ip + 10..ip + 12].copy_from_slice(&checksum.to_be_bytes());
    }
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "test data is small")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A frame of TCP with that much data.
    fn tcp(is_v6: bool, tagged: bool, data: usize) -> Vec<u8> {
        let mut frame = vec![2; 12];
        if tagged {
            frame.extend([0x81, 0, 0, 5]);
        }
        let len = 20 + 12 + data;
        if is_v6 {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend((len as u16).to_be_bytes());
            frame.extend([TCP, 64]);
            frame.extend((0..32).map(|at| at * 7));
        } else {
            frame.extend([8, 0, 0x45, 0]);
            frame.extend((len as u16 + 20).to_be_bytes());
            frame.extend([0xff, 0xff, 0x40, 0, 64, TCP, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        }
        // Ports, sequence, acknowledgement, header of 32 bytes, CWR ACK PSH FIN.
        frame.extend([
            0, 80, 4, 1, 0xff, 0xff, 0xff, 0, 0, 0, 0, 1, 0x80, 0x99, 1, 0, 0xab, 0xcd, 0, 0,
        ]);
        frame.extend([1; 12]);
        frame.extend((0..data).map(|at| (at * 13) as u8));
        frame
    }

    /// Whether the checksums are right: all words with them add up to nothing.
    fn is_right(frame: &[u8]) -> bool {
        let found = Transport::find(frame).unwrap();
        let header = &frame[found.ip..found.start];
        let transport = found.pseudo_header(frame) + sum(&frame[found.start..found.end]);
        fold(transport) == 0 && (found.is_v6 || fold(sum(header)) == 0)
    }

    #[test]
    fn a_known_checksum_is_found() {
        // RFC 1071's example.
        assert_eq!(!fold(sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7])), 0xddf2);
        assert_eq!(!fold(sum(&[0x00, 0x01, 0xf2])), 0xf201, "an odd byte is the high one");
    }

    #[test]
    fn a_blank_checksum_is_filled() {
        for (is_v6, tagged, data) in
            [(false, false, 100), (true, false, 101), (false, true, 0), (true, true, 1)]
        {
            let mut frame = tcp(is_v6, tagged, data);
            let whole = frame.len();
            frame.extend([9; 20]);
            assert!(fill_checksum(&mut frame));
            let found = Transport::find(&frame).unwrap();
            assert_eq!(found.end, whole, "padding is not of it");
            assert_eq!(fold(found.pseudo_header(&frame) + sum(&frame[found.start..found.end])), 0);
        }
    }

    #[test]
    fn other_headers_of_ipv6_may_come_before() {
        let whole = tcp(true, false, 100);
        for headers in [&[0][..], &[60], &[43], &[0, 60, 43, 60]] {
            let mut frame = whole.clone();
            let more = 8 * headers.len();
            let kinds = headers.iter().copied().chain([TCP]);
            for (place, kind) in [20].into_iter().chain((0..).map(|n| 54 + 8 * n)).zip(kinds) {
                if place >= 54 {
                    frame.splice(place..place, [0; 8]);
                }
                frame[place] = kind;
            }
            let len = u16::from_be_bytes([frame[18], frame[19]]) + more as u16;
            frame[18..20].copy_from_slice(&len.to_be_bytes());
            assert!(fill_checksum(&mut frame), "behind {headers:?}");
            let found = Transport::find(&frame).unwrap();
            assert_eq!((found.start, found.end), (54 + more, frame.len()), "behind {headers:?}");
            assert_eq!(fold(found.pseudo_header(&frame) + sum(&frame[found.start..])), 0);
        }
    }

    #[test]
    fn what_has_no_checksum_gets_none() {
        let whole = tcp(false, false, 10);
        let with = |at: usize, byte: u8| {
            let mut frame = whole.clone();
            frame[at] = byte;
            frame
        };
        for (what, frame) in [
            ("no IP", with(13, 6)),
            ("a fragment", with(20, 0x20)),
            ("a header that is too short", with(14, 0x44)),
            ("a packet longer than its frame", with(16, 0x7f)),
            ("another protocol", with(23, 47)),
            ("nothing but a header", whole[..14].to_vec()),
            ("half a header", whole[..30].to_vec()),
        ] {
            let mut filled = frame.clone();
            assert!(!fill_checksum(&mut filled), "{what}");
            assert_eq!(filled, frame, "{what}");
        }
    }

    proptest! {
        #[test]
        fn segments_are_what_the_frame_was(
            is_v6: bool, tagged: bool, data in 0_usize..9000, size in 1_u16..3000,
        ) {
            let frame = tcp(is_v6, tagged, data);
            let kind = if is_v6 { GsoKind::Tcp6 } else { GsoKind::Tcp4 };
            let segments = Segments::of(&frame, Gso { size, kind }).unwrap();
            let (mut together, mut next) = (Vec::<u8>::new(), None);
            for number in 0..segments.count() {
                let mut bytes = vec![0; segments.largest()];
                let len = segments.write(number, &mut bytes);
                let bytes = &bytes[..len];
                prop_assert!(is_right(bytes), "segment {number}");
                let found = Transport::find(bytes).unwrap();
                prop_assert_eq!(found.end, len);
                let tcp = &bytes[found.start..];
                let sequence = u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]);
                prop_assert_eq!(sequence, next.unwrap_or(0xffff_ff00));
                prop_assert_eq!(tcp[13] & 0x80 != 0, number == 0, "CWR is the first one's");
                prop_assert_eq!(tcp[13] & 9 == 9, number + 1 == segments.count(), "the end is the last one's");
                next = Some(sequence.wrapping_add((tcp.len() - 32) as u32));
                together.extend(&tcp[32..]);
            }
            prop_assert_eq!(&together, &frame[frame.len() - data..]);
        }

        #[test]
        fn no_frame_is_too_odd(frame in prop::collection::vec(any::<u8>(), 0..200), kind in 0..4_usize, at in 0_usize..60, byte: u8) {
            let mut odd = [frame.clone(), tcp(false, false, 50), tcp(true, false, 50), tcp(true, true, 50)][kind].clone();
            if let Some(place) = odd.get_mut(at) {
                *place = byte;
            }
            fill_checksum(&mut odd);
            for kind in [GsoKind::Tcp4, GsoKind::Tcp6] {
                if let Some(segments) = Segments::of(&odd, Gso { size: 7, kind }) {
                    let mut bytes = vec![0; segments.largest()];
                    for number in 0..segments.count() {
                        segments.write(number, &mut bytes);
                    }
                }
            }
        }
    }
}
