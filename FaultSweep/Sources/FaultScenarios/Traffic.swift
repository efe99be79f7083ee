import CFaultSupport
import Foundation
import Netdev
import Responder

/// Frames to and fro: numbered ones that come back by themselves, or a socket's datagrams that the device's station answers.
@MainActor final class Traffic {
  let world: World
  let devices: [NetworkDevice]
  let tally: Tally
  private var number: UInt32 = 0
  /// Sends that may wait at a time for a device that does nothing.
  private static let longestWait = 64

  init(_ world: World, _ devices: [NetworkDevice], _ tally: Tally) {
    self.world = world
    self.devices = devices
    self.tally = tally
  }

  /// Serves the devices until they end.
  ///
  /// - Returns: how many ends there will be.
  func serve() throws -> Int {
    let tally = tally
    if devices.count == 2 {
      let (left, right) = (devices[0].queues[0], devices[1].queues[0])
      for (from, to) in [(left, right), (right, left)] {
        Task {
          do {
            try await to.run { queue in
              try await queue.forward(from: from.packets.compactMap { packet in Self.hop(packet, tally) })
            }
            tally.noteEnd(nil)
          } catch {
            tally.noteEnd(error)
          }
        }
      }
      return 2
    }
    let (device, template) = (devices[0], try world.responder(for: devices[0]))
    Task {
      do {
        try await device.run { queue in
          if let template {
            var responder = template
            for await var packet in queue.packets {
              guard responder.answer(&packet) else { continue }
              try await queue.send(packet)
            }
          } else {
            for await packet in queue.packets { tally.noteReturned(Self.number(of: packet)) }
          }
        }
        tally.noteEnd(nil)
      } catch {
        tally.noteEnd(error)
      }
    }
    return 1
  }

  /// Makes frames go round until so many have come back, or the time is over.
  ///
  /// - Returns: how many have come back.
  func exchange(_ wanted: Int, within limit: Duration) async -> Int {
    if world.kind == .hostUDP || world.kind.needsRoot {
      let (host, port) = world.echoAddress
      let milliseconds = CInt(limit.components.seconds * 1000 + limit.components.attoseconds / 1_000_000_000_000_000)
      return await withCheckedContinuation { continuation in
        Thread.detachNewThread {
          continuation.resume(returning: Int(fault_echo(host, port, CInt(wanted), milliseconds)))
        }
      }
    }
    let end = ContinuousClock.now + limit
    let before = tally.returned
    while tally.returned - before < wanted, ContinuousClock.now < end, tally.ends.isEmpty {
      for queue in devices[0].queues where tally.unfinishedSends < Self.longestWait {
        number += 1
        send(number, by: queue)
      }
      let number = number
      _ = await within(.milliseconds(50)) { self.tally.newest >= number || !self.tally.ends.isEmpty }
    }
    return tally.returned - before
  }

  private func send(_ number: UInt32, by queue: NetworkQueue) {
    let tally = tally
    tally.beginSend()
    Task {
      do throws(NetworkDeviceError) {
        try await queue.send(try Packet(copying: Self.frame(number), in: queue.pool))
      } catch {
        // A typed error is an answer.
      }
      tally.finishSend()
    }
  }

  /// To all stations, of an EtherType for experiments: its number and how often it still changes devices.
  nonisolated private static func frame(_ number: UInt32) -> [UInt8] {
    var bytes = [UInt8](repeating: 0xff, count: 6) + [2, 0, 0, 0, 0, 1, 0x88, 0xb5]
    bytes += [UInt8(truncatingIfNeeded: number >> 24), UInt8(truncatingIfNeeded: number >> 16)]
    bytes += [UInt8(truncatingIfNeeded: number >> 8), UInt8(truncatingIfNeeded: number), 8]
    return bytes + [UInt8](repeating: 0, count: 45)
  }

  nonisolated private static func number(of packet: borrowing Packet) -> UInt32 {
    packet.withBytes { bytes in
      guard bytes.byteCount >= 18 else { return 0 }
      return (14..<18).reduce(0) { $0 << 8 | UInt32(bytes.unsafeLoad(fromByteOffset: $1, as: UInt8.self)) }
    }
  }

  nonisolated private static func hop(_ packet: consuming Packet, _ tally: Tally) -> Packet? {
    var packet = packet
    guard packet.count >= 19 else { return nil }
    let left = packet.withMutableBytes { bytes in
      let left = bytes.bytes.unsafeLoad(fromByteOffset: 18, as: UInt8.self)
      bytes.storeBytes(of: left &- 1, toByteOffset: 18, as: UInt8.self)
      return left
    }
    if left > 0 { return packet }
    tally.noteReturned(number(of: packet))
    return nil
  }
}
