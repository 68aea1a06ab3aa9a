//! What each domain gets of its server's CPUs: fair shares, by one scheduler for the whole server or by one for each CPU.

use super::Inner;
use xvm_model::{Domain, DomainState, Ratio};

impl Inner {
    /// What each vCPU of a server gets, and on which CPU: (domain's place among those that run, vCPU, CPU, share).
    fn shares(&self, server: &str) -> Vec<(&Domain, usize, usize, f64)> {
        let machine = self.machine(server);
        let runs = |(at, d): &&(String, Domain)| at == server && d.state == DomainState::Running;
        let mut wants: Vec<(&Domain, usize, f64)> = Vec::new();
        for (_, domain) in self.domains.values().filter(runs) {
            let demand = self.demands.get(&domain.name).map(Vec::as_slice).unwrap_or_default();
            wants.extend(demand.iter().enumerate().map(|(vcpu, want)| (domain, vcpu, want.clamp(0.0, 1.0))));
        }
        if !machine.mapped {
            let all: Vec<f64> = wants.iter().map(|w| w.2).collect();
            let got = fair(&all, machine.cpus as f64);
            return wants.into_iter().zip(got).map(|((d, v, _), share)| (d, v, 0, share)).collect();
        }
        // the greatest first, each to the CPU that has least to do
        wants.sort_by(|a, b| b.2.total_cmp(&a.2).then(a.0.name.cmp(&b.0.name)).then(a.1.cmp(&b.1)));
        let mut queues: Vec<Vec<(&Domain, usize, f64)>> = vec![Vec::new(); machine.cpus];
        for want in wants {
            let sum = |q: &Vec<(&Domain, usize, f64)>| q.iter().map(|w| w.2).sum::<f64>();
            let least = (0..queues.len()).min_by(|&a, &b| sum(&queues[a]).total_cmp(&sum(&queues[b])));
            queues[least.expect("a CPU")].push(want);
        }
        let mut all = Vec::new();
        for (cpu, queue) in queues.into_iter().enumerate() {
            let got = fair(&queue.iter().map(|w| w.2).collect::<Vec<_>>(), 1.0);
            all.extend(queue.into_iter().zip(got).map(|((d, v, _), share)| (d, v, cpu, share)));
        }
        all
    }

    /// The load of each CPU.
    pub(super) fn cpus(&self, server: &str) -> Vec<Ratio> {
        let machine = self.machine(server);
        let mut cpus = vec![0.0; machine.cpus];
        for (_, _, cpu, share) in self.shares(server) {
            if machine.mapped {
                cpus[cpu] += share;
            } else {
                cpus.iter_mut().for_each(|c| *c += share / machine.cpus as f64);
            }
        }
        cpus.into_iter().map(Ratio::new).collect()
    }

    /// Writes into a domain what it gets.
    pub(super) fn share(&self, server: &str, domain: &mut Domain) {
        let mapped = self.machine(server).mapped;
        for (_, vcpu, cpu, share) in self.shares(server).into_iter().filter(|s| s.0.name == domain.name) {
            if let Some(vcpu) = domain.vcpus.get_mut(vcpu) {
                (vcpu.load, vcpu.cpu) = (Ratio::new(share), mapped.then_some(cpu as u16));
            }
        }
        domain.load = Ratio::mean(domain.vcpus.iter().map(|v| v.load));
    }
}

/// Each gets what it wants up to an equal share of what is left.
fn fair(wants: &[f64], mut room: f64) -> Vec<f64> {
    let mut order: Vec<usize> = (0..wants.len()).collect();
    order.sort_by(|&a, &b| wants[a].total_cmp(&wants[b]));
    let mut got = vec![0.0; wants.len()];
    for (done, &i) in order.iter().enumerate() {
        got[i] = wants[i].min(room / (wants.len() - done) as f64);
        room -= got[i];
    }
    got
}
