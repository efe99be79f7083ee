public import Netdev

/// Prints what each queue of each device has done; with several devices, each line names its own.
public func printTotals(_ devices: [NetworkDevice]) {
  for device in devices {
    let drops = device.deviceDrops
    for (index, queue) in device.statistics.enumerated() {
      let dropped = index < drops.count ? drops[index] : DeviceDrops()
      let name = label(device, index, of: devices)
      // A device releases the buffers of frames that it drops, too.
      let sent = queue.packetsReleased - min(queue.packetsReleased, dropped.totalTransmitted)
      Output.standard.print(
        "\(name): \(queue.packetsReceived) received, \(sent) sent, \(queue.packetsFailed) failed")
      for (way, reasons) in [("to be sent", dropped.transmitted), ("to be received", dropped.received)]
      where !reasons.isEmpty {
        let list = reasons.sorted { $0.key < $1.key }.map { "\($0.key) \($0.value)" }
        Output.standard.print("\(name): dropped by the device, \(way): \(list.joined(separator: ", "))")
      }
    }
  }
}

/// Prints each queue's rates every so many seconds until cancelled.
public func printRates(_ devices: [NetworkDevice], every seconds: Int = 1) async throws {
  var before = devices.map { $0.statistics }
  while true {
    try await Task.sleep(for: .seconds(seconds))
    let now = devices.map { $0.statistics }
    for (device, (old, new)) in zip(devices, zip(before, now)) {
      for (index, (old, new)) in zip(old, new).enumerated() {
        let received = (new.packetsReceived - old.packetsReceived) / UInt64(seconds)
        let sent = (new.packetsReleased - old.packetsReleased) / UInt64(seconds)
        let bits = (new.bytesReceived - old.bytesReceived) * 8 / UInt64(seconds)
        Output.standard.print(
          "\(label(device, index, of: devices)): \(received) packets/s in (\(bits) bit/s), \(sent) packets/s out")
      }
    }
    before = now
  }
}

private func label(_ device: NetworkDevice, _ index: Int, of devices: [NetworkDevice]) -> String {
  devices.count == 1 ? "queue \(index)" : "\(device.information.name) queue \(index)"
}
