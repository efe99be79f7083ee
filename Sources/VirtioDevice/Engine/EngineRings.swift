public import Virtio

/// Both rings of a queue pair, the memory their buffers lie in, and what was negotiated about frames: what a back-end port
/// works with during a burst.
///
/// Frames leave the driver on `transmit` and reach it on `receive`, each behind a virtio-net header. Whoever takes a chain
/// returns it in the same burst, with `pushUsed`, or leaves it on the ring with `rewind`; the engine publishes after the
/// burst. The memory is the driver's: what decides anything is copied once and only the copy is looked at.
@safe public struct EngineRings: ~Copyable {
  /// Where the driver offers buffers for frames.
  public var receive: SplitDeviceRing
  /// Where the driver offers frames.
  public var transmit: SplitDeviceRing
  /// The memory that both name.
  public let memory: GuestMemory
  /// What was negotiated about headers.
  public let format: FrameFormat
  /// What has been done so far.
  public var statistics = QueuePairStatistics()

  /// Receive chains taken in this burst and not used yet: places `handStart..<handEnd` of `hand`, which has a place for
  /// every chain of the ring. Owned; trivial elements.
  let hand: UnsafeMutablePointer<DescriptorChain>
  var handStart = 0
  var handEnd = 0
  /// Writable bytes of the chains in hand.
  var handBytes = 0

  init(
    receive: consuming SplitDeviceRing, transmit: consuming SplitDeviceRing, memory: consuming GuestMemory,
    format: FrameFormat
  ) {
    unsafe hand = .allocate(capacity: receive.size)
    self.receive = receive
    self.transmit = transmit
    self.memory = memory
    self.format = format
  }

  deinit { unsafe hand.deallocate() }
}

// MARK: - The transmit ring

extension EngineRings {
  /// Looks at the transmit ring once: how many frames may be taken now. Zero when the ring is broken.
  @inline(__always)
  mutating func beginTransmit() -> Int {
    // A violation is kept by the ring itself, where the engine finds it after the burst.
    (try? transmit.begin()) ?? 0
  }

  /// The next chain of the transmit ring; nil when this batch has no more. Chains that broke a rule are skipped: the ring
  /// has returned them with a length of 0 (VIRTIO 1.4 §2.7.4).
  @inline(__always)
  mutating func nextTransmit() -> DescriptorChain? {
    while true {
      do throws(RingError) { return try transmit.next(in: memory) } catch {
        if transmit.isBroken { return nil }
      }
    }
  }

  /// Returns a frame that is not carried on, and counts it.
  mutating func dropTransmit(_ chain: DescriptorChain, _ reason: DropReason) {
    transmit.pushUsed(head: chain.head, written: 0)
    statistics.drops[reason] &+= 1
  }

  /// Discards up to `budget` frames, as a disabled pair does. True when there may be more.
  mutating func discardTransmit(budget: Int) -> Bool {
    let available = beginTransmit()
    var done = 0
    while done < budget, let chain = nextTransmit() {
      dropTransmit(chain, .pairDisabled)
      done += 1
    }
    return available > budget || transmit.seen > 0
  }
}

// MARK: - The receive ring

extension EngineRings {
  /// Looks at the receive ring once, at the beginning of a burst: how many buffers may be taken.
  @inline(__always)
  mutating func beginReceive() -> Int { (try? receive.begin()) ?? 0 }

  @inline(__always)
  mutating func nextReceive() -> DescriptorChain? {
    while true {
      do throws(RingError) { return try receive.next(in: memory) } catch {
        if receive.isBroken { return nil }
      }
    }
  }

  /// Takes receive buffers in hand until `bytes` fit, header included, or there are no more. Without mergeable buffers a
  /// frame has one buffer, whatever its size.
  ///
  /// - Returns: the room in hand, which may be less than what was asked for; 0 when there is no buffer.
  mutating func takeBuffers(for bytes: Int) -> Int {
    while true {
      while handStart == handEnd || (format.isMergeable && handBytes < bytes && handEnd - handStart < receive.size) {
        guard let chain = nextReceive() else { break }
        // The first buffer of a frame has room for the header (VIRTIO 1.4 §5.1.9.3.1); one that has not is returned empty.
        let room = chain.writableLength
        guard room >= format.headerLength || handStart != handEnd else {
          receive.pushUsed(head: chain.head, written: 0)
          statistics.drops[.receiveBufferTooSmall] &+= 1
          continue
        }
        place(chain, room)
      }
      guard handStart != handEnd else { return 0 }
      // A buffer that was good enough to be the second of a frame may be too small to be the first of the next.
      let first = unsafe hand[handStart]
      let room = first.writableLength
      if room >= format.headerLength { return format.isMergeable ? handBytes : room }
      advanceHand(by: room)
      receive.pushUsed(head: first.head, written: 0)
    }
  }

  private mutating func place(_ chain: DescriptorChain, _ room: Int) {
    if handStart == handEnd { (handStart, handEnd, handBytes) = (0, 0, 0) }
    // At most as many chains as the ring has are taken and not returned; the hand was emptied at the last burst's end.
    if handEnd == receive.size {
      for place in handStart..<handEnd { unsafe hand[place - handStart] = hand[place] }
      (handStart, handEnd) = (0, handEnd - handStart)
    }
    unsafe hand[handEnd] = chain
    handEnd += 1
    handBytes += room
  }

  private mutating func advanceHand(by room: Int) {
    handStart += 1
    handBytes -= room
  }

  /// Returns the buffers of one frame of `length` bytes, header included, whose bytes lie in the buffers in hand.
  ///
  /// Writes the header, with the number of buffers (VIRTIO 1.4 §5.1.9.3.1), and puts each buffer on the used ring with
  /// exactly what was written; the engine exposes them together. `length` is no more than `takeBuffers` said.
  mutating func finishReceive(length: Int, header: VirtioNetHeader = VirtioNetHeader()) {
    var remaining = length
    var count = 0
    while remaining > 0 || count == 0, handStart + count < handEnd {
      remaining -= min(remaining, unsafe hand[handStart + count].writableLength)
      count += 1
    }
    var header = header
    header.numBuffers = UInt16(truncatingIfNeeded: count)
    unsafe header.store(to: hand[handStart])
    remaining = length
    for _ in 0..<count {
      let chain = unsafe hand[handStart]
      let room = chain.writableLength
      let written = min(room, remaining)
      advanceHand(by: room)
      receive.pushUsed(head: chain.head, written: UInt32(truncatingIfNeeded: written))
      remaining -= written
    }
    statistics.receivedFrames &+= 1
    statistics.receivedBytes &+= UInt64(length - format.headerLength)
    statistics.receivedBuffers &+= UInt64(count)
  }

  /// Puts what is in hand back on the ring. At the end of every burst, before the engine publishes.
  mutating func returnBuffers() {
    guard handStart != handEnd else { return }
    do throws(RingError) { try receive.rewind(handEnd - handStart) } catch {
      // A malformed chain lies among them and has been returned already. The driver broke a rule: its buffers come back
      // empty rather than never.
      for place in handStart..<handEnd { unsafe receive.pushUsed(head: hand[place].head, written: 0) }
    }
    (handStart, handEnd, handBytes) = (0, 0, 0)
  }
}
