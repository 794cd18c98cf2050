//! A disk that can lose power.
//!
//! Invariant: synced data survives a crash whole; unsynced data survives, is lost or is torn, page by page, as a seed decides.
//! After a crash, and after [`SimDisk::kill`], earlier handles only fail. A failed sync promises nothing about its writes. Only
//! [`SimDisk::rot`] changes synced data.
//!
//! Deliberately absent: rot of the small files; a node whose identity is gone is a new node.

mod handle;
mod rot;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::{Database, DatabaseError};

use super::mix;
use crate::host::{Disk, InPlace};
use handle::{check_room, check_sync, Handle};

pub use rot::Rot;

/// Unsynced writes survive or are lost in pieces of this size.
const PAGE: usize = 4_096;

/// What redb may cache of a simulated database.
const CACHE_BYTES: usize = 1 << 20;

/// One node's disk. Clones are the same disk; it outlives the crashes of its node.
#[derive(Clone, Debug, Default)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

/// How a disk misbehaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskTrouble {
    /// Syncs fail with `EIO`.
    Broken,
    /// Writes fail with `ENOSPC`.
    Full,
}

#[derive(Debug, Default)]
struct State {
    databases: BTreeMap<PathBuf, Image>,
    files: BTreeMap<PathBuf, Small>,
    /// Handles of earlier lives fail.
    life: u64,
    death: Option<String>,
    trouble: Option<DiskTrouble>,
    /// The cache limit of a database, if it is lower than usual.
    cache: Option<usize>,
    /// In-place writes need no sync.
    writes_through: bool,
}

/// A small file.
#[derive(Debug)]
struct Small {
    /// What reads see.
    current: Vec<u8>,
    /// What a crash may leave.
    durable: Vec<u8>,
    /// The durable content at the last [`SimDisk::remember`].
    remembered: Vec<u8>,
}

/// The use of a disk so far, over all of its lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskUse {
    pub syncs: u64,
    /// Bytes.
    pub written: u64,
}

impl std::ops::Sub for DiskUse {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self { syncs: self.syncs - earlier.syncs, written: self.written - earlier.written }
    }
}

#[derive(Debug, Default)]
struct Image {
    /// What reads see.
    current: Vec<u8>,
    /// What a crash leaves.
    durable: Vec<u8>,
    /// Changes to `current` since the last sync.
    unsynced: Vec<Change>,
    /// The durable content at the last [`SimDisk::remember`].
    remembered: Vec<u8>,
    open: bool,
    used: DiskUse,
}

#[derive(Debug)]
enum Change {
    Write { offset: usize, data: Vec<u8> },
    Length(usize),
}

impl SimDisk {
    /// An empty disk.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes the disk fail from now on, until this is called again or the power is cut.
    pub fn trouble(&self, trouble: Option<DiskTrouble>) {
        self.lock().trouble = trouble;
    }

    /// Cuts the power. Call it before the simulation crashes the host. The node can start again afterwards.
    pub fn crash(&self, seed: u64) {
        let mut state = self.lock();
        state.life += 1;
        state.death = None;
        state.trouble = None;
        let mut chance = seed;
        let mut next = move || {
            chance = chance.wrapping_add(0x9e37_79b9_7f4a_7c15);
            mix(chance)
        };
        for image in state.databases.values_mut() {
            // Some crashes keep nothing, some keep a beginning, and some keep random pages.
            let kind = next() % 3;
            let kept_changes = match kind {
                0 => 0,
                _ => image.unsynced.len() as u64,
            };
            let beginning = if kind == 1 { next() % (kept_changes + 1) } else { kept_changes };
            let changes = std::mem::take(&mut image.unsynced);
            for change in changes.into_iter().take(beginning as usize) {
                let keeps = |next: &mut dyn FnMut() -> u64| kind == 1 || next().is_multiple_of(2);
                match change {
                    Change::Write { offset, data } => {
                        for (at, page) in (offset..).step_by(PAGE).zip(data.chunks(PAGE)) {
                            if keeps(&mut next) {
                                write(&mut image.durable, at, page);
                            }
                        }
                    }
                    Change::Length(length) => {
                        if keeps(&mut next) {
                            image.durable.resize(length, 0);
                        }
                    }
                }
            }
            image.current.clone_from(&image.durable);
            image.open = false;
        }
        let writes_through = state.writes_through;
        for file in state.files.values_mut().filter(|file| file.current != file.durable) {
            if writes_through || next() % 2 == 0 {
                file.durable.clone_from(&file.current);
            }
            file.current.clone_from(&file.durable);
        }
    }

    /// Makes in-place writes survive every crash, as they do if only the process ends and the operating system keeps running.
    pub fn write_through(&self) {
        self.lock().writes_through = true;
    }

