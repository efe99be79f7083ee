public import Virtio

/// Both rings of a queue pair, the memory their buffers lie in, and what was negotiated about frames: what a back-end port
/// works with during a burst.
///
/// Frames leave the driver on `transmit` and reach it on `receive`, each behind a virtio-net header. A port that copies:
///
///     rings.beginTransmit()
///     while let chain = rings.nextFrame(&budget) {
///       let length = rings.copyFrame(of: chain, into: room)     // private memory: look at it as long as you like
///       …
///       rings.release(chain, frameLength: length)
///     }
///     rings.beginReceive()
///     if let reason = rings.deliver(frame) { rings.countDrop(.received, reason) }
///
/// Whoever takes a chain returns it in the same burst, with `release` or `drop`, or leaves it on the ring with `putBack`;
/// the engine publishes after the burst. Chains are returned in the order in which they were taken: with IN_ORDER another one breaks the
/// driver's queue, or worse. The memory is the driver's: what decides anything is copied once and only the copy
/// is looked at.
@safe public struct EngineRings<Ring: DeviceRing & ~Copyable>: ~Copyable {
  /// Where the driver offers buffers for frames.
  public var receive: Ring
  /// Where the driver offers frames.
  public var transmit: Ring
  /// The memory that both name.
  public let memory: GuestMemory
  /// What was negotiated about headers.
  public let format: FrameFormat
  /// What has been done so far.
  public var statistics = QueuePairStatistics()
  /// What has been dropped and is not in the pair's ledger yet.
  private var unpublishedDrops = DropCounts()
  /// Whether there is any of that: asked once a turn.
  private(set) var hasUnpublishedDrops = false

  /// Receive chains taken in this burst and not used yet: places `handStart..<handEnd` of `hand`, which has a place for
  /// every chain of the ring.
  private let places: ChainPlaces
  @inline(__always)
  var hand: UnsafeMutablePointer<DescriptorChain> { unsafe places.first }
  var handStart = 0
  var handEnd = 0

  // Proof: the holder of the engine's core keeps it as long as it is here.
  /// What must not be put on the receive ring; nil where everything may.
  var filter: Unmanaged<FilterBox>?
  /// Whether frames that come in are to be looked at.
  @inline(__always) var isFiltering: Bool { unsafe filter != nil }

  init(
    receive: consuming Ring, transmit: consuming Ring, memory: consuming GuestMemory, format: FrameFormat
  ) {
    places = ChainPlaces(count: receive.size)
    self.receive = receive
    self.transmit = transmit
    self.memory = memory
    self.format = format
  }
}

/// Room for chains: owned, trivial elements. A type of its own, for the deinit of a generic one that cannot be copied is left out where
/// it is destroyed in memory (Swift 6.3.1).
@safe private struct ChainPlaces: ~Copyable {
  let first: UnsafeMutablePointer<DescriptorChain>
  init(count: Int) { unsafe first = .allocate(capacity: count) }
  deinit { unsafe first.deallocate() }
}

// MARK: - The transmit ring

extension EngineRings where Ring: ~Copyable {
  /// Looks at the transmit ring: whether there is a frame to take. Not when the ring is broken.
  @discardableResult public mutating func beginTransmit() -> Bool {
    // A violation is kept by the ring itself, where the engine finds it after the burst.
    transmit.refresh()
  }

  /// The next frame of the transmit ring that may be carried on; nil when this batch has no more, or the budget is used up.
  ///
  /// Frames that are shorter than their header, or whose header asks for what was not negotiated, are dropped, counted, and
  /// count against the budget. Chains that broke a rule are skipped: the ring has returned them with a length of 0.
  public mutating func nextFrame(_ budget: inout Int) -> DescriptorChain? {
    while budget > 0, let chain = nextTransmit() {
      budget -= 1
      guard let header = VirtioNetHeader(copying: chain) else {
        drop(chain, .shorterThanHeader)
        continue
      }
      guard let reason = format.objection(to: header, frameLength: chain.readableLength - format.headerLength) else {
        return chain
      }
      drop(chain, reason)
    }
    return nil
  }

  /// Whether this batch has frames that have not been taken.
  public var hasMoreFrames: Bool { transmit.hasMore }

  /// The next chain, whatever it holds; nil when this batch has no more.
  @inline(__always)
  mutating func nextTransmit() -> DescriptorChain? { transmit.take(in: memory) }

  /// Returns a frame that has been carried on, and counts it. Frames are returned in the order in which they were taken, where IN_ORDER
  /// was agreed: see `EngineRings`.
  @inline(__always)
  public mutating func release(_ chain: DescriptorChain, frameLength: Int) {
    release(chain)
    countTransmitted(frameLength: frameLength)
  }

  /// Returns a frame that has been copied to be carried on later: what comes of it is counted when it is known, with
  /// `countTransmitted` or `countDrop`.
  @inline(__always)
  public mutating func release(_ chain: DescriptorChain) { transmit.pushUsed(chain, written: 0) }

  /// Counts a frame that has been carried on.
  @inline(__always)
  public mutating func countTransmitted(frameLength: Int) {
    statistics.transmittedFrames &+= 1
    statistics.transmittedBytes &+= UInt64(frameLength)
  }

