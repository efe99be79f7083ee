public import ArgumentParser
internal import Glibc
internal import Logging
internal import Netdev

/// A command that does its work on the main actor.
///
/// The parser's own `main` and `run` would do it in the runtime's pool of threads, and that pool, once it has been used, wakes
/// up every second for good (libdispatch watches its threads): an idle program shall sleep.
public protocol Program: AsyncParsableCommand, Sendable {
  /// The program's work; what it throws ends the process with the exit code that fits.
  @MainActor func work() async throws
}

extension Program {
  /// The same by way of the parser.
  public func run() async throws { try await work() }
}

/// What `open` opens; nil when the task was cancelled meanwhile, which is no failure.
public nonisolated(nonsending) func unlessCancelled<Opened>(
  _ open: nonisolated(nonsending) () async throws -> Opened
) async throws -> Opened? {
  do {
    return try await open()
  } catch let error as NetworkDeviceError where error.code == .cancelled && Task.isCancelled {
    return nil
  }
}

/// Runs a program with the arguments of the process, on the main actor, and ends the process.
@MainActor public func run<Command: Program>(_ type: Command.Type) async {
  let name = Command.configuration.commandName ?? "\(Command.self)"
  // The runtime reads the arguments from /proc. A program that does not see them would do something else than it was told.
  guard CommandLine.argc > 0 else {
    Output.errors.print("\(name): the system does not show the program's arguments: is /proc mounted?")
    end(EX_OSFILE)
  }
  LoggingSystem.bootstrap { LineLog(label: $0) }
  let command = Command.parseOrExit()
  do {
    try await command.work()
  } catch let error as NetworkDeviceError {
    Output.errors.print("\(name): \(error)")
    end(exitCode(for: error))
  } catch {
    Output.standard.finish()
    Output.errors.finish()
    Command.exit(withError: error)
  }
  end(EXIT_SUCCESS)
}

/// Ends the process when what was printed has been written, or soon.
private func end(_ code: CInt) -> Never {
  Output.standard.finish()
  Output.errors.finish()
  exit(code)
}

/// The exit code that sysexits.h has for a failure of a device.
private func exitCode(for error: NetworkDeviceError) -> CInt {
  switch error.code {
  case .invalidConfiguration: EX_USAGE
  case .notFound, .unsupported: EX_UNAVAILABLE
  case .notPermitted: EX_NOPERM
  case .busy: EX_CANTCREAT
  case .broken: EX_PROTOCOL
  // A peer that does not answer now may answer later: the code that invites whoever started the program to start it again.
  case .timedOut, .frameLost: EX_TEMPFAIL
  default: EX_OSERR
  }
}
