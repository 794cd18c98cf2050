//! What serves clients: listeners, connections, and the sessions' drivers.
//!
//! - `listen`, `transport`, `session`, `publishing`, `reader`, `clients`: client connections; `handshake`, `upgrade` and
//!   `refusal` at their beginning, `linger` at their end, `drops` for messages that are dropped without an answer.
//! - `budget`, `intake`, `outgo`: limits for the bytes that all connections hold together, read and to be written; `filtering`:
//!   turns at reading large values.
//! - `quotas`: what the clients of one user or address may have and do.
//! - `login`: checks passwords; `bans`: turns away who is banned.
//! - `calls`: calls between sessions, and to and from other entries.
//! - `session_manager`: passes on signals of the realms' state to sessions, and publishes what sessions left to be published.
//!
//! Invariant: nothing here decides about order or durability; it only carries.
//!
//! Deliberately absent: what a session decides (`session`), and the node around it (`node`).

pub(crate) mod bans;
pub(crate) mod budget;
pub(crate) mod calls;
pub(crate) mod clients;
mod drops;
mod filtering;
mod handshake;
mod identity;
pub(crate) mod intake;
pub(crate) mod linger;
pub(crate) mod listen;
pub(crate) mod login;
mod metered;
mod outgo;
mod pace;
mod publishing;
mod quotas;
mod reader;
mod refusal;
mod session;
pub(crate) mod session_manager;
pub(crate) mod transport;
pub(crate) mod trim;
mod upgrade;

pub use identity::{client, serves_a_client};
