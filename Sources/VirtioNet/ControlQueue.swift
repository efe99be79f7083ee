internal import CNetdevSystem
internal import LibeventConcurrency
internal import Netdev
internal import Virtio

/// The control virtqueue of a device, whatever the format of its ring (VIRTIO 1.4 §5.1.9.5). On the control loop.
protocol ControlQueue: AnyObject, Sendable {
  /// Puts a command on the ring and waits for the answer, behind an earlier one that has not been answered.
  ///
  /// - Throws: `timedOut` when it is not there in time, `unsupported` when the device has refused, `cancelled` when the task was cancelled first,
  ///   and what broke the queue.
  func perform(_ command: NetControlCommand, within limit: Duration) async throws(NetworkDeviceError)
  /// The device may be kicked.
  func goLive() async
  /// The device is lost, or its reset has begun: nothing more is put on the ring, and who waits goes on.
  func end(_ cause: NetworkDeviceError) async
  /// What the device has done that breaks the queue.
  var failure: NetworkDeviceError? { get async }
}

/// How the control virtqueue's piece of the ring memory is laid out: the ring, the command, the answer.
struct ControlMemoryMap: Sendable {
  let layout: RingLayout

  /// A command is three buffers, and one is on its way at a time.
  static let size = 16

  /// - Parameter maximum: the largest queue that the device has; nil where it does not say.
  init(_ format: RingFormat, maximum: Int?) throws(NetworkDeviceError) {
    let size = RingLayout.largestSize(format, upTo: min(maximum ?? Self.size, Self.size))
    guard size >= 3, let layout = try? RingLayout(format, size: size) else {
      throw NetworkDeviceError(
        .unsupported, "the control virtqueue", offered: "a queue of \(maximum ?? 0) descriptors",
        advice: "a command takes three")
    }
    self.layout = layout
  }

  /// Bytes of the longest command.
  static let commandBytes = 4096
  var commandOffset: Int { (layout.totalBytes + 63) & ~63 }
  var answerOffset: Int { commandOffset + Self.commandBytes }
  /// Whole pages.
  var totalBytes: Int { (answerOffset + 64 + 4095) & ~4095 }
}

/// Which virtqueue is the control virtqueue, and how it is laid out.
struct ControlPlace: Sendable {
  let index: Int
  let map: ControlMemoryMap

  /// Nil where none was negotiated.
  ///
  /// - Parameters:
  ///   - queues: virtqueues that can be attached; nil where the configuration has the last word.
  ///   - maximumSize: the largest queue that the device has; nil where it does not say.
  /// - Throws: `unsupported` when the device offers one and has none.
  init?(
    _ features: FeatureSet, _ config: NetConfig, queues: Int?, maximumSize: Int?
  ) throws(NetworkDeviceError) {
    guard features.contains(.ctrlVQ) else { return nil }
    // Behind the queues of all pairs that there could be only if MQ was negotiated (VIRTIO 1.4 §5.1.2).
    index = features.contains(.mq) ? 2 * Int(config.maximumPairs ?? 1) : 2
    if let queues, queues <= index {
      throw NetworkDeviceError(
        .unsupported, "the control virtqueue", offered: "\(queues) virtqueues, of which it would be number \(index)",
        advice: "the device offers CTRL_VQ and does not have it: configure it without, or with more queues")
    }
    map = try ControlMemoryMap(RingFormat(features), maximum: maximumSize)
  }
}

