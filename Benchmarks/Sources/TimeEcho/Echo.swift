import NetdevDevices

/// The loop that is timed: each answer is awaited until the device has released its buffer.
func echoAndSend(_ device: NetworkDevice) async throws {
  try await device.run { queue in
    for await var packet in queue.packets {
      guard packet.withMutableBytes({ answer(&$0) }) else { continue }
      try await queue.send(packet)
    }
  }
}

/// The same, going on as soon as the answer is published.
func echoAndSubmit(_ device: NetworkDevice) async throws {
  try await device.run { queue in
    for await var packet in queue.packets {
      guard packet.withMutableBytes({ answer(&$0) }) else { continue }
      try await queue.submit(packet)
    }
  }
}

/// Addresses and ports of a UDP datagram change places, as in the C loop; no checksum changes with them.
@inline(__always) private func answer(_ frame: inout MutableRawSpan) -> Bool {
  guard frame.byteCount >= 42, load(frame, 12) as UInt16 == 0x0008, load(frame, 14) as UInt8 == 0x45,
    load(frame, 23) as UInt8 == 17
  else { return false }
  let destination: (UInt32, UInt16) = (load(frame, 0), load(frame, 4))
  let source: (UInt32, UInt16) = (load(frame, 6), load(frame, 10))
  frame.storeBytes(of: source.0, toByteOffset: 0, as: UInt32.self)
  frame.storeBytes(of: source.1, toByteOffset: 4, as: UInt16.self)
  frame.storeBytes(of: destination.0, toByteOffset: 6, as: UInt32.self)
  frame.storeBytes(of: destination.1, toByteOffset: 10, as: UInt16.self)
  let addresses: (UInt32, UInt32) = (load(frame, 26), load(frame, 30))
  frame.storeBytes(of: addresses.1, toByteOffset: 26, as: UInt32.self)
  frame.storeBytes(of: addresses.0, toByteOffset: 30, as: UInt32.self)
  let ports: (UInt16, UInt16) = (load(frame, 34), load(frame, 36))
  frame.storeBytes(of: ports.1, toByteOffset: 34, as: UInt16.self)
  frame.storeBytes(of: ports.0, toByteOffset: 36, as: UInt16.self)
  return true
}

@inline(__always) private func load<Value: BitwiseCopyable>(_ frame: borrowing MutableRawSpan, _ offset: Int) -> Value {
  frame.unsafeLoadUnaligned(fromByteOffset: offset, as: Value.self)
}
