import CFaultSupport

/// What this process has open, mapped and running.
enum Census {
  /// In words, for a person.
  static var description: String {
    var text = [CChar](repeating: 0, count: 16_384)
    fault_describe_census(&text, text.count)
    return String(decoding: text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }

  /// What is more than before, once what ends by itself has ended; empty when nothing is.
  ///
  /// - Parameter pools: so many have been kept, because a peer may still write to them: a descriptor and a mapping each.
  @MainActor static func excess(over before: fault_census, pools: Int) async -> [String] {
    let kept = CInt(pools)
    func excess(_ now: fault_census) -> [String] {
      var excess: [String] = []
      if now.descriptors > before.descriptors + kept {
        excess.append("descriptors \(before.descriptors) → \(now.descriptors)")
      }
      if now.mappings > before.mappings + kept { excess.append("mappings \(before.mappings) → \(now.mappings)") }
      if now.threads > before.threads { excess.append("threads \(before.threads) → \(now.threads)") }
      return excess
    }
    if await within(.seconds(5), { excess(fault_take_census()).isEmpty }) { return [] }
    return ["left: \(excess(fault_take_census()).joined(separator: ", ")):\(description)"]
  }
}
