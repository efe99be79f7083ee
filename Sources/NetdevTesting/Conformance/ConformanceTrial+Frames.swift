internal import Netdev
internal import Synchronization

/// What goes over the wire, and how it comes back.
extension ConformanceTrial {
  func framesUnchanged() async throws {
    let bench = try await open()
    let inbox = bench.receive()
    // Every length, unless that takes too long.
    let shortest = bench.minimumFrameLength
    let longest = bench.maximumFrameLength
    var lengths = Array(stride(from: shortest, to: longest, by: max(1, (longest - shortest) / 1500)))
    lengths += [longest]
    for start in stride(from: 0, to: lengths.count, by: 200) {
      let chunk = start..<min(lengths.count, start + 200)
      try await bench.exchange(chunk.map { frame($0, length: lengths[$0]) }, through: inbox)
    }
  }

  func frameStart() async throws {
    let bench = try await open()
    let inbox = bench.receive()
    for (number, shift) in [1, 2, 3, 14, 33].enumerated() {
      let frame = self.frame(number, length: bench.usualLength(number))
      var later = try bench.packet([UInt8](repeating: 0xee, count: shift) + frame)
      later.removeFirst(shift)
      var earlier = try bench.packet(Array(frame.dropFirst(shift)))
      try earlier.prepend(count: shift)
      earlier.withMutableBytes { bytes in
        for position in 0..<shift { bytes.storeBytes(of: frame[position], toByteOffset: position, as: UInt8.self) }
      }
      for packet in [consume later, consume earlier] {
        let sending = bench.startSend(packet)
        try await bench.expect([frame], in: inbox)
        try await sending.value(in: self, "every send returns")
      }
    }
  }

  func severalBuffers() async throws {
    let bench = try await open(keepsSpare: true)
    let inbox = bench.receive()
    let length = min(bench.maximumFrameLength, max(bench.minimumFrameLength, 300))
    for round in 0..<4 {
      try await eventually("a buffer is posted") { bench.interventions.hasSpare }
      bench.interventions.alter(.init(length: length, kind: .split))
      // Enough traffic around it for the next buffer to be posted.
      var frames = bench.frames(round * 100..<round * 100 + 40)
      frames.insert(frame(round, length: length), at: 20)
      try await bench.exchange(frames, through: inbox)
      try expect(
        bench.interventions.alterations == round + 1, "the check puts a frame into two buffers", "it could not")
    }
  }

  func keepsOrder() async throws {
    let bench = try await open()
    let inbox = bench.receive()
    for round in 0..<8 { try await bench.exchange(bench.frames(round * 250..<round * 250 + 250), through: inbox) }
  }

  func burstsOfAllSizes() async throws {
    let bench = try await open()
    for size in 1...64 {
      let frames = bench.frames(size * 100..<size * 100 + size)
      let sending = bench.startSending(frames)
      // Each frame is received in a burst, sent on in a burst, and received again.
      let receiving = ConformanceTask { [queue = bench.queue] in
        try await queue.run { queue in try await Self.passOn(frames, through: queue) }
      }
      try await eventually(
        "a burst of \(size) frames comes back twice", seen: { "\(bench.ledger.submitted) frames were sent in all" }
      ) { receiving.isFinished }
      let seen = try await receiving.value(in: self, "bursts are received and sent on")
      for (position, frame) in frames.enumerated() {
        guard let difference = ConformanceFrame.difference(seen[position], from: frame) else { continue }
        throw violation("bursts keep their frames, in order", "frame \(position) of \(size): \(difference)")
      }
      try await sending.value(in: self, "every send returns")
    }
  }

  /// Sends each frame on that is seen for the first time; returns those that have come twice.
  private static func passOn(
    _ frames: [[UInt8]], through queue: isolated NetworkQueue
  ) async throws -> [[UInt8]] {
    var known: Set<[UInt8]> = []
    var twice: [[UInt8]] = []
    while twice.count < frames.count, var burst = await queue.receiveBurst() {
      burst.filter { bytes in
        let copy = unsafe bytes.withUnsafeBytes { unsafe Array($0) }
        if known.insert(copy).inserted { return true }
        twice.append(copy)
        return false
      }
      if burst.count > 0 { try await queue.submit(burst) }
    }
    return twice
  }

  func fullRingWaits() async throws {
    let bench = try await open()
    let inbox = bench.receive()
    let capacity = bench.ledger.capacity
    let extra = 32
    if can(.peerHoldsBuffers) {
      bench.peer.hold()
      let frames = bench.frames(0..<capacity + extra)
      let submitting = bench.startSubmitting(frames)
      try await bench.waitForFlights(capacity, "the ring takes \(capacity) frames")
      let queue = bench.queue
      try await eventually("the next frame waits for room") { queue.statistics.ringFull > 0 }
      try expect(!submitting.isFinished, "\(extra) frames wait", "all were taken")
      bench.peer.letGo()
      try await bench.expect(frames, in: inbox)
      try await submitting.value(in: self, "who waited for room goes on")
    }
    // As fast as it goes, with room or without.
    let frames = bench.frames(0..<max(1024, 2 * capacity))
    let submitting = bench.startSubmitting(frames)
    try await bench.expect(frames, in: inbox)
    try await submitting.value(in: self, "who waited for room goes on")
  }

