internal import Glibc
public import Netdev

/// Prints what each queue of each device has done; with several devices, each line names its own.
public func printTotals(_ devices: [NetworkDevice]) {
  for device in devices {
    for (index, queue) in device.statistics.enumerated() {
      print(
        "\(label(device, index, of: devices)): \(queue.packetsReceived) received, \(queue.packetsReleased) sent, "
          + "\(queue.packetsFailed) failed")
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
        print("\(label(device, index, of: devices)): \(received) packets/s in (\(bits) bit/s), \(sent) packets/s out")
      }
    }
    flushOutput()
    before = now
  }
}

/// What has been printed must be there before somebody waits for it, also when the output is a pipe.
public func flushOutput() { fflush(nil) }

private func label(_ device: NetworkDevice, _ index: Int, of devices: [NetworkDevice]) -> String {
  devices.count == 1 ? "queue \(index)" : "\(device.information.name) queue \(index)"
}
