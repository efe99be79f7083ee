public import LibeventConcurrency

// Frames of a burst one by one, in order: to read them, and to take them out.
extension PacketBurst {
  /// When the queue took these frames from the device, by the clock of its loop (``NetworkQueue/clock``): read once for all of them,
  /// and so not before any of them had come. Nil for a burst that a program made.
  public var receivedAt: LoopClock.Instant? {
    let time = unsafe block.pointee.time
    return time == 0 ? nil : LoopClock.Instant(nanoseconds: time)
  }

  /// Reads each frame, in order. One that lies in several buffers is copied into one piece for it, and counted by its pool.
  @inline(__always) public borrowing func forEachFrame<Failure: Error>(
    _ body: (RawSpan) throws(Failure) -> Void
  ) throws(Failure) {
    for position in 0..<count { try withBytes(at: position, body) }
  }

  /// Shows each frame buffer by buffer, in order, without copying any.
  ///
  /// - Parameter body: is given the frame's position in the burst, the bytes of one of its buffers, and where in the frame those begin.
  public borrowing func forEachSegment<Failure: Error>(
    _ body: (_ frame: Int, _ bytes: RawSpan, _ offset: Int) throws(Failure) -> Void
  ) throws(Failure) {
    for position in 0..<count {
      let first = unsafe queue.records.advanced(by: Int(block.pointee.entries[position].slot))
      try unsafe SlotRecord.forEachSegment(of: first, in: queue.records) { (bytes, offset) throws(Failure) in
        try body(position, bytes, offset)
      }
    }
  }

  /// Takes the first frame out as a packet; nil when the burst is empty. The others keep their order, and move up.
  public mutating func popFirst() -> Packet? {
    guard count > 0 else { return nil }
    let packet = unsafe queue.packet(block.pointee.entries[0])
    dropFirst(1)
    return packet
  }

  /// Splits the burst by where its frames go, in order: the frames of each destination stay in the order in which they were received.
  ///
  /// ```swift
  /// try burst.split { frame in table.port(of: frame) } into: { port, part in
  ///   _ = try outputs[port].trySubmit(part)
  /// }
  /// ```
  ///
  /// Each destination is looked up once a frame, and gets one burst: a doorbell a burst and destination. On the loop of the queue
  /// that the burst comes from nothing is allocated for it.
  ///
  /// - Parameters:
  ///   - destination: where a frame goes; nil drops it.
  ///   - body: is given each destination that occurs, in the order of its first frame, with its frames.
  public consuming func split<Failure: Error>(
    by destination: (RawSpan) -> Int?,
    into body: (_ destination: Int, _ part: consuming PacketBurst) throws(Failure) -> Void
  ) throws(Failure) {
    var destinations = InlineArray<64, Int?>(repeating: nil)
    for position in 0..<count { destinations[position] = withBytes(at: position, destination) ?? nil }
    while let next = firstDestination(destinations) {
      try body(next, take(next, &destinations))
    }
    // What is left goes nowhere, and with the burst.
  }

  /// The destination of the first frame that has one.
  private func firstDestination(_ destinations: borrowing InlineArray<64, Int?>) -> Int? {
    for position in 0..<count { if let destination = destinations[position] { return destination } }
    return nil
  }

  /// Takes the frames of one destination out.
  private mutating func take(_ wanted: Int, _ destinations: inout InlineArray<64, Int?>) -> PacketBurst {
    let part = unsafe queue.makeEmptyBurst()
    let (from, to) = unsafe (block, part.block)
    var (kept, taken) = (0, 0)
    for position in 0..<count {
      let entry = unsafe from.pointee.entries[position]
      if destinations[position] == wanted {
        unsafe to.pointee.entries[taken] = entry
        taken += 1
      } else {
        unsafe from.pointee.entries[kept] = entry
        destinations[kept] = destinations[position]
        kept += 1
      }
    }
    unsafe from.pointee.count = kept
    unsafe to.pointee.count = taken
    unsafe to.pointee.time = from.pointee.time
    return part
  }
}

extension SlotRecord {
  /// The bytes of each buffer of a frame, and where in the frame they begin.
  static func forEachSegment<Failure: Error>(
    of first: UnsafeMutablePointer<SlotRecord>, in records: UnsafeMutablePointer<SlotRecord>,
    _ body: (RawSpan, Int) throws(Failure) -> Void
  ) throws(Failure) {
    var current = unsafe first
    var offset = 0
    for _ in unsafe 0..<first.pointee.segments {
      let length = unsafe Int(current.pointee.length)
      // Whoever holds the frame owns its buffers.
      try body(unsafe RawSpan(_unsafeStart: current.pointee.start, byteCount: length), offset)
      offset += length
      let next = unsafe current.pointee.next
      guard next != noSlot else { return }
      unsafe current = records.advanced(by: Int(next))
    }
  }
}

extension NetworkQueue {
  /// A burst without frames; from any thread, by whoever holds a burst of this queue.
  nonisolated func makeEmptyBurst() -> PacketBurst {
    if isHere {
      let block = unsafe frames.pointee.withTurn { turn in
        turn.blocksOut += 1
        return unsafe turn.takeBlock()
      }
      return unsafe PacketBurst(queue: self, block: block)
    }
    // Counted in order: the block that the caller holds keeps the queue until then, and comes back after it.
    loop.execute { unsafe self.frames.pointee.withTurn { $0.blocksOut += 1 } }
    return unsafe PacketBurst(queue: self, block: BurstBlock.make())
  }
}
