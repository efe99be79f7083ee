internal import CNetdevSystem
internal import LibeventConcurrency
internal import Netdev
internal import PacketFormats

/// The two rings of a packet socket, mapped: the receive ring first. Its queue lets go of it when it stops, and with it of the
/// socket.
///
/// The kernel writes to a slot while it is the kernel's, and the driver while it is not; one word of each slot says whose it is.
@safe final class PacketRings: @unchecked Sendable {
  // Proof of Sendable: everything is a constant, and the slots are touched on the queue's loop only.
  let socket: PacketSocket
  let slotSize: UInt32
  let receiveSlots: Int
  let transmitSlots: Int
  private let memory: UnsafeMutableRawPointer
  private let length: Int

  /// Frames that a receive ring holds at least: a loop that is held for a few milliseconds loses none.
  private static let leastReceived = 2048
  /// Bytes of a receive ring at most, where that is more frames than its queue has.
  private static let mostBytes = 64 << 20

  /// Waits for the kernel's grace periods: not on a loop.
  ///
  /// - Parameters:
  ///   - limit: of the interface's frames.
  ///   - capacity: frames to transmit that shall have room; at least 2.
  init(socket: PacketSocket, limit: FrameLimit, capacity: Int) throws(NetworkDeviceError) {
    self.socket = socket
    let slot = Self.powerOfTwo(atLeast: limit.longest + Int(NETDEV_PACKET_OVERHEAD))
    let transmit = max(Self.powerOfTwo(atLeast: capacity), Int(netdev_packet_slots_per_block(UInt32(slot))))
    // Both are powers of two, and no smaller than a block has slots.
    let receive = min(max(Self.leastReceived, 2 * transmit), max(Self.mostBytes / slot, transmit))
    slotSize = UInt32(slot)
    receiveSlots = receive
    transmitSlots = transmit
    let rings = netdev_packet_rings(
      slot_size: slotSize, receive_slots: UInt32(receive), transmit_slots: UInt32(transmit))
    var mapped: UnsafeMutableRawPointer?
    var step: CInt = 0
    let result = unsafe netdev_packet_prepare(socket.descriptor, rings, &mapped, &step)
    guard result == 0, let mapped = unsafe mapped else {
      throw NetworkDeviceError(preparing: socket, step: step, errno: result)
    }
    unsafe memory = mapped
    length = netdev_packet_length(rings)
    // What the frames of a whole ring take of the system's memory, with the kernel's own words about each.
    netdev_packet_set_room(socket.descriptor, CInt(clamping: transmit * (slot + 1024) * 2))
  }

  // Others of this process may be mapping theirs, which holds up whoever unmaps: no loop waits for that.
  deinit {
    let (socket, address, length) = (socket, UInt(bitPattern: unsafe memory), length)
    BlockingCalls.start {
      unsafe netdev_unmap(UnsafeMutableRawPointer(bitPattern: address), length)
      withExtendedLifetime(socket) {}
    }
  }

  private static func powerOfTwo(atLeast number: Int) -> Int {
    number <= 1 ? 1 : 1 << (Int.bitWidth - (number - 1).leadingZeroBitCount)
  }

  /// A slot of the receive ring; the position counts on for ever.
  @inline(__always) func receiveSlot(_ position: Int) -> UnsafeMutableRawPointer {
    unsafe memory + (position & (receiveSlots - 1)) * Int(slotSize)
  }

  /// A slot of the transmit ring; the position counts on for ever.
  @inline(__always) func transmitSlot(_ position: Int) -> UnsafeMutableRawPointer {
    unsafe memory + (receiveSlots + (position & (transmitSlots - 1))) * Int(slotSize)
  }
}
