import FuzzSupport
import LibeventConcurrency
import NetdevTesting
import Virtio
import VirtioDevice

/// A queue pair's engine opposite a driver that writes what the input says, kicks when it likes, and is honest now and then.
///
/// Promises: nothing outside the driver's memory is touched; the loop comes to rest; unless the driver broke the ring, every
/// chain that it offered on a split ring has come back by then.
func runEngine(_ input: inout InputReader, _ format: RingFormat) {
  let flags = input.byte()
  let hand = HandTurnedLoop(backend: PolledBackend())
  let world = GuestWorld(readOnlyFirst: flags & 1 != 0)
  guard let device = negotiate(flags, FeatureSet(low: input.number()), format) else { return }
  // Rings among the driver's own buffers: it may overwrite its own indices, and go on for ever.
  let isInBuffers = flags & 2 != 0
  let (index, choice): (UInt16, Int) = (input.number(), input.choice(7))
  let size = (1 << choice) + (format == .packed && flags & 32 != 0 ? choice : 0)
  let start = start(index, format, size)
  let receive = side(format, size, world, isInBuffers ? GuestWorld.base : nil)
  let transmit = side(format, size, world, isInBuffers ? GuestWorld.base + 0x1000 : nil)
  if format == .split {
    for areas in [receive, transmit] { (areas.availIndex, areas.usedIndex) = (start, start) }
  }
  let line = SilentLine()
  let engine: QueuePairEngine
  do throws(DeviceError) {
    engine = try device.makeEngine(
      pair: 0, loop: hand.loop, receive: places(receive, start), transmit: places(transmit, start),
      memory: world.memory(), receiveLine: line, transmitLine: line, budget: Int(input.byte() & 15))
  } catch {
    violated("an engine is made of right rings: \(error)")
  }
  do throws(BackendError) { try engine.start() } catch { violated("an engine starts: \(error)") }
  var script = EngineScript(
    engine: engine, hand: hand, world: world, sides: [Side(receive, start), Side(transmit, start)],
    isEndless: isInBuffers)
  while !input.isAtEnd { script.step(&input) }
  script.settle()
  let bases = engine.stop()
  guard format == .split else { return }
  if !isInBuffers, flags & 0x0c != 0x04, engine.transmitFailure == nil {
    promise(bases.transmit == transmit.availIndex, "every frame has been taken")
    promise(script.hasSpoiltUsed || transmit.usedIndex == transmit.availIndex, "every frame has come back")
  }
  if !isInBuffers, !script.hasSpoiltUsed, engine.receiveFailure == nil {
    promise(receive.usedIndex == bases.receive, "every buffer that was taken has come back")
  }
}

/// A device as far as FEATURES_OK; nil when it refuses the features.
private func negotiate(_ flags: UInt8, _ features: FeatureSet, _ format: RingFormat) -> VirtioNetDevice? {
  let backend: any NetworkBackend
  switch flags & 0x0c {
  case 0x00: backend = LoopbackBackend()
  case 0x04: backend = LoopbackBackend(lossless: true)
  default: backend = CopyingBackend()
  }
  var configuration = VirtioNetDevice.Configuration()
  if format == .split { configuration.ringFeatures.remove(.ringPacked) }
  if flags & 16 == 0 { configuration.ringFeatures.remove(.inOrder) }
  let device = VirtioNetDevice(backend: backend, configuration: configuration)
  device.setStatus([.acknowledge, .driver])
  var wanted = features
  if flags & 16 != 0 { wanted.insert(.inOrder) }
  if format == .packed { wanted.insert(.ringPacked) }
  device.setDriverFeatures(device.offeredFeatures.intersection(wanted).union(.version1))
  device.setStatus([.acknowledge, .driver, .featuresOK])
  guard device.status.contains(.featuresOK) else { return nil }
  device.setStatus([.acknowledge, .driver, .featuresOK, .driverOK])
  return device
}

private func side(_ format: RingFormat, _ size: Int, _ world: GuestWorld, _ address: UInt64?) -> RawRing {
  guard let address else { return RawRing(format, size: size, edge: .end) }
  guard let layout = try? RingLayout(format, size: size) else { violated("\(size) is a size") }
  let block = world.pointer(address)
  return RawRing(layout, block, block + layout.driverOffset, block + layout.deviceOffset)
}

private func places(_ raw: RawRing, _ start: UInt16) -> RingAreas {
  var areas = raw.areas
  areas.startIndex = start
  return areas
}

private final class SilentLine: InterruptLine {
  func raise() {}
}

/// One ring, and how far its driver has come.
private struct Side {
  let areas: RawRing
  /// Of a split ring; of a packed one its position.
  var index: UInt16
  var position: RawPosition
  /// Where the next honest buffer lies.
  var place = 0

  init(_ areas: RawRing, _ start: UInt16) {
    self.areas = areas
    index = start
    position = RawPosition(start)
  }
}

private struct EngineScript {
  let engine: QueuePairEngine
  let hand: HandTurnedLoop
  let world: GuestWorld
  /// The receive ring, then the transmit ring.
  var sides: [Side]
  /// The driver may keep the device busy without end.
  let isEndless: Bool
  /// The driver has written where the device counts.
  var hasSpoiltUsed = false

