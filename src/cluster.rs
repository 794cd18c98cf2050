//! The cluster, as one of its nodes sees it: the clients of sync and of the storages, and a storage's work with the others.
//!
//! - `adapters`: sync and storages, as replicas and entries use them.
//! - `local_storage`: the storage beside a sync member.
//! - `storages`: the client of each storage, and the check that they are as when the cluster was formed.
//! - `space`: whether the disks have room for what clients publish.
//! - `repair`: replaces damaged bodies with those of other storages.
//! - `upkeep`: deletes what was released, and starts over from another storage's state.
//!
//! Invariant: nothing here decides about order or durability; it only carries.
//!
//! Deliberately absent: changes of the members.

pub(crate) mod adapters;
pub(crate) mod local_storage;
pub(crate) mod repair;
pub(crate) mod space;
pub(crate) mod storages;
pub(crate) mod upkeep;