    /// Copies the durable contents, to restore some stale pages or everything later.
    pub fn remember(&self) {
        let mut state = self.lock();
        for image in state.databases.values_mut() {
            image.remembered.clone_from(&image.durable);
        }
        for file in state.files.values_mut() {
            file.remembered.clone_from(&file.durable);
        }
    }

    /// Restores the copy of all files, while the power is cut, like an older copy of the whole folder. Returns
    /// whether anything changed.
    pub fn put_back(&self) -> bool {
        let mut state = self.lock();
        let mut different = false;
        for image in state.databases.values_mut() {
            different |= image.durable != image.remembered;
            image.durable.clone_from(&image.remembered);
            image.current.clone_from(&image.remembered);
        }
        for file in state.files.values_mut().filter(|file| !file.remembered.is_empty()) {
            file.durable.clone_from(&file.remembered);
            file.current.clone_from(&file.remembered);
        }
        different
    }

    /// Makes databases that are opened from now on cache nothing, so that reads see the rot.
    pub fn cache_nothing(&self) {
        self.lock().cache = Some(0);
    }

    /// Damages one database while the power is cut, and returns a description of the damage; `None` if there is nothing to
    /// damage.
    pub fn rot(&self, rot: Rot, seed: u64) -> Option<String> {
        let mut state = self.lock();
        let mut chance = seed;
        let mut below = move |end: usize| {
            chance = chance.wrapping_add(0x9e37_79b9_7f4a_7c15);
            (mix(chance) % end as u64) as usize
        };
        // Maybe only one of them has the required data.
        let first = below(state.databases.len().max(1));
        let (mut later, mut earlier) = (state.databases.iter_mut(), Vec::new());
        earlier.extend(later.by_ref().take(first));
        later.chain(earlier).find_map(|(path, image)| {
            let what = image.rot(rot, &mut below)?;
            Some(format!("{}: {what}", path.display()))
        })
    }

    /// Makes everything fail from now on, as after an error that ends the process. The first reason is remembered.
    pub fn kill(&self, reason: &str) {
        let mut state = self.lock();
        state.life += 1;
        state.death.get_or_insert_with(|| reason.to_owned());
    }

    /// Why the node on this disk had to end, if it did.
    #[must_use]
    pub fn death(&self) -> Option<String> {
        self.lock().death.clone()
    }

    /// The use of its databases so far, by path.
    #[must_use]
    pub fn used(&self) -> BTreeMap<PathBuf, DiskUse> {
        let state = self.lock();
        state.databases.iter().map(|(path, image)| (path.clone(), image.used)).collect()
    }

    /// Loses a small file.
    #[cfg(test)]
    pub(crate) fn remove_file(&self, path: &Path) {
        self.lock().files.remove(path);
    }

    /// Replaces the disk with an empty one.
    pub fn wipe(&self) {
        let mut state = self.lock();
        let life = state.life + 1;
        let writes_through = state.writes_through;
        *state = State { life, writes_through, ..State::default() };
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn alive(state: &State) -> io::Result<()> {
        match &state.death {
            Some(reason) => Err(io::Error::other(format!("the disk is dead: {reason}"))),
            None => Ok(()),
        }
    }
}

fn write(bytes: &mut Vec<u8>, offset: usize, data: &[u8]) {
    let end = offset + data.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[offset..end].copy_from_slice(data);
}

impl Disk for SimDisk {
    fn open_database(&self, path: &Path) -> Result<Database, DatabaseError> {
        let (backend, cache) = {
            let mut state = self.lock();
            Self::alive(&state).map_err(redb::StorageError::Io)?;
            let (life, cache) = (state.life, state.cache.unwrap_or(CACHE_BYTES));
            let image = state.databases.entry(path.to_owned()).or_default();
            if std::mem::replace(&mut image.open, true) {
                return Err(DatabaseError::DatabaseAlreadyOpen);
            }
            (Handle::new(self, path, life), cache)
        };
        Database::builder().set_cache_size(cache).create_with_backend(backend)
    }

    fn read_file(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        let state = self.lock();
        Self::alive(&state)?;
        Ok(state.files.get(path).map(|file| file.current.clone()))
    }

    fn write_file(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        let mut state = self.lock();
        Self::alive(&state)?;
        check_room(state.trouble)?;
        check_sync(state.trouble)?;
        let remembered = state.files.get(path).map_or_else(Vec::new, |old| old.remembered.clone());
        let (current, durable) = (content.to_vec(), content.to_vec());
        state.files.insert(path.to_owned(), Small { current, durable, remembered });
        Ok(())
    }

