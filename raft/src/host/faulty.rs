//! A disk and a clock that fail on demand, for tests of whole processes. Only with the feature `faults`, and only in
//! a process that has [`FOLDER`] in its environment.
//!
//! Unsynced writes of a database are held in memory, so killing the process acts like a power cut: they are lost. Now
//! and then a page goes to the file early, as an operating system would write it, and a sync writes its pages in no
//! particular order. So a cut leaves torn writes.
//!
//! The folder says what goes wrong: the file `disk` contains words (`eio`, `enospc`, `slow=MILLISECONDS`, `lies`), the file
//! `clock` contains numbers of milliseconds whose sum is the clock's error. The process creates a file `armed` to show that it
//! obeys.
//!
//! Invariant: synced data is in the file whole, unless the disk is set to lie: then only one sync in [`HONEST`] does anything.
//! No router can survive that, and it proves that the checks notice a lost sync. A failed sync loses its writes.
//!
//! Deliberately absent: file locks, and bit rot, which can be caused from outside while the process is down.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redb::{Database, DatabaseError, StorageBackend};

use super::{Clock, Disk, FileId, InPlace, RealDisk, Space};
use crate::ids::Stamp;

#[cfg(not(debug_assertions))]
const _: () = assert!(
    option_env!("VULPES_FAULTS_IN_RELEASE").is_some(),
    "the feature `faults` holds writes back; a release build with it must be asked for with VULPES_FAULTS_IN_RELEASE=1"
);

/// The environment variable that names the folder.
const FOLDER: &str = "VULPES_FAULTS";

/// Size in bytes of a page: the unit that is held, written and lost.
const PAGE: u64 = 4096;

/// One in this many pages goes to the file before it is synced.
const EARLY: u64 = 16;

/// One in this many syncs of a lying disk is real. Writes of the others stay in memory until then.
const HONEST: u64 = 16;

/// `EIO` and `ENOSPC`, as numbered by Linux.
const EIO: i32 = 5;
const ENOSPC: i32 = 28;

/// The faults of this process.
#[derive(Clone, Debug)]
pub(super) struct Faults {
    folder: PathBuf,
}

/// The contents of the file `disk`.
#[derive(Clone, Copy, Debug, Default)]
struct Orders {
    broken: bool,
    full: bool,
    lies: bool,
    slow: Duration,
}

impl Faults {
    /// The faults of this process, if any were requested. Confirms them to the requester.
    pub(super) fn from_environment() -> Option<Self> {
        let faults = Self { folder: std::env::var_os(FOLDER)?.into() };
        if let Err(error) = std::fs::write(faults.folder.join("armed"), b"") {
            eprintln!("vulpes: {FOLDER}={}: {error}", faults.folder.display());
        }
        Some(faults)
    }

    pub(super) fn disk(&self, real: RealDisk) -> Arc<dyn Disk> {
        Arc::new(FaultyDisk { real, faults: self.clone() })
    }

    pub(super) fn clock(&self, real: Arc<dyn Clock>) -> Arc<dyn Clock> {
        Arc::new(FaultyClock { real, faults: self.clone() })
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.join(name)).unwrap_or_default()
    }

    fn orders(&self) -> Orders {
        let mut orders = Orders::default();
        for word in self.read("disk").split_whitespace() {
            match word.split_once('=') {
                None if word == "eio" => orders.broken = true,
                None if word == "enospc" => orders.full = true,
                None if word == "lies" => orders.lies = true,
                Some(("slow", text)) => {
                    orders.slow = Duration::from_millis(text.parse().unwrap_or_default());
                }
                _ => {}
            }
        }
        orders
    }
}

struct FaultyClock {
    real: Arc<dyn Clock>,
    faults: Faults,
}

impl Clock for FaultyClock {
    fn now(&self) -> Stamp {
        let words = self.faults.read("clock");
        let wrong = words.split_whitespace().filter_map(|word| word.parse::<i64>().ok()).sum();
        Stamp(self.real.now().0.saturating_add_signed(wrong))
    }
}

