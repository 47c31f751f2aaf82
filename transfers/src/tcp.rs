//! By bare TCP: a length, the block, and a byte back.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};

use anyhow::{Result, ensure};

use crate::{Blocks, measure};

/// Takes every block as it comes, and says 1.
pub(crate) fn take(address: &str) -> Result<()> {
    for stream in TcpListener::bind(address)?.incoming() {
        let stream = stream?;
        stream.set_nodelay(true)?;
        // Whoever went is followed by the next.
        let _ = serve(stream);
    }
    Ok(())
}

/// Takes every block of one stream, which may end behind any of them.
pub(crate) fn serve(mut stream: impl Read + Write) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let mut len = [0; 8];
        if stream.read(&mut len[..1])? == 0 {
            return Ok(());
        }
        stream.read_exact(&mut len[1..])?;
        let mut left = u64::from_le_bytes(len);
        while left > 0 {
            let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let count = stream.read(&mut buffer[..most])?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            left -= count as u64;
        }
        stream.write_all(b"1")?;
    }
}

/// Sends blocks over one connection.
pub(crate) fn push(address: &str, blocks: &Blocks) -> Result<()> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    send(stream, blocks)
}

/// Sends blocks over a stream.
pub(crate) fn send(mut stream: impl Read + Write, blocks: &Blocks) -> Result<()> {
    measure(blocks, |block| {
        stream.write_all(&(block.len() as u64).to_le_bytes())?;
        stream.write_all(block)?;
        let mut flag = [0];
        stream.read_exact(&mut flag)?;
        ensure!(flag == *b"1", "the answer is {flag:?}");
        Ok(())
    })
}
