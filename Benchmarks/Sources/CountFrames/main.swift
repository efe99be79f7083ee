// Builds frames of 64 bytes on a queue's loop and drops them: what `count.sh` counts.
//
//     CountFrames MODE PACKETS
//
// MODE is one of `Mode`. It prints the allocations of the loop. Its main is synchronous, and valgrind can follow.
import CAllocationCounter
import Dispatch
import Glibc
import Netdev
import NetdevDevices
import PacketFormats

/// What is built.
enum Mode: String, CaseIterable {
  /// A packet of the pool with 64 bytes in it: what every packet costs that is made and goes.
  case packet
  /// The same as a UDP datagram, over IPv4 and over IPv6, around a copy of its payload.
  case udp
  case udp6
  /// The same in front of a payload that is a packet already.
  case around
  /// The headers alone, in front of a payload that lies in memory.
  case encode
  case encode6
}

let flow = UDPFrame(
  sourceMAC: MACAddress(2, 0, 0, 0, 0, 1), destinationMAC: MACAddress(2, 0, 0, 0, 0, 2),
  source: IPv4Address(10, 0, 0, 1), destination: IPv4Address(10, 0, 0, 2), sourcePort: 5000, destinationPort: 7)
let flow6 = UDPv6Frame(
  sourceMAC: flow.sourceMAC, destinationMAC: flow.destinationMAC,
  source: IPv6Address(high: 0xFD00_0000_0000_0000, low: 1),
  destination: IPv6Address(high: 0xFD00_0000_0000_0000, low: 2),
  sourcePort: 5000, destinationPort: 7)

/// One loop over `packets` frames; what it returns depends on all of them.
struct Work: Sendable {
  let mode: Mode
  let packets: Int

  func run(on queue: isolated NetworkQueue) throws -> Int {
    let pool = queue.pool
    let frame = [UInt8](repeating: 7, count: 64)
    let payload = Array(frame[..<(64 - UDPFrame.headerLength)])
    let payload6 = Array(frame[..<(64 - UDPv6Frame.headerLength)])
    switch mode {
    case .packet: return try build { try Packet(copying: frame, in: pool) }
    case .udp: return try build { try flow.makePacket(payload: payload, in: pool) }
    case .udp6: return try build { try flow6.makePacket(payload: payload6, in: pool) }
    case .around: return try build { try flow.makePacket(around: Packet(copying: payload, in: pool)) }
    case .encode: return try encode { try flow.encode(into: &$0, payloadLength: 64 - UDPFrame.headerLength) }
    case .encode6: return try encode { try flow6.encode(into: &$0, payloadLength: 64 - UDPv6Frame.headerLength) }
    }
  }

  @inline(__always) private func build(_ make: () throws -> Packet) throws -> Int {
    var bytes = 0
    for _ in 0..<packets { bytes &+= try make().count }
    return bytes
  }

  @inline(__always)
  private func encode(_ write: (inout MutableRawSpan) throws -> Int) throws -> Int {
    var room = [UInt8](repeating: 7, count: 64)
    var bytes = 0
    var span = room.mutableSpan
    var frame = span.mutableBytes
    for number in 0..<packets {
      // The payload changes, so that the checksum does.
      frame.storeBytes(of: UInt8(truncatingIfNeeded: number), toByteOffset: 63, as: UInt8.self)
      bytes &+= try write(&frame)
    }
    return bytes
  }
}

let arguments = CommandLine.arguments
guard arguments.count == 3, let mode = Mode(rawValue: arguments[1]), let packets = Int(arguments[2]) else {
  print("usage: CountFrames \(Mode.allCases.map(\.rawValue).joined(separator: "|")) PACKETS")
  exit(2)
}
let finished = DispatchSemaphore(value: 0)
Task.detached {
  do {
    let work = Work(mode: mode, packets: packets)
    let device = try await NetworkDevice.open("loopback:")
    try await device.run { queue in
      let allocations = netdev_allocation_count()
      let bytes = try work.run(on: queue)
      print("allocations \(netdev_allocation_count() - allocations) bytes \(bytes)")
      guard bytes == 64 * packets else { exit(1) }
    }
  } catch {
    print("CountFrames: \(error)")
    exit(1)
  }
  finished.signal()
}
finished.wait()
