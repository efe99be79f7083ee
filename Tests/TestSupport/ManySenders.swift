package import Netdev
package import Testing

/// 64 tasks send as many packets each through the device's one queue, which loops them back and receives them at the same time: in the
/// order of each task, each once, as a task sends its next frame when the device has released the one before.
package func sendFromManyTasks(
  _ each: Int, bytes: Int, through device: NetworkDevice, _ location: SourceLocation = #_sourceLocation
) async throws {
  let (tasks, queue, pool) = (64, device.queues[0], device.pool)
  let errors = Tally(1)
  let runner = Task {
    try await device.run { queue in
      var next = [Int](repeating: 0, count: tasks)
      var count = 0
      for await packet in queue.packets {
        let number = packet.withBytes { unsafe Int($0.unsafeLoad(fromByteOffset: 0, as: UInt64.self)) }
        if next[number >> 32] != number & 0xffff_ffff { errors.add(0) }
        next[number >> 32] += 1
        count += 1
        if count == tasks * each { break }
      }
      while queue.statistics.packetsReleased < UInt64(tasks * each) { await Task.yield() }
    }
  }
  await withTaskGroup(of: Void.self) { group in
    for task in 0..<tasks {
      group.addTask {
        for number in 0..<each {
          do {
            var packet = try Packet(count: bytes, in: pool)
            packet.withMutableBytes {
              $0.storeBytes(of: UInt64(task << 32 | number), toByteOffset: 0, as: UInt64.self)
            }
            try await queue.send(packet)
          } catch {
            errors.add(0)
          }
        }
      }
    }
  }
  try await runner.value
  #expect(errors.total == 0, sourceLocation: location)
  #expect(queue.statistics.packetsReceived == UInt64(tasks * each), sourceLocation: location)
  #expect(queue.statistics.packetsFailed == 0, sourceLocation: location)
  try await eventually("every buffer is back") { pool.free == pool.configuration.slots }
}