/// The control virtqueue with rings of one format.
@safe actor FormatControlQueue<Ring: DriverRing & ~Copyable>: ControlQueue {
  nonisolated let loop: LoopExecutor
  private let name: String
  private let map: ControlMemoryMap
  private let memory: SharedRings
  // Proof: touched on the loop only, in the actor's methods and in its `deinit`.
  nonisolated(unsafe) private let ring: UnsafeMutablePointer<Ring>
  private var doorbell: (any VirtioDoorbell)?
  private var isLive = false
  /// The last command has not been answered.
  private var isOut = false
  /// What came of it.
  private var lastAnswer = NetControlCommand.refused
  /// Who waits for the answer.
  private var waiter: LoopPromise<Result<UInt8, NetworkDeviceError>>?
  private(set) var failure: NetworkDeviceError?
  private var ending: NetworkDeviceError?
  private let onFailure: @Sendable () -> Void

  nonisolated var unownedExecutor: UnownedSerialExecutor { unsafe loop.asUnownedSerialExecutor() }

  /// Lays the ring in this memory.
  ///
  /// - Parameter onFailure: called on the loop when the device breaks the queue, or is said to need a reset.
  init(
    _ map: ControlMemoryMap, in memory: SharedRings, features: FeatureSet, name: String, loop: LoopExecutor,
    onFailure: @escaping @Sendable () -> Void
  ) throws(NetworkDeviceError) {
    self.map = map
    self.memory = memory
    self.name = name
    self.loop = loop
    self.onFailure = onFailure
    do throws(RingError) {
      var configuration = try unsafe Ring.Configuration(size: Int(map.layout.size), block: memory.pointer)
      configuration.eventIndex = features.contains(.eventIndex)
      configuration.inOrder = features.contains(.inOrder)
      let made = try configuration.activate()
      unsafe ring = .allocate(capacity: 1)
      unsafe ring.initialize(to: made)
    } catch {
      throw NetworkDeviceError(.invalidConfiguration, "laying the control virtqueue", offered: "\(error)")
    }
  }

  deinit {
    unsafe ring.deinitialize(count: 1)
    unsafe ring.deallocate()
  }

  /// Hands the ring to the device.
  func attach(to transport: any VirtioTransport, as index: Int, features: FeatureSet) throws(NetworkDeviceError) {
    doorbell = try transport.attachQueue(
      VirtioQueuePlacement(index: index, map.layout, at: memory.address, features: features), loop: loop,
      onInterrupt: { [weak self] in self?.assumeIsolated { $0.look() } },
      onFailure: { [weak self] error in self?.assumeIsolated { $0.breakDown(error) } })
  }

  func goLive() { isLive = ending == nil }

  func end(_ cause: NetworkDeviceError) {
    guard ending == nil else { return }
    ending = cause
    isLive = false
    doorbell?.disconnect()
    doorbell = nil
    settle(.failure(cause))
  }
}

// MARK: - Commands

extension FormatControlQueue where Ring: ~Copyable {
  func perform(_ command: NetControlCommand, within limit: Duration) async throws(NetworkDeviceError) {
    let deadline = LoopDeadline(loop, after: limit)
    // What was put there before is answered first: one at a time.
    while isOut { _ = try await answer(command, deadline, "an earlier command has not been answered") }
    try publish(command)
    let answer = try await answer(command, deadline, "no answer within \(limit.inUnits)")
    guard answer != NetControlCommand.ok else { return }
    throw NetworkDeviceError(
      .unsupported, "\(command.words) on \(name)", offered: "the device refused it with \(answer)",
      advice: "see what the device can do")
  }

