//! A full disk while the head is cut and while blocks are merged: no half block is seen, what is taken is kept, and it goes
//! on when there is room.

use std::{path::Path, sync::Arc, time::Duration};

use chronolith_block::{Block, BlockCache, verify};
use chronolith_env::{Fs, Op};
use chronolith_model::{Sample, TenantId};
use chronolith_storage::StorageError;
use chronolith_testkit::fault_fs::{Fault, FaultFs};

use crate::{
    fixture::{Content, DIR, append},
    sim::{Sim, WINDOW, note, same, series, value},
};

/// Every block that has its name is whole.
#[track_caller]
fn no_half_block(fs: &FaultFs, what: &str) {
    let dir = Path::new(DIR).join("blocks/anonymous");
    let shared: Arc<dyn Fs> = Arc::new(fs.clone());
    for name in fs.list(&dir).unwrap_or_default().iter().filter(|name| name.ends_with(".block")) {
        let block = Block::open(&shared, &dir.join(name), &BlockCache::new(0)).expect("whole");
        let report = verify(&block, &|| false).expect("read");
        assert!(report.problems.is_empty(), "{what}: {name}: {:?}", report.problems);
    }
}

/// Sends one sample: it is acknowledged and in the model, or refused in a way that says "later"; whether it was.
fn send(sim: &Sim, model: &mut Content, unknown: &mut Content) -> bool {
    let now = [(0, sim.now()), (1, sim.now())];
    let given: Vec<_> =
        now.iter().map(|(id, t)| (series(*id), vec![Sample::new(*t, value(*id, *t))])).collect();
    match append(sim.db(), &TenantId::default(), &given) {
        Err(StorageError::Unavailable { .. }) => return false,
        Err(error) => panic!("not that it can be repeated: {error}"),
        Ok(appended) => {
            for _ in 0..100 {
                if appended.ticket.is_done() {
                    break;
                }
                sim.run(Duration::from_millis(5));
            }
            if appended.ticket.is_done() {
                match appended.ticket.wait() {
                    Ok(()) => {
                        note(model, &now);
                        return true;
                    }
                    Err(StorageError::Unavailable { .. }) => {}
                    Err(error) => panic!("not that it can be repeated: {error}"),
                }
            }
        }
    }
    note(unknown, &now);
    false
}

/// Everything acknowledged is seen, and nothing that was not sent.
#[track_caller]
fn check(sim: &Sim, model: &Content, unknown: &Content, what: &str) {
    let mut got = sim.content();
    for (labels, samples) in &mut got {
        let known = |t: &i64| model.get(labels).is_some_and(|samples| samples.contains_key(t));
        let sent = |t: &i64| unknown.get(labels).is_some_and(|samples| samples.contains_key(t));
        samples.retain(|t, _| known(t) || !sent(t));
    }
    same(&got, model, what);
    no_half_block(&sim.fs, what);
}

#[test]
fn a_full_disk_delays_a_cut() {
    let (mut failed, mut taken) = (0, 0);
    for room in [0, 100, 600, 1500, 2500, 4000, 8000, 16_000, 64_000] {
        let mut sim = Sim::new(21);
        let (mut model, mut unknown) = (Content::new(), Content::new());
        sim.scrape(&mut model, 12, (WINDOW + WINDOW / 2) / 60_000 - 11);
        assert_eq!(sim.db().stats().jobs.cuts, 0);
        sim.run(Duration::from_secs(120));
        assert!(send(&sim, &mut model, &mut unknown));
        // The cut is due with the next step.
        sim.fs.fill_after(room);
        for minute in 0..6 {
            sim.run(Duration::from_secs(60));
            taken += usize::from(send(&sim, &mut model, &mut unknown));
            check(&sim, &model, &unknown, &format!("{room} bytes, minute {minute}"));
        }
        let failures = sim.db().stats().jobs.cuts_failed;
        failed += usize::from(failures > 0);
        assert!(room > 100 || failures > 0, "{room}");
        sim.fs.heal();
        sim.run(Duration::from_secs(180));
        assert_eq!(sim.db().stats().jobs.cuts, 1, "{room}: {:?}", sim.db().stats().jobs);
        assert!(send(&sim, &mut model, &mut unknown), "there is room");
        check(&sim, &model, &unknown, &format!("{room} bytes, healed"));
        sim.restart();
        check(&sim, &model, &unknown, &format!("{room} bytes, restarted"));
        assert_eq!(sim.db().stats().blocks.quarantined, 0);
    }
    assert!(failed > 2 && taken > 5, "{failed} {taken}");
}

#[test]
fn a_full_disk_delays_a_merge() {
    let (mut failed, mut taken) = (0, 0);
    for room in [0, 100, 600, 1500, 2500, 4000, 8000, 16_000, 64_000] {
        let mut sim = Sim::new(22);
        sim.options.block_range_max = Duration::from_secs(1);
        sim.restart();
        let (mut model, mut unknown) = (Content::new(), Content::new());
        sim.scrape(&mut model, 5, 12 * 60);
        let blocks = sim.db().stats().blocks.blocks;
        assert!(blocks >= 4);
        sim.db().close().expect("closes");
        // Only now windows of 8 h are allowed.
        sim.options.block_range_max = Duration::from_secs(24 * 3600);
        // The planner is to think that there is room.
        sim.fs.heal();
        sim.restart_stepped();
        // It fills up while the merge is at work.
        sim.fs.fill_after(room);
        for minute in 0..4 {
            sim.run(Duration::from_secs(60));
            taken += usize::from(send(&sim, &mut model, &mut unknown));
            check(&sim, &model, &unknown, &format!("{room} bytes, minute {minute}"));
        }
        let merged = sim.db().stats().blocks.blocks < blocks;
        failed += usize::from(!merged);
        assert!(room > 600 || !merged, "{room}");
        sim.fs.heal();
        sim.run(Duration::from_secs(900));
        assert!(sim.db().stats().blocks.blocks < blocks, "{room}: {:?}", sim.db().stats().jobs);
        assert!(send(&sim, &mut model, &mut unknown), "there is room");
        check(&sim, &model, &unknown, &format!("{room} bytes, healed"));
        let names = sim.fs.list(&Path::new(DIR).join("blocks/anonymous")).expect("listed");
        assert!(names.iter().all(|name| !name.ends_with(".tmp")), "{names:?}");
        sim.restart();
        check(&sim, &model, &unknown, &format!("{room} bytes, restarted"));
        assert_eq!(sim.db().stats().blocks.quarantined, 0);
    }
    assert!(failed > 2 && taken > 5, "{failed} {taken}");
}

#[test]
fn a_disk_that_does_not_say_how_much_is_free_stays_full() {
    let mut sim = Sim::new(23);
    sim.db().close().expect("closes");
    sim.options.disk_reserve = 1 << 20;
    sim.restart_stepped();
    let mut model = Content::new();
    sim.scrape(&mut model, 3, 2);
    sim.fs.fill_after(100 << 10);
    sim.run(Duration::from_secs(10));
    assert!(sim.db().stats().jobs.disk_short);
    sim.fs.fail(Op::Stat, 1, 1_000_000, Fault::Io);
    sim.run(Duration::from_secs(60));
    assert!(sim.db().stats().jobs.disk_short, "nothing else is known");
    sim.fs.heal();
    sim.run(Duration::from_secs(10));
    assert!(!sim.db().stats().jobs.disk_short);
}
