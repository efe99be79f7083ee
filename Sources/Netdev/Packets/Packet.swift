public import CNetdevSystem

/// One frame: a value with copy-on-write storage in a packet pool, as `Array` is a value.
///
/// Keep it, forget it, pass it to another task, send it twice or through two queues: each holder sees the bytes that it
/// was given. Changing a packet that somebody else holds, a device included, changes a copy. When the last reference
/// goes, on whatever thread, the buffer is back in its pool. Reading needs no lock; changing one variable from two
/// threads is a race, as with any value.
///
/// Functions that change a packet should take it `consuming`: a borrowed argument is still held by the caller, and the
/// change then copies the buffer.
@frozen @safe @_eagerMove
public struct Packet: Sendable {
  @usableFromInline var object: PacketObject

  /// Takes over the reference that the owner of a slot has.
  @inlinable init(object: PacketObject) { self.object = object }

  /// The packet of a slot, or of a buffer on the heap, that the caller owns: the object that travels with it, or a new one.
  @inlinable init(owning record: UnsafeMutablePointer<SlotRecord>) {
    if let object = unsafe UnsafeRawPointer(bitPattern: record.pointee.object) {
      // The slot's owner owns one reference to its object; it becomes the packet's.
      self.object = unsafe Unmanaged<PacketObject>.fromOpaque(object).takeRetainedValue()
    } else {
      object = unsafe PacketObject(record: record)
    }
  }

  @inlinable var record: UnsafeMutablePointer<SlotRecord> { unsafe object.record }

  /// A packet of `count` zero bytes in a buffer of `pool`. When the pool is empty, or the frame longer than a buffer, it
  /// lies on the heap, in one piece to be written; when it is sent it moves into as many buffers as it takes.
  ///
  /// - Parameters:
  ///   - count: bytes, 0 to 65 535.
  ///   - pool: where the buffer comes from; it goes back there with the packet's last reference.
  /// - Throws: `NetworkDeviceError` with code `frameTooLong`.
  public init(count: Int, in pool: PacketPool) throws(NetworkDeviceError) {
    try Self.checkLength(count)
    let record = unsafe pool.makeBuffer(count: count)
    unsafe record.pointee.start.initializeMemory(as: UInt8.self, repeating: 0, count: count)
    self = unsafe Packet(owning: record)
  }

  /// A packet of the bytes that `body` writes, up to `count` of them: each is written once. What it leaves unwritten is no part of the
  /// packet, whose buffer may hold bytes of other frames there.
  ///
  /// ```swift
  /// let packet = try Packet(count: 64, in: queue.pool) { bytes in
  ///   for byte in header { bytes.append(byte) }
  ///   bytes.append(repeating: 0, count: bytes.freeCapacity)
  /// }
  /// ```
  ///
  /// It lies where a packet made by ``init(count:in:)`` does.
  ///
  /// - Parameters:
  ///   - count: bytes that there is to be room for, 0 to 65 535.
  ///   - pool: where the buffer comes from; it goes back there with the packet's last reference.
  ///   - body: writes the bytes, from the first on; when it throws there is no packet.
  /// - Throws: `NetworkDeviceError` with code `frameTooLong`, and what `body` throws.
  @inlinable public init(
    count: Int, in pool: PacketPool,
    initializingWith body: (inout OutputSpan<UInt8>) throws(NetworkDeviceError) -> Void
  ) throws(NetworkDeviceError) {
    try Self.checkLength(count)
    let record = unsafe pool.makeBuffer(count: count)
    // From here on the buffer goes with the packet, also when the body throws.
    self = unsafe Packet(owning: record)
    let room = unsafe UnsafeMutableBufferPointer(
      start: record.pointee.start.assumingMemoryBound(to: UInt8.self), count: count)
    var bytes = unsafe OutputSpan(buffer: room, initializedCount: 0)
    try body(&bytes)
    unsafe record.pointee.setFrame(offset: Int(record.pointee.offset), length: bytes.finalize(for: room))
  }

  @usableFromInline static func checkLength(_ count: Int) throws(NetworkDeviceError) {
    guard count >= 0, count <= 65_535 else {
      throw NetworkDeviceError(
        .frameTooLong, "Packet", offered: "\(count) bytes", advice: "a frame has 0 to 65535 bytes")
    }
  }

