import PacketFormats
import Synchronization
public import Virtio

// What the driver asks for by the control virtqueue (VIRTIO 1.4 §5.1.9.5).
extension VirtioNetDevice {
  /// What the commands are about that a device with a control virtqueue offers.
  static let controlFeatures: FeatureSet = [
    .ctrlVQ, .ctrlRX, .ctrlRXExtra, .ctrlVLAN, .ctrlMACAddress, .guestAnnounce,
  ]

  /// The control virtqueue's index: behind the queues of all pairs that there could be if MQ was negotiated, and else behind those
  /// of the first (§5.1.2); nil where none was negotiated. From any thread.
  public var controlQueueIndex: Int? {
    guard let features = negotiatedFeatures, features.contains(.ctrlVQ) else { return nil }
    return features.contains(.mq) ? 2 * maximumPairs : 2
  }

  /// Which frames the driver wants: what the transport hands to engines that exist when a command has changed it. From any thread.
  public var receiveFilter: ReceiveFilter {
    state.withLock { state in
      var filter = state.filter
      filter.station = state.macAddress
      return filter
    }
  }

  /// Does what a command asks for, as far as it is the device model's affair: the transport then enables and disables engines, and
  /// hands them the filter. From any thread.
  ///
  /// - Returns: false, and nothing has changed, for a command that was not negotiated or asks for what cannot be.
  public func perform(_ command: NetControlCommand) -> Bool {
    guard let features = negotiatedFeatures, features.contains([.ctrlVQ, command.feature]) else { return false }
    switch command {
    case .queuePairs(let count): return setActivePairs(Int(count))
    case .receive(let which, let isOn):
      state.withLock { state in
        if isOn { state.filter.switches.insert(which) } else { state.filter.switches.remove(which) }
      }
    case .addressTable(let unicast, let multicast):
      state.withLock { state in
        state.filter.unicast = unicast.map { Set($0) }
        state.filter.multicast = multicast.map { Set($0) }
      }
    case .address(let address):
      guard address.isUnicast else { return false }
      state.withLock { state in
        state.macAddress = address
        state.generation &+= 1
      }
    case .vlan(let id, let isAdded):
      guard id < 4096 else { return false }
      state.withLock { state in
        if isAdded { state.filter.vlans?.insert(id) } else { state.filter.vlans?.remove(id) }
      }
    case .announced:
      state.withLock { state in
        guard state.wantsAnnouncement else { return }
        state.wantsAnnouncement = false
        state.generation &+= 1
      }
    }
    return true
  }

  /// Asks the driver to tell the network where it is now, as after a migration (§5.1.9.5.4). From any thread.
  ///
  /// - Returns: false when the driver does not do that, or does not run.
  @discardableResult public func requestAnnouncement() -> Bool {
    let (isRunning, line) = state.withLock { state -> (Bool, (@Sendable () -> Void)?) in
      guard state.status.contains([.featuresOK, .driverOK]), state.driverFeatures.contains(.guestAnnounce) else {
        return (false, nil)
      }
      state.wantsAnnouncement = true
      state.generation &+= 1
      return (true, state.configurationLine)
    }
    line?()
    return isRunning
  }

  /// Whether the driver has been asked to announce itself and has not said that it has. From any thread.
  public var awaitsAnnouncement: Bool { state.withLock { $0.wantsAnnouncement } }
}
