//! A damaged mark of the last cut.

use std::path::Path;

use chronolith_env::Fs;
use chronolith_model::{Matcher, TenantId, TimeRange};
use chronolith_storage::{Admin, Queryable};

use crate::{
    fixture::{Content, DIR, compiled, count},
    sim::{Sim, WINDOW, same},
};

fn warnings(sim: &Sim) -> Vec<String> {
    sim.db().querier(&TenantId::default(), TimeRange::ALL).expect("ready").warnings()
}

#[test]
fn nothing_is_lost_and_deletions_that_may_be_undone_are_told() {
    let mark = Path::new(DIR).join("cut");
    for case in 0..4 {
        let mut sim = Sim::new(case);
        let mut model = Content::new();
        sim.scrape(&mut model, 6, (WINDOW + WINDOW / 2) / 60_000 + 5);
        assert!(sim.db().stats().jobs.cuts > 0);
        // Something of the head.
        let range = TimeRange::new(sim.now() - 5 * 60_000, sim.now());
        let set = compiled(&[Matcher::equal("id", "1")]);
        sim.db().delete_series(&TenantId::default(), &[set], range).expect("deleted");
        assert!(count(&sim.content()) < count(&model));
        sim.db().close().expect("closes");
        let whole = sim.fs.read(&mark).expect("there");
        let bytes = match case {
            0 => [&whole[..20], &[whole[20] ^ 8], &whole[21..]].concat(),
            1 => whole[..whole.len() - 3].to_vec(),
            2 => Vec::new(),
            _ => b"something else".to_vec(),
        };
        sim.fs.put(&mark, bytes.clone());
        let report = sim.restart_stepped();
        assert!(report.mark_damaged, "{case}");
        assert_eq!(sim.fs.read(&Path::new(DIR).join("cut.damaged")), Some(bytes), "{case}: it is kept");
        let told = warnings(&sim);
        assert!(told.len() == 1 && told[0].contains("deleted samples may be back"), "{case}: {told:?}");
        same(&sim.content(), &model, "nothing is lost, and nothing is there twice");
        // The next cut writes another mark.
        sim.scrape(&mut model, 6, 2 * WINDOW / 60_000);
        same(&sim.content(), &model, "behind further cuts");
        assert_eq!(warnings(&sim), [""; 0], "{case}");
        let report = sim.restart();
        assert!(!report.mark_damaged && sim.fs.exists(&mark).expect("looked"), "{case}");
        same(&sim.content(), &model, "after another start");
    }
}
