//! `echo balance off > ctl`: each server keeps the word, and the latest is in force, so it reaches also those that are down now.

use super::answered;
use crate::cluster::Cluster;
use tokio::task::JoinSet;
use xvm_model::{Balance, BalanceMode, Code, Failure, Order, Reach, ServerCommand, ServerName, Wall};

/// More servers than this are counted in an answer, not named.
const NAMED: usize = 10;

impl Cluster {
    /// Tells all servers that are heard, side by side, and returns when each has answered. It is done when one has taken it: the others
    /// hear it from that one.
    pub(super) async fn balance(&self, mode: BalanceMode) -> Result<String, Failure> {
        self.linked()?;
        let (view, now) = (self.view(), self.now());
        let at = Wall(now.wall.0.max(view.balance().at.0.saturating_add(1)));
        let order = Order::Server { command: ServerCommand::Balance { balance: Balance { mode, at } } };
        let mut asked = JoinSet::new();
        let mut missing: Vec<(ServerName, Failure)> = Vec::new();
        for server in view.servers() {
            if view.reach(server, now.mono) == Reach::Down {
                missing.push((server.name.clone(), Failure::new(Code::HostDown, "it is down")));
                continue;
            }
            let (client, order, server) = (self.client().clone(), order.clone(), server.clone());
            asked.spawn(async move {
                let heard = (server.at, server.heard.mono);
                let reply = client.order(&server.name, server.stamp.boot, heard, order).await;
                (server.name.clone(), reply.and_then(answered))
            });
        }
        let mut done = 0usize;
        while let Some(answer) = asked.join_next().await {
            // a task that panicked has told nobody; there is none, and its server will say what it knows
            let Ok((name, result)) = answer else { continue };
            match result {
                Ok(_) => done += 1,
                Err(failure) => missing.push((name, failure)),
            }
        }
        missing.sort_by(|a, b| a.0.cmp(&b.0));
        summary(mode, done, &missing)
    }
}

fn summary(mode: BalanceMode, done: usize, missing: &[(ServerName, Failure)]) -> Result<String, Failure> {
    let all = done + missing.len();
    if missing.is_empty() && done > 0 {
        return Ok(format!("balance is {mode} on all {all} servers"));
    }
    let mut named: Vec<String> =
        missing.iter().take(NAMED).map(|(name, why)| format!("{name}: {}", why.text)).collect();
    if missing.len() > NAMED {
        named.push(format!("and {} more", missing.len() - NAMED));
    }
    let named = named.join("; ");
    if done > 0 {
        return Ok(format!(
            "balance is {mode} on {done} of {all} servers; the others will learn it from them: {named}"
        ));
    }
    // what may yet succeed says more than that some are down
    let code = missing.iter().map(|m| m.1.code).find(|c| *c != Code::HostDown).unwrap_or(Code::HostDown);
    let why =
        if all == 0 { "no server was ever heard".to_owned() } else { format!("no server took it: {named}") };
    Err(Failure::new(code, format!("cannot set balance {mode}: {why}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_names_who_did_not_take_it() {
        let missing = |names: &[&str], code| -> Vec<(ServerName, Failure)> {
            let failure = || Failure::new(code, "it is down");
            names.iter().map(|n| (ServerName::parse(n).expect("a name"), failure())).collect()
        };
        let off = BalanceMode::Off;
        assert_eq!(summary(off, 3, &[]).as_deref(), Ok("balance is off on all 3 servers"));
        assert_eq!(
            summary(off, 2, &missing(&["gerby"], Code::HostDown)).as_deref(),
            Ok("balance is off on 2 of 3 servers; the others will learn it from them: gerby: it is down")
        );
        let none = summary(off, 0, &missing(&["a", "b"], Code::HostDown)).expect_err("none took it");
        assert_eq!(none.code, Code::HostDown);
        assert_eq!(none.text, "cannot set balance off: no server took it: a: it is down; b: it is down");
        let mut some = missing(&["a"], Code::HostDown);
        some.extend(missing(&["b"], Code::TimedOut));
        assert_eq!(summary(off, 0, &some).expect_err("none took it").code, Code::TimedOut);
        assert_eq!(summary(off, 0, &[]).expect_err("nobody is there").code, Code::HostDown);
        let names: Vec<String> = (0..99).map(|n| format!("s{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        assert!(
            summary(off, 1, &missing(&names, Code::HostDown)).expect("one did").ends_with("; and 89 more")
        );
    }
}
