//! What imaged says: all configs with their leases, and which events tell of their changes.
//!
//! As with servers, imaged numbers its messages, only what is newer than the last that was applied counts, and its whole state comes
//! again and again. A cluster has one imaged: of two with different names the one that was heard first stays until it is down, and
//! an event tells of the other one, once.

mod tell;

use super::{Reach, Thing, View};
use crate::event::Event;
use crate::{ConfigChange, ConfigName, ConfigRecord, Configs, Mono, Now, Outcome, ServerName, Stamp, Wall};
use imbl::OrdMap;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Other imageds that an event was told of; more are not told.
const RIVALS: usize = 8;

/// imaged as it was heard last.
#[derive(Debug, Clone)]
pub struct Images {
    /// The server that it runs on.
    pub name: ServerName,
    /// The last message that was applied.
    pub stamp: Stamp,
    /// When that came, by our clocks.
    pub heard: Now,
    /// When its last message was said, by its own clock.
    pub at: Wall,
    /// Its last whole state, without the configs.
    pub said: Arc<Configs>,
    /// The configs, by name.
    configs: OrdMap<ConfigName, Arc<ConfigView>>,
    /// What the view last told about its reach in an event.
    told: Reach,
    /// Who else says to be imaged, as far as it was told.
    rivals: Arc<BTreeSet<ServerName>>,
}

/// A config as the view knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigView {
    /// What imaged said of it last.
    pub record: ConfigRecord,
    /// How a job ended of which imaged does not tell the end.
    lost: Option<Arc<Outcome>>,
}

impl ConfigView {
    /// How its last job ended.
    pub fn last(&self) -> Option<&Outcome> {
        match (self.record.last.as_deref(), self.lost.as_deref()) {
            (Some(own), Some(lost)) if own.at >= lost.at => Some(own),
            (own, lost) => lost.or(own),
        }
    }
}

impl View {
    /// imaged, when one was ever heard.
    pub fn images(&self) -> Option<&Arc<Images>> {
        self.images.as_ref()
    }

    /// All configs, by name.
    pub fn configs(&self) -> impl Iterator<Item = &Arc<ConfigView>> {
        self.images.iter().flat_map(|i| i.configs.values())
    }

    /// How many configs there are.
    pub fn config_count(&self) -> usize {
        self.images.as_ref().map_or(0, |i| i.configs.len())
    }

    /// One config.
    pub fn config(&self, name: &str) -> Option<&Arc<ConfigView>> {
        self.images.as_ref()?.configs.get(name)
    }

    /// How well imaged is heard at `now`; as with servers it is not called down without a forwarder. Never [`Reach::Maintenance`].
    pub fn images_reach(&self, images: &Images, now: Mono) -> Reach {
        match self.missed(images.heard.mono, images.said.interval_ms, now) {
            super::DOWN_AFTER.. if self.link_up() => Reach::Down,
            super::STALE_AFTER.. => Reach::Stale,
            _ => Reach::Up,
        }
    }

    /// imaged's whole state.
    pub(super) fn hear_configs(
        &mut self,
        name: ServerName,
        stamp: Stamp,
        at: Wall,
        mut said: Configs,
        now: Now,
    ) -> Vec<Event> {
        let mut events = Vec::new();
        let old = self.images.clone();
        if let Some(old) = &old
            && !self.heeds(old, &name, stamp, now, &mut events)
        {
            return events;
        }
        let known = |name: &ConfigName| old.as_ref().and_then(|o| o.configs.get(name));
        let mut configs = OrdMap::new();
        for record in std::mem::take(&mut said.configs) {
            let (key, before) = (record.name.clone(), known(&record.name));
            let view = ConfigView::after(before, record);
            configs.entry(key).or_insert(match before {
                Some(same) if **same == view => same.clone(),
                _ => Arc::new(view),
            });
        }
        let same = old.as_ref().filter(|o| o.name == name);
        if same.is_some_and(|o| o.stamp.boot != stamp.boot) {
            events.push(tell::imaged(&name, "started anew", now));
        }
        let told = same.map(|o| o.told);
        let rivals = same.map(|o| o.rivals.clone()).unwrap_or_default();
        self.images = Some(Arc::new(Images {
            name: name.clone(),
            stamp,
            heard: now,
            at,
            said: Arc::new(said),
            configs,
            told: told.unwrap_or(Reach::Down),
            rivals,
        }));
        events.extend(self.images_reach_event(now));
        let (before, after) = (old.map(|o| o.configs.clone()).unwrap_or_default(), self.config_map());
        for name in before.keys().filter(|n| !after.contains_key(*n)) {
            self.forget(&Thing::Config(name.clone()));
            events.extend(tell::changes(name, before.get(name), None, now));
        }
        for (name, config) in &after {
            if !before.contains_key(name) {
                self.remember(Thing::Config(name.clone()));
            }
            events.extend(tell::changes(name, before.get(name), Some(config), now));
        }
        events
    }

    /// One config's news.
    pub(super) fn hear_config(
        &mut self,
        from: &ServerName,
        stamp: Stamp,
        at: Wall,
        change: ConfigChange,
        now: Now,
    ) -> Vec<Event> {
        // imaged is known from its first whole state on, and so is each life of it
        let Some(old) = self.images.clone().filter(|i| i.name == *from && i.stamp.boot == stamp.boot) else {
            return Vec::new();
        };
        if stamp <= old.stamp {
            return Vec::new();
        }
        let name = change.name().clone();
        let before = old.configs.get(&name).cloned();
        let mut images = Images { stamp, at, heard: now, ..(*old).clone() };
        match change {
            ConfigChange::Is { record } => {
                let view = ConfigView::after(before.as_ref(), record);
                images.configs.insert(name.clone(), Arc::new(view));
            }
            ConfigChange::Gone { .. } => drop(images.configs.remove(&name)),
        }
        let after = images.configs.get(&name).cloned();
        self.images = Some(Arc::new(images));
        match (&before, &after) {
            (None, Some(_)) => self.remember(Thing::Config(name.clone())),
            (Some(_), None) => self.forget(&Thing::Config(name.clone())),
            _ => {}
        }
        let mut events: Vec<Event> = self.images_reach_event(now).into_iter().collect();
        events.extend(tell::changes(&name, before.as_ref(), after.as_ref(), now));
        events
    }

    /// Tells once when imaged is heard better or worse than was told.
    pub(super) fn images_reach_event(&mut self, now: Now) -> Option<Event> {
        let images = self.images.as_ref()?;
        let reach = self.images_reach(images, now.mono);
        if reach == images.told {
            return None;
        }
        let images = Arc::make_mut(self.images.as_mut()?);
        images.told = reach;
        Some(tell::imaged(&images.name, reach.word(), now))
    }

    /// Whether a whole state replaces what is known.
    fn heeds(
        &mut self,
        old: &Images,
        name: &ServerName,
        stamp: Stamp,
        now: Now,
        events: &mut Vec<Event>,
    ) -> bool {
        let down = self.images_reach(old, now.mono) == Reach::Down;
        if old.name == *name {
            return stamp > old.stamp || stamp.boot < old.stamp.boot && down;
        }
        if !down && !old.rivals.contains(name) && old.rivals.len() < RIVALS {
            let mut images = old.clone();
            Arc::make_mut(&mut images.rivals).insert(name.clone());
            self.images = Some(Arc::new(images));
            events.push(tell::rival(&old.name, name, now));
        }
        down
    }

    fn config_map(&self) -> OrdMap<ConfigName, Arc<ConfigView>> {
        self.images.as_ref().map(|i| i.configs.clone()).unwrap_or_default()
    }
}
