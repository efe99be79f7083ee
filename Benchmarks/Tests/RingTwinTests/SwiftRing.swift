import Virtio

/// The Swift rings as vectors see them.
final class SwiftRing: RingUnderTest {
  private let layout: SplitRingLayout
  private let block: UnsafeMutableRawPointer
  private let buffers: UnsafeMutableRawPointer
  private let memory: GuestMemory
  private var driver: SplitDriverRing
  private var device: SplitDeviceRing

  init(_ vector: RingVector) throws {
    let layout = try SplitRingLayout(size: vector.size)
    let block = UnsafeMutableRawPointer.allocate(byteCount: layout.totalBytes, alignment: 64)
    block.initializeMemory(as: UInt8.self, repeating: 0, count: layout.totalBytes)
    let buffers = UnsafeMutableRawPointer.allocate(byteCount: vectorBytes, alignment: 64)
    self.layout = layout
    self.block = block
    self.buffers = buffers
    memory = try GuestMemory([GuestRegion(address: vectorBase, length: UInt64(vectorBytes), host: buffers)])
    var configuration = try SplitDriverRing.Configuration(size: vector.size, block: block)
    configuration.eventIndex = vector.eventIndex
    configuration.startIndex = vector.start
    driver = try configuration.activate()
    var other = try SplitDeviceRing.Configuration(size: vector.size, block: block)
    other.eventIndex = vector.eventIndex
    other.startIndex = vector.start
    device = try other.activate()
  }

  deinit {
    block.deallocate()
    buffers.deallocate()
  }

  var bytes: [UInt8] { Array(UnsafeRawBufferPointer(start: block, count: layout.totalBytes)) }

  func perform(_ step: RingStep) -> RingOutcome {
    do throws(RingError) {
      switch step {
      case .add(let address, let length, let writable, let token):
        return .answer(driver.add(address: address, length: length, writable: writable, token: token))
      case .addChain(let readable, let writable, let token):
        let first = readable.map { RingBuffer(address: vectorBase, length: $0) }
        let second = writable.map { RingBuffer(address: vectorBase, length: $0) }
        return .answer(try driver.add(readable: first.span, writable: second.span, token: token))
      case .publish:
        driver.publish()
        return .done
      case .needsKick: return .answer(driver.needsKick())
      case .pop(let max): return .chains(try pop(max))
      case .use(let head, let written):
        device.pushUsed(head: head, written: written)
        return .done
      case .publishUsed:
        device.publishUsed()
        return .done
      case .needsCall: return .answer(device.needsCall())
      case .reap(let max): return .used(try reap(max))
      case .armInterrupt(let count): return .answer(driver.armInterrupt(after: count))
      case .armKick: return .answer(device.armKick())
      case .poke(let offset, let value):
        block.storeBytes(of: value, toByteOffset: offset, as: UInt16.self)
        return .done
      }
    } catch {
      return .broken("\(error.rule)")
    }
  }

  private func pop(_ max: Int) throws(RingError) -> [RingOutcome.Chain] {
    let output = UnsafeMutablePointer<DescriptorChain>.allocate(capacity: max)
    defer { output.deallocate() }
    let count = try device.pop(into: output, max: max, in: memory)
    return (0..<count).map { index in
      RingOutcome.Chain(
        head: output[index].head, readable: output[index].readable.map(\.length),
        writable: output[index].writable.map(\.length))
    }
  }

  private func reap(_ max: Int) throws(RingError) -> [RingOutcome.Used] {
    let output = UnsafeMutablePointer<UsedBuffer>.allocate(capacity: max)
    defer { output.deallocate() }
    let count = try driver.reap(into: output, max: max)
    return (0..<count).map { RingOutcome.Used(token: output[$0].token, written: output[$0].written) }
  }
}
