//! The target `requests`: the payload of one request.
//!
//! What must hold of it is said in `xenstore_core::laws`, where the parsers are.

use xenstore_core::laws;

/// Parses one payload, and panics where a law does not hold.
///
/// The first byte is the message type, the others are the payload.
pub fn run(data: &[u8]) {
    let Some((kind, payload)) = data.split_first() else { return };
    laws::hold_of_request(u32::from(*kind), payload);
    laws::hold_of_path(payload);
}