  /// A packet with a copy of `bytes`, in as many buffers of `pool` as it takes, or, when there are not enough, on the heap.
  ///
  /// - Throws: `NetworkDeviceError` with code `frameTooLong` above 65 535 bytes.
  @inlinable public init(copying bytes: RawSpan, in pool: PacketPool) throws(NetworkDeviceError) {
    let record = unsafe try pool.makeFrame(count: bytes.byteCount)
    self = unsafe Packet(owning: record)
    unsafe bytes.withUnsafeBytes { source in
      guard let base = source.baseAddress else { return }
      if unsafe record.pointee.segments == 1 {
        unsafe record.pointee.start.copyMemory(from: base, byteCount: source.count)
      } else {
        unsafe Self.write(source, to: record)
      }
    }
  }

  @usableFromInline
  static func write(_ bytes: UnsafeRawBufferPointer, to first: UnsafeMutablePointer<SlotRecord>) {
    unsafe SlotRecord.write(bytes, at: 0, to: first)
  }

  /// A packet with a copy of `bytes`, in as many buffers of `pool` as it takes, or, when there are not enough, on the heap.
  ///
  /// - Throws: `NetworkDeviceError` with code `frameTooLong` above 65 535 bytes.
  @inlinable public init(copying bytes: [UInt8], in pool: PacketPool) throws(NetworkDeviceError) {
    try unsafe self.init(copying: bytes.span.bytes, in: pool)
  }

  /// Bytes of the frame.
  @inlinable public var count: Int { unsafe Int(record.pointee.frameLength) }

  /// Buffers that the frame lies in; more than one only where it is longer than a buffer.
  @inlinable public var segmentCount: Int { unsafe Int(record.pointee.segments) }

  /// True when the frame lies in its pool's shared memory, so that sending it copies nothing.
  @inlinable public var isInPool: Bool { unsafe record.pointee.slot != SlotRecord.heapSlot }
}

// MARK: - Reading

extension Packet {
  /// The frame's bytes. A frame in several buffers is copied into one piece, once, and counted by its pool.
  ///
  /// Costs one retain pair; `withBytes` costs none.
  @inlinable public var bytes: RawSpan {
    @_lifetime(borrow self) borrowing get {
      let record = unsafe record
      let start = unsafe record.pointee.segments == 1 ? record.pointee.start : Self.contiguousBytes(record)
      // The packet's reference keeps the buffer, and nobody writes to it while the span borrows that reference.
      let span = unsafe RawSpan(_unsafeStart: start, byteCount: Int(record.pointee.frameLength))
      return unsafe _overrideLifetime(span, borrowing: self)
    }
  }

  @usableFromInline
  static func contiguousBytes(_ record: UnsafeMutablePointer<SlotRecord>) -> UnsafeMutableRawPointer {
    unsafe SlotRecord.contiguousBytes(record)
  }

  /// Reads the frame's bytes; as `bytes`, without a retain.
  @inlinable public borrowing func withBytes<Result: ~Copyable, Failure: Error>(
    _ body: (RawSpan) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    let record = unsafe record
    let start = unsafe record.pointee.segments == 1 ? record.pointee.start : Self.contiguousBytes(record)
    return try body(unsafe RawSpan(_unsafeStart: start, byteCount: Int(record.pointee.frameLength)))
  }

  /// Shows the frame's bytes buffer by buffer, in order, without copying.
  public borrowing func withSegments<Failure: Error>(_ body: (RawSpan) throws(Failure) -> Void) throws(Failure) {
    try withSegmentsAndOffsets { (bytes: RawSpan, _: Int) throws(Failure) in try body(bytes) }
  }

  /// The same, with the position in the frame at which each begins.
  borrowing func withSegmentsAndOffsets<Failure: Error>(
    _ body: (RawSpan, Int) throws(Failure) -> Void
  ) throws(Failure) {
    let records = unsafe record.pointee.pool.takeUnretainedValue().records
    var current = unsafe record
    var offset = 0
    for _ in 0..<segmentCount {
      let length = unsafe Int(current.pointee.length)
      try body(unsafe RawSpan(_unsafeStart: current.pointee.start, byteCount: length), offset)
      offset += length
      let next = unsafe current.pointee.next
      guard next != SlotRecord.noSlot else { return }
      unsafe current = records.advanced(by: Int(next))
    }
  }
}

// MARK: - Changing

extension Packet {
  /// Changes the frame's bytes: in place if this is the only reference to them and they lie in one buffer, else in a copy
  /// that this variable then holds, in one piece.
  @inlinable public mutating func withMutableBytes<Result: ~Copyable, Failure: Error>(
    _ body: (inout MutableRawSpan) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    self = Packet.unique(consume self)
    var span = unsafe MutableRawSpan(_unsafeStart: record.pointee.start, byteCount: Int(record.pointee.length))
    return try body(&span)
  }

