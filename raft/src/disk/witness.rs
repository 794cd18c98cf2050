//! Detects a database that has gone back in time.
//!
//! Each commit of a database syncs once. So redb can't distinguish a last commit that has rotted from one that was torn and
//! never acknowledged: in both cases it opens the commit before, which is whole. A restored backup and stale pages have the
//! same effect. The node would silently forget everything it promised since then: votes, and the end of its log.
//!
//! So commits have numbers, and a small file beside the database has the number of the last durable one. It is written after
//! each commit and synced now and then; between syncs the operating system writes it back. In the database the number is in a
//! table that nearly all commits change anyway, because each further table costs a commit pages.
//!
//! Invariant: the file never has a number whose commit was not durable. A database that is behind it is damaged.
//!
//! Deliberately absent: certainty about the last [`SYNC_EVERY`] commits before a power loss, if the disk rots at the
//! same time: without a second sync per commit, nothing on a disk tells such a commit from a torn one. And a backup
//! of all files of a node: only other nodes can tell.

use std::io;
use std::path::{Path, PathBuf};

use redb::{Database, ReadableDatabase, TableDefinition, TableError, WriteTransaction};

use crate::disk::failure::CommitError;
use crate::host::{Host, InPlace};
use crate::mutant::{planted, Mutant};

/// The row of a database that contains the number of its last commit: eight bytes, little-endian.
#[derive(Clone, Copy)]
pub struct NumberRow {
    /// A table that commits change anyway.
    pub table: TableDefinition<'static, u64, &'static [u8]>,
    /// A key that nothing else in it uses.
    pub key: u64,
}

/// Commits after which the file is synced.
const SYNC_EVERY: u64 = 256;

/// Why a database can't be trusted, or can't be checked.
#[derive(Debug, thiserror::Error)]
pub enum WitnessError {
    #[error("it is at commit {found} and has been at commit {seen}, as {} shows (is it a backup?)", file.display())]
    WentBack { file: PathBuf, found: u64, seen: u64 },
    #[error("it has commits, but {}, which counts them, is gone", file.display())]
    Gone { file: PathBuf },
    #[error("the number of its last commit can't be understood")]
    NoNumber,
    #[error("{}, which counts its commits, can't be understood", file.display())]
    Unreadable { file: PathBuf },
    #[error("{}, which counts its commits: {error}", file.display())]
    Disk { file: PathBuf, error: io::Error },
    #[error(transparent)]
    Database(#[from] CommitError),
}

impl WitnessError {
    /// Whether the data on the disk is wrong; otherwise it could not be read.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        !matches!(self, Self::Disk { .. } | Self::Database(CommitError::Failed(_)))
    }
}

/// Numbers the commits of one database. Each database has one, and all commits with waiting callers go through it.
pub struct Witness {
    number: u64,
    row: NumberRow,
    file: Box<dyn InPlace>,
}

impl Witness {
    /// Checks a database that was opened from `path`, or starts counting the commits of a new one.
    ///
    /// # Errors
    /// [`WitnessError`]: the database has gone back, or the disk fails.
    pub fn open(
        host: &Host,
        path: &Path,
        database: &Database,
        row: NumberRow,
    ) -> Result<Self, WitnessError> {
        let number = row.read(database)?;
        let file = path.with_extension("witness");
        let disk = |error| WitnessError::Disk { file: file.clone(), error };
        match host.disk.read_file(&file).map_err(disk)? {
            None if number > 0 => return Err(WitnessError::Gone { file }),
            None => host.disk.write_file(&file, &encode(0)).map_err(disk)?,
            Some(content) => match decode(&content) {
                None => return Err(WitnessError::Unreadable { file }),
                Some(seen) if number < seen && !planted(Mutant::OverlookWitness) => {
                    return Err(WitnessError::WentBack { file, found: number, seen });
                }
                Some(_) => {}
            },
        }
        let file = host.disk.open_in_place(&file).map_err(disk)?;
        Ok(Self { number, row, file })
    }

    /// Commits a transaction, then records its number.
    ///
    /// # Errors
    /// Any error means that the outcome is unknown and the disk can't be trusted any more.
    pub fn commit(&mut self, transaction: WriteTransaction) -> Result<(), CommitError> {
        self.number += 1;
        let number = self.number.to_le_bytes();
        transaction.open_table(self.row.table)?.insert(self.row.key, number.as_slice())?;
        transaction.commit()?;
        if planted(Mutant::SkipFsync) {
            return Ok(());
        }
        self.file.write(&encode(self.number)).map_err(redb::StorageError::Io)?;
        if self.number.is_multiple_of(SYNC_EVERY) {
            self.file.sync().map_err(redb::StorageError::Io)?;
        }
        Ok(())
    }
}

