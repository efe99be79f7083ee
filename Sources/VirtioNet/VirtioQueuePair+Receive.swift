internal import CNetdevSystem
internal import Netdev
internal import Virtio

/// Reception: empty buffers go to the device, frames come back behind their net headers.
extension VirtioQueuePair where Ring: ~Copyable {
  var receiveRoom: Int { isSuspended ? 0 : unsafe rings.pointee.receive.freeCount }

  func post(_ posted: Span<UInt32>) throws(NetworkDeviceError) -> Int {
    #if Testing
    tellPosted()
    #endif
    let slots = slots
    let addressing = addressing
    if unsafe rings.pointee.receive.isUsedUp { counts.receiveRingEmpty &+= 1 }
    let count = unsafe rings.pointee.receive.add(count: posted.count, writable: true) { position in
      // Below the count.
      let slot = unsafe posted[unchecked: position]
      return unsafe addressing.emptyBuffer(slot, base: slots.base(of: slot))
    }
    unsafe rings.pointee.receive.publish()
    #if Testing
    tellPosted()
    #endif
    return count
  }

  func takeReceived(into entries: inout MutableSpan<FrameEntry>) throws(NetworkDeviceError) -> Int {
    if isSuspended || backlog != nil { return try takeReceivedOfLost(into: &entries) }
    // Asked often, and often in vain: a consumer looks before it publishes.
    guard unsafe rings.pointee.receive.hasUsed else { return 0 }
    #if Testing
    if index == 1, unsafe netdev_fault_is_planted("second-queue-reversed") {
      let count = try reapReceived(into: &entries)
      for place in 0..<count / 2 { entries.swapAt(place, count - 1 - place) }
      return count
    }
    #endif
    #if Testing
    if unsafe netdev_fault_is_planted("lost-first") {
      let count = try reapReceived(into: &entries)
      guard count > 1 else { return count }
      repost(entries[0].slot)
      for place in 1..<count { entries[place - 1] = entries[place] }
      return count - 1
    }
    #endif
    return try reapReceived(into: &entries)
  }

  /// Takes the frames that the receive ring says are there.
  @inline(__always)
  func reapReceived(into entries: inout MutableSpan<FrameEntry>) throws(NetworkDeviceError) -> Int {
    #if Testing
    RingWatch.tell(.taking(unsafe rings.pointee.receive.identity))
    #endif
    var count = 0
    // Frames that are dropped count too: the end of this loop does not depend on the device.
    var left = entries.count
    while true {
      let plain = try takePlain(into: &entries, from: count, max: left)
      count &+= plain
      left &-= plain
      guard left > 0, unsafe rings.pointee.receive.hasOthers, try takeOther(into: &entries, &count) else {
        return count
      }
      left &-= 1
    }
  }

  /// Frames in one buffer each with nothing in their headers, up to the first that is not so; says how many.
  @inline(__always)
  private func takePlain(
    into entries: inout MutableSpan<FrameEntry>, from start: Int, max: Int
  ) throws(NetworkDeviceError) -> Int {
    let slots = slots
    let headerOffset = slots.headroom &- VirtioNetHeader.size
    let maximumLength = UInt32(truncatingIfNeeded: maximumFrame)
    var bytes = 0
    guard unsafe rings.pointee.receive.refresh() else {
      // What came before the violation is good; the ring, once broken, says so again at the next call.
      if start > 0 { return 0 }
      throw broken("the receive ring", unsafe rings.pointee.receive.failure)
    }
    let taken = unsafe entries.withUnsafeMutableBufferPointer { entries in
      guard let room = unsafe entries.baseAddress?.advanced(by: start) else { return 0 }
      return unsafe rings.pointee.receive.takeSingles(max: max) { position, token, written in
        let slot = UInt32(truncatingIfNeeded: token)
        // Of its two fields that matter each is loaded once.
        let header = unsafe slots.base(of: slot) + headerOffset
        let kind = unsafe netdev_load_relaxed_u16(header)
        let buffers = unsafe netdev_load_relaxed_u16(header + 10)
        // One comparison for both ends: what is shorter than a header wraps to a huge number.
        guard VirtioNetHeader.isPlain(copied: kind, numBuffers: buffers),
          written &- UInt32(VirtioNetHeader.size) <= maximumLength
        else { return false }
        slots.setReceived(slot: slot, length: Int(written) &- VirtioNetHeader.size)
        bytes &+= Int(written)
        // Below the count.
        unsafe room[position] = FrameEntry(receivedIn: slot)
        return true
      }
    }
    counts.bytesReceived &+= UInt64(truncatingIfNeeded: bytes &- taken &* VirtioNetHeader.size)
    return taken
  }

