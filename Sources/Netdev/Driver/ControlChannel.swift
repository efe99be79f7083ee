public import PacketFormats

/// A way to tell a running device what it shall do: a control virtqueue, messages of a transport, calls of the system.
///
/// One command at a time; the device's life sees to that. A channel does what it can and says of everything else, by `unsupported`,
/// what to do instead.
public protocol ControlChannel: AnyObject, Sendable {
  /// Has the device do what the command says, and returns when it has.
  ///
  /// Deadline: the channel's own, by the control loop's clock. A cancelled task does not wait; whether the device does what it was
  /// asked for is then not known.
  ///
  /// - Throws: `unsupported` for what the device or the way to it cannot do, or has refused; `timedOut` when it has not answered in time: it may
  ///   still do it; `invalidConfiguration` for what no device can do.
  func perform(_ command: ControlCommand) async throws(NetworkDeviceError)
}

/// What a running device can be told.
public enum ControlCommand: Sendable, Hashable {
  /// How many queue pairs it uses, from the first on: of those that it was opened with. Nothing is with it of pairs that it shall not use
  /// any more, and nothing is sent by pairs that it shall use before this has returned.
  case setActiveQueuePairs(Int)
  /// Which of the frames that come in it hands over.
  case setReceiveMode(ReceiveMode)
  /// Further stations and groups whose frames it hands over. What was set before is forgotten.
  case setReceiveAddresses(unicast: [MACAddress], multicast: [MACAddress])
  /// Its own address.
  case setHardwareAddress(MACAddress)
  /// Hands over frames of this VLAN, 0 to 4095.
  case addVLAN(UInt16)
  /// Hands over no frames of this VLAN any more.
  case removeVLAN(UInt16)
  /// The program has told the network where it is.
  case acknowledgeAnnouncement
}

/// Which of the frames that come in a device hands over.
public struct ReceiveMode: Sendable, Hashable {
  /// All of them, whatever else is set here, in tables, and of VLANs.
  public var isPromiscuous: Bool
  /// Those to any group; otherwise to the groups of the table, and to all stations.
  public var allMulticast = false
  /// Those to any station; otherwise to the device's own address and those of the table.
  public var allUnicast = false
  /// None to groups.
  public var noMulticast = false
  /// None to stations.
  public var noUnicast = false
  /// None to all stations at once.
  public var noBroadcast = false

  /// Everything: what devices do until they are told otherwise.
  public static let promiscuous = ReceiveMode(isPromiscuous: true)
  /// What is for this device: its address, its tables, and what is for all.
  public static let addressed = ReceiveMode(isPromiscuous: false)

  /// A mode in which nothing but `isPromiscuous` is set.
  public init(isPromiscuous: Bool) { self.isPromiscuous = isPromiscuous }
}

extension ControlCommand: CustomStringConvertible {
  /// What it is, in an error or a log.
  public var description: String {
    switch self {
    case .setActiveQueuePairs(let count): "using \(count) queue pairs"
    case .setReceiveMode: "setting the receive mode"
    case .setReceiveAddresses: "setting the addresses to receive for"
    case .setHardwareAddress(let address): "setting the hardware address \(address)"
    case .addVLAN(let id): "adding VLAN \(id)"
    case .removeVLAN(let id): "removing VLAN \(id)"
    case .acknowledgeAnnouncement: "acknowledging an announcement"
    }
  }

  /// What to do instead where it cannot be done.
  fileprivate var advice: String {
    switch self {
    case .setActiveQueuePairs: "open the device with as many queue pairs as it shall use"
    case .setReceiveMode, .setReceiveAddresses:
      "look at what is received and drop what is not wanted; packet: has promiscuous=1"
    case .setHardwareAddress: "give the device its address where it is configured"
    case .addVLAN, .removeVLAN:
      "open a virtio device that filters VLANs with vlan_filter=1, or look at the tags of what is received"
    case .acknowledgeAnnouncement: "there is nothing to acknowledge"
    }
  }
}

extension NetworkDeviceError {
  /// A device cannot be told this; `found` says what it lacks.
  package static func cannotBeTold(_ command: ControlCommand, _ found: String) -> NetworkDeviceError {
    NetworkDeviceError(.unsupported, "\(command)", offered: found, advice: command.advice)
  }
}
