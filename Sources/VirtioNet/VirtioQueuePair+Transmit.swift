internal import CNetdevSystem
internal import Netdev
internal import Virtio

// Transmission: frames into the ring, and released buffers out of it.
extension VirtioQueuePair where Ring: ~Copyable {
  var transmitCapacity: Int { size }

  func transmit(_ entries: Span<FrameEntry>) throws(NetworkDeviceError) -> Int {
    if isSuspended { return 0 }
    #if Testing
    tellTransmitted()
    #endif
    var done = 0
    while true {
      done &+= addPlain(entries, from: done)
      // Nothing left; or no room, which holds for a chain too; or a frame that is not plain.
      guard done < entries.count else { break }
      do throws(NetworkDeviceError) {
        guard try addChain(entries[done]) else { break }
      } catch {
        // What went before it is in the ring and counts; the next call begins with this frame.
        guard done > 0 else { throw error }
        break
      }
      done &+= 1
    }
    unsafe rings.pointee.transmit.publish()
    #if Testing
    tellTransmitted()
    #endif
    return done
  }

  /// Frames in one buffer each, up to the first that is not so: the header in their headroom, one descriptor. The number
  /// that was added.
  @inline(__always)
  private func addPlain(_ entries: Span<FrameEntry>, from start: Int) -> Int {
    let slots = slots
    let addressing = addressing
    var bytes: UInt64 = 0
    let count = unsafe rings.pointee.transmit.add(count: entries.count &- start, writable: false) { position in
      // Below the count.
      let entry = unsafe entries[unchecked: start &+ position]
      guard entry.isPlain else { return nil }
      let slot = entry.slot
      // In the headroom before the frame, which nobody else holds.
      let frame = unsafe slots.start(of: slot)
      unsafe VirtioNetHeader().store(to: frame - VirtioNetHeader.size)
      #if Testing
      if unsafe netdev_fault_is_planted("foreign-header") {
        unsafe VirtioNetHeader(numBuffers: 1).store(to: frame - VirtioNetHeader.size)
      }
      #endif
      let length = UInt32(truncatingIfNeeded: slots.length(of: slot) &+ VirtioNetHeader.size)
      bytes &+= UInt64(length)
      return unsafe RingBuffer(address: addressing.headerAddress(before: frame), length: length, token: entry.rawValue)
    }
    counts.bytesSubmitted &+= bytes &- UInt64(count &* VirtioNetHeader.size)
    return count
  }

  /// A frame in several buffers, or one whose buffer somebody else holds: the header of zeros, then the frame.
  @inline(never)
  private func addChain(_ entry: FrameEntry) throws(NetworkDeviceError) -> Bool {
    let segments = slots.segments(of: entry.slot)
    guard segments < chainCapacity else { throw frameTooLong("a frame in \(segments) buffers") }
    unsafe chain[0] = RingBuffer(address: zeroHeaderAddress, length: UInt32(VirtioNetHeader.size))
    var slot = entry.slot
    var length = 0
    var places = 1
    for _ in 0..<segments {
      let part = slots.length(of: slot)
      // Another device may have delivered a frame with an empty buffer in it; not every device takes a descriptor of none.
      if part > 0 {
        unsafe chain[places] = RingBuffer(
          address: addressing.address(of: slots.start(of: slot)), length: UInt32(truncatingIfNeeded: part))
        places += 1
      }
      length += part
      slot = slots.next(after: slot)
    }
    // A frame that another device received may be longer than this one takes (VIRTIO 1.4 §5.1.4.2).
    guard slots.admits(frameIn: entry.slot, maximumLength: maximumFrame) else {
      throw .tooLong(length, maximumFrame, "submit")
    }
    do {
      // Below the capacity.
      let buffers = unsafe Span(_unsafeStart: chain, count: places)
      guard try unsafe rings.pointee.transmit.add(readable: buffers, writable: Span(), token: entry.rawValue) else {
        return false
      }
      counts.bytesSubmitted &+= UInt64(length)
      return true
    } catch {
      throw frameTooLong("\(error)")
    }
  }

  private func frameTooLong(_ how: String) -> NetworkDeviceError {
    NetworkDeviceError(.frameTooLong, "submit", offered: how, advice: "use larger buffers or a larger queue")
  }

  func takeReleased(into entries: inout MutableSpan<FrameEntry>) throws(NetworkDeviceError) -> Int {
    if isSuspended || backlog != nil { return try takeReleasedOfLost(into: &entries) }
    return try reapReleased(into: &entries)
  }

  /// Takes back what the transmit ring says is released.
  @inline(__always)
  func reapReleased(into entries: inout MutableSpan<FrameEntry>) throws(NetworkDeviceError) -> Int {
    #if Testing
    RingWatch.tell(.taking(unsafe rings.pointee.transmit.identity))
    #endif
    let room = entries.count
    var count = 0
    while count < room {
      let start = count
      guard unsafe rings.pointee.transmit.refresh() else {
        // What came before the violation is good; the ring, once broken, says so again at the next call.
        if count > 0 { break }
        throw broken("the transmit ring", unsafe rings.pointee.transmit.failure)
      }
      count &+= unsafe entries.withUnsafeMutableBufferPointer { entries in
        guard let place = unsafe entries.baseAddress?.advanced(by: start) else { return 0 }
        return unsafe rings.pointee.transmit.takeSingles(max: room &- start) { position, token, _ in
          // Below the room.
          unsafe place[position] = FrameEntry(rawValue: token)
          return true
        }
      }
      guard count < room, unsafe rings.pointee.transmit.hasOthers else { break }
      do throws(RingError) {
        guard let used = try unsafe rings.pointee.transmit.nextUsed() else { break }
        unsafe entries[unchecked: count] = FrameEntry(rawValue: used.token)
        count &+= 1
      } catch {
        if count > 0 { break }
        throw broken("the transmit ring", error)
      }
    }
    #if Testing
    if count > 0, count < room, unsafe netdev_fault_is_planted("double-completion") {
      entries[count] = entries[count - 1]
      count += 1
    }
    #endif
    return count
  }

  @inline(never)
  func broken(_ what: String, _ failure: RingError?) -> NetworkDeviceError {
    broken(what, failure.map { "\($0)" } ?? "")
  }

  @inline(never)
  func broken(_ what: String, _ how: String) -> NetworkDeviceError {
    NetworkDeviceError(.broken, what, offered: how, advice: "the device breaks the virtio protocol; it is reset")
  }
}
