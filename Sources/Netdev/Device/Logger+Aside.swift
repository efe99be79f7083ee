package import Logging

extension Logger {
  /// The same, whose lines are written aside: no loop waits for its output.
  package var aside: Logger {
    if handler is HandlerAside { return self }
    var logger = self
    logger.handler = HandlerAside(logger: self)
    return logger
  }
}

/// Hands lines on to where they are written.
private struct HandlerAside: LogHandler {
  private var logger: Logger
  private let lines: LogLines

  init(logger: Logger) {
    self.logger = logger
    lines = LogLines.ofLabel(logger.label)
  }

  var metadata: Logger.Metadata {
    get { logger.handler.metadata }
    set { logger.handler.metadata = newValue }
  }

  var logLevel: Logger.Level {
    get { logger.logLevel }
    set { logger.logLevel = newValue }
  }

  var metadataProvider: Logger.MetadataProvider? {
    get { logger.handler.metadataProvider }
    set { logger.handler.metadataProvider = newValue }
  }

  subscript(metadataKey key: String) -> Logger.Metadata.Value? {
    get { logger[metadataKey: key] }
    set { logger[metadataKey: key] = newValue }
  }

  func log(event: LogEvent) {
    var event = event
    // What a task provides is not there on another thread.
    if let provided = metadataProvider?.get(), !provided.isEmpty {
      event.metadata = provided.merging(event.metadata ?? [:]) { _, own in own }
    }
    lines.add(event, to: logger)
  }
}
