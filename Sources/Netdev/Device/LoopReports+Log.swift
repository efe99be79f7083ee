package import LibeventConcurrency
package import Logging

extension LoopReports {
  /// All of it to the log.
  package init(_ logger: Logger, loop name: String) {
    self.init()
    let logger = logger.aside
    onStall = { length in
      logger.warning("a job held the loop", metadata: ["loop": "\(name)", "length": "\(length)"])
    }
    onSpin = { turns in
      logger.warning("the loop turns and does nothing", metadata: ["loop": "\(name)", "turns": "\(turns)"])
    }
    onShortage = { shortage in
      let what =
        switch shortage {
        case .watches: "the system does not watch all of the loop's descriptors, which it looks at now and then"
        case .timers: "the system does not set the loop's timer: deadlines are late by some milliseconds"
        }
      logger.warning("\(what)", metadata: ["loop": "\(name)"])
    }
  }
}