impl NumberRow {
    fn read(self, database: &Database) -> Result<u64, WitnessError> {
        let row = || -> Result<Option<Vec<u8>>, CommitError> {
            match database.begin_read()?.open_table(self.table) {
                Ok(table) => Ok(table.get(self.key)?.map(|number| number.value().to_vec())),
                Err(TableError::TableDoesNotExist(_)) => Ok(None),
                Err(error) => Err(error.into()),
            }
        };
        let Some(row) = row()? else { return Ok(0) };
        let number = row.try_into().map_err(|_| WitnessError::NoNumber)?;
        Ok(u64::from_le_bytes(number))
    }
}

/// The number and its complement.
fn encode(number: u64) -> [u8; 16] {
    (u128::from(number) | u128::from(!number) << 64).to_le_bytes()
}

fn decode(content: &[u8]) -> Option<u64> {
    let both = u128::from_le_bytes(content.try_into().ok()?);
    let (number, complement) = (both as u64, (both >> 64) as u64);
    (number == !complement).then_some(number)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::disk::commit::begin_write;
    use crate::host::sim::{self, Rot, SimConfig, SimDisk};
    use crate::host::Disk;

    const TABLE: TableDefinition<u64, &[u8]> = TableDefinition::new("numbers");
    const ROW: NumberRow = NumberRow { table: TABLE, key: 0 };

    fn path() -> &'static Path {
        Path::new("data/test.redb")
    }

    fn open(disk: &SimDisk) -> Result<(Database, Witness), WitnessError> {
        let config = SimConfig { seed: 1, clock_ahead: 0, commit: Duration::ZERO };
        let host = sim::host(config, disk);
        // redb's own message is not tested.
        let database = host
            .disk
            .open_database(path())
            .map_err(|error| WitnessError::Database(CommitError::Failed(error.to_string())))?;
        let witness = Witness::open(&host, path(), &database, ROW)?;
        Ok((database, witness))
    }

    fn insert(database: &Database, witness: &mut Witness, number: u64) {
        let transaction = begin_write(database).unwrap();
        transaction.open_table(TABLE).unwrap().insert(number, [].as_slice()).unwrap();
        witness.commit(transaction).unwrap();
    }

    /// The last number in the database.
    fn last(database: &Database) -> u64 {
        use redb::ReadableTable;
        let table = database.begin_read().unwrap().open_table(TABLE).unwrap();
        let last = table.last().unwrap().unwrap().0.value();
        last
    }

    #[test]
    fn no_crash_puts_a_database_behind_its_witness() {
        for seed in 0..100 {
            let disk = SimDisk::new();
            let mut all = 0;
            for life in 0..4 {
                let (database, mut witness) = open(&disk).unwrap();
                if life > 0 {
                    assert_eq!(last(&database), all, "{seed}");
                }
                for _ in 0..5 {
                    all += 1;
                    insert(&database, &mut witness, all);
                }
                disk.crash(seed * 10 + life);
            }
        }
    }

    /// Without it, some of these go unnoticed: `a_last_commit_that_rots_is_lost_or_told_and_nothing_else_is`.
    #[test]
    fn a_database_that_rots_is_whole_or_says_so() {
        for (base, rot) in [(0, Rot::Bits), (1_000, Rot::Stale), (2_000, Rot::Older)] {
            let (mut whole, mut went_back) = (0, 0);
            for seed in base..base + 200 {
                let disk = SimDisk::new();
                disk.write_through();
                let (database, mut witness) = open(&disk).unwrap();
                insert(&database, &mut witness, 1);
                disk.remember();
                insert(&database, &mut witness, 2);
                disk.crash(seed);
                drop(database);
                disk.rot(rot, seed).unwrap();
                match open(&disk) {
                    Ok((database, _)) => {
                        assert_eq!(last(&database), 2, "{rot:?}, seed {seed}");
                        whole += 1;
                    }
                    Err(error) => went_back += u64::from(error.is_damage()),
                }
            }
            assert!(went_back > 0, "{rot:?}: {whole} whole");
        }
    }

    #[test]
    fn a_witness_that_is_gone_or_wrong_is_told() {
        let disk = SimDisk::new();
        let file = path().with_extension("witness");
        drop(open(&disk).unwrap());
        disk.write_file(&file, b"not a number").unwrap();
        assert!(matches!(open(&disk), Err(WitnessError::Unreadable { .. })));
        disk.write_file(&file, &encode(1)).unwrap();
        let error = open(&disk).err().unwrap();
        assert!(error.is_damage());
        assert!(error.to_string().contains("is at commit 0 and has been at commit 1"), "{error}");
        disk.write_file(&file, &encode(0)).unwrap();
        let (database, mut witness) = open(&disk).unwrap();
        insert(&database, &mut witness, 1);
        drop(database);
        disk.remove_file(&file);
        assert!(matches!(open(&disk), Err(WitnessError::Gone { .. })));
    }

    #[test]
    fn numbers_are_read_as_they_were_written() {
        for number in [0, 1, 255, 1 << 40, u64::MAX] {
            let mut content = encode(number);
            assert_eq!(decode(&content), Some(number));
            content[3] ^= 4;
            assert_eq!(decode(&content), None);
            assert_eq!(decode(&content[1..]), None);
        }
    }
}