  func refusesTooLongFrames() async throws {
    let layout = try await poolLayout()
    let bench = try await open(pool: PacketPool(layout))
    let inbox = bench.receive()
    let long = bench.maximumFrameLength + 1
    let frames = bench.frames(0..<3)
    if long <= 65_535 {
      // The program's own mistake, which the queue finds.
      let mistake = bench.startSend(try bench.packet(frame(0, length: long)))
      try await eventually("a frame of \(long) bytes is refused") { mistake.isFinished }
      try expect(mistake.failure == .frameTooLong, "frameTooLong", "\(mistake.result.map { "\($0)" } ?? "nothing")")
    }
    guard long <= layout.slotSize - layout.headroom else { return }
    // One that another device has received, which only the driver can find.
    let marked = bench.usualLength() + 1000 < long ? bench.usualLength() + 1000 : long - 1
    bench.interventions.alter(.init(length: marked, kind: .lengthen(to: long)))
    let before = bench.startSend(try bench.packet(frames[0]))
    let tooLong = bench.startSend(try bench.packet(frame(9, length: marked)))
    let after = bench.startSend(try bench.packet(frames[1]))
    try await eventually("a frame of \(long) bytes is refused") { tooLong.isFinished }
    try expect(tooLong.failure == .frameTooLong, "frameTooLong", "\(tooLong.result.map { "\($0)" } ?? "nothing")")
    try await before.value(in: self, "the frame before it is sent")
    try await after.value(in: self, "the frame after it is sent")
    inbox.expect(2)
    try await eventually("its neighbours come back", seen: { "\(inbox.count) frames came" }) { inbox.count >= 2 }
    // Tasks of their own: in either order.
    try expect(
      Set(inbox.frames) == Set(frames.prefix(2)), "its neighbours come back unchanged", "other frames came")
    try await bench.exchange([frames[2]], through: inbox)
  }

  func foreignPackets() async throws {
    let bench = try await open()
    let inbox = bench.receive()
    let foreign = try PacketPool(.init(slots: 16, hugePages: false))
    let frames = bench.frames(0..<20)
    for frame in frames {
      let sending = bench.startSend(try Packet(copying: frame, in: foreign))
      try await sending.value(in: self, "every send returns")
    }
    try await bench.expect(frames, in: inbox)
    let copied = bench.queue.statistics.copiedToSend
    try expect(copied == 20, "20 packets of another pool are copied", "\(copied) were")
    try await eventually("the other pool has its buffers back", seen: { "\(foreign.free) of 16" }) {
      foreign.free == 16
    }
  }

  func sharedPackets() async throws {
    let bench = try await open()
    let inbox = bench.receive()
    let frame = bench.frames(7..<8)[0]
    let packet = try bench.packet(frame)
    for _ in 0..<8 {
      let sends = (0..<4).map { _ in bench.startSend(packet) }
      try await bench.expect([[UInt8]](repeating: frame, count: 4), in: inbox)
      for send in sends { try await send.value(in: self, "each of several sends of one packet returns") }
    }
    let batch = ConformanceTask { [queue = bench.queue] in
      try await queue.send(contentsOf: [packet, packet, packet])
    }
    try await bench.expect([[UInt8]](repeating: frame, count: 3), in: inbox)
    try await batch.value(in: self, "a batch of one packet thrice returns")
    try expect(packet.copiedBytes == frame, "a packet that is held keeps its bytes", "they changed")
  }

  func leavesBuffersAlone() async throws {
    let bench = try await open()
    let inbox = bench.receive()
    for round in 0..<10 {
      let frames = bench.frames(round * 50..<round * 50 + 50)
      // The audit compares every frame before and after, and of those that are in flight already the whole buffer.
      let held = try frames.map { try bench.packet($0) }
      let twice = held.flatMap { [$0, $0] }
      let sending = ConformanceTask { [queue = bench.queue] in try await queue.send(contentsOf: twice) }
      try await bench.expect(frames.flatMap { [$0, $0] }, in: inbox)
      try await sending.value(in: self, "every send returns")
      try await bench.exchange(frames, through: inbox)
    }
  }

  func keptPackets() async throws {
    let bench = try await open()
    let inbox = bench.receive()
    let frames = bench.frames(0..<32)
    inbox.keep(true)
    try await bench.exchange(frames, through: inbox)
    inbox.keep(false)
    for round in 1...4 { try await bench.exchange(bench.frames(round * 200..<round * 200 + 200), through: inbox) }
    for (position, packet) in inbox.packets.enumerated() {
      guard let difference = ConformanceFrame.difference(packet.copiedBytes, from: frames[position]) else { continue }
      throw violation("a packet that is held keeps its bytes", "packet \(position): \(difference)")
    }
    inbox.forget()
  }

