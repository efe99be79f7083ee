internal import Glibc

/// Says which promise was broken and ends the process, which is how a fuzzer is told of a finding.
@inline(never)
public func violated(_ promise: String) -> Never {
  let text = Array("promise broken: \(promise)\n".utf8)
  write(STDERR_FILENO, text, text.count)
  abort()
}

/// Ends the process unless the promise is kept.
@inline(__always)
public func promise(_ isKept: Bool, _ promise: @autoclosure () -> String) {
  if !isKept { violated(promise()) }
}
