public import PacketFormats
internal import Synchronization

// What a running device can be told. Each call goes to the device's life, on its control loop, and is done there between two other
// things, one after the other.
extension NetworkDevice {
  /// Queue pairs that the device uses now, the first of ``queues``: all that it was opened with, until it is told otherwise. From any
  /// thread.
  public var activeQueuePairs: Int { life.activePairs.load(ordering: .sequentiallyConsistent) }

  /// Has the device use so many of the queue pairs that it was opened with, from the first on.
  ///
  /// ```swift
  /// try await device.setActiveQueuePairs(1)              // at night
  /// ```
  ///
  /// Nobody who sends or receives notices anything but where frames come in. A pair that is not used any more receives nothing; what is sent by
  /// its queue goes by the ring of a pair that is used, in its order, and is waited for as before. A pair that is used again goes on
  /// where it was; its receive buffers have stayed with the device.
  ///
  /// Deadline: two seconds for what such a pair still has with the device, and two for the device's answer, behind what it was told
  /// before; while a lost device is looked for the call waits. Cancellation ends the wait at once; what has begun goes on. `close` ends
  /// it.
  ///
  /// - Throws: `invalidConfiguration` for none, and for more than the device was opened with; `unsupported` for a device that cannot do it, or has
  ///   refused, and `busy` when it has kept frames of a pair that is to be closed: the pairs are then used as before. `timedOut` when it has not
  ///   answered; then no more are used than before, and than were asked for. `cancelled`, `closed`, or why the device has ended.
  public func setActiveQueuePairs(_ count: Int) async throws(NetworkDeviceError) {
    try await life.perform(.setActiveQueuePairs(count))
  }

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
  /// Deadline and cancellation as for `setReceiveMode(_:)`.
  ///
  /// - Throws: as `addVLAN(_:)`.
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
  /// Deadline and cancellation as for `setReceiveMode(_:)`.
  ///
  /// - Throws: as `setReceiveMode(_:)`.
  public func acknowledgeAnnouncement() async throws(NetworkDeviceError) {
    try await life.perform(.acknowledgeAnnouncement)
  }
}
