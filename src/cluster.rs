//! The cluster, as one of its nodes sees it: the ways to sync and to the storages, and what a storage does about the others.
//!
//! - `adapters`: sync and storages, as replicas and entries want to see them.
//! - `local_storage`: the storage beside a sync member.
//! - `storages`: the way to each storage, and whether they are as when the cluster was formed.
//! - `repair`: mends damaged bodies from other storages.
//! - `upkeep`: deletes what was released, and begins anew from another storage.
//!
//! Invariant: nothing here decides about order or durability; it only carries.
//!
//! Deliberately absent: changes of the members.

pub(crate) mod adapters;
pub(crate) mod local_storage;
pub(crate) mod repair;
pub(crate) mod storages;
pub(crate) mod upkeep;
