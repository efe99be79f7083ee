public import ArgumentParser
internal import Glibc
internal import Logging
internal import Netdev

/// Runs a command from the program's arguments, on the main actor, and ends the process.
///
/// The parser's own `main` would run it in the runtime's pool of threads, and that pool, once it has been used, wakes up every
/// second for good (libdispatch watches its threads): an idle program shall sleep.
@MainActor public func run<Command: AsyncParsableCommand>(_ type: Command.Type) async {
  let name = Command.configuration.commandName ?? "\(Command.self)"
  // The runtime reads the arguments from /proc. A program that does not see them would do something else than it was told.
  guard CommandLine.argc > 0 else {
    Output.errors.print("\(name): the system does not show the program's arguments: is /proc mounted?")
    end(EX_OSFILE)
  }
  LoggingSystem.bootstrap { LineLog(label: $0) }
  var command = Command.parseOrExit()
  do {
    try await command.run()
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
  default: EX_OSERR
  }
}
