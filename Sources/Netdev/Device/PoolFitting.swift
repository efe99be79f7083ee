extension PacketPool.Configuration {
  /// Buffers that a pool can have.
  static var mostSlots: Int { 1_048_575 }

  /// A pool that serves all of these devices: the largest headroom and buffer that any of them needs, room for all of their
  /// rings and as much again for the program, and a ring of each receive queue in reserve.
  ///
  /// - Parameters:
  ///   - informations: what the devices need.
  ///   - keptPackets: packets that the program keeps for longer than it takes to answer them: buffers for these come on top.
  public static func fitting(
    _ informations: [NetworkDeviceInformation], keptPackets: Int = 0
  ) -> PacketPool.Configuration {
    let needed = informations.map { $0.headroom }.max() ?? 0
    let headroom = max(128, (needed * 2 + 63) & ~63)
    let buffer = max(informations.map { $0.receiveBufferSize }.max() ?? 1, 1) + headroom
    let slotSize = buffer <= 2048 ? 2048 : (buffer + 63) & ~63
    let received = informations.reduce(0) { $0 + $1.queueSize * $1.queuePairs }
    return PacketPool.Configuration(
      slots: min(received * 4 + 256 + min(max(keptPackets, 0), mostSlots), mostSlots), slotSize: min(slotSize, 65_536),
      headroom: headroom,
      reserve: min(received, mostSlots))
  }

  /// What to write instead, when a pool of this layout is short of buffers for these devices: so short that their receive rings cannot
  /// be filled, or without the reserve that keeps reception going whatever the program keeps. Nil when it fits.
  ///
  /// A pool that is short works: its devices drop what they find no buffer for. `NetworkDevice.open` logs this as a notice.
  public func advice(for informations: [NetworkDeviceInformation], keptPackets: Int = 0) -> String? {
    let fitting = PacketPool.Configuration.fitting(informations, keptPackets: keptPackets)
    let (rings, kept) = (fitting.reserve, min(max(keptPackets, 0), Self.mostSlots))
    let instead = "write PacketPool.Configuration(slots: \(fitting.slots), reserve: \(fitting.reserve))"
    if slots < rings + kept {
      let beside = kept > 0 ? " and \(kept) kept packets" : ""
      return "\(slots) buffers are too few for receive rings of \(rings)\(beside): \(instead), or no pool at all"
    }
    guard reserve < min(rings, 64) else { return nil }
    return
      "with a reserve of \(reserve), packets that are kept or slow to be sent leave reception without buffers: \(instead), or no pool at all"
  }

  /// There can be a pool with buffers for so many kept packets.
  static func check(
    keptPackets: Int, for informations: [NetworkDeviceInformation]
  ) throws(NetworkDeviceError) {
    let most = mostSlots - fitting(informations).slots
    guard keptPackets < 0 || keptPackets > most else { return }
    throw NetworkDeviceError(
      .invalidConfiguration, "open", offered: "\(keptPackets) kept packets", advice: "0 to \(most) are possible here")
  }

  func check(against information: NetworkDeviceInformation) throws(NetworkDeviceError) {
    // A program may use half of the headroom for headers of its own (`Packet.prepend`).
    guard headroom / 2 >= information.headroom else {
      throw NetworkDeviceError(
        .invalidConfiguration, "open", offered: "a pool with \(headroom) bytes of headroom",
        advice: "\(information.name) needs at least \(2 * information.headroom)")
    }
    guard slotSize - headroom >= information.receiveBufferSize else {
      throw NetworkDeviceError(
        .invalidConfiguration, "open", offered: "a pool with buffers of \(slotSize - headroom) bytes",
        advice: "\(information.name) receives into buffers of at least \(information.receiveBufferSize) bytes")
    }
  }
}
