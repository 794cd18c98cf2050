//! Channel binding: a login that is worth nothing on another TLS connection than its own.
//!
//! Invariant: the only type is `tls-exporter` (RFC 9266), because TLS 1.3 has no other that fits. A client that can bind is not made
//! to.
//!
//! Deliberately absent: computing it (`server`, from the connection).

/// The type's name in messages.
pub(super) const TLS_EXPORTER: &str = "tls-exporter";

/// A connection's own value: 32 bytes of its exporter, for the label `EXPORTER-Channel-Binding` and an empty context (RFC 9266 section
/// 2).
pub type Exporter = [u8; 32];
