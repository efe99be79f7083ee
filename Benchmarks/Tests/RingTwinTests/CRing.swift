import CRingTwin
import Virtio

/// The twin as vectors see it.
final class CRing: RingUnderTest {
  private let layout: SplitRingLayout
  private let block: UnsafeMutableRawPointer
  private let buffers: UnsafeMutableRawPointer
  private let driver = UnsafeMutablePointer<twin_driver>.allocate(capacity: 1)
  private let device = UnsafeMutablePointer<twin_device>.allocate(capacity: 1)
  private var region: twin_region
  /// What ended a batch after some of its chains were good: the twin says it at once, Swift at the next call.
  private var deferred = TWIN_OK

  init(_ vector: RingVector) throws {
    layout = try SplitRingLayout(size: vector.size)
    block = .allocate(byteCount: layout.totalBytes, alignment: 64)
    block.initializeMemory(as: UInt8.self, repeating: 0, count: layout.totalBytes)
    buffers = .allocate(byteCount: vectorBytes, alignment: 64)
    region = twin_region(
      address: vectorBase, length: UInt64(vectorBytes), host: buffers.assumingMemoryBound(to: UInt8.self),
      writable: true)
    twin_driver_init(driver, block, UInt32(vector.size), vector.start, vector.eventIndex)
    twin_device_init(device, block, UInt32(vector.size), vector.start, vector.eventIndex)
  }

  deinit {
    twin_driver_destroy(driver)
    twin_device_destroy(device)
    driver.deallocate()
    device.deallocate()
    block.deallocate()
    buffers.deallocate()
  }

  var bytes: [UInt8] { Array(UnsafeRawBufferPointer(start: block, count: layout.totalBytes)) }

  func perform(_ step: RingStep) -> RingOutcome {
    switch step {
    case .add(let address, let length, let writable, let token):
      return .answer(twin_driver_add(driver, address, length, writable, token))
    case .addChain(let readable, let writable, let token):
      let buffers = (readable + writable).map { twin_buffer(address: vectorBase, length: $0, token: 0) }
      return .answer(twin_driver_add_chain(driver, buffers, readable.count, writable.count, token))
    case .publish: twin_driver_publish(driver)
    case .needsKick: return .answer(twin_driver_needs_kick(driver))
    case .pop(let max): return pop(max)
    case .use(let head, let written): twin_device_push_used(device, head, written)
    case .publishUsed: twin_device_publish_used(device)
    case .needsCall: return .answer(twin_device_needs_call(device))
    case .reap(let max): return reap(max)
    case .armInterrupt(let count): return .answer(twin_driver_arm(driver, UInt32(count)))
    case .armKick: return .answer(twin_device_arm(device))
    case .poke(let offset, let value): block.storeBytes(of: value, toByteOffset: offset, as: UInt16.self)
    }
    return .done
  }

  private func pop(_ max: Int) -> RingOutcome {
    if deferred != TWIN_OK {
      defer { deferred = TWIN_OK }
      return .broken(Self.name(deferred))
    }
    let output = UnsafeMutablePointer<twin_chain>.allocate(capacity: max)
    defer { output.deallocate() }
    var error = TWIN_OK
    let count = twin_device_pop(device, &region, output, max, &error)
    if error != TWIN_OK {
      if count == 0 { return .broken(Self.name(error)) }
      deferred = error
    }
    return .chains(
      (0..<count).map { index in
        let chain = output[index]
        let lengths = (0..<Int(chain.readable) + Int(chain.writable)).map { Int(chain.segments[$0].length) }
        return RingOutcome.Chain(
          head: chain.head, readable: Array(lengths.prefix(Int(chain.readable))),
          writable: Array(lengths.dropFirst(Int(chain.readable))))
      })
  }

  private func reap(_ max: Int) -> RingOutcome {
    let output = UnsafeMutablePointer<twin_used>.allocate(capacity: max)
    defer { output.deallocate() }
    let count = twin_driver_reap(driver, output, max)
    if count == 0, driver.pointee.failure != TWIN_OK { return .broken(Self.name(driver.pointee.failure)) }
    return .used((0..<count).map { RingOutcome.Used(token: output[$0].token, written: output[$0].written) })
  }

  /// The name that Swift has for an error of the twin.
  private static func name(_ error: twin_error) -> String {
    let rule: RingError.Rule
    switch error {
    case TWIN_USED_INDEX_JUMP: rule = .usedIndexJump
    case TWIN_USED_ID_OUT_OF_RANGE: rule = .usedIdOutOfRange
    case TWIN_USED_ID_NOT_OUTSTANDING: rule = .usedIdNotOutstanding
    case TWIN_USED_LENGTH_TOO_LONG: rule = .usedLengthTooLong
    case TWIN_AVAIL_INDEX_JUMP: rule = .availIndexJump
    case TWIN_HEAD_OUT_OF_RANGE: rule = .headOutOfRange
    case TWIN_NEXT_OUT_OF_RANGE: rule = .nextOutOfRange
    case TWIN_CHAIN_LOOP: rule = .chainLoop
    case TWIN_READABLE_AFTER_WRITABLE: rule = .readableAfterWritable
    case TWIN_INDIRECT_NOT_NEGOTIATED: rule = .indirectNotNegotiated
    case TWIN_BUFFER_UNMAPPED: rule = .bufferUnmapped
    default: return "unknown \(error.rawValue)"
    }
    return "\(rule)"
  }
}
