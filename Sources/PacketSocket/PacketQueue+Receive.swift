internal import CNetdevSystem
internal import Glibc
internal import LibeventConcurrency
internal import Netdev
internal import PacketFormats

/// Reception: frames are copied out of the ring, whole, before anything in them is looked at.
extension PacketQueue {
  var receiveRoom: Int { rings == nil ? 0 : transmitCapacity - postedCount }

  func post(_ slots: Span<UInt32>) throws(NetworkDeviceError) -> Int {
    let count = min(slots.count, receiveRoom)
    if postedCount == 0, nextReceived > 0, count > 0 { counts.receiveRingEmpty &+= 1 }
    for position in 0..<count { unsafe posted[postedCount + position] = slots[position] }
    postedCount += count
    return count
  }

  func takeReceived(into entries: inout MutableSpan<FrameEntry>) throws(NetworkDeviceError) -> Int {
    guard let rings else { return 0 }
    var count = 0
    // Frames that are dropped count too: the end of this loop does not depend on who sends them.
    for _ in 0..<entries.count {
      guard postedCount > 0 else { break }
      let place = unsafe rings.receiveSlot(nextReceived)
      var frame = netdev_packet_frame()
      guard unsafe netdev_packet_read(place, rings.slotSize, &frame) else { break }
      let slot = unsafe posted[postedCount - 1]
      if let length = unsafe take(frame, from: place, into: slot) {
        postedCount -= 1
        entries[count] = FrameEntry(receivedIn: slot, isInOneBuffer: length <= limit.untagged)
        count += 1
      }
      unsafe netdev_packet_give_back(place)
      nextReceived += 1
    }
    if count > 0 {
      vainWakes.succeeded()
      if let rest, rest.refusals > 0 { rest.succeeded() }
    }
    return count
  }

  /// Copies a frame into a buffer, and makes it what was on the wire; its length, or nil when it was dropped.
  ///
  /// - Parameters:
  ///   - frame: what the slot says of it, copied.
  ///   - place: the slot.
  ///   - slot: an empty buffer.
  private func take(_ frame: netdev_packet_frame, from place: UnsafeMutableRawPointer, into slot: UInt32) -> Int? {
    // Sent by this host, and shown by a kernel that cannot be asked not to.
    guard !frame.is_outgoing else { return nil }
    guard !frame.has_segments else {
      return drop("segmentation", \.receiveDropsSegmentation)
    }
    let captured = Int(frame.captured)
    let tag = frame.has_tag ? FrameLimit.tagLength : 0
    let room = slots.slotSize - slots.headroom
    guard frame.captured == frame.length, captured >= EthernetHeader.length, captured + tag <= room,
      captured + tag <= limit.longest
    else {
      return drop("tooLong", \.receiveDropsLength)
    }
    let source = unsafe place + Int(frame.offset)
    let start = unsafe slots.base(of: slot) + slots.headroom
    var bytes = unsafe MutableRawSpan(_unsafeStart: start, byteCount: captured + tag)
    if tag == 0 {
      // Both have so many bytes: the slot says so, and the buffer was asked.
      unsafe memcpy(start, source, captured)
    } else {
      // Behind the two addresses, where it was before.
      let addresses = 2 * 6
      unsafe memcpy(start, source, addresses)
      bytes.storeUInt16(frame.tag_protocol, inside: addresses)
      bytes.storeUInt16(frame.tag, inside: addresses + 2)
      unsafe memcpy(start + addresses + tag, source + addresses, captured - addresses)
    }
    if frame.lacks_checksum {
      guard bytes.completeChecksum(from: Int(frame.checksum_start), field: Int(frame.checksum_offset), behind: tag)
      else {
        return drop("checksum", \.receiveDropsChecksum)
      }
    }
    slots.setReceived(slot: slot, length: captured + tag)
    guard captured + tag <= limit.untagged || slots.admits(frameIn: slot, maximumLength: limit.untagged) else {
      slots.separate(slot: slot)
      return drop("tooLong", \.receiveDropsLength)
    }
    counts.bytesReceived &+= UInt64(truncatingIfNeeded: captured + tag)
    return captured + tag
  }

  /// Counts a frame that is not handed on, in the queue's own statistics, and says so the first time.
  @inline(never)
  private func drop(_ reason: String, _ counter: WritableKeyPath<QueueDriverStatistics, UInt64>) -> Int? {
    counts[keyPath: counter] &+= 1
    if counts[keyPath: counter] == 1 { shared.sayDropped(.received, reason) }
    return nil
  }
}

extension MutableRawSpan {
  /// Completes a checksum of which only the pseudo-header has been summed, as a network interface does.
  ///
  /// - Parameters:
  ///   - start: where the sum begins, without what was put into the frame since.
  ///   - field: how far behind that the checksum lies.
  ///   - added: bytes put into the frame in front of it.
  /// - Returns: false, with nothing changed, when they do not lie behind an Ethernet header in the frame.
  mutating func completeChecksum(from start: Int, field: Int, behind added: Int) -> Bool {
    guard start >= EthernetHeader.length, start + field + 2 + added <= byteCount else { return false }
    var sum = InternetChecksum()
    sum.add(bytes.extracting((start + added)..<byteCount))
    // A sum of zero is sent as its other form: zero means that there is none (RFC 768).
    storeUInt16(sum.value == 0 ? 0xFFFF : sum.value, inside: start + added + field)
    return true
  }
}
