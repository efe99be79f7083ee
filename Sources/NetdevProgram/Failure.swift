internal import Glibc
internal import Netdev

/// Prints on standard error, in one line, why a program ends: `Switch: open 'tap:sw0': …`.
///
/// - Parameters:
///   - error: what was thrown.
///   - program: the program's name.
/// - Returns: the exit code that sysexits.h has for it: what `main` then ends with.
@discardableResult public func reportFailure(_ error: any Error, of program: String) -> CInt {
  Output.errors.print("\(program): \(error)")
  return exitCode(for: error)
}

/// The exit code that sysexits.h has for a failure; 1 for one that is not a device's.
public func exitCode(for error: any Error) -> CInt {
  guard let error = error as? NetworkDeviceError else { return EXIT_FAILURE }
  return switch error.code {
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

/// Ends the process when what was printed has been written, or a second later.
public func endProgram(_ code: CInt = 0) -> Never {
  Output.standard.finish()
  Output.errors.finish()
  exit(code)
}
