internal import LibeventConcurrency
internal import Synchronization

// How many of its queue pairs a running device uses.
extension DeviceLife {
  /// How long the rings of pairs that are not to be used any more may take to be empty.
  private static let drainingTime = Duration.seconds(2)

  /// The order is VIRTIO's (1.4 §5.1.9.5.6.1): before the device is told to use fewer pairs nothing of those is with it any more, and
  /// nothing is sent by them again before it has said that it uses them.
  func setActivePairs(_ count: Int) async throws(NetworkDeviceError) {
    let command = ControlCommand.setActiveQueuePairs(count)
    guard count >= 1, count <= places.count else {
      throw NetworkDeviceError(
        .invalidConfiguration, "\(command)", offered: "the device was opened with \(places.count)",
        advice: count < 1 ? "use one at least" : "open it with as many as it shall ever use")
    }
    let present = activePairs.load(ordering: .sequentiallyConsistent)
    guard count != present else { return }
    let changing = Array(places[min(count, present)..<max(count, present)])
    var hasMoved = false
    do throws(NetworkDeviceError) {
      if count < present {
        try await drain(changing, command)
        for (offset, place) in changing.enumerated() { await move(place, to: places[(count + offset) % count]) }
        hasMoved = true
      }
      try await step(nil) { [driver] () async throws(NetworkDeviceError) in try await driver.perform(command) }
    } catch {
      if let end { throw end }
      if hasMoved, error.code == .timedOut {
        // Whether the device uses them is not known: nobody sends by them.
        activePairs.store(count, ordering: .sequentiallyConsistent)
      } else if count < present {
        await tell(changing) { $0.turn.comeBack() }
      }
      throw error
    }
    activePairs.store(count, ordering: .sequentiallyConsistent)
    if count > present { await tell(changing) { $0.turn.comeBack() } }
  }

  /// Waits until the device has nothing of these any more; they publish nothing meanwhile.
  private func drain(_ closing: [QueuePlace], _ command: ControlCommand) async throws(NetworkDeviceError) {
    await tell(closing) { $0.turn.beginDraining() }
    let deadline = LoopDeadline(loop, after: Self.drainingTime)
    var pause = Duration.microseconds(100)
    while true {
      let answers = await tell(closing) { $0.turn.isDrained() }
      if answers.count == closing.count, answers.allSatisfy({ $0 }) { return }
      guard deadline.remaining > .zero else {
        throw NetworkDeviceError(
          .busy, "\(command)",
          offered:
            "the device has kept frames of a pair that is not to be used any more for \(Self.drainingTime.inUnits)",
          advice: "try again when it releases them")
      }
      try await self.pause(pause)
      pause = min(pause * 2, .milliseconds(5))
    }
  }

  private func move(_ place: QueuePlace, to other: QueuePlace) async {
    guard let mate = other.queue else { return }
    await tell([place]) { $0.turn.move(to: mate) }
  }
}