    fn open_in_place(&self, path: &Path) -> io::Result<Box<dyn InPlace>> {
        let state = self.lock();
        Self::alive(&state)?;
        if !state.files.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(Box::new(Handle::new(self, path, state.life)))
    }
}

#[cfg(test)]
mod tests {
    use redb::{ReadableDatabase, ReadableTable, TableDefinition};

    use super::*;
    use crate::disk::commit::begin_write;

    const TABLE: TableDefinition<u64, u64> = TableDefinition::new("numbers");

    pub(super) fn path() -> &'static Path {
        Path::new("data/test.redb")
    }

    pub(super) fn insert(database: &Database, number: u64) {
        let transaction = begin_write(database).unwrap();
        transaction.open_table(TABLE).unwrap().insert(number, number).unwrap();
        transaction.commit().unwrap();
    }

    pub(super) fn numbers(database: &Database) -> Vec<u64> {
        let table = database.begin_read().unwrap().open_table(TABLE).unwrap();
        table.iter().unwrap().map(|row| row.unwrap().0.value()).collect()
    }

    #[test]
    fn what_was_committed_survives_any_crash() {
        for seed in 0..100 {
            let disk = SimDisk::new();
            for life in 0..4u64 {
                let database = disk.open_database(path()).unwrap();
                if life > 0 {
                    assert_eq!(numbers(&database), (0..life * 5).collect::<Vec<_>>(), "{seed}");
                }
                (life * 5..life * 5 + 5).for_each(|number| insert(&database, number));
                // A transaction that was not committed leaves writes that may tear.
                let open = database.begin_write().unwrap();
                for number in 1_000..2_000 {
                    open.open_table(TABLE).unwrap().insert(number, seed).unwrap();
                }
                disk.crash(seed * 10 + life);
                drop(open);
                drop(database);
            }
        }
    }

    #[cfg(feature = "mutants")]
    #[test]
    fn what_was_not_synced_can_be_lost() {
        use crate::mutant::{plant, Mutant};
        let disk = SimDisk::new();
        let database = disk.open_database(path()).unwrap();
        insert(&database, 1);
        plant(Some(Mutant::SkipFsync));
        insert(&database, 2);
        plant(None);
        assert_eq!(numbers(&database), [1, 2]);
        disk.crash(3);
        drop(database);
        assert_eq!(numbers(&disk.open_database(path()).unwrap()), [1]);
    }

    #[test]
    fn what_is_asked_of_a_disk_is_counted() {
        let disk = SimDisk::new();
        let database = disk.open_database(path()).unwrap();
        insert(&database, 1);
        let before = disk.used()[path()];
        insert(&database, 2);
        let used = disk.used()[path()] - before;
        assert_eq!(used.syncs, 1);
        assert!(used.written > 4096, "{used:?}");
        numbers(&database);
        assert_eq!(disk.used()[path()] - before, used, "reading asks for neither");
    }

    #[test]
    fn a_disk_in_trouble_fails_and_keeps_what_it_had() {
        for trouble in [DiskTrouble::Broken, DiskTrouble::Full] {
            let disk = SimDisk::new();
            let database = disk.open_database(path()).unwrap();
            insert(&database, 1);
            disk.trouble(Some(trouble));
            let transaction = begin_write(&database).unwrap();
            transaction.open_table(TABLE).unwrap().insert(2, 2).unwrap();
            assert!(transaction.commit().is_err(), "{trouble:?}");
            assert!(disk.write_file(Path::new("id"), b"1").is_err());
            disk.crash(1);
            drop(database);
            let database = disk.open_database(path()).unwrap();
            // A failed sync promises nothing: its writes may still be there.
            assert!([vec![1], vec![1, 2]].contains(&numbers(&database)), "{trouble:?}");
            insert(&database, 3);
        }
    }

    #[test]
    fn a_killed_disk_takes_nothing_more() {
        let disk = SimDisk::new();
        disk.write_file(Path::new("id"), b"1").unwrap();
        let database = disk.open_database(path()).unwrap();
        insert(&database, 1);
        assert!(matches!(disk.open_database(path()), Err(DatabaseError::DatabaseAlreadyOpen)));
        disk.kill("test");
        assert!(
            begin_write(&database).map_err(|_| ()).is_err() || {
                let transaction = database.begin_write().unwrap();
                transaction.open_table(TABLE).unwrap().insert(2, 2).unwrap();
                transaction.commit().is_err()
            }
        );
        assert!(disk.read_file(Path::new("id")).is_err());
        assert_eq!(disk.death().as_deref(), Some("test"));
        disk.crash(1);
        drop(database);
        assert_eq!(numbers(&disk.open_database(path()).unwrap()), [1]);
        assert_eq!(disk.read_file(Path::new("id")).unwrap().as_deref(), Some(&b"1"[..]));
    }
}