  mutating func step(_ input: inout InputReader) {
    let control = input.byte()
    let ring = Int(control & 1)
    switch (control >> 1) % 14 {
    case 0, 1: offerHonestly(ring, &input)
    case 2: setDescriptor(ring, Int(input.byte()), GuestWorld.descriptor(&input))
    case 3: world.writeTableEntry(&input)
    case 4: offer(ring, UInt16(input.byte()) % UInt16(sides[ring].areas.size))
    case 5: offer(ring, input.number())
    case 6, 7: if isSplit { sides[ring].areas.availIndex = sides[ring].index }
    case 8: if isSplit { sides[ring].areas.availIndex = input.number() }
    case 9: scribble(ring, at: input.number(), input.byte())
    case 10: ring == 0 ? engine.kickReceive() : engine.kickTransmit()
    case 11: _ = hand.loop.turnOnce()
    case 12: settle()
    default: engine.isEnabled = input.byte() & 3 != 0
    }
  }

  private var isSplit: Bool { sides[0].areas.format == .split }

  private mutating func scribble(_ ring: Int, at place: UInt16, _ value: UInt8) {
    let areas = sides[ring].areas
    guard isSplit else { return areas.scribble(at: place, value) }
    let before = areas.usedIndex
    areas.scribble(at: place, value)
    if areas.usedIndex != before { hasSpoiltUsed = true }
  }

  /// A descriptor of the table, or the next one of a packed ring, which is offered by that; a place of it now and then.
  private mutating func setDescriptor(_ ring: Int, _ index: Int, _ descriptor: RawDescriptor) {
    guard !isSplit else { return sides[ring].areas.setDescriptor(index, descriptor) }
    let isNext = index & 7 != 0
    put(
      ring, isNext ? sides[ring].position.place : index, descriptor.address, descriptor.length, id: descriptor.next,
      flags: descriptor.flags & 7)
    if isNext { sides[ring].position.advance(1, sides[ring].areas.size) }
  }

  /// Writes a descriptor of a packed ring that is available on this lap.
  private func put(_ ring: Int, _ place: Int, _ address: UInt64, _ length: UInt32, id: UInt16, flags: UInt16) {
    sides[ring].areas.setPacked(
      place, address: address, length: length, id: id, flags: flags | sides[ring].position.available)
  }

  private mutating func offer(_ ring: Int, _ head: UInt16) {
    guard isSplit else {
      put(
        ring, sides[ring].position.place, GuestWorld.base + 0x2000, 64, id: head,
        flags: ring == 0 ? RawDescriptor.isWritable : 0)
      return sides[ring].position.advance(1, sides[ring].areas.size)
    }
    sides[ring].areas.setHead(sides[ring].index, head)
    sides[ring].index &+= 1
  }

  /// A frame to send or a buffer to receive, in up to three pieces.
  private mutating func offerHonestly(_ ring: Int, _ input: inout InputReader) {
    let shape = input.byte()
    let pieces = Int(shape & 3) % 3 + 1
    let length = UInt32(shape >> 2) * 8 + 4
    let first = Int(input.byte())
    let address = GuestWorld.base + 0x2000 + UInt64(sides[ring].place)
    sides[ring].place = (sides[ring].place + 600) % 0xC000
    // The header, as it is on the wire; and a frame of what is left.
    if ring == 1 {
      let header = input.take(Int(input.byte() & 15))
      header.withUnsafeBytes {
        if let start = $0.baseAddress { world.pointer(address).copyMemory(from: start, byteCount: $0.count) }
      }
    }
    guard isSplit else { return offerPacked(ring, address, length, pieces: min(pieces, sides[ring].areas.size)) }
    for piece in 0..<pieces {
      let isLast = piece == pieces - 1
      sides[ring].areas.setDescriptor(
        first + piece,
        RawDescriptor(
          address: address + UInt64(piece) * UInt64(length), length: length,
          flags: (ring == 0 ? RawDescriptor.isWritable : 0) | (isLast ? 0 : RawDescriptor.hasNext),
          next: isLast ? 0 : UInt16((first + piece + 1) % sides[ring].areas.size)))
    }
    offer(ring, UInt16(first % sides[ring].areas.size))
    sides[ring].areas.availIndex = sides[ring].index
  }

  /// A chain of a packed ring, its first descriptor last.
  private mutating func offerPacked(_ ring: Int, _ address: UInt64, _ length: UInt32, pieces: Int) {
    let size = sides[ring].areas.size
    let positions = (0..<pieces).map { piece in
      var position = sides[ring].position
      position.advance(piece, size)
      return position
    }
    for piece in (0..<pieces).reversed() {
      let flags: UInt16 =
        (ring == 0 ? RawDescriptor.isWritable : 0) | (piece == pieces - 1 ? 0 : RawDescriptor.hasNext)
      sides[ring].areas.setPacked(
        positions[piece].place, address: address + UInt64(piece) * UInt64(length), length: length,
        id: UInt16(positions[0].place), flags: flags | positions[piece].available)
    }
    sides[ring].position.advance(pieces, size)
  }

  /// Turns the loop until it rests.
  func settle() {
    engine.kickTransmit()
    engine.kickReceive()
    let limit = isEndless ? 64 : 5000
    let turns = hand.settle(limit: limit)
    promise(turns < limit || isEndless, "the loop comes to rest")
  }
}
