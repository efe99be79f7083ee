internal import LibeventConcurrency
public import Netdev
internal import PacketFormats
internal import Synchronization
internal import Virtio

// The control virtqueue of the device, where one was agreed on.
extension VirtioNetDriver {
  /// What the device was told, and is told again when it comes back.
  struct ControlSettings: Sendable {
    var pairs: Int?
    var mode: ReceiveMode?
    /// No attempt to change it has failed since.
    var isModeCertain = true
    var table: NetControlCommand?
    var address: MACAddress?
    var vlans: Set<UInt16> = []
  }

  /// What a command of the driver's seam comes to: several of the device's, perhaps, or none.
  private func commands(
    _ command: ControlCommand, _ features: FeatureSet, _ settings: ControlSettings
  ) throws(NetworkDeviceError) -> [NetControlCommand] {
    switch command {
    case .setActiveQueuePairs(let count): return [.queuePairs(UInt16(clamping: count))]
    case .setReceiveMode(let mode):
      let before = settings.isModeCertain ? settings.mode : nil
      return Self.commands(mode, features, before: before)
    case .setReceiveAddresses(let unicast, let multicast):
      if let wrong = unicast.first(where: { !$0.isUnicast }) {
        throw Self.refuse(command, "\(wrong) among the stations", "groups have a list of their own")
      }
      if let wrong = multicast.first(where: { !$0.isGroup }) {
        throw Self.refuse(command, "\(wrong) among the groups", "stations have a list of their own")
      }
      return [.addressTable(unicast: unicast, multicast: multicast)]
    case .setHardwareAddress(let address):
      guard address.isUnicast else {
        throw Self.refuse(command, "\(address)", "take that of a station, such as 02:00:00:00:00:01")
      }
      return [.address(address)]
    case .addVLAN(let id), .removeVLAN(let id):
      guard id < 4096 else { throw Self.refuse(command, "number \(id)", "0 to 4095 are possible") }
      if case .addVLAN = command { return [.vlan(id, isAdded: true)] }
      return [.vlan(id, isAdded: false)]
    case .acknowledgeAnnouncement: return [.announced]
    }
  }

  private static func refuse(_ command: ControlCommand, _ what: String, _ advice: String) -> NetworkDeviceError {
    NetworkDeviceError(.invalidConfiguration, "\(command)", offered: what, advice: advice)
  }

  /// The switches that are to be turned: all of them where it is not known how they are. One that the device does not know is off there.
  private static func commands(
    _ mode: ReceiveMode, _ features: FeatureSet, before: ReceiveMode?
  ) -> [NetControlCommand] {
    let wanted: [(NetControlCommand.ReceiveSwitch, KeyPath<ReceiveMode, Bool>)] = [
      (.promiscuous, \.isPromiscuous), (.allMulticast, \.allMulticast), (.allUnicast, \.allUnicast),
      (.noMulticast, \.noMulticast), (.noUnicast, \.noUnicast), (.noBroadcast, \.noBroadcast),
    ]
    return wanted.compactMap { which, path in
      let (command, isOn) = (NetControlCommand.receive(which, mode[keyPath: path]), mode[keyPath: path])
      guard features.contains(command.feature) || isOn, before?[keyPath: path] != isOn else { return nil }
      return command
    }
  }
}

// MARK: - Performing

extension VirtioNetDriver {
  /// By the control virtqueue where there is one, and else by what the transport can do.
  public func perform(_ command: ControlCommand) async throws(NetworkDeviceError) {
    let (agreed, queue, settings) = state.withLock { ($0.agreed, $0.controlQueue, $0.settings) }
    guard let agreed, let queue else { return try await transport.perform(command) }
    let commands = try commands(command, agreed.features, settings)
    for one in commands where !agreed.features.contains(one.feature) {
      throw .cannotBeTold(command, "\(transport.name) does not offer \(one.feature)")
    }
    do throws(NetworkDeviceError) {
      try await send(commands, by: queue)
    } catch {
      if case .setReceiveMode = command { state.withLock { $0.settings.isModeCertain = false } }
      throw error
    }
    let control = state.withLock { state in
      state.settings.note(command)
      return state.control
    }
    if case .acknowledgeAnnouncement = command { control?.noteAnnouncement(isWanted: false) }
  }

