//! Reads the fields of a packet (MQTT 5 section 1.5), each checked against what is left.
//!
//! Invariant: nothing is read outside the bytes given, and nothing is copied.
//!
//! Deliberately absent: the order of fields in each packet.

use super::Violation;

/// A cursor in the bytes of a packet.
#[derive(Debug, Clone)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// How many bytes were read.
    pub(crate) fn position(&self) -> usize {
        self.at
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.at == self.bytes.len()
    }

    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], Violation> {
        let taken = self.bytes[self.at..]
            .get(..count)
            .ok_or(Violation::malformed("a field reaches beyond the packet's end"))?;
        self.at += count;
        Ok(taken)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Violation> {
        Ok(self.take(1)?[0])
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Violation> {
        let bytes = self.take(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Violation> {
        let bytes = self.take(4)?;
        Ok(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    /// A variable byte integer in its shortest form (MQTT 5 section 1.5.5).
    pub(crate) fn varint(&mut self) -> Result<u32, Violation> {
        let mut value = 0;
        for index in 0..4 {
            let byte = self.u8()?;
            value |= u32::from(byte & 0x7F) << (7 * index);
            if byte & 0x80 == 0 {
                if byte == 0 && index > 0 {
                    break;
                }
                return Ok(value);
            }
        }
        Err(Violation::malformed("a variable byte integer is not in its shortest form"))
    }

    /// Binary data after its two bytes of length.
    pub(crate) fn binary(&mut self) -> Result<&'a [u8], Violation> {
        let length = self.u16()?;
        self.take(usize::from(length))
    }

    /// A text: UTF-8 without U+0000 (MQTT 5 section 1.5.4).
    pub(crate) fn text(&mut self) -> Result<&'a str, Violation> {
        let bytes = self.binary()?;
        if bytes.contains(&0) {
            return Err(Violation::malformed("a text holds U+0000"));
        }
        std::str::from_utf8(bytes).map_err(|_| Violation::malformed("a text is not UTF-8"))
    }

    /// A packet identifier, which is never 0 (MQTT 5 section 2.2.1).
    pub(crate) fn packet_id(&mut self) -> Result<u16, Violation> {
        match self.u16()? {
            0 => Err(Violation::protocol("a packet identifier is 0")),
            packet_id => Ok(packet_id),
        }
    }

    /// A list of properties, without its length.
    pub(crate) fn block(&mut self) -> Result<&'a [u8], Violation> {
        let length = self.varint()?;
        self.take(length as usize)
    }

    /// Fails if bytes are left.
    pub(crate) fn end(&self) -> Result<(), Violation> {
        if self.is_empty() {
            return Ok(());
        }
        Err(Violation::malformed("bytes are left over after the packet's last field"))
    }
}
