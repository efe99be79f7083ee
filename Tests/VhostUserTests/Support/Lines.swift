import TestSupport

extension RecordedLog {
  /// What was logged, a line each: the words, the descriptors that a message brought, and the cause.
  var lines: [String] {
    all.map { record in
      let descriptors = record.metadata["fds"].map { " fds=\($0)" } ?? ""
      let cause = record.metadata["cause"].map { " cause=\($0)" } ?? ""
      return "\(record.message)\(descriptors)\(cause)"
    }
  }
}
