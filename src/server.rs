//! What serves clients: listeners, connections, and the sessions' drivers.
//!
//! - `listen`, `transport`, `session`, `publishing`, `reader`, `clients`: client connections;
//!   `upgrade` and `refusal` at their beginning, `linger` at their end, `drops` where they are told nothing.
//! - `budget`, `intake`, `outgo`: what connections may hold together, of what they read and of what they write;
//!   `filtering`: whose turn it is to read large values.
//! - `calls`: calls between sessions, and to and from other entries.
//! - `session_manager`: what the realms' state has to say to sessions, and what they have left to be published.
//!
//! Invariant: nothing here decides about order or durability; it only carries.
//!
//! Deliberately absent: what a session decides (`session`), and the node around it (`node`).

pub(crate) mod budget;
pub(crate) mod calls;
pub(crate) mod clients;
mod drops;
mod filtering;
pub(crate) mod intake;
mod linger;
pub(crate) mod listen;
mod metered;
mod outgo;
mod pace;
mod publishing;
mod reader;
mod refusal;
mod session;
pub(crate) mod session_manager;
pub(crate) mod transport;
mod upgrade;

pub use listen::serves_a_client;
