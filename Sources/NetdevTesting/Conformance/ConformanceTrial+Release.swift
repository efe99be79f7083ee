internal import Glibc
internal import Netdev

/// Completions, interrupts and sleep.
extension ConformanceTrial {
  func completesOnce() async throws {
    let bench = try await open()
    let inbox = bench.receive()
    let frames = bench.frames(0..<192)
    let sends = try frames.map { bench.startSend(try bench.packet($0)) }
    inbox.expect(frames.count)
    for send in sends { try await send.value(in: self, "every send returns") }
    try await eventually("\(frames.count) frames come back", seen: { "\(inbox.count) came" }) {
      inbox.count >= frames.count
    }
    let receipts = ConformanceTask { [queue = bench.queue, pool = bench.pool] in
      try await queue.run { queue in
        var receipts: [Receipt] = []
        for frame in frames { receipts.append(try await queue.submitForReceipt(Packet(copying: frame, in: pool))) }
        for receipt in receipts { try await receipt.released }
      }
    }
    try await bench.expect(frames, in: inbox)
    try await receipts.value(in: self, "every receipt tells of the release")
    let counts = bench.queue.statistics
    try expect(
      counts.packetsSubmitted == 384 && counts.packetsReleased == 384 && counts.packetsFailed == 0,
      "384 frames are submitted and released, none fails",
      "\(counts.packetsSubmitted) submitted, \(counts.packetsReleased) released, \(counts.packetsFailed) failed")
    try expect(bench.ledger.inFlight == 0, "nothing is in flight", "\(bench.ledger.inFlight) frames are")
  }

  func releaseIsAnEvent() async throws {
    let bench = try await open()
    let inbox = bench.receive()
    for number in 0..<10 {
      let frame = bench.frames(number..<number + 1)[0]
      let sending = bench.startSend(try bench.packet(frame))
      try await sending.value(in: self, "a send returns without another one after it")
      try await bench.expect([frame], in: inbox)
    }
    // Three at once: the last of them too.
    for round in 0..<10 {
      try await bench.startSending(bench.frames(round * 3..<round * 3 + 3)).value(
        in: self, "a batch returns without another one after it")
      try await bench.expect(bench.frames(round * 3..<round * 3 + 3), in: inbox)
    }
  }

  func wakesFromIdle() async throws {
    let bench = try await open()
    let inbox = bench.receive()
    for number in 0..<10 {
      let frame = bench.frames(number..<number + 1)[0]
      bench.peer.hold()
      let sending = bench.startSend(try bench.packet(frame))
      try await eventually("the frame is submitted") { bench.ledger.submitted > number }
      try await bench.quiet()
      bench.peer.letGo()
      // Nobody may turn the loop meanwhile: only what the driver does wakes it.
      try await bench.expect([frame], in: inbox)
      try await sending.value(in: self, "the send returns")
    }
  }

  func looksAgainAfterArming() async throws {
    let bench = try await open()
    let inbox = bench.receive()
    let peer = bench.peer
    let interventions = bench.interventions
    let (start, patience) = (peer.returned, suite.patience)
    for number in 0..<10 {
      let frame = bench.frames(number..<number + 1)[0]
      let packet = try bench.packet(frame)
      peer.hold()
      let sending = ConformanceTask { [queue = bench.queue] in
        try await queue.run { queue in
          interventions.beforeArm {
            // Comes back while the loop is about to sleep and has looked for the last time.
            peer.letGo()
            Self.wait(for: peer, toReturn: start.map { $0 + number + 1 }, within: patience)
          }
          try await queue.send(packet)
        }
      }
      try await bench.expect([frame], in: inbox)
      try await sending.value(in: self, "the send returns")
    }
  }

  /// Holds the loop until the peer has sent so many frames back; of one that does not count them a while must do.
  private static func wait(for peer: any ConformancePeer, toReturn count: Int?, within patience: Duration) {
    guard let count else {
      usleep(100_000)
      return
    }
    let deadline = ContinuousClock.now + patience
    while let returned = peer.returned, returned < count, ContinuousClock.now < deadline { usleep(200) }
  }

  func sleepsWhenIdle() async throws {
    let bench = try await open()
    let inbox = bench.receive()
    try await bench.quiet()
    try await bench.exchange(bench.frames(0..<100), through: inbox)
    try await bench.quiet()
    guard can(.peerHolds) else { return }
    bench.peer.hold()
    let frame = bench.frames(1..<2)
    let sending = bench.startSending(frame)
    try await eventually("the frame is submitted") { bench.ledger.submitted > 100 }
    try await bench.quiet()
    bench.peer.letGo()
    try await bench.expect(frame, in: inbox)
    try await sending.value(in: self, "the send returns")
  }
}
