/// An asynchronous sequence of received packets, and what is made of it without leaving the loop.
///
/// Its `map`, `compactMap` and `filter` take synchronous closures, and hand each packet over to them (`consuming`): it stays
/// the only reference, is changed in place, and goes on without a retain. The standard library's operators of these names
/// take asynchronous closures and cost two hops through the global pool for each element.
public protocol PacketSequence: AsyncSequence where Element == Packet, Failure == Never, AsyncIterator: PacketIterator {
}

/// What fetches the packets of a `PacketSequence`: the ones at hand by a synchronous call, and only then by an asynchronous one.
///
/// Neither requirement says whose isolation it is called in: both stay where their caller is. Through the standard library's
/// `next(isolation:)` a generic caller would change executors twice for each packet, to where it is already.
public protocol PacketIterator: AsyncIteratorProtocol where Element == Packet, Failure == Never {
  /// A packet that is at hand on the caller's thread; nil says nothing: `nextPacket` then finds out. An iterator that has no
  /// such packets leaves this out.
  mutating func takePacket() -> Packet?

  /// The next packet, or nil at the end. It need have no deadline, but a wait ends when the task is cancelled.
  nonisolated(nonsending) mutating func nextPacket() async -> Packet?
}

extension PacketIterator {
  /// Nothing is at hand.
  @inlinable public mutating func takePacket() -> Packet? { nil }

  /// The next packet, or nil at the end and when the task is cancelled. Without a deadline.
  @inlinable nonisolated(nonsending) public mutating func next() async -> Packet? { await nextPacket() }

  /// The next packet, or nil at the end and when the task is cancelled; what `for await` calls. Without a deadline.
  @inlinable nonisolated(nonsending) public mutating func next(isolation actor: (any Actor)?) async -> Packet? {
    if let packet = takePacket() { return packet }
    return await nextPacket()
  }
}

extension NetworkQueue.Packets: PacketSequence {}

extension PacketSequence {
  /// What `transform` makes of each packet; nil leaves one out: it is dropped.
  @inlinable public func compactMap<Output>(
    _ transform: @escaping (consuming Packet) -> Output?
  ) -> PacketCompactMap<Self, Output> {
    PacketCompactMap(base: self, transform: transform)
  }

  /// What `transform` makes of each packet.
  @inlinable public func map<Output>(
    _ transform: @escaping (consuming Packet) -> Output
  ) -> PacketCompactMap<Self, Output> {
    PacketCompactMap(base: self) { (packet: consuming Packet) in transform(consume packet) }
  }

  /// The packets for which `isKept` says so; the others are dropped.
  @inlinable public func filter(_ isKept: @escaping (borrowing Packet) -> Bool) -> PacketCompactMap<Self, Packet> {
    PacketCompactMap(base: self) { (packet: consuming Packet) in
      guard isKept(packet) else { return nil }
      return consume packet
    }
  }
}

/// What a closure makes of the packets of a sequence, for as many of them as it makes something.
public struct PacketCompactMap<Base: PacketSequence, Output>: AsyncSequence {
  /// What the closure makes of a packet.
  public typealias Element = Output
  /// The sequence only ends.
  public typealias Failure = Never
  @usableFromInline let base: Base
  @usableFromInline let transform: (consuming Packet) -> Output?

  @inlinable init(base: Base, transform: @escaping (consuming Packet) -> Output?) {
    self.base = base
    self.transform = transform
  }

  /// An iterator; any number may be in use.
  @inlinable public func makeAsyncIterator() -> Iterator {
    Iterator(base: base.makeAsyncIterator(), transform: transform)
  }

  /// Fetches packets and transforms them one by one.
  public struct Iterator: AsyncIteratorProtocol {
    @usableFromInline var base: Base.AsyncIterator
    @usableFromInline let transform: (consuming Packet) -> Output?

    @inlinable init(base: Base.AsyncIterator, transform: @escaping (consuming Packet) -> Output?) {
      self.base = base
      self.transform = transform
    }

    @inlinable mutating func takeOutput() -> Output? {
      while let packet = base.takePacket() {
        if let output = transform(consume packet) { return output }
      }
      return nil
    }

    @inlinable nonisolated(nonsending) mutating func nextOutput() async -> Output? {
      while let packet = await base.nextPacket() {
        if let output = transform(consume packet) { return output }
      }
      return nil
    }

    /// The next one, or nil at the end and when the task is cancelled. Without a deadline.
    @inlinable nonisolated(nonsending) public mutating func next() async -> Output? {
      if let output = takeOutput() { return output }
      return await nextOutput()
    }

    /// The next one, or nil at the end and when the task is cancelled; what `for await` calls. Without a deadline.
    @inlinable nonisolated(nonsending) public mutating func next(isolation actor: (any Actor)?) async -> Output? {
      if let output = takeOutput() { return output }
      return await nextOutput()
    }
  }
}

extension PacketCompactMap: PacketSequence where Output == Packet {}

extension PacketCompactMap.Iterator: PacketIterator where Output == Packet {
  /// A packet that is at hand.
  @inlinable public mutating func takePacket() -> Packet? { takeOutput() }

  /// The next packet, or nil at the end and when the task is cancelled. Without a deadline.
  @inlinable nonisolated(nonsending) public mutating func nextPacket() async -> Packet? { await nextOutput() }
}
