extension PacketPool.Configuration {
  /// A pool that serves all of these devices: the largest headroom and buffer that any of them needs, room for all of their
  /// rings and as much again for the program, and a ring of each receive queue in reserve.
  public static func fitting(_ informations: [NetworkDeviceInformation]) -> PacketPool.Configuration {
    let needed = informations.map { $0.headroom }.max() ?? 0
    let headroom = max(128, (needed * 2 + 63) & ~63)
    let buffer = max(informations.map { $0.receiveBufferSize }.max() ?? 1, 1) + headroom
    let slotSize = buffer <= 2048 ? 2048 : (buffer + 63) & ~63
    let received = informations.reduce(0) { $0 + $1.queueSize * $1.queuePairs }
    return PacketPool.Configuration(
      slots: min(received * 4 + 256, 1_048_575), slotSize: min(slotSize, 65_536), headroom: headroom,
      reserve: min(received, 1_048_575))
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
