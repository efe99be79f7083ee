public import PacketFormats

extension NetworkDevice {
  /// The device's own Ethernet address.
  ///
  /// - Throws: `unsupported` for a device that has none; ``information`` has it as an optional.
  public var hardwareAddress: MACAddress {
    get throws(NetworkDeviceError) {
      if let address = information.hardwareAddress { return address }
      throw NetworkDeviceError(
        .unsupported, "hardwareAddress", offered: "\(information.name) has no address of its own",
        advice: "choose one, such as 02:00:00:00:00:01")
    }
  }
}
