internal import CNetdevSystem
internal import Glibc
internal import LibeventConcurrency
internal import Netdev
internal import PacketFormats
internal import Synchronization

/// Transmission: frames are copied into the ring, and the kernel takes them from there.
extension PacketQueue {
  func transmit(_ entries: Span<FrameEntry>) throws(NetworkDeviceError) -> Int {
    guard let rings else { return 0 }
    let room = min(entries.count, transmitCapacity - (tail - head) - finished.count)
    let present = shared.limit.load(ordering: .relaxed)
    var position = 0
    while position < room {
      let entry = entries[position]
      let length = frameLength(entry.slot)
      if length > limit.untagged, !slots.admits(frameIn: entry.slot, maximumLength: limit.untagged) {
        // It alone fails, when it is the first.
        guard position == 0 else { return position }
        throw .tooLong(length, limit.untagged, "submit")
      }
      position += 1
      if length < EthernetHeader.length {
        drop(entry, .refused)
      } else if length > present, !slots.admits(frameIn: entry.slot, maximumLength: present) {
        drop(entry, .tooLong)
      } else {
        publish(entry, length: length, rings)
      }
      counts.bytesSubmitted &+= UInt64(truncatingIfNeeded: length)
    }
    return max(0, position)
  }

  private func drop(_ entry: FrameEntry, _ reason: PacketDrop) {
    finished.append(entry)
    shared.drop(.transmitted, reason)
  }

  @inline(__always) private func publish(_ entry: FrameEntry, length: Int, _ rings: PacketRings) {
    // The place is free: there are no more frames under way than the ring has slots.
    let slot = unsafe rings.transmitSlot(tail)
    let start = unsafe slot + Int(NETDEV_PACKET_TRANSMIT_OFFSET)
    var (buffer, done) = (entry.slot, 0)
    for index in 0..<slots.segments(of: entry.slot) {
      if index > 0 { buffer = slots.next(after: buffer) }
      // What a frame has of bytes fits: its length was checked against the limit that the slots are made for.
      let part = min(slots.length(of: buffer), length - done)
      unsafe memcpy(start + done, slots.start(of: buffer), part)
      done += part
    }
    unsafe shadow[place(tail)] = entry
    unsafe netdev_packet_publish(slot, UInt32(truncatingIfNeeded: length))
    tail += 1
  }

  /// Bytes of a frame in all of its buffers.
  @inline(__always) private func frameLength(_ first: UInt32) -> Int {
    var (slot, length) = (first, slots.length(of: first))
    for _ in 1..<max(1, slots.segments(of: first)) {
      slot = slots.next(after: slot)
      length += slots.length(of: slot)
    }
    return length
  }

  /// The doorbell: the kernel takes what it has room for.
  func ring() {
    guard taken != tail, !isBlocked, let rings else { return }
    counts.kicks &+= 1
    while taken != tail {
      let before = taken
      let result = netdev_packet_send(rings.socket.descriptor)
      while taken != tail, unsafe netdev_packet_is_taken(rings.transmitSlot(taken)) { taken += 1 }
      if taken != before { madeProgress() }
      guard result == 0, taken != before else { return refused(-result, rings) }
    }
  }

  @inline(__always) private func madeProgress() {
    patience.succeeded()
    if let pause, pause.refusals > 0 { pause.succeeded() }
  }

  private func refused(_ error: CInt, _ rings: PacketRings) {
    let refusal = PacketRefusal(sending: error)
    let isBearable = patience.bears(refusal)
    switch refusal {
    case .notReady, .pause, .unknown:
      guard isBearable else { return fail(error) }
      // Of memory that becomes free the kernel tells, but not of all that it may lack.
      isBlocked = true
      pause?.begin()
    case .linkDown:
      dropWaiting(rings)
      onTrouble()
    case .lost:
      dropWaiting(rings)
      onTrouble()
    case .refused:
      fail(error)
    }
  }

  private func fail(_ error: CInt) {
    isBlocked = true
    signal.fail(NetworkDeviceError(lacking: "sending by interface \(interface)", errno: -error))
  }

  /// Takes back what the kernel has not taken: the next frame goes where the first of them is, which the kernel looks at next.
  private func dropWaiting(_ rings: PacketRings) {
    for position in taken..<tail {
      unsafe netdev_packet_withdraw(rings.transmitSlot(position))
      drop(unsafe shadow[place(position)], .linkDown)
    }
    tail = taken
    signal.interrupt()
  }

  // MARK: Releases

  func takeReleased(into entries: inout MutableSpan<FrameEntry>) throws(NetworkDeviceError) -> Int {
    var count = takeFinished(into: &entries)
    guard let rings else { return count }
    while count < entries.count, head != taken, unsafe netdev_packet_is_released(rings.transmitSlot(head)) {
      let entry = unsafe shadow[place(head)]
      head += 1
      guard entry != Self.gone else { continue }
      entries[count] = entry
      count += 1
    }
    if count == 0, wasTold, head != taken { count = takeOthers(into: &entries, rings) }
    return count
  }

  private func takeFinished(into entries: inout MutableSpan<FrameEntry>) -> Int {
    guard !finished.isEmpty else { return 0 }
    let count = min(entries.count, finished.count)
    for position in 0..<count { entries[position] = finished[position] }
    finished.removeFirst(count)
    return count
  }

  /// Takes the released frames out of the ring, which goes.
  func finishReleased(_ rings: PacketRings) {
    for position in head..<taken where unsafe shadow[place(position)] != Self.gone {
      guard unsafe netdev_packet_is_released(rings.transmitSlot(position)) else { continue }
      finished.append(unsafe shadow[place(position)])
      unsafe shadow[place(position)] = Self.gone
    }
  }

  /// Frames that have left before one in front of them.
  private func takeOthers(into entries: inout MutableSpan<FrameEntry>, _ rings: PacketRings) -> Int {
    var count = 0
    for position in head..<taken where unsafe shadow[place(position)] != Self.gone {
      guard count < entries.count else { return count }
      guard unsafe netdev_packet_is_released(rings.transmitSlot(position)) else { continue }
      entries[count] = unsafe shadow[place(position)]
      unsafe shadow[place(position)] = Self.gone
      count += 1
    }
    wasTold = false
    return count
  }

  /// Whether there is a frame to take back.
  func hasReleased(_ rings: PacketRings) -> Bool {
    if !finished.isEmpty { return true }
    for position in head..<taken where unsafe shadow[place(position)] != Self.gone {
      if unsafe netdev_packet_is_released(rings.transmitSlot(position)) {
        wasTold = true
        return true
      }
    }
    return false
  }
}