struct FaultyDisk {
    real: RealDisk,
    faults: Faults,
}

impl Disk for FaultyDisk {
    fn open_database(&self, path: &Path) -> Result<Database, DatabaseError> {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(redb::StorageError::Io)?;
        }
        let backend = Held::open(path, self.faults.clone()).map_err(redb::StorageError::Io)?;
        Database::builder().set_cache_size(self.real.cache_bytes).create_with_backend(backend)
    }

    fn read_file(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        self.faults.orders().check(false)?;
        self.real.read_file(path)
    }

    fn write_file(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        self.faults.orders().check(true)?;
        self.real.write_file(path, content)
    }

    fn file_id(&self, path: &Path) -> io::Result<Option<FileId>> {
        self.real.file_id(path)
    }

    fn space(&self, directory: &Path) -> io::Result<Option<Space>> {
        self.real.space(directory)
    }

    fn open_in_place(&self, path: &Path) -> io::Result<Box<dyn InPlace>> {
        self.faults.orders().check(false)?;
        Ok(Box::new(FaultyInPlace {
            real: self.real.open_in_place(path)?,
            faults: self.faults.clone(),
        }))
    }
}

/// Writes go to the file early. A lying disk drops all of them: it must not be more reliable for small files than for large
/// ones.
struct FaultyInPlace {
    real: Box<dyn InPlace>,
    faults: Faults,
}

impl FaultyInPlace {
    fn unless_it_lies(
        &mut self,
        work: impl FnOnce(&mut dyn InPlace) -> io::Result<()>,
    ) -> io::Result<()> {
        let orders = self.faults.orders();
        orders.check(false)?;
        if orders.lies {
            return Ok(());
        }
        work(self.real.as_mut())
    }
}

impl InPlace for FaultyInPlace {
    fn write(&mut self, content: &[u8]) -> io::Result<()> {
        self.unless_it_lies(|real| real.write(content))
    }

    fn sync(&mut self) -> io::Result<()> {
        self.unless_it_lies(InPlace::sync)
    }
}

impl Orders {
    fn check(self, takes_room: bool) -> io::Result<()> {
        match self {
            Self { broken: true, .. } => Err(io::Error::from_raw_os_error(EIO)),
            Self { full: true, .. } if takes_room => Err(io::Error::from_raw_os_error(ENOSPC)),
            _ => Ok(()),
        }
    }
}

/// A database's file, with the writes that are not in it yet.
#[derive(Debug)]
struct Held {
    faults: Faults,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    file: File,
    orders: Orders,
    /// Valid bytes of the file; everything after them in it is stale, and reads as zero.
    solid: u64,
    /// The file's own length.
    physical: u64,
    /// The length as the database knows it.
    length: u64,
    pages: BTreeMap<u64, Vec<u8>>,
    chance: u64,
}

impl Held {
    fn open(path: &Path, faults: Faults) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).open(path)?;
        let length = file.metadata()?.len();
        let orders = faults.orders();
        let (pages, chance) = (BTreeMap::new(), rand::random());
        let state = State { file, orders, solid: length, physical: length, length, pages, chance };
        Ok(Self { faults, state: Mutex::new(state) })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// True once in `times` calls, at random.
    fn once_in(&mut self, times: u64) -> bool {
        // xorshift64; the seed is practically never zero, and if it is, nothing happens early.
        self.chance ^= self.chance << 13;
        self.chance ^= self.chance >> 7;
        self.chance ^= self.chance << 17;
        self.chance.is_multiple_of(times)
    }

    /// A page of the file.
    fn load(&self, page: u64) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; PAGE as usize];
        let start = page * PAGE;
        let there = self.solid.saturating_sub(start).min(PAGE) as usize;
        self.file.read_exact_at(&mut bytes[..there], start)?;
        Ok(bytes)
    }

    /// Writes a page into the file, as far as the file goes.
    fn store(&self, page: u64, bytes: &[u8]) -> io::Result<()> {
        let start = page * PAGE;
        let room = self.solid.saturating_sub(start).min(PAGE) as usize;
        self.file.write_all_at(&bytes[..room], start)
    }

    /// Extends the file to the length that the database knows, with zeros after the valid bytes.
    fn stretch(&mut self) -> io::Result<()> {
        if self.solid < self.physical {
            self.file.set_len(self.solid)?;
        }
        self.file.set_len(self.length)?;
        (self.solid, self.physical) = (self.length, self.length);
        Ok(())
    }
}