  /// Puts the command into its place and shows it to the device.
  private func publish(_ command: NetControlCommand) throws(NetworkDeviceError) {
    try check()
    let (header, payload) = (command.header, command.payload)
    guard header.count + payload.count <= ControlMemoryMap.commandBytes else {
      throw NetworkDeviceError(
        .invalidConfiguration, command.words, offered: "\(header.count + payload.count) bytes",
        advice: "a command holds \(ControlMemoryMap.commandBytes): name fewer addresses")
    }
    let place = unsafe memory.pointer + map.commandOffset
    // Nothing is out: the device reads none of this. The header has a buffer of its own, as devices of old times want it.
    for (position, byte) in (header + payload).enumerated() {
      unsafe place.storeBytes(of: byte, toByteOffset: position, as: UInt8.self)
    }
    // A device that says that it is done and has written nothing has refused.
    unsafe netdev_store_relaxed_u8(memory.pointer + map.answerOffset, NetControlCommand.refused)
    let address = memory.address &+ UInt64(map.commandOffset)
    var readable = [RingBuffer(address: address, length: UInt32(header.count))]
    if !payload.isEmpty {
      readable.append(
        RingBuffer(address: address &+ UInt64(header.count), length: UInt32(truncatingIfNeeded: payload.count)))
    }
    let writable = [RingBuffer(address: memory.address &+ UInt64(map.answerOffset), length: 1)]
    do throws(RingError) {
      guard try unsafe ring.pointee.add(readable: readable.span, writable: writable.span, token: 0) else {
        throw RingError(.stopped, 0)
      }
    } catch {
      throw NetworkDeviceError(.broken, command.words, offered: "\(error)")
    }
    isOut = true
    unsafe ring.pointee.publish()
    if unsafe ring.pointee.needsKick() { doorbell?.kick() }
  }

  private func check() throws(NetworkDeviceError) {
    if let ending { throw ending }
    if let failure { throw failure }
    guard isLive else {
      throw NetworkDeviceError(.invalidConfiguration, "the control virtqueue", advice: "the device does not run")
    }
  }

  /// Waits until the command that is out has been answered.
  private func answer(
    _ command: NetControlCommand, _ deadline: LoopDeadline, _ what: String
  ) async throws(NetworkDeviceError) -> UInt8 {
    try check()
    // A device of this loop may have answered from within the doorbell.
    guard isOut else { return lastAnswer }
    let promise = LoopPromise<Result<UInt8, NetworkDeviceError>>(loop: loop)
    waiter = promise
    // It may be there already: then nobody interrupts for it.
    if unsafe ring.pointee.armInterrupt() { look() }
    switch await promise.value(within: deadline.remaining) {
    case .value(let result): return try result.get()
    case .timedOut:
      waiter = nil
      throw NetworkDeviceError(
        .timedOut, "\(command.words) on \(name)", offered: what,
        advice: "the device may still do it; close it and open it again if it stays so")
    case .cancelled:
      waiter = nil
      throw NetworkDeviceError(.cancelled, "\(command.words) on \(name)", offered: "the task was cancelled first")
    }
  }

  /// The device has interrupted, or may have used what is out.
  private func look() {
    guard ending == nil, failure == nil else { return }
    do throws(RingError) {
      guard let used = try unsafe ring.pointee.nextUsed() else { return }
      guard used.written == 1 else {
        return breakDown(
          NetworkDeviceError(
            .broken, "the control virtqueue of \(name)",
            offered: "a command was answered with \(used.written) bytes instead of one"))
      }
      isOut = false
      lastAnswer = unsafe netdev_load_relaxed_u8(memory.pointer + map.answerOffset)
      settle(.success(lastAnswer))
    } catch {
      breakDown(NetworkDeviceError(.broken, "the control virtqueue of \(name)", offered: "\(error)"))
    }
  }

  private func settle(_ result: Result<UInt8, NetworkDeviceError>) {
    waiter?.fulfil(result)
    waiter = nil
  }

  /// The device breaks the protocol: as with any other queue, it ends.
  private func breakDown(_ cause: NetworkDeviceError) {
    guard failure == nil, ending == nil else { return }
    failure = cause
    settle(.failure(cause))
    onFailure()
  }
}

extension NetControlCommand {
  /// What it is, in an error.
  var words: String {
    switch self {
    case .receive(let which, let isOn): "turning \(which) \(isOn ? "on" : "off")"
    case .addressTable: "setting the table of addresses"
    case .address(let address): "setting the address \(address)"
    case .vlan(let id, let isAdded): "\(isAdded ? "adding" : "removing") VLAN \(id)"
    case .announced: "acknowledging an announcement"
    case .queuePairs(let count): "using \(count) queue pairs"
    }
  }
}
