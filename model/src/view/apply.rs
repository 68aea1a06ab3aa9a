//! How messages and the passing of time change a view, and what it then tells (see `tell`).

use super::tell::{differing, domain_event, reach_event};
use super::{Claims, LinkState, Reach, Server, Shown, Thing, View};
use crate::event::{About, Event};
use crate::{
    Body, Departed, Domain, DomainChange, DomainName, Envelope, Heartbeat, Mono, News, Now, Outcome, Sender,
    ServerName, Stamp, Wall,
};
use std::collections::BTreeSet;
use std::sync::Arc;

impl View {
    /// Applies what was heard. Messages that are older than what is known change nothing.
    pub fn apply(&mut self, envelope: Envelope, now: Now) -> Vec<Event> {
        let (stamp, at) = (envelope.stamp(), envelope.at);
        let server = match envelope.from {
            Sender::Agent(server) => server,
            Sender::Images(name) => return self.apply_images(name, stamp, at, envelope.body, now),
            Sender::Guest(name) => return self.apply_guest(name, stamp, at, envelope.body, now),
            Sender::Client(_) | Sender::Forwarder(_) => return Vec::new(),
        };
        match envelope.body {
            Body::Heartbeat(beat) => self.heartbeat(server, stamp, at, *beat, now),
            Body::Domain(change) => self.change(&server, stamp, at, *change, now),
            Body::Reply(reply) => match reply.news {
                Some(News::Domain { change }) => self.change(&server, stamp, at, *change, now),
                Some(News::Server { heartbeat }) => self.heartbeat(server, stamp, at, *heartbeat, now),
                Some(News::Config { .. } | News::Guest { .. }) | None => Vec::new(),
            },
            Body::Guest(_) | Body::GuestRuns(_) | Body::GuestTop(_) => Vec::new(),
            Body::Rounds(said) => self.hear_rounds(server, stamp, at, said.rounds, now),
            Body::Configs(_) | Body::Config(_) => Vec::new(),
            Body::Command(_) | Body::Watchdog(_) | Body::RollCall | Body::Forwarder(_) => Vec::new(),
        }
    }

    /// What imaged says.
    fn apply_images(&mut self, name: ServerName, stamp: Stamp, at: Wall, body: Body, now: Now) -> Vec<Event> {
        let events = match body {
            Body::Configs(all) => self.hear_configs(name, stamp, at, *all, now),
            Body::Config(change) => self.hear_config(&name, stamp, at, *change, now),
            Body::Reply(reply) => match reply.news {
                Some(News::Config { change }) => self.hear_config(&name, stamp, at, *change, now),
                _ => Vec::new(),
            },
            _ => Vec::new(),
        };
        self.doubt_guests();
        events
    }

    /// The forwarder came or went.
    pub fn link(&mut self, up: bool, why: &str, now: Now) -> Vec<Event> {
        if self.link.up == up {
            return Vec::new();
        }
        self.link = LinkState { up, since: now.mono };
        if up {
            self.joined.get_or_insert(now.mono);
        }
        let text = if up { "forwarder up".to_owned() } else { format!("forwarder down: {why}") };
        vec![Event { at: now.wall, about: About::Cluster, server: None, text }]
    }

    /// Lets time pass: tells which servers are not heard any more, and ends what only bridged a gap.
    pub fn tick(&mut self, now: Now) -> Vec<Event> {
        let mut events = Vec::new();
        let changed: Vec<(ServerName, Reach)> = self
            .servers
            .values()
            .map(|s| (s.name.clone(), self.reach(s, now.mono), s.told))
            .filter(|(_, reach, told)| reach != told)
            .map(|(name, reach, _)| (name, reach))
            .collect();
        for (name, reach) in changed {
            let touched: Vec<DomainName> = match self.servers.get(&name) {
                Some(s) => s.domains.iter().map(|d| d.name.clone()).collect(),
                None => Vec::new(),
            };
            // what was told of the domains was told of the reach before; going down makes each of them `unknown`
            if let Some(server) = self.servers.get_mut(&name) {
                Arc::make_mut(server).told = reach;
                events.push(reach_event(server, reach, now));
            }
            if reach == Reach::Down {
                for domain in touched {
                    self.end_job_of_the_dead(&name, &domain, now);
                    if let Some(view) =
                        self.domain(domain.as_str(), now.mono).filter(|v| v.shown == Shown::Unknown)
                    {
                        events.push(domain_event(&domain, &view.server, now, "state unknown".into()));
                    }
                }
            }
        }
        events.extend(self.images_reach_event(now));
        events.extend(self.guests_tick(now));
        self.end_bridges(now);
        events
    }

