public import Netdev
internal import NetdevProgram

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

/// Prints, each time that it is asked, what each queue has done since the last time.
public final class Rates {
  private let devices: [NetworkDevice]
  private var before: [[QueueStatistics]]

  /// Of these devices, from now on.
  public init(_ devices: [NetworkDevice]) {
    self.devices = devices
    before = devices.map { $0.statistics }
  }

  /// A line for each queue.
  public func print() {
    let now = devices.map { $0.statistics }
    for (device, (old, new)) in zip(devices, zip(before, now)) {
      for (index, (old, new)) in zip(old, new).enumerated() {
        Output.standard.print("\(label(device, index, of: devices)): \(new.since(old))")
      }
    }
    before = now
  }
}

private func label(_ device: NetworkDevice, _ index: Int, of devices: [NetworkDevice]) -> String {
  devices.count == 1 ? "queue \(index)" : "\(device.information.name) queue \(index)"
}