  /// The frame's bytes, to be changed; as `withMutableBytes`.
  @inlinable public var mutableBytes: MutableRawSpan {
    @_lifetime(&self) mutating get {
      self = Packet.unique(consume self)
      // The reference is unique and this variable is borrowed exclusively for as long as the span lives.
      let span = unsafe MutableRawSpan(_unsafeStart: record.pointee.start, byteCount: Int(record.pointee.length))
      return unsafe _overrideLifetime(span, mutating: &self)
    }
  }

  /// The packet itself if nobody else refers to its buffer and it lies in one, else a copy.
  @inlinable static func unique(_ packet: consuming Packet) -> Packet {
    if isKnownUniquelyReferenced(&packet.object), unsafe packet.record.pointee.segments == 1 {
      // Whoever let go of its reference on another thread did so before we write.
      netdev_acquire_fence()
      return packet
    }
    return packet.copied(growingTo: 0)
  }

  /// A copy in one buffer with room for at least `count` bytes.
  @usableFromInline func copied(growingTo count: Int) -> Packet {
    let length = self.count
    let pool = unsafe record.pointee.pool.takeUnretainedValue()
    let copy = unsafe pool.makeBuffer(count: max(length, count))
    unsafe SlotRecord.copyFrame(record, to: copy.pointee.start)
    unsafe copy.pointee.setFrame(offset: Int(copy.pointee.offset), length: length)
    pool.noteCopy()
    unsafe LocalSlots.noteCopy(record.pointee.home)
    return unsafe Packet(owning: copy)
  }

  /// Cuts the frame to its first `count` bytes; a shorter frame stays as it is.
  @inlinable public mutating func truncate(to count: Int) {
    guard count >= 0, count < self.count else { return }
    self = Packet.unique(consume self)
    unsafe record.pointee.setFrame(offset: Int(record.pointee.offset), length: count)
  }

  /// Makes the frame `count` bytes long: cut at its end, or grown by zero bytes.
  ///
  /// - Throws: `NetworkDeviceError` with code `frameTooLong` above 65 535 bytes.
  public mutating func resize(to count: Int) throws(NetworkDeviceError) {
    guard (0...65_535).contains(count) else {
      throw NetworkDeviceError(
        .frameTooLong, "resize", offered: "\(count) bytes", advice: "a frame has 0 to 65535 bytes")
    }
    self = Packet.unique(consume self)
    if unsafe Int(record.pointee.offset) + count > Int(record.pointee.capacity) { self = copied(growingTo: count) }
    let record = unsafe record
    let old = unsafe Int(record.pointee.length)
    if count > old {
      unsafe record.pointee.start.advanced(by: old)
        .initializeMemory(as: UInt8.self, repeating: 0, count: count - old)
    }
    unsafe record.pointee.setFrame(offset: Int(record.pointee.offset), length: count)
  }

  /// Removes bytes from the front of the frame (a header that has been read); never more than there are.
  public mutating func removeFirst(_ count: Int) {
    self = Packet.unique(consume self)
    let record = unsafe record
    let cut = unsafe min(max(count, 0), Int(record.pointee.length))
    unsafe record.pointee.setFrame(
      offset: Int(record.pointee.offset) + cut, length: Int(record.pointee.length) - cut)
  }

  /// Puts `count` zero bytes in front of the frame, in the buffer's headroom where it suffices.
  ///
  /// - Throws: `NetworkDeviceError` with code `frameTooLong` above 65 535 bytes.
  public mutating func prepend(count: Int) throws(NetworkDeviceError) {
    try prepend(unwritten: count)
    unsafe record.pointee.start.initializeMemory(as: UInt8.self, repeating: 0, count: count)
  }

  /// The same without the zeros, for a caller that writes all of these bytes. Nobody else refers to the buffer then, in which the
  /// whole frame lies.
  mutating func prepend(unwritten count: Int) throws(NetworkDeviceError) {
    let length = self.count
    guard count >= 0, count <= 65_535 - length else {
      throw NetworkDeviceError(
        .frameTooLong, "prepend", offered: "\(count) bytes before \(length)", advice: "a frame has 0 to 65535 bytes")
    }
    self = Packet.unique(consume self)
    let headroom = unsafe record.pointee.pool._withUnsafeGuaranteedRef { $0.configuration.headroom }
    let offset = unsafe Int(record.pointee.offset)
    // Half of the headroom stays for the net header of whichever device sends it.
    if offset - count >= headroom / 2 {
      unsafe record.pointee.setFrame(offset: offset - count, length: length + count)
    } else {
      let longer = copied(growingTo: length + count)
      let record = unsafe longer.record
      unsafe record.pointee.start.advanced(by: count).copyMemory(from: record.pointee.start, byteCount: length)
      unsafe record.pointee.setFrame(offset: Int(record.pointee.offset), length: length + count)
      self = longer
    }
  }
}