  func severalPairs() async throws {
    let pairs = 2
    let bench = try await open(queuePairs: pairs)
    let inboxes = (0..<pairs).map { bench.receive(on: $0) }
    try expect(
      Set(bench.device.queues.map { ObjectIdentifier($0.loop) }).count == pairs, "each pair has a loop of its own",
      "they share")
    for index in 0..<pairs {
      // A wire that steers flows learns here where this one belongs.
      try await bench.introduce(flow: index + 1, on: index, to: inboxes)
    }
    for round in 0..<10 {
      let numbers = round * 100..<round * 100 + 100
      let sendings = (0..<pairs).map { bench.startSending(bench.frames(numbers, flow: $0 + 1), on: $0) }
      for index in 0..<pairs { try await bench.expect(bench.frames(numbers, flow: index + 1), in: inboxes[index]) }
      for sending in sendings { try await sending.value(in: self, "every send returns") }
    }
    for index in 0..<pairs {
      let submitted = bench.ledgers[index].submitted
      try expect(submitted >= 1000, "each pair sends its own frames", "pair \(index) sent \(submitted)")
    }
  }

  func statisticsAgree() async throws {
    let bench = try await open()
    let inbox = bench.receive()
    let frames = bench.frames(0..<250)
    for _ in 0..<4 { try await bench.exchange(frames, through: inbox) }
    let bytes = UInt64(4 * frames.reduce(0) { $0 + $1.count })
    let counts = bench.queue.statistics
    try expect(counts.packetsSubmitted == 1000, "1000 frames submitted", "\(counts.packetsSubmitted)")
    try expect(counts.packetsReleased == 1000, "1000 frames released", "\(counts.packetsReleased)")
    try expect(counts.packetsReceived == 1000, "1000 frames received", "\(counts.packetsReceived)")
    try expect(counts.packetsFailed == 0, "no frame failed", "\(counts.packetsFailed)")
    // What a driver counts is there at the end of its turn.
    try await eventually(
      "\(bytes) bytes are counted as received", seen: { "\(bench.queue.statistics.bytesReceived)" }
    ) { bench.queue.statistics.bytesReceived == bytes }
    let drops = bench.queue.statistics.driver.receiveDrops
    try expect(drops == 0, "no frame dropped", "\(drops)")
    try await bench.close()
    let atEnd = bench.queue.statistics
    try expect(atEnd.bytesReceived == bytes, "the counts stay when the device is closed", "\(atEnd.bytesReceived)")
  }

  func peerAgrees() async throws {
    let bench = try await open()
    let inbox = bench.receive()
    let frames = bench.frames(0..<250)
    var bytes: UInt64 = 0
    for round in 1...4 {
      try await bench.exchange(frames, through: inbox)
      bytes += UInt64(frames.reduce(0) { $0 + $1.count })
      try checkPeer(bench, frames: UInt64(250 * round), bytes: bytes)
    }
    try await bench.close()
    try checkPeer(bench, frames: 1000, bytes: bytes)
  }

  /// What is released or received the device's side has counted, and nothing was dropped.
  private func checkPeer(_ bench: ConformanceBench, frames: UInt64, bytes: UInt64) throws {
    let peers = bench.device.peerStatistics
    // A device that does not tell has nothing that could be wrong.
    guard !peers.isEmpty else { return }
    try expect(peers.count == bench.device.queues.count, "each queue pair tells, or none", "\(peers.count) do")
    var peer = PeerStatistics()
    for other in peers { peer += other }
    try expect(
      peer.transmittedFrames == frames && peer.receivedFrames == frames, "\(frames) frames both ways",
      "\(peer.transmittedFrames) and \(peer.receivedFrames)")
    try expect(
      peer.transmittedBytes == bytes && peer.receivedBytes == bytes, "\(bytes) bytes both ways",
      "\(peer.transmittedBytes) and \(peer.receivedBytes)")
    try expect(peer.drops == DeviceDrops(), "no frame dropped", "\(peer.drops)")
    try expect(
      bench.device.deviceDrops == peers.map { $0.drops }, "the drops are those of `deviceDrops`", "they differ")
  }
}

extension ConformanceBench {
  /// Sends frames of a flow through a queue until one comes back there: where else they come is not counted.
  func introduce(flow: Int, on index: Int, to inboxes: [ConformanceInbox]) async throws {
    var rounds = 0
    while inboxes[index].count == inboxes[index].expected {
      rounds += 1
      guard rounds <= 100 else {
        throw trial.violation("frames come back to the pair that sent them", "100 frames of pair \(index) did not")
      }
      let before = inboxes.reduce(0) { $0 + $1.count }
      try await startSending(frames(0..<1, flow: flow), on: index).value(in: trial, "every send returns")
      try await trial.eventually("a frame of pair \(index) comes back to some pair") {
        inboxes.reduce(0) { $0 + $1.count } > before
      }
    }
    for inbox in inboxes { inbox.expect(inbox.count - inbox.expected) }
  }
}
