internal import Netdev

/// Does a program's work until it is done or SIGINT or SIGTERM asks it to end, and ends the process.
///
/// ```swift
/// @main struct Echo {
///   static func main() async {
///     await runProgram("echo") {
///       let device = try await NetworkDevice.open("tap:tap0")
///       try await device.run { queue in for await packet in queue.packets { try await queue.send(packet) } }
///     }
///   }
/// }
/// ```
///
/// The first signal cancels the work, whose `run` closes its devices; the next ends the process at once. What the work throws is one
/// line on standard error and the exit code of sysexits.h that fits. That it was cancelled is what was asked for, and no failure.
///
/// The work is done on the main actor: the runtime's pool of threads, once it has been used, wakes up every second for good, and an
/// idle program shall sleep. In a server with other services the package ServiceLifecycle does all of this, and `NetdevService`
/// makes a device one of its services.
///
/// - Parameters:
///   - name: what the line on standard error begins with.
///   - work: the program.
@MainActor public func runProgram(_ name: String, _ work: @escaping @MainActor () async throws -> Void) async -> Never {
  // Not by the task's own `result`, for which the runtime would wait in its pool.
  let failure: (any Error)? = await withCheckedContinuation { end in
    let task = Task { @MainActor in
      do {
        try await work()
        end.resume(returning: nil)
      } catch {
        let isAsked =
          Task.isCancelled && (error is CancellationError || (error as? NetworkDeviceError)?.code == .cancelled)
        end.resume(returning: isAsked ? nil : error)
      }
    }
    // Before the work has begun: opening a device may wait for its other side, and cancelled it leaves nothing behind.
    EndingSignals.handle { task.cancel() }
  }
  endProgram(failure.map { reportFailure($0, of: name) } ?? 0)
}