    fn heartbeat(
        &mut self,
        name: ServerName,
        stamp: Stamp,
        at: Wall,
        mut beat: Heartbeat,
        now: Now,
    ) -> Vec<Event> {
        let old = self.servers.get(&name).cloned();
        if old.as_ref().is_some_and(|s| !self.newer(s, stamp, now)) {
            return Vec::new();
        }
        let records = std::mem::take(&mut beat.domains);
        let mut domains: Vec<Arc<Domain>> = records.iter().map(|d| self.compact(d)).collect();
        domains.sort_by(|a, b| a.name.cmp(&b.name));
        domains.dedup_by(|a, b| a.name == b.name);
        let departed = std::mem::take(&mut beat.departed);

        let old_domains: &[Arc<Domain>] = old.as_ref().map_or(&[], |s| &s.domains);
        let mut touched = differing(old_domains, &domains);
        touched.extend(departed.iter().map(|d| d.domain.name.clone()));
        let before = self.telling(&touched, now);

        let fresh_boot = old.as_ref().is_some_and(|s| s.stamp.boot != stamp.boot);
        let told = old.as_ref().map(|s| s.told);
        let lost = old.as_ref().and_then(|s| s.lost_job(&beat));
        self.servers.insert(
            name.clone(),
            Arc::new(Server {
                name: name.clone(),
                stamp,
                heard: now,
                at,
                beat: Arc::new(beat),
                domains,
                lost,
                told: told.unwrap_or(Reach::Down),
            }),
        );
        if old.is_none() {
            self.remember(Thing::Server(name.clone()));
        }
        for domain in &touched {
            let record = old.as_ref().and_then(|s| s.domain(domain));
            let stays = self.servers.get(&name).is_some_and(|s| s.domain(domain).is_some());
            if let Some(record) = record.filter(|_| !stays) {
                self.keep_end(record);
            }
            self.claim_or_release(&name, domain, now);
        }
        for d in departed {
            self.departed(d, now);
        }

        let mut events = Vec::new();
        if fresh_boot {
            events.push(Event {
                at: now.wall,
                about: About::Server(name.clone()),
                server: None,
                text: "agent started anew".into(),
            });
        }
        let reach = self.servers.get(&name).map(|s| self.reach(s, now.mono));
        if let (Some(reach), Some(server)) = (reach.filter(|r| told != Some(*r)), self.servers.get_mut(&name))
        {
            Arc::make_mut(server).told = reach;
            events.push(reach_event(server, reach, now));
        }
        events.extend(self.server_events(&name, old.as_deref(), now));
        self.end_lost_jobs(&before, now);
        events.extend(self.events_since(before, now));
        events
    }

    fn change(
        &mut self,
        name: &ServerName,
        stamp: Stamp,
        at: Wall,
        change: DomainChange,
        now: Now,
    ) -> Vec<Event> {
        // a server is known from its first heartbeat on
        let Some(server) = self.servers.get(name).filter(|s| self.newer(s, stamp, now)) else {
            return Vec::new();
        };
        if server.stamp.boot != stamp.boot {
            return Vec::new(); // another life: its first heartbeat tells all
        }
        let domain = change.name().clone();
        let before = self.telling(&BTreeSet::from([domain.clone()]), now);
        let record = match &change {
            DomainChange::Is { domain } => Some(self.compact(domain)),
            DomainChange::Gone { .. } | DomainChange::Departed { .. } => None,
        };
        let mut removed = None;
        if let Some(server) = self.servers.get_mut(name) {
            let server = Arc::make_mut(server);
            server.stamp = stamp;
            server.at = at;
            server.heard = now;
            let place = server.domains.binary_search_by(|d| d.name.cmp(&domain));
            match (record, place) {
                (Some(record), Ok(i)) => server.domains[i] = record,
                (Some(record), Err(i)) => server.domains.insert(i, record),
                (None, Ok(i)) => removed = Some(server.domains.remove(i)),
                (None, Err(_)) => {}
            }
        }
        if let DomainChange::Departed { departed } = change {
            self.departed(departed, now);
        } else if let Some(record) = removed {
            self.keep_end(&record);
        }
        self.claim_or_release(name, &domain, now);
        self.end_lost_jobs(&before, now);
        self.events_since(before, now)
    }

    /// How the last job of a domain ended is known longer than its record.
    fn keep_end(&mut self, record: &Domain) {
        let Some(last) = &record.last else { return };
        if self.outcomes.get(&record.name).is_none_or(|kept| last.at >= kept.at) {
            self.outcomes.insert(record.name.clone(), Arc::new((**last).clone()));
        }
    }

