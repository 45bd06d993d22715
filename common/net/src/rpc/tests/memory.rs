//! The bytes that a server holds for its peers, and what becomes of those that never finish a frame.

use super::*;

const MIB: usize = 1 << 20;

async fn until_used(budget: &ByteBudget, wanted: impl Fn(usize) -> bool) {
    let used = async {
        while !wanted(budget.used_bytes()) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(SOON, used).await.unwrap_or_else(|_| panic!("{} bytes are used", budget.used_bytes()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_frame_counts_in_full_from_its_beginning_until_its_answer_is_sent() {
    let budget = ByteBudget::new(8 * MIB);
    let limits = RpcLimits { max_frame_bytes: 2 * MIB, ..RpcLimits::default() };
    let served = served_within(limits, budget.clone()).await;
    let whole = request(1, "wait", Value::Binary(vec![0; MIB]));
    let mut stream = served.raw().await;
    stream.write_all(&whole[..40 << 10]).await.unwrap();
    until_used(&budget, |used| used >= MIB).await;
    stream.write_all(&whole[40 << 10..]).await.unwrap();
    while served.fake.begun.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    assert!(budget.used_bytes() >= MIB, "the call is under way");
    served.fake.gate.add_permits(1);
    let mut answer = vec![0; MIB];
    timeout(SOON, stream.read_exact(&mut answer)).await.expect("no answer").expect("connection closed");
    until_used(&budget, |used| used == 0).await;
}

/// Frames that were begun and not continued held their room until their deadline.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stalled_frames_give_way_to_a_frame_that_waits_for_room() {
    let budget = ByteBudget::new(8 * MIB);
    let limits = RpcLimits { max_frame_bytes: 2 * MIB, frame_deadline: 6 * SOON, ..RpcLimits::default() };
    let served = served_within(limits, budget.clone()).await;
    let long = Value::Binary(vec![7; MIB]);
    let whole = request(1, "echo", long.clone());
    let mut stalled = Vec::new();
    while budget.used_bytes() < 4 * MIB {
        let mut stream = served.raw().await;
        stream.write_all(&whole[..MIB / 2]).await.unwrap();
        stalled.push(stream);
        until_used(&budget, |used| used >= stalled.len() * MIB).await;
    }
    let answer = served.client().await.call("echo", vec![long.clone()], SOON).await;
    assert_eq!(answer.expect("it got no room"), long);
}

/// A hundred peers began frames of 15 MiB and did not finish them: 1.5 GiB.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unfinished_frames_stay_within_the_budget_and_keep_no_call_out() {
    let budget = ByteBudget::new(8 * MIB);
    let limits = RpcLimits { max_frame_bytes: 2 * MIB, frame_deadline: Duration::from_secs(5), ..RpcLimits::default() };
    let served = served_within(limits, budget.clone()).await;
    let whole = request(1, "echo", Value::Binary(vec![0; MIB]));
    let (half, address) = (whole[..whole.len() - 1].to_vec(), served.address);
    let mut hostile = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let half = half.clone();
        hostile.spawn(async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let _ = stream.write_all(&half).await;
            until_closed(&mut stream).await;
        });
    }
    while budget.used_bytes() < 4 * MIB {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let started = std::time::Instant::now();
    served.assert_serving().await;
    assert!(started.elapsed() < Duration::from_secs(1), "a small call waited for long frames");
    let long = Value::Binary(vec![7; MIB]);
    let answer = served.client().await.call("echo", vec![long.clone()], Duration::from_secs(20)).await;
    assert!(budget.used_bytes() <= 5 * MIB, "{}", budget.used_bytes());
    while hostile.join_next().await.is_some() {}
    match answer {
        Ok(answer) => assert_eq!(answer, long),
        // It may have come behind all hundred in the queue, for longer than a frame may take.
        Err(_) => {
            let answer = served.client().await.call("echo", vec![long.clone()], SOON).await;
            assert_eq!(answer.unwrap(), long);
        }
    }
    while budget.used_bytes() > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