/// The part of a read or a write within one page: its range in the page, and in the buffer.
struct Piece {
    page: u64,
    inside: Range<usize>,
    outside: Range<usize>,
}

fn pieces(offset: u64, length: usize) -> impl Iterator<Item = Piece> {
    let end = offset + length as u64;
    (offset / PAGE..end.div_ceil(PAGE)).map(move |page| {
        let start = page * PAGE;
        let (from, to) = (offset.max(start), end.min(start + PAGE));
        Piece {
            page,
            inside: (from - start) as usize..(to - start) as usize,
            outside: (from - offset) as usize..(to - offset) as usize,
        }
    })
}

impl StorageBackend for Held {
    fn len(&self) -> io::Result<u64> {
        Ok(self.lock().length)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.lock();
        state.orders.check(false)?;
        let end = offset + out.len() as u64;
        if end > state.length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        for Piece { page, inside, outside } in pieces(offset, out.len()) {
            let at = offset + outside.start as u64;
            let target = &mut out[outside];
            match state.pages.get(&page) {
                Some(bytes) => target.copy_from_slice(&bytes[inside]),
                None => {
                    let there = (state.solid.saturating_sub(at) as usize).min(target.len());
                    state.file.read_exact_at(&mut target[..there], at)?;
                    target[there..].fill(0);
                }
            }
        }
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut state = self.lock();
        state.orders = self.faults.orders();
        let grows = length > state.length;
        state.orders.check(grows)?;
        state.length = length;
        if !grows {
            state.solid = state.solid.min(length);
            state.pages.split_off(&length.div_ceil(PAGE));
            let (page, rest) = (length / PAGE, (length % PAGE) as usize);
            if let Some(bytes) = state.pages.get_mut(&page) {
                bytes[rest..].fill(0);
            }
        }
        if state.once_in(2) {
            state.stretch()?;
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let orders = self.faults.orders();
        // Like a slow disk, this blocks the commit thread, which has nothing else to do, but no readers.
        std::thread::sleep(orders.slow);
        let mut state = self.lock();
        state.orders = orders;
        if state.orders.lies && !state.once_in(HONEST) {
            return Ok(());
        }
        let pages = std::mem::take(&mut state.pages);
        state.orders.check(false)?;
        state.stretch()?;
        // In two passes, odd pages first or even ones: a cut in between leaves half of any neighbouring pages.
        let first = u64::from(state.once_in(2));
        for turn in [first, 1 - first] {
            for (page, bytes) in pages.iter().filter(|(page, _)| **page % 2 == turn) {
                state.store(*page, bytes)?;
            }
        }
        state.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.lock();
        if state.pages.is_empty() {
            state.orders = self.faults.orders();
        }
        state.orders.check(false)?;
        let end = offset + data.len() as u64;
        if end > state.length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        for Piece { page, inside, outside } in pieces(offset, data.len()) {
            let mut bytes = match state.pages.remove(&page) {
                Some(bytes) => bytes,
                None => state.load(page)?,
            };
            bytes[inside].copy_from_slice(&data[outside]);
            if state.once_in(EARLY) {
                state.store(page, &bytes)?;
            }
            state.pages.insert(page, bytes);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