  /// One after the other, all within the time of one.
  private func send(_ commands: [NetControlCommand], by queue: any ControlQueue) async throws(NetworkDeviceError) {
    guard let loop = state.withLock({ $0.control?.loop }) else { return }
    let deadline = LoopDeadline(loop, after: options.controlTimeout)
    for command in commands { try await queue.perform(command, within: deadline.remaining) }
  }

  /// Lays the control virtqueue and tells the transport of it, before DRIVER_OK.
  func makeControlQueue(_ agreed: Agreed, _ memory: Memory) async throws(NetworkDeviceError) {
    guard let (index, map) = agreed.control.map({ ($0.index, $0.map) }) else { return }
    guard let control = state.withLock({ $0.control }) else {
      throw NetworkDeviceError(.invalidConfiguration, "activate", advice: "attach a control first")
    }
    let piece = memory.rings.piece(at: agreed.pairs * agreed.memoryMap.totalBytes, bytes: map.totalBytes)
    let attention: @Sendable () -> Void = { control.requestAttention() }
    let queue: any ControlQueue
    switch agreed.layout.format {
    case .split:
      let made = try FormatControlQueue<SplitDriverRing>(
        map, in: piece, features: agreed.features, name: transport.name, loop: control.loop, onFailure: attention)
      try await made.attach(to: transport, as: index, features: agreed.features)
      queue = made
    case .packed:
      let made = try FormatControlQueue<PackedDriverRing>(
        map, in: piece, features: agreed.features, name: transport.name, loop: control.loop, onFailure: attention)
      try await made.attach(to: transport, as: index, features: agreed.features)
      queue = made
    }
    state.withLock { $0.controlQueue = queue }
  }

  /// The device runs: asks for the pairs that were agreed on, of which it serves one until then (VIRTIO 1.4 §5.1.9.5.6), and for what a
  /// lost device was told before it. Receive rings are filled already.
  func beginControl(_ agreed: Agreed) async throws(NetworkDeviceError) {
    let (queue, settings) = state.withLock { ($0.controlQueue, $0.settings) }
    guard let queue else { return }
    await queue.goLive()
    var commands: [NetControlCommand] = []
    let pairs = settings.pairs ?? agreed.pairs
    if agreed.features.contains(.mq), pairs > 1 { commands.append(.queuePairs(UInt16(clamping: pairs))) }
    commands += settings.table.map { [$0] } ?? []
    commands += settings.address.map { [.address($0)] } ?? []
    commands += settings.vlans.sorted().map { .vlan($0, isAdded: true) }
    if let mode = settings.mode { commands += Self.commands(mode, agreed.features, before: nil) }
    try await send(commands, by: queue)
  }

  /// The control virtqueue has been broken by the device.
  func checkControl() async throws(NetworkDeviceError) {
    if let failure = await state.withLock({ $0.controlQueue })?.failure { throw failure }
  }

  /// Nothing is put on the control virtqueue any more.
  func endControl(_ cause: NetworkDeviceError) async {
    let queue = state.withLock { state in state.controlQueue.take() }
    await queue?.end(cause)
  }
}

extension VirtioNetDriver.ControlSettings {
  /// The device has done it.
  mutating func note(_ command: ControlCommand) {
    switch command {
    case .setActiveQueuePairs(let count): pairs = count
    case .setReceiveMode(let mode): (self.mode, isModeCertain) = (mode, true)
    case .setReceiveAddresses(let unicast, let multicast):
      table = .addressTable(unicast: unicast, multicast: multicast)
    case .setHardwareAddress(let address): self.address = address
    case .addVLAN(let id): vlans.insert(id)
    case .removeVLAN(let id): vlans.remove(id)
    case .acknowledgeAnnouncement: break
    }
  }
}