  /// Returns a frame that is not carried on, and counts it.
  public mutating func drop(_ chain: DescriptorChain, _ reason: DropReason) {
    release(chain)
    countDrop(.transmitted, reason)
  }

  /// Counts a frame that is not carried on: every frame is in one counter, and in one only.
  public mutating func countDrop(_ direction: FrameDirection, _ reason: DropReason) {
    statistics.drops[direction, reason] &+= 1
    unpublishedDrops[direction, reason] &+= 1
    hasUnpublishedDrops = true
  }

  /// What has been dropped since this was asked last.
  mutating func takeUnpublishedDrops() -> DropCounts {
    defer {
      unpublishedDrops = DropCounts()
      hasUnpublishedDrops = false
    }
    return unpublishedDrops
  }

  /// Leaves the frame that was taken last on the ring, as if it had not been looked at. False when that cannot be: it is not the last, or
  /// a malformed chain came after it.
  public mutating func putBack(_ chain: DescriptorChain) -> Bool {
    do throws(RingError) {
      try transmit.putBack(chain)
      return true
    } catch {
      return false
    }
  }

  /// Discards up to `budget` frames, as a disabled pair does. True when there may be more.
  mutating func discardTransmit(budget: Int, _ reason: DropReason = .pairDisabled) -> Bool {
    beginTransmit()
    var done = 0
    while done < budget, let chain = nextTransmit() {
      drop(chain, reason)
      done += 1
    }
    return hasMoreFrames
  }
}

// MARK: - The receive ring

extension EngineRings where Ring: ~Copyable {
  /// Looks at the receive ring, at the beginning of a burst: whether there is a buffer to take. Not when it is broken.
  @discardableResult public mutating func beginReceive() -> Bool { receive.refresh() }

  @inline(__always)
  mutating func nextReceive() -> DescriptorChain? { receive.take(in: memory) }

  /// Takes receive buffers in hand until `bytes` fit, header included, or there are no more. Without mergeable buffers a
  /// frame has one buffer, whatever its size.
  ///
  /// - Returns: the room in hand, no less than `bytes` where possible; 0 when there is no buffer.
  mutating func takeBuffers(for bytes: Int) -> Int {
    while true {
      if handStart == handEnd, let chain = nextReceive() { takeInHand(chain) }
      guard handStart != handEnd else { return 0 }
      let first = unsafe hand[handStart]
      var room = first.writableLength
      // The first buffer of a frame has room for the header (VIRTIO 1.4 §5.1.9.3.1); one that has not is returned empty. The loop
      // ends with the ring's batch, however quickly the driver offers others.
      guard room >= format.headerLength else {
        handStart += 1
        receive.pushUsed(first, written: 0)
        continue
      }
      guard format.isMergeable else { return room }
      var place = handStart + 1
      while room < bytes, place < handEnd {
        room += unsafe hand[place].writableLength
        place += 1
      }
      while room < bytes, handEnd - handStart < receive.size, let chain = nextReceive() {
        takeInHand(chain)
        room += chain.writableLength
      }
      return room
    }
  }

  /// Whether a frame may wait that the buffers in hand are not enough for. Not when there are more that this burst could not
  /// take, because together they are in more pieces than a batch of the ring has room for: the next burst would come no
  /// further, unless this one has used some for other frames.
  var mayHopeForBuffers: Bool { !receive.isBroken && (!receive.lacksRoom || handStart > 0) }

  private mutating func takeInHand(_ chain: DescriptorChain) {
    if handEnd == receive.size {
      // There is room in front: no more chains are taken and not returned than the ring has.
      for place in handStart..<handEnd { unsafe hand[place - handStart] = hand[place] }
      (handStart, handEnd) = (0, handEnd - handStart)
    }
    unsafe hand[handEnd] = chain
    handEnd += 1
  }

  /// The writable segments of the buffers in hand, in order.
  @inline(__always)
  func forEachSegmentInHand(_ body: (BufferSegment) -> Void) {
    for place in handStart..<handEnd {
      let chain = unsafe hand[place]
      for index in 0..<chain.writableCount {
        unsafe body(chain.segments[chain.readableCount + index])
      }
    }
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
      let written = min(chain.writableLength, remaining)
      handStart += 1
      receive.pushUsed(chain, written: UInt32(truncatingIfNeeded: written))
      remaining -= written
    }
    statistics.receivedFrames &+= 1
    statistics.receivedBytes &+= UInt64(length - format.headerLength)
    statistics.receivedBuffers &+= UInt64(count)
  }

  /// Puts what is in hand back on the ring. At the end of every burst, before the engine publishes.
  mutating func returnBuffers() {
    guard handStart != handEnd else { return }
    do throws(RingError) {
      while handEnd != handStart {
        try unsafe receive.putBack(hand[handEnd - 1])
        handEnd -= 1
      }
    } catch {
      // A malformed chain lies among them and has been returned already. The driver broke a rule: its buffers come back
      // empty rather than never.
      for place in handStart..<handEnd { unsafe receive.pushUsed(hand[place], written: 0) }
    }
    (handStart, handEnd) = (0, 0)
  }
}
