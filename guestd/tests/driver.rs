//! guestd on the in-memory bus, with real processes.
//!
//! If this fails, a guest runs what it may not, does not end what it should, or tells something else than what happened.

#[path = "driver/ears.rs"]
mod ears;
#[path = "driver/rig.rs"]
mod rig;

use ears::wait_for;
use rig::{Guest, Rig, is_dead};
use std::time::Duration;
use xvm_model::guest::{OUTPUT_MAX, WAITING_MAX};
use xvm_model::{Answer, Code, GuestCommand, Ratio, RunState};

/// A test that goes on until it is killed, with a child.
const SLEEPY: (&str, &str) = ("sleepy", "sleep 1000 & echo $! >> pids; echo $$ >> pids; wait");

fn scripts(scripts: &[(&'static str, &'static str)]) -> Rig {
    Rig::begin(Guest { scripts: scripts.to_vec(), ..Guest::default() })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_roll_call_is_answered() {
    let rig = scripts(&[SLEEPY]);
    let beat = rig.until("a heartbeat", |h| h.beats.first().cloned()).await;
    assert!(beat.check().is_ok() && beat.cpus >= 1 && beat.memory.total > 0 && beat.loading.is_none());
    let names: Vec<&str> = beat.tests.iter().map(|t| &**t).collect();
    assert_eq!(names, ["fibonacci", "image", "memory", "disk", "sleepy"]);
    let before = rig.heard(|h| h.beats.len());
    rig.roll_call();
    rig.until("an answer", |h| (h.beats.len() > before).then_some(())).await;
    // a forwarder that comes back is like a roll-call
    let before = rig.heard(|h| h.beats.len());
    rig.net.forwarder(false);
    tokio::task::yield_now().await;
    rig.net.forwarder(true);
    rig.until("a heartbeat", |h| (h.beats.len() > before).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_runs_and_tells_what_it_printed() {
    let rig = scripts(&[]);
    let (text, news) = rig.run("fibonacci 20").await.expect("taken");
    assert_eq!(text, "fibonacci 20 is taken");
    assert_eq!(
        news.last().map(|r| r.state),
        Some(RunState::Running),
        "who ordered it sees it with the answer"
    );
    let run = rig.last().await;
    assert_eq!((run.state, run.status, &*run.output), (RunState::Done, Some(0), "6765\n"));
    assert_eq!(rig.states("fibonacci 20"), [RunState::Running, RunState::Done]);
    rig.run("fibonacci 51").await.expect("taken: only the test knows its arguments");
    let run = rig.last().await;
    assert_eq!((run.state, run.status), (RunState::Failed, Some(2)));
    assert!(run.output.contains("N is 0 to 50, not \"51\""), "{}", run.output);
}

#[tokio::test(flavor = "multi_thread")]
async fn cpu_time_counts_children() {
    let rig = scripts(&[(
        "busy",
        "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done; sh -c 'i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done'",
    )]);
    rig.run("busy").await.expect("taken");
    let run = rig.last().await;
    assert!(run.state == RunState::Done && run.cpu_ms > 0, "{run:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_comes_twice_runs_once() {
    let rig = scripts(&[("count", "echo once >> count")]);
    for _ in 0..2 {
        rig.say("test.1.900", GuestCommand::Run { line: "count".into() }).await;
    }
    rig.until("both answers", |h| {
        (h.replies.iter().filter(|r| &*r.id == "test.1.900").count() == 2).then_some(())
    })
    .await;
    rig.last().await;
    rig.run("count").await.expect("taken");
    assert_eq!(&*rig.last().await.line, "count");
    rig.until("two ends", |h| h.runs.last().filter(|r| r.is_idle() && r.runs.len() == 2).map(|_| ())).await;
    let text = std::fs::read_to_string(rig.dir.path().join("count")).expect("it ran");
    assert_eq!(text, "once\nonce\n", "one of the doubled order, one of the next");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_allowed_is_not_run() {
    let rig = scripts(&[("mark", "echo \"$*\"")]);
    let failure = rig.run("nonsense 1").await.expect_err("refused");
    assert_eq!(
        (failure.code, failure.text.as_str()),
        (
            Code::Invalid,
            "cannot run \"nonsense 1\" in small-1: there is no test of that name; there are fibonacci, image, memory, disk, mark"
        )
    );
    assert_eq!(rig.run("/bin/true").await.expect_err("refused").code, Code::Invalid);
    rig.run("mark $(id) ; id").await.expect("taken");
    assert_eq!(&*rig.last().await.output, "$(id) ; id\n", "no shell reads an order");
}

#[tokio::test(flavor = "multi_thread")]
async fn any_program_when_that_is_allowed() {
    let rig = Rig::begin(Guest { any: true, ..Guest::default() });
    rig.run("/bin/echo a b").await.expect("taken");
    assert_eq!(&*rig.last().await.output, "a b\n");
    rig.run("/nowhere/x").await.expect("taken: whether it can be started is seen then");
    let run = rig.over("/nowhere/x").await;
    assert_eq!((run.state, run.status), (RunState::Failed, None));
    assert_eq!(run.why.as_deref(), Some("cannot start /nowhere/x: No such file or directory (os error 2)"));
    assert_eq!(rig.run("echo a").await.expect_err("no path").code, Code::Invalid);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_ends_the_whole_group() {
    let rig = scripts(&[SLEEPY]);
    let failure = rig.order(GuestCommand::Cancel).await.expect_err("nothing runs");
    assert_eq!((failure.code, failure.text.as_str()), (Code::Busy, "cannot cancel in small-1: no test runs"));
    rig.run("sleepy").await.expect("taken");
    rig.run("sleepy again").await.expect("taken");
    let pids = rig.pids("pids", 2).await;
    let reply = rig.order(GuestCommand::Cancel).await.expect("done");
    assert_eq!(
        reply.answer,
        Answer::Done { text: "sleepy was ended, and 1 that waited is forgotten".into() }
    );
    wait_for("the end of both processes", || pids.iter().all(|p| is_dead(*p)).then_some(())).await;
    assert_eq!(rig.states("sleepy"), [RunState::Running, RunState::Cancelled]);
    assert_eq!(rig.states("sleepy again"), [RunState::Waiting, RunState::Cancelled]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_that_takes_too_long_is_ended() {
    let rig = Rig::begin(Guest { limit: Duration::from_secs(1), scripts: vec![SLEEPY], ..Guest::default() });
    rig.run("sleepy").await.expect("taken");
    let run = rig.last().await;
    assert_eq!(run.why.as_deref(), Some("ended after 1 s, the longest that a test may take"));
    let pids = rig.pids("pids", 2).await;
    wait_for("the end of both processes", || pids.iter().all(|p| is_dead(*p)).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn much_and_strange_output() {
    let rig = scripts(&[
        ("flood", "yes a line of the flood | head -c 50000000; echo; echo the end"),
        ("binary", "printf '\\377\\000\\033[1m\\tx\\n'; echo error >&2"),
    ]);
    rig.run("flood").await.expect("taken");
    let run = rig.last().await;
    assert_eq!((run.state, run.status), (RunState::Done, Some(0)));
    assert!(
        run.output.len() <= OUTPUT_MAX
            && run.output.starts_with("a line of the flood\n")
            && run.output.ends_with("the end\n")
    );
    rig.run("binary").await.expect("taken");
    let run = rig.over("binary").await;
    assert_eq!(&*run.output, "\u{fffd}\u{fffd}\u{fffd}[1m\tx\nerror\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_the_group_and_holds_the_pipe_is_not_waited_for() {
    let rig = scripts(&[(
        "leaver",
        "setsid sh -c 'echo $$ > left; exec sleep 1000' & while [ ! -s left ]; do :; done; echo started",
    )]);
    rig.run("leaver").await.expect("taken");
    let run = rig.last().await;
    let left = rig.pids("left", 1).await[0];
    assert_eq!((run.state, &*run.output), (RunState::Done, "started\n"));
    assert!(!is_dead(left), "else this proves nothing");
    let left = rustix::process::Pid::from_raw(i32::try_from(left).expect("a number")).expect("above 0");
    rustix::process::kill_process(left, rustix::process::Signal::KILL).expect("killed");
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_are_told_only_while_they_are_asked_for() {
    let rig = scripts(&[SLEEPY]);
    rig.run("sleepy").await.expect("taken");
    let pids = rig.pids("pids", 2).await;
    assert!(rig.heard(|h| h.tops.is_empty()));
    rig.order(GuestCommand::Top { seconds: 60 }).await.expect("done");
    let tops = rig.until("two samples", |h| (h.tops.len() >= 2).then(|| h.tops.clone())).await;
    assert!(
        tops.iter()
            .all(|t| t.check().is_ok() && t.total as usize >= t.processes.len() && t.at.0 < 1_000_000_000)
    );
    assert!(tops[1].total >= u32::try_from(pids.len()).expect("few"));
    rig.order(GuestCommand::Top { seconds: 0 }).await.expect("done");
    let told = rig.heard(|h| h.tops.len());
    rig.roll_call();
    rig.order(GuestCommand::Cancel).await.expect("done");
    assert_eq!(rig.heard(|h| h.tops.len()), told);
}

#[tokio::test(flavor = "multi_thread")]
async fn load_is_seen_and_ends() {
    let rig = scripts(&[]);
    rig.order(GuestCommand::Load { share: Ratio::new(0.1), seconds: 60 }).await.expect("done");
    let loading = rig.until("load", |h| h.beats.last()?.loading).await;
    assert!(loading.share == Ratio::new(0.1) && (1..=60).contains(&loading.left));
    rig.order(GuestCommand::Load { share: Ratio::new(0.2), seconds: 1 }).await.expect("done");
    rig.until("other load", |h| h.beats.last()?.loading.filter(|l| l.share == Ratio::new(0.2))).await;
    rig.until("its end", |h| h.beats.last().filter(|b| b.loading.is_none()).map(|_| ())).await;
    rig.order(GuestCommand::Load { share: Ratio::new(0.1), seconds: 60 }).await.expect("done");
    rig.order(GuestCommand::Load { share: Ratio::ONE, seconds: 0 }).await.expect("done");
    assert!(rig.heard(|h| h.beats.last().is_some_and(|b| b.loading.is_none())), "told before the answer");
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_run_in_order() {
    let rig = scripts(&[("say", "echo $1 >> said; [ $1 != 3 ]")]);
    for n in 1..=5 {
        rig.run(&format!("say {n}")).await.expect("taken");
    }
    let all =
        rig.until("five ends", |h| h.runs.last().filter(|r| r.is_idle() && r.runs.len() == 5).cloned()).await;
    assert_eq!(std::fs::read_to_string(rig.dir.path().join("said")).expect("said"), "1\n2\n3\n4\n5\n");
    let states: Vec<_> = all.runs.iter().map(|r| (r.state, r.status)).collect();
    let (done, failed) = ((RunState::Done, Some(0)), (RunState::Failed, Some(1)));
    assert_eq!(states, [done, done, failed, done, done], "one that fails stops no other");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_refuses() {
    let rig = scripts(&[SLEEPY]);
    for _ in 0..=WAITING_MAX {
        rig.run("sleepy").await.expect("taken");
    }
    let failure = rig.run("sleepy").await.expect_err("full");
    assert_eq!(failure.code, Code::Busy);
    assert!(
        failure.text.starts_with("cannot run \"sleepy\" in small-1: 16 tests wait already"),
        "{}",
        failure.text
    );
    rig.order(GuestCommand::Cancel).await.expect("done");
    rig.run("fibonacci 1").await.expect("taken again");
}
