public import ArgumentParser
internal import Glibc
public import Netdev

/// One line on standard error, and the exit code that sysexits.h has for it.
public func reportFailure(of program: String, _ error: NetworkDeviceError) -> ExitCode {
  var line = "\(program): \(error)\n"
  _ = line.withUTF8 { bytes in unsafe write(STDERR_FILENO, bytes.baseAddress, bytes.count) }
  switch error.code {
  case .invalidConfiguration: return ExitCode(EX_USAGE)
  case .notFound, .unsupported: return ExitCode(EX_UNAVAILABLE)
  case .notPermitted: return ExitCode(EX_NOPERM)
  case .busy: return ExitCode(EX_CANTCREAT)
  case .broken: return ExitCode(EX_PROTOCOL)
  default: return ExitCode(EX_OSERR)
  }
}
