//! A file's owner and format.

use std::time::Duration;

use super::*;
use crate::host::sim::{self, SimConfig, SimDisk};
use crate::ids::{DiskId, NodeId};

fn identity() -> Identity {
    Identity { cluster: "test".into(), node: NodeId(1), disk: DiskId(1) }
}

fn host(disk: &SimDisk) -> Host {
    sim::host(SimConfig { seed: 1, clock_ahead: 0, commit: Duration::ZERO }, disk)
}

fn open_as(disk: &SimDisk, own: &Identity) -> Result<(), OpenError> {
    checked(&host(disk), Path::new("data"), &Path::new("data").join(FILE), own).map(drop)
}

/// A file of node 1 with this change.
fn changed(change: impl FnOnce(&mut redb::Table<'_, &str, &[u8]>)) -> SimDisk {
    let disk = SimDisk::new();
    open_as(&disk, &identity()).unwrap();
    let database = host(&disk).disk.open_database(&Path::new("data").join(FILE)).unwrap();
    let transaction = begin_write(&database).unwrap();
    change(&mut transaction.open_table(META).unwrap());
    transaction.commit().unwrap();
    drop(database);
    disk
}

#[test]
fn another_nodes_file_is_refused() {
    let disk = changed(|_| {});
    open_as(&disk, &identity()).unwrap();
    let strangers = [
        Identity { node: NodeId(2), ..identity() },
        Identity { disk: DiskId(7), ..identity() },
        Identity { cluster: "other".into(), ..identity() },
    ];
    for stranger in strangers {
        let error = open_as(&disk, &stranger).unwrap_err();
        assert!(matches!(error, OpenError::Foreign { .. }), "{error}");
        assert!(error.to_string().contains("its own data directory"), "{error}");
    }
}

#[test]
fn another_format_is_refused() {
    let of_format = |format: u32| {
        let disk = changed(|meta| {
            meta.insert(META_FORMAT, format.to_le_bytes().as_slice()).unwrap();
        });
        open_as(&disk, &identity()).unwrap_err()
    };
    let error = of_format(LOG_FORMAT + 1);
    let newer = LOG_FORMAT + 1;
    assert!(matches!(error, OpenError::Newer { found, .. } if found == newer), "{error}");
    let error = of_format(OLDEST_LOG_FORMAT - 1);
    assert!(matches!(error, OpenError::Older { .. }), "{error}");
    let said = format!("log format {}, this release has {LOG_FORMAT}", OLDEST_LOG_FORMAT - 1);
    assert!(error.to_string().contains(&said), "{error}");
    for key in [META_FORMAT, META_IDENTITY] {
        let disk = changed(|meta| drop(meta.remove(key).unwrap()));
        let error = open_as(&disk, &identity()).unwrap_err();
        assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
    }
}

/// The release that wrote the file can't read what this release adds to it.
#[test]
fn an_older_format_that_is_read_as_before_is_opened_and_raised() {
    for format in OLDEST_LOG_FORMAT..=LOG_FORMAT {
        let disk = changed(|meta| {
            meta.insert(META_FORMAT, format.to_le_bytes().as_slice()).unwrap();
        });
        let stranger = Identity { node: NodeId(2), ..identity() };
        assert!(matches!(open_as(&disk, &stranger), Err(OpenError::Foreign { .. })));
        assert_eq!(format_of(&disk), format, "a stranger changes nothing");
        open_as(&disk, &identity()).unwrap();
        assert_eq!(format_of(&disk), LOG_FORMAT);
        open_as(&disk, &identity()).unwrap();
    }
}

fn format_of(disk: &SimDisk) -> u32 {
    let database = host(disk).disk.open_database(&Path::new("data").join(FILE)).unwrap();
    let (format, _) = read_meta(&database).unwrap();
    u32::from_le_bytes(format.unwrap().try_into().unwrap())
}

/// Otherwise such a node would start with an empty file under its old number, and vote.
#[test]
fn a_data_directory_with_the_files_of_an_older_format_is_refused() {
    for name in OLDER {
        let disk = SimDisk::new();
        host(&disk).disk.write_file(&Path::new("data").join(name), &[0; 16]).unwrap();
        let error = open_as(&disk, &identity()).unwrap_err();
        assert!(matches!(error, OpenError::Older { .. }), "{error}");
        assert!(error.to_string().contains("with fresh data directories"), "{error}");
    }
}
