import NetdevTesting
import Testing

@testable import LibeventConcurrency

@Suite struct TimerQueueTests {
  /// What the timers of a test have done.
  private final class Record {
    var fired: [Int] = []
  }

  @Test(arguments: 1...20) func `timers fire in the order of their deadlines, whatever was moved or forgotten between`(
    seed: UInt64
  ) {
    var numbers = SeededRandom(seed: seed)
    let queue = TimerQueue()
    let record = Record()
    let timers = (0..<50).map { index in QueuedTimer(queue: queue) { record.fired.append(index) } }
    // What is still scheduled holds its queue, which holds it.
    defer { for timer in timers { timer.cancel() } }
    var schedules = 0
    // By timer: its deadline, and when it was set.
    var expected: [Int: (deadline: UInt64, order: Int)] = [:]
    var now: UInt64 = 0
    for _ in 0..<2000 {
      let index = Int.random(in: 0..<timers.count, using: &numbers)
      switch Int.random(in: 0..<10, using: &numbers) {
      case 0..<6:
        let deadline = now + UInt64.random(in: 0..<20, using: &numbers)
        schedules += 1
        queue.schedule(timers[index], at: deadline)
        expected[index] = (deadline, schedules)
      case 6..<8:
        timers[index].disarm()
        expected[index] = nil
      default:
        now += 1
        let due = expected.filter { $0.value.deadline <= now }
          .sorted { ($0.value.deadline, $0.value.order) < ($1.value.deadline, $1.value.order) }
        record.fired = []
        queue.fire(now: now)
        #expect(record.fired == due.map { $0.key })
        for timer in due { expected[timer.key] = nil }
      }
      #expect(queue.earliest == expected.values.map { $0.deadline }.min())
    }
  }

  @Test func `a handler that schedules its timer for now does not hold the round`() {
    let queue = TimerQueue()
    let record = Record()
    var timer: QueuedTimer?
    timer = QueuedTimer(queue: queue) {
      record.fired.append(1)
      if let timer { queue.schedule(timer, at: 0) }
    }
    if let timer { queue.schedule(timer, at: 0) }
    queue.fire(now: 10)
    #expect(record.fired == [1])
    queue.fire(now: 10)
    #expect(record.fired == [1, 1])
    timer?.cancel()
    queue.fire(now: 10)
    #expect(record.fired == [1, 1])
    #expect(queue.earliest == nil)
  }

  @Test func `a timer that ends in the handler of another does not fire, nor when it is scheduled once more`() {
    let queue = TimerQueue()
    let record = Record()
    let second = QueuedTimer(queue: queue) { record.fired.append(2) }
    let first = QueuedTimer(queue: queue) {
      record.fired.append(1)
      second.cancel()
    }
    queue.schedule(first, at: 1)
    queue.schedule(second, at: 1)
    queue.fire(now: 1)
    second.arm(afterNanoseconds: 0)
    queue.fire(now: .max)
    #expect(record.fired == [1])
  }

  @Test func `every duration is a number of nanoseconds: none is negative, none overflows, none is short`() {
    #expect(Duration.seconds(-1).nanosecondsRoundedUp == 0)
    #expect(Duration.nanoseconds(-1).nanosecondsRoundedUp == 0)
    #expect(Duration.zero.nanosecondsRoundedUp == 0)
    #expect(Duration(secondsComponent: 0, attosecondsComponent: 1).nanosecondsRoundedUp == 1)
    #expect(Duration.nanoseconds(1).nanosecondsRoundedUp == 1)
    #expect(Duration.microseconds(1500).nanosecondsRoundedUp == 1_500_000)
    #expect(Duration.seconds(Int64.max).nanosecondsRoundedUp == .max)
    #expect(Duration.seconds(18_446_744_073).nanosecondsRoundedUp == 18_446_744_073_000_000_000)
    #expect(Duration.seconds(18_446_744_074).nanosecondsRoundedUp == .max)
  }
}
