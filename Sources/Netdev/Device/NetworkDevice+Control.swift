public import PacketFormats

// What a running device can be told. Each call goes to the device's life, on its control loop, and is done there between two other
// things, one after the other.
extension NetworkDevice {
  /// Sets which of the frames that come in are handed over. Until then it is the device's choice: those of this process, and QEMU's, hand
  /// over everything.
  ///
  /// ```swift
  /// try await device.setReceiveMode(.addressed)          // for this station, its tables, and for all
  /// ```
  ///
  /// Deadline: two seconds for the device's answer, behind what it was told before; while a lost device is looked for the call waits.
  /// Cancellation ends the wait at once; what has begun goes on. `close` ends it.
  ///
  /// - Throws: `unsupported` for a device that cannot do it, with what to do instead, or that has refused it; `timedOut` when it has not answered:
  ///   it may still do it; `cancelled`, `closed`, or why the device has ended.
  public func setReceiveMode(_ mode: ReceiveMode) async throws(NetworkDeviceError) {
    try await life.perform(.setReceiveMode(mode))
  }

  /// Sets the stations beside the device's own, and the groups, whose frames are handed over; what was set before is forgotten. It
  /// counts in modes that ask for it. A device keeps so many, those of this process 64 of each kind: of a kind that has more it hands over
  /// all.
  ///
  /// Deadline and cancellation as for `setReceiveMode(_:)`.
  ///
  /// - Throws: as `setReceiveMode(_:)`; `invalidConfiguration` for a group among the stations, a station among the groups, and
  ///   for more than one command holds.
  public func setReceiveAddresses(
    unicast: [MACAddress], multicast: [MACAddress]
  ) async throws(NetworkDeviceError) {
    try await life.perform(.setReceiveAddresses(unicast: unicast, multicast: multicast))
  }

  /// Gives the device another address, until it is closed; ``information`` has the one that it had when it was opened.
  ///
  /// Deadline and cancellation as for `setReceiveMode(_:)`.
  ///
  /// - Throws: as `setReceiveMode(_:)`; `invalidConfiguration` for the address of a group, and for none.
  public func setHardwareAddress(_ address: MACAddress) async throws(NetworkDeviceError) {
    try await life.perform(.setHardwareAddress(address))
  }

  /// Has frames of a VLAN handed over, by a device that filters them, which is asked for when it is opened (`vlan_filter=1` in its URL).
  /// Frames without a tag, and those of VLANs in promiscuous mode, are handed over anyway.
  ///
  /// Deadline and cancellation as for `setReceiveMode(_:)`.
  ///
  /// - Throws: as `setReceiveMode(_:)`; `invalidConfiguration` for a number above 4095.
  public func addVLAN(_ id: UInt16) async throws(NetworkDeviceError) { try await life.perform(.addVLAN(id)) }

  /// Has frames of a VLAN not handed over any more.
  ///
  /// Deadline, cancellation and errors as for `addVLAN(_:)`.
  public func removeVLAN(_ id: UInt16) async throws(NetworkDeviceError) { try await life.perform(.removeVLAN(id)) }

  /// Times that the device asks for the program to announce itself: to send what tells switches and neighbors where its addresses are
  /// now, as after a migration. One that is not acknowledged is there at once for whoever begins to listen. Ends with the
  /// device.
  ///
  /// ```swift
  /// for await _ in device.announcementRequests {
  ///   try await queue.send(gratuitousARP)
  ///   try await device.acknowledgeAnnouncement()
  /// }
  /// ```
  ///
  /// Waiting for the next has no deadline, and cancellation ends it at once.
  public var announcementRequests: AsyncStream<Void> { life.announcements.requests() }

  /// Tells the device that the program has announced itself.
  ///
  /// Deadline, cancellation and errors as for `setReceiveMode(_:)`.
  public func acknowledgeAnnouncement() async throws(NetworkDeviceError) {
    try await life.perform(.acknowledgeAnnouncement)
  }
}
