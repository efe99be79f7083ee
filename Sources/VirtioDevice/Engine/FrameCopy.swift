public import Virtio

/// Copies of frames between the driver's buffers and elsewhere, whatever pieces they lie in.
extension EngineRings where Ring: ~Copyable {
  /// Copies a whole frame, without its header, into private memory: what is parsed must not change meanwhile.
  ///
  /// - Returns: the length of the frame, which is in `room` only if it fits.
  public func copyFrame(of chain: DescriptorChain, into room: UnsafeMutableRawBufferPointer) -> Int {
    let length = chain.readableLength - format.headerLength
    if length <= room.count { _ = unsafe chain.copyBytes(from: format.headerLength, into: room) }
    return length
  }

  /// Copies a frame from private memory into receive buffers and finishes it.
  ///
  /// - Returns: why it could not be delivered; nothing has been used up then.
  public mutating func deliver(_ frame: UnsafeRawBufferPointer) -> DropReason? {
    if isFiltering,
      unsafe !admits(
        { unsafe $0.copyMemory(from: UnsafeRawBufferPointer(rebasing: frame.prefix($0.count))) }, frame.count)
    {
      return .filtered
    }
    let total = format.headerLength + frame.count
    let room = takeBuffers(for: total)
    guard room >= total else { return lack(of: room) }
    unsafe copyToHand(frame, at: format.headerLength)
    finishReceive(length: total)
    return nil
  }

  /// Copies the frame of a transmit chain into receive buffers and finishes it: guest to guest, once.
  ///
  /// - Returns: why it could not be delivered; nothing has been used up then.
  mutating func deliver(frameOf chain: DescriptorChain) -> DropReason? {
    let total = chain.readableLength
    if isFiltering,
      unsafe !admits({ _ = unsafe chain.copyBytes(from: format.headerLength, into: $0) }, total - format.headerLength)
    {
      return .filtered
    }
    let room = takeBuffers(for: total)
    guard room >= total else { return lack(of: room) }
    var position = 0
    for index in 0..<chain.readableCount {
      let segment = unsafe chain.segments[index]
      // The header, wherever it ends, is not copied: finishing writes a new one.
      let skip = min(max(format.headerLength - position, 0), segment.length)
      let piece = unsafe UnsafeRawBufferPointer(start: segment.base + skip, count: segment.length - skip)
      unsafe copyToHand(piece, at: position + skip)
      position += segment.length
    }
    finishReceive(length: total)
    return nil
  }

  /// Copies the first bytes of a frame out of the buffers in hand, from a position in the frame with its header; how many.
  func copyFromHand(at position: Int, into room: UnsafeMutableRawBufferPointer) -> Int {
    var skip = position
    var done = 0
    forEachSegmentInHand { segment in
      let skipped = min(skip, segment.length)
      skip -= skipped
      let part = min(segment.length - skipped, room.count - done)
      guard part > 0 else { return }
      // Bounded by both lengths in the line above.
      unsafe UnsafeMutableRawBufferPointer(rebasing: room[done...])
        .copyMemory(from: UnsafeRawBufferPointer(start: segment.base + skipped, count: part))
      done += part
    }
    return done
  }

  /// Whether the driver wants a frame that was read into the buffers in hand, `length` bytes behind its header.
  func admitsFrameInHand(length: Int) -> Bool {
    unsafe admits({ _ = unsafe copyFromHand(at: format.headerLength, into: $0) }, length)
  }

  /// Whether the driver wants a frame of `length` bytes, the first of which `copy` makes a private copy of.
  private func admits(_ copy: (UnsafeMutableRawBufferPointer) -> Void, _ length: Int) -> Bool {
    guard let filter = unsafe filter else { return true }
    var prefix = InlineArray<16, UInt8>(repeating: 0)
    var span = prefix.mutableSpan
    let count = max(0, min(length, ReceiveFilter.prefixLength))
    unsafe span.withUnsafeMutableBytes { unsafe copy(UnsafeMutableRawBufferPointer(rebasing: $0.prefix(count))) }
    let bytes = unsafe span.bytes.extracting(0..<count)
    return unsafe filter._withUnsafeGuaranteedRef { $0.filter.admits(bytes) }
  }

  /// What it means that a frame has no room.
  func lack(of room: Int) -> DropReason { room == 0 || format.isMergeable ? .noReceiveBuffer : .receiveBufferTooSmall }

  /// Copies bytes into the buffers in hand, which have room for them, from a position in the frame with its header.
  private func copyToHand(_ bytes: UnsafeRawBufferPointer, at position: Int) {
    guard bytes.count > 0 else { return }
    var skip = position
    var done = 0
    var place = handStart
    while done < bytes.count, place < handEnd {
      let chain = unsafe hand[place]
      let room = chain.writableLength
      if skip < room {
        let rest = unsafe UnsafeRawBufferPointer(rebasing: bytes[done...])
        done += unsafe chain.write(rest, at: skip)
        skip = 0
      } else {
        skip -= room
      }
      place += 1
    }
  }
}
