package import Explorer

/// `Doorbell` and `Doze`, the library's own sources: a loop that rings, and the watch of its doorbells.
package enum DoorbellModels {
  /// All of them.
  package static var all: [Model] { [model(blocksFrom: 2), model(blocksFrom: 3)] }

  /// A loop rings so often that the last call is one that the back-end holds: the watch does not doze over it.
  static func model(blocksFrom call: Int) -> Model {
    Model("Doorbell: call \(call) is held") { explorer in
      Bells.restart(blocksFrom: call)
      guard let bell = try? Doorbell(for: "a model") else { preconditionFailure("it has a number") }
      let watch = KickWatch()
      // So many looks are enough to see it: what comes after is the same again.
      let looks = 2 * call + 2
      explorer.thread("loop") { for _ in 0..<call where !explorer.isOver { _ = bell.ring(watch) } }
      explorer.thread("watch") { watch.run(bell, looks: looks, explorer) }
      return {
        explorer.require(
          !(explorer.isAsleep("loop") && explorer.isAsleep("watch")), "the loop is held in a call, and the watch dozes")
      }
    }
  }
}
