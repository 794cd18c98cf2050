//! The faulty disk against a plain file: what a power cut leaves, and the effect of orders.

use redb::{ReadableDatabase, ReadableTable, TableDefinition};

use super::*;
use crate::host::Host;

const TABLE: TableDefinition<u64, &[u8]> = TableDefinition::new("rows");

fn scene() -> (tempfile::TempDir, Faults, Arc<dyn Disk>, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let faults = Faults { folder: folder.path().to_owned() };
    let disk = faults.disk(RealDisk { cache_bytes: 1 << 20 });
    let path = folder.path().join("data/test.redb");
    (folder, faults, disk, path)
}

fn insert(database: &Database, rows: std::ops::Range<u64>) -> bool {
    let Ok(transaction) = database.begin_write() else { return false };
    for row in rows {
        let value = vec![row as u8; 3_000];
        let Ok(mut table) = transaction.open_table(TABLE) else { return false };
        if table.insert(row, value.as_slice()).is_err() {
            return false;
        }
    }
    transaction.commit().is_ok()
}

fn rows(database: &Database) -> Vec<u64> {
    let table = database.begin_read().unwrap().open_table(TABLE).unwrap();
    table.iter().unwrap().map(|row| row.unwrap().0.value()).collect()
}

#[test]
fn what_is_in_the_file_is_what_a_power_cut_leaves() {
    for _ in 0..20 {
        let (folder, _, disk, path) = scene();
        let database = disk.open_database(&path).unwrap();
        for round in 0..5 {
            assert!(insert(&database, round * 10..round * 10 + 10));
            let open = database.begin_write().unwrap();
            for row in 1_000..1_200 {
                let value = [0; 3_000].as_slice();
                open.open_table(TABLE).unwrap().insert(row, value).unwrap();
            }
            let cut = folder.path().join("cut.redb");
            std::fs::copy(&path, &cut).unwrap();
            drop(open);
            let left = RealDisk { cache_bytes: 1 << 20 }.open_database(&cut).unwrap();
            assert_eq!(rows(&left), (0..round * 10 + 10).collect::<Vec<_>>());
            drop(left);
            std::fs::remove_file(cut).unwrap();
        }
    }
}

#[test]
fn what_was_not_synced_is_not_in_the_file() {
    let (_folder, faults, _, path) = scene();
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let held = Held::open(&path, faults).unwrap();
    held.set_len(100 * PAGE).unwrap();
    held.sync_data().unwrap();
    held.write(0, &[7; 100 * PAGE as usize]).unwrap();
    let there =
        |byte| std::fs::read(&path).unwrap().chunks(PAGE as usize).filter(|p| p[0] == byte).count();
    // Some pages went early; all of them would once in 16^100 times.
    assert!(there(7) < 100);
    held.sync_data().unwrap();
    assert_eq!(there(7), 100);
}

#[test]
fn reads_see_what_was_written_and_nothing_that_was_cut_off() {
    let (_folder, faults, _, path) = scene();
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let held = Held::open(&path, faults).unwrap();
    let mut model: Vec<u8> = Vec::new();
    for step in 0..5_000_u64 {
        let chance = rand::random::<u64>();
        match chance % 8 {
            0 => {
                let length = (chance >> 8) % (20 * PAGE);
                held.set_len(length).unwrap();
                model.resize(length as usize, 0);
            }
            1 => held.sync_data().unwrap(),
            _ if model.is_empty() => {}
            _ => {
                let at = (chance >> 8) as usize % model.len();
                let count = ((chance >> 40) as usize % 9_000).min(model.len() - at);
                held.write(at as u64, &vec![step as u8; count]).unwrap();
                model[at..at + count].fill(step as u8);
            }
        }
        let mut seen = vec![1; model.len()];
        held.read(0, &mut seen).unwrap();
        assert!(seen == model, "step {step}");
    }
    assert!(held.read(model.len() as u64, &mut [0]).is_err());
    held.sync_data().unwrap();
    assert!(std::fs::read(&path).unwrap() == model);
}

#[test]
fn disk_and_clock_obey() {
    let (folder, faults, disk, path) = scene();
    let order = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let database = disk.open_database(&path).unwrap();
    assert!(insert(&database, 0..1));
    order("disk", "lies");
    let lying = Held::open(&folder.path().join("lying"), faults.clone()).unwrap();
    lying.set_len(PAGE).unwrap();
    let lost = |_: &u32| {
        lying.write(0, &[1]).unwrap();
        lying.sync_data().unwrap();
        !lying.lock().pages.is_empty()
    };
    assert!((80..100).contains(&(0..100).filter(lost).count()));
    order("disk", "slow=1");
    assert!(insert(&database, 1..2));
    order("disk", "enospc");
    assert!(!insert(&database, 2..5_000));
    assert!(disk.write_file(&folder.path().join("small"), b"x").is_err());
    order("disk", "eio");
    assert!(!insert(&database, 2..3));
    assert!(disk.read_file(&folder.path().join("small")).is_err());
    let real = Host::real().clock;
    let wrong = faults.clock(real.clone());
    order("clock", "-600000\n");
    assert!(wrong.now().0 + 500_000 < real.now().0);
}
