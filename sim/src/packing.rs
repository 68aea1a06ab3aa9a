//! What free repacking would reach: at every sample all domains are placed anew, the greatest first, each on the server that has
//! the most room left and is not crowded. Nothing can do that, for it would move hundreds of domains at once for nothing; it shows how
//! much of the lost time is bad placement and how much is too little CPU.

use crate::{Loads, Setup};

/// CPU hours that are lost even so.
pub fn lost(loads: &Loads, setup: &Setup) -> f64 {
    let servers = setup.servers(loads);
    let crowd = setup.crowd(loads, servers);
    let mut missing = 0.0;
    let mut order: Vec<usize> = (0..loads.domains.len()).collect();
    for t in 0..loads.samples() {
        order.sort_by(|&a, &b| loads.domains[b][t].total_cmp(&loads.domains[a][t]).then(a.cmp(&b)));
        let mut room = vec![(setup.cpus, 0u64); servers];
        for &d in &order {
            let best =
                (0..servers).filter(|&s| room[s].1 < crowd).max_by(|&a, &b| room[a].0.total_cmp(&room[b].0));
            if let Some(s) = best {
                room[s].0 -= loads.domains[d][t];
                room[s].1 += 1;
            }
        }
        missing += room.iter().map(|r| (-r.0).max(0.0)).sum::<f64>();
    }
    missing * setup.unit_s / 3600.0
}
