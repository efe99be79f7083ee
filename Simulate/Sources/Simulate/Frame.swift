import Netdev
import NetdevTesting

/// What the frames of a run say: their flow, and their number in it.
struct Frame: Hashable, Sendable {
  var flow: Int
  var number: Int

  var name: String { "frame \(number) of flow \(flow)" }

  /// To all stations, of an EtherType for experiments.
  var bytes: [UInt8] {
    var bytes = [UInt8](repeating: 0xff, count: 6) + [2, 0, 0, 0, 0, 1, 0x88, 0xb5]
    bytes += [UInt8(flow), UInt8(number >> 8), UInt8(number & 0xff)]
    return bytes + [UInt8](repeating: UInt8(truncatingIfNeeded: number), count: 43 + number % 7 * 60)
  }

  init(flow: Int, number: Int) {
    self.flow = flow
    self.number = number
  }

  /// Reads a frame, and checks every byte of it.
  init?(_ bytes: [UInt8]) {
    guard bytes.count >= 17 else { return nil }
    self.init(flow: Int(bytes[14]), number: Int(bytes[15]) << 8 | Int(bytes[16]))
    guard bytes == self.bytes else { return nil }
  }

  init?(_ packet: borrowing Packet) {
    self.init(
      packet.withBytes { bytes in (0..<bytes.byteCount).map { bytes.unsafeLoad(fromByteOffset: $0, as: UInt8.self) } })
  }

  init?(_ bytes: RawSpan) {
    var all: [UInt8] = []
    for place in 0..<bytes.byteCount { all.append(bytes.unsafeLoad(fromByteOffset: place, as: UInt8.self)) }
    self.init(all)
  }

  init?(_ span: borrowing MutableRawSpan) {
    self.init(span.bytes)
  }

  /// Puts this frame in the place of one of the same length.
  func write(to packet: inout Packet) { packet.withMutableBytes { write(to: &$0) } }

  /// Puts as much of this frame as there is room for in the place of another one.
  func write(to span: inout MutableRawSpan) {
    for (place, byte) in bytes.prefix(span.byteCount).enumerated() {
      span.storeBytes(of: byte, toByteOffset: place, as: UInt8.self)
    }
  }

  func packet(in pool: PacketPool) throws(NetworkDeviceError) -> Packet { try Packet(copying: bytes, in: pool) }
}

/// What has been seen of each flow: in order, each frame once, none that was never sent; and none is left out, unless the ledger is
/// of a way on which frames may be lost or something has happened.
///
/// Used by the tasks of one world, which are never at the same time anywhere.
final class Ledger: @unchecked Sendable {
  private let world: SimulatedWorld
  private let isLossy: Bool
  private var newest: [Int: Int] = [:]
  private(set) var count = 0

  /// - Parameter isLossy: numbers may be left out.
  init(_ world: SimulatedWorld, isLossy: Bool = false) {
    self.world = world
    self.isLossy = isLossy
  }

  func note(_ frame: Frame?) {
    guard let frame else { return world.find("a frame has other bytes than it was sent with") }
    count += 1
    let last = newest[frame.flow] ?? -1
    if frame.number <= last {
      world.find("flow \(frame.flow): frame \(frame.number) came after \(last)")
    } else if frame.number > last + 1, !isLossy, world.isCalm {
      world.find("flow \(frame.flow): frame \(frame.number) came after \(last), and those between never")
    }
    newest[frame.flow] = max(last, frame.number)
  }

  func newestNumber(of flow: Int) -> Int { newest[flow] ?? -1 }

  /// Waits until so many frames have come, of all flows together; in a world that may have lost some, until no more come.
  func wait(for frames: Int) async throws { try await wait { self.count >= frames } }

  /// The same for a flow whose last frame that is.
  func wait(for frames: Int, of flow: Int) async throws { try await wait { self.newestNumber(of: flow) == frames - 1 } }

  private func wait(_ isComplete: () -> Bool) async throws {
    var (before, vain) = (count, 0)
    while !isComplete() {
      if !world.isCalm {
        vain = count == before ? vain + 1 : 0
        before = count
        guard vain < 2000 else { return }
      }
      try await Task.sleep(for: .milliseconds(1))
    }
  }

  /// Nothing of this flow is missing.
  func expectAll(_ numbers: Int, of flow: Int) {
    guard world.isCalm else { return }
    let last = newest[flow] ?? -1
    if last != numbers - 1 { world.find("flow \(flow): \(last + 1) of \(numbers) frames came") }
  }
}

/// Waits for all of them. One that was ended from outside has not thrown anything of note.
func finish(_ tasks: [Task<Void, any Error>], _ world: SimulatedWorld) async throws {
  var first: (any Error)?
  for task in tasks {
    do { try await task.value } catch {
      if world.isCalm || !isOfEnding(error) { first = first ?? error }
    }
  }
  if let first { throw first }
}

/// An error that a program must expect of a device that was closed or cancelled under it.
func isOfEnding(_ error: any Error) -> Bool {
  if error is CancellationError { return true }
  guard let error = error as? NetworkDeviceError else { return false }
  return error.code == .closed || error.code == .cancelled
}

/// Waits until `makeBurst`, which does not wait itself, has buffers for a frame at least: a pool may be empty for a while.
func waitForBuffers(of queue: isolated NetworkQueue) async throws {
  while !hasBuffers(queue) { try await queue.sleep(for: .microseconds(100)) }
}

/// Also where the queue has ended, which whoever makes a burst is told.
private func hasBuffers(_ queue: isolated NetworkQueue) -> Bool {
  do throws(NetworkDeviceError) { _ = try queue.makeBurst(count: 1, length: 64) } catch {
    return error.code != .outOfMemory
  }
  return true
}
