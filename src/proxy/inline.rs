//! An address as text, without asking for memory.
//!
//! Each request tells its upstream where it comes from. The formatting machinery takes 110 ns for
//! that, 1 % of a request.

use std::io::Write;
use std::net::IpAddr;

/// A short text on the stack.
#[derive(Debug)]
pub(super) struct Inline {
    bytes: [u8; 64],
    length: usize,
}

impl Inline {
    /// An empty one.
    pub(super) const fn new() -> Self {
        Self {
            bytes: [0; 64],
            length: 0,
        }
    }

    /// What was written.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    fn push(&mut self, byte: u8) {
        self.bytes[self.length] = byte;
        self.length += 1;
    }

    /// Writes an address, which always fits.
    pub(super) fn write_address(&mut self, address: IpAddr) {
        let IpAddr::V4(address) = address else {
            let _ = write!(self, "{address}");
            return;
        };
        for octet in address.octets() {
            for (least, unit) in [(100, 100), (10, 10), (0, 1)] {
                if octet >= least {
                    self.push(b'0' + octet / unit % 10);
                }
            }
            self.push(b'.');
        }
        self.length -= 1;
    }
}

impl Write for Inline {
    fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
        let count = (&mut self.bytes[self.length..]).write(text)?;
        self.length += count;
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_address_is_written_as_the_library_writes_it(address: IpAddr) {
            let mut text = Inline::new();
            text.write_address(address);
            let expected = address.to_string();
            prop_assert_eq!(text.as_bytes(), expected.as_bytes());
        }
    }

    #[test]
    fn every_octet_is_written() {
        for octet in 0..=255 {
            let address = IpAddr::from([octet, 0, 255, octet]);
            let mut text = Inline::new();
            text.write_address(address);
            assert_eq!(text.as_bytes(), address.to_string().as_bytes());
        }
    }
}
