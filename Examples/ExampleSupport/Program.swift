public import ArgumentParser
internal import Glibc
internal import Logging
internal import Netdev
internal import NetdevProgram
public import PacketFormats

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

/// Runs a program with the arguments of the process, on the main actor, until it is done or asked to end, and ends the process.
@MainActor public func run<Command: Program>(_ type: Command.Type) async -> Never {
  let name = Command.configuration.commandName ?? "\(Command.self)"
  // The runtime reads the arguments from /proc. A program that does not see them would do something else than it was told.
  guard CommandLine.argc > 0 else {
    Output.errors.print("\(name): the system does not show the program's arguments: is /proc mounted?")
    endProgram(EX_OSFILE)
  }
  LoggingSystem.bootstrap { LineLog(label: $0) }
  let command = Command.parseOrExit()
  await runProgram(name) {
    do {
      try await command.work()
    } catch let error as ValidationError {
      Output.standard.finish()
      Output.errors.finish()
      Command.exit(withError: error)
    }
  }
}

// The addresses of PacketFormats as arguments.
extension MACAddress: ExpressibleByArgument {}
extension IPv4Address: ExpressibleByArgument {}
extension IPv4Network: ExpressibleByArgument {}