  /// The next frame, whatever it is: in several buffers, or with something in its header. False when there is none.
  ///
  /// A frame that breaks the header's rules is dropped and its buffers posted again.
  ///
  /// - Throws: what breaks the queue; the frames of this call then wait in `limbo` for the reset.
  @inline(never)
  private func takeOther(
    into entries: inout MutableSpan<FrameEntry>, _ count: inout Int
  ) throws(NetworkDeviceError) -> Bool {
    let first: UsedBuffer
    do throws(RingError) {
      guard let used = try unsafe rings.pointee.receive.nextUsed() else { return false }
      first = used
    } catch {
      if count > 0 { return false }
      throw broken("the receive ring", "\(error)")
    }
    let slot = UInt32(truncatingIfNeeded: first.token)
    do throws(FrameViolation) {
      guard try takeFrame(slot, written: Int(first.written)) else { return true }
      // One with VLAN tags that is longer than others is looked at once more where it is sent on.
      let isOrdinary = slots.segments(of: slot) == 1 && slots.length(of: slot) <= maximumFrame
      entries[count] = FrameEntry(receivedIn: slot, isInOneBuffer: isOrdinary)
      count += 1
      return true
    } catch {
      // Nobody has these frames: they are drained with the ring. A frame's further buffers go with its first.
      for position in 0..<count { limbo.append(entries[position].slot) }
      limbo.append(slot)
      unsafe rings.pointee.receive.fail(RingError(.stopped, UInt64(count)))
      throw broken("a received frame", error.how)
    }
  }

  /// Checks the header of the frame that begins in `slot`, collects its buffers and checks its length; false when it was
  /// dropped.
  private func takeFrame(_ slot: UInt32, written: Int) throws(FrameViolation) -> Bool {
    guard written >= VirtioNetHeader.size else {
      throw FrameViolation(how: "\(written) bytes are less than a net header")
    }
    // Copied once; only the copy is looked at.
    let headerOffset = slots.headroom - VirtioNetHeader.size
    let header = unsafe VirtioNetHeader(loadingOnceFrom: slots.base(of: slot).advanced(by: headerOffset))
    let buffers: Int
    do {
      buffers = try header.bufferCount(mergeable: features.contains(.mrgRxbuf), queueSize: size)
    } catch {
      throw FrameViolation(how: "\(error)")
    }
    var last = slot
    var total = written - VirtioNetHeader.size
    slots.setReceived(slot: slot, length: total)
    for _ in 1..<buffers {
      let next = try nextBuffer()
      let nextSlot = UInt32(truncatingIfNeeded: next.token)
      total += Int(next.written)
      // Only the first buffer of a frame has a header (VIRTIO 1.4 §5.1.9.3.2).
      #if Testing
      if unsafe netdev_fault_is_planted("lost-buffer") { continue }
      #endif
      slots.append(slot: nextSlot, offset: headerOffset, length: Int(next.written), to: slot, last: last)
      last = nextSlot
    }
    #if Testing
    if buffers > 1, unsafe rings.pointee.receive.hasUsed, unsafe netdev_fault_is_planted("lost-merged") {
      repost(slot)
      return false
    }
    #endif
    guard slots.admits(frameIn: slot, maximumLength: maximumFrame) else {
      noteTooLong(total)
      repost(slot)
      return false
    }
    do throws(NetHeaderError) {
      _ = try header.receiveOffload(frameLength: total, features: features)
    } catch {
      if case .checksumOutOfBounds = error {
        counts.receiveDropsChecksum &+= 1
      } else {
        counts.receiveDropsSegmentation &+= 1
      }
      repost(slot)
      return false
    }
    counts.bytesReceived &+= UInt64(truncatingIfNeeded: total)
    return true
  }

  /// The next buffer of a frame: the device shows all of them together, so it is there or the device lies.
  private func nextBuffer() throws(FrameViolation) -> UsedBuffer {
    do throws(RingError) {
      if let buffer = try unsafe rings.pointee.receive.nextUsed() { return buffer }
    } catch {
      throw FrameViolation(how: "\(error)")
    }
    throw FrameViolation(how: "buffers of a frame are missing")
  }

  /// Gives the buffers of a dropped frame to the device again; the ring has just freed their places.
  private func repost(_ first: UInt32) {
    #if Testing
    tellPosted()
    #endif
    var slot = first
    for _ in 0..<slots.segments(of: first) {
      let next = slots.next(after: slot)
      slots.separate(slot: slot)
      let buffer = unsafe addressing.emptyBuffer(slot, base: slots.base(of: slot))
      if unsafe !rings.pointee.receive.add(
        address: buffer.address, length: buffer.length, writable: true, token: buffer.token)
      {
        limbo.append(slot)
      }
      slot = next
    }
    unsafe rings.pointee.receive.publish()
    #if Testing
    tellPosted()
    #endif
  }
}

/// How a frame breaks the queue.
private struct FrameViolation: Error {
  let how: String
}