    /// A record as it is kept, a hundred thousand times: with the name that the view has already, and copied, since copies have no room
    /// to spare. (Shrinking in place is worse: what is cut off are holes that fit nothing.)
    fn compact(&self, domain: &Domain) -> Arc<Domain> {
        let mut copy = domain.clone();
        if let Some((name, _)) = self.domains.get_key_value(&domain.name) {
            copy.name = name.clone();
        }
        Arc::new(copy)
    }

    fn newer(&self, server: &Server, stamp: Stamp, now: Now) -> bool {
        stamp > server.stamp || stamp.boot < server.stamp.boot && self.reach(server, now.mono) == Reach::Down
    }

    /// Makes the entry of a domain agree with whether the server's list holds it.
    fn claim_or_release(&mut self, server: &ServerName, domain: &DomainName, now: Now) {
        let holds = self.servers.get(server).is_some_and(|s| s.domain(domain).is_some());
        if holds && !self.domains.contains_key(domain) {
            self.domains.insert(domain.clone(), Claims::new());
            self.remember(Thing::Domain(domain.clone()));
            if let Some((outcome, _)) = self.gone.remove(domain) {
                self.outcomes.insert(domain.clone(), outcome);
            }
        }
        let Some(claims) = self.domains.get_mut(domain) else { return };
        match (holds, claims.contains(server)) {
            (true, false) => {
                claims.push(server.clone());
                self.departures.remove(domain);
            }
            (false, true) => claims.retain(|s| s != server),
            _ => {}
        }
        self.drop_unclaimed(domain, now);
    }

    /// Forgets a name that nobody claims and nobody sent anywhere.
    fn drop_unclaimed(&mut self, name: &DomainName, now: Now) {
        let unclaimed = self.domains.get(name).is_some_and(|claims| claims.is_empty());
        if unclaimed && !self.departures.contains_key(name) {
            self.domains.remove(name);
            if let Some(outcome) = self.outcomes.remove(name) {
                self.gone.insert(name.clone(), (outcome, now.mono));
            }
            self.forget(&Thing::Domain(name.clone()));
        }
    }

    /// Keeps the outcome of a job whose server does not have the domain any more, and shows the domain at its destination until that
    /// speaks for itself.
    fn departed(&mut self, departed: Departed, now: Now) {
        let name = departed.domain.name.clone();
        let Some(outcome) = departed.domain.last.clone().map(|o| Arc::new(*o)) else { return };
        let newer =
            |kept: &Arc<Outcome>| outcome.at > kept.at || (outcome.at == kept.at && outcome.id != kept.id);
        if !self.outcomes.get(&name).is_none_or(newer) {
            return; // told before; the bridge is not built twice
        }
        let before = self.told.insert(name.clone(), Arc::new((outcome.id.clone(), now.mono)));
        if before.is_some_and(|t| t.0 == outcome.id) && !self.domains.contains_key(&name) {
            return; // it has come to its end meanwhile
        }
        let arrived = self.servers.get(&departed.to).is_some_and(|s| s.domain(&name).is_some());
        if arrived {
            self.departures.remove(&name);
        } else {
            self.departures.insert(name.clone(), Arc::new((departed, now.mono)));
        }
        if !self.domains.contains_key(&name) {
            self.domains.insert(name.clone(), Claims::new());
            self.remember(Thing::Domain(name.clone()));
        }
        self.outcomes.insert(name.clone(), outcome);
        self.drop_unclaimed(&name, now);
    }

    fn end_bridges(&mut self, now: Now) {
        let over = |d: &Arc<(Departed, Mono)>| now.mono.since(d.1) >= super::BRIDGE_MS;
        let ended: Vec<DomainName> =
            self.departures.iter().filter(|(_, d)| over(d)).map(|(name, _)| name.clone()).collect();
        let old = |(_, since): &(Arc<Outcome>, Mono)| now.mono.since(*since) >= super::GONE_MS;
        let forgotten: Vec<DomainName> =
            self.gone.iter().filter(|(_, g)| old(g)).map(|(name, _)| name.clone()).collect();
        forgotten.iter().for_each(|name| drop(self.gone.remove(name)));
        for name in ended {
            self.departures.remove(&name);
            self.drop_unclaimed(&name, now);
        }
        let forgotten = |t: &Arc<(Box<str>, Mono)>| now.mono.since(t.1) >= super::TOLD_MS;
        let names: Vec<DomainName> =
            self.told.iter().filter(|(_, t)| forgotten(t)).map(|(name, _)| name.clone()).collect();
        for name in names {
            self.told.remove(&name);
        }
    }
}
