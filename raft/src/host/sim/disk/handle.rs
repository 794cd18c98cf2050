//! Open files of a simulated disk: databases, and small files that are overwritten in place.
//!
//! Invariant: a handle from before a crash or a kill only fails.
//!
//! Deliberately absent: what a crash leaves, and what rots.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::MutexGuard;

use redb::StorageBackend;

use super::{write, Change, DiskTrouble, Image, SimDisk, Small, State};
use crate::host::InPlace;

/// `EIO` and `ENOSPC`, as numbered by Linux.
const EIO: i32 = 5;
const ENOSPC: i32 = 28;

/// One opening of a file.
#[derive(Debug)]
pub(super) struct Handle {
    disk: SimDisk,
    path: PathBuf,
    life: u64,
}

impl Handle {
    pub(super) fn new(disk: &SimDisk, path: &Path, life: u64) -> Self {
        Self { disk: disk.clone(), path: path.to_owned(), life }
    }

    fn with<T>(&self, work: impl FnOnce(&mut Image) -> io::Result<T>) -> io::Result<T> {
        self.unless(|_| Ok(()), work)
    }

    /// Works on the file, unless the disk's trouble prevents it.
    fn unless<T>(
        &self,
        check: impl FnOnce(Option<DiskTrouble>) -> io::Result<()>,
        work: impl FnOnce(&mut Image) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut state = self.now()?;
        check(state.trouble)?;
        match state.databases.get_mut(&self.path) {
            Some(image) => work(image),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn with_small(
        &self,
        check: impl FnOnce(Option<DiskTrouble>) -> io::Result<()>,
        work: impl FnOnce(&mut Small),
    ) -> io::Result<()> {
        let mut state = self.now()?;
        check(state.trouble)?;
        let file = state.files.get_mut(&self.path).ok_or(io::ErrorKind::NotFound)?;
        work(file);
        Ok(())
    }

    /// The disk, in the life that this handle was opened in.
    fn now(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.disk.lock();
        if state.life != self.life {
            return Err(io::Error::other("the power was cut"));
        }
        Ok(state)
    }
}

pub(super) fn check_room(trouble: Option<DiskTrouble>) -> io::Result<()> {
    match trouble {
        Some(DiskTrouble::Full) => Err(io::Error::from_raw_os_error(ENOSPC)),
        Some(DiskTrouble::Broken) | None => Ok(()),
    }
}

pub(super) fn check_sync(trouble: Option<DiskTrouble>) -> io::Result<()> {
    match trouble {
        Some(DiskTrouble::Broken) => Err(io::Error::from_raw_os_error(EIO)),
        Some(DiskTrouble::Full) | None => Ok(()),
    }
}

fn index(offset: u64) -> usize {
    usize::try_from(offset).expect("simulated files are small")
}

impl StorageBackend for Handle {
    fn len(&self) -> io::Result<u64> {
        self.with(|image| Ok(image.current.len() as u64))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.with(|image| {
            let offset = index(offset);
            let bytes = image.current.get(offset..offset + out.len());
            out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        })
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.unless(check_room, |image| {
            image.current.resize(index(length), 0);
            image.unsynced.push(Change::Length(index(length)));
            Ok(())
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.unless(check_sync, |image| {
            image.used.syncs += 1;
            for change in image.unsynced.drain(..) {
                match change {
                    Change::Write { offset, data } => write(&mut image.durable, offset, &data),
                    Change::Length(length) => image.durable.resize(length, 0),
                }
            }
            Ok(())
        })
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.unless(check_room, |image| {
            let (offset, data) = (index(offset), data.to_vec());
            image.used.written += data.len() as u64;
            write(&mut image.current, offset, &data);
            image.unsynced.push(Change::Write { offset, data });
            Ok(())
        })
    }

    fn close(&self) -> io::Result<()> {
        self.with(|image| {
            image.open = false;
            Ok(())
        })
    }
}

impl InPlace for Handle {
    fn write(&mut self, content: &[u8]) -> io::Result<()> {
        self.with_small(check_room, |file| file.current = content.to_vec())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.with_small(check_sync, |file| file.durable.clone_from(&file.current))
    }
}
