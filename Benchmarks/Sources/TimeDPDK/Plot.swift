import BenchmarkSupport

/// The results as a figure: a bar a contender, from zero to its median, a line from the lowest to the highest round.
///
/// Plain SVG with the colors in a style sheet that knows light and dark, so that it reads on either page.
struct Plot {
  let results: [CaseResult]
  let subtitle: String

  private static let width = 860
  private static let labels = 330
  private static let values = 150
  private static let row = 22
  private static let heading = 34

  private static let style = """
    text { font: 13px system-ui, sans-serif; fill: #1f2328 }
    .title { font-weight: 600; font-size: 15px }
    .small { font-size: 11px; fill: #59636e }
    .ours { fill: #2f81f7 }
    .dpdk { fill: #8b949e }
    .goal { stroke: #8b949e; stroke-dasharray: 3 3 }
    .spread { stroke: #1f2328; stroke-width: 1.5 }
    @media (prefers-color-scheme: dark) {
      text { fill: #e6edf3 }
      .small { fill: #9198a1 }
      .spread { stroke: #e6edf3 }
    }
    """

  var svg: String {
    var body = text(12, 22, subtitle, class: "small")
    var y = 40
    for result in results {
      body += panel(result, y)
      y += Self.heading + result.series.count * Self.row + 14
    }
    return """
      <svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 \(Self.width) \(y)" role="img" \
      aria-label="Frames a second, DPDK and swift-netdev on the same device">
      <style>
      \(Self.style)
      </style>
      \(body)</svg>

      """
  }

  private func panel(_ result: CaseResult, _ top: Int) -> String {
    let highest = result.series.map { $0.rates.highest }.max() ?? 0
    let scale = Double(Self.width - Self.labels - Self.values) / max(highest, 0.001)
    func x(_ rate: Double) -> Int { Self.labels + Int((rate * scale).rounded()) }
    var body = text(12, top + 20, "\(result.measured.title), Mpps", class: "title")
    var y = top + Self.heading
    for series in result.series {
      let rates = series.rates
      if let reference = result.reference(series.rings) {
        body +=
          "<line class=\"goal\" x1=\"\(x(reference))\" x2=\"\(x(reference))\" y1=\"\(y)\" y2=\"\(y + Self.row)\"/>\n"
      }
      body += text(12, y + 15, series.rings == .split ? series.title : "\(series.title), \(series.rings.title)")
      let kind = series.contender == .dpdk ? "dpdk" : "ours"
      body +=
        "<rect class=\"\(kind)\" x=\"\(Self.labels)\" y=\"\(y + 3)\" width=\"\(x(rates.median) - Self.labels)\" height=\"15\"/>\n"
      body +=
        "<line class=\"spread\" x1=\"\(x(rates.lowest))\" x2=\"\(x(rates.highest))\" y1=\"\(y + 10)\" y2=\"\(y + 10)\"/>\n"
      let ratio = result.ratio(series).map { " · \(rounded($0.median, 100)) ×" } ?? ""
      body += text(x(max(rates.highest, rates.median)) + 8, y + 15, rounded(rates.median, 100) + ratio)
      y += Self.row
    }
    return body
  }

  private func text(_ x: Int, _ y: Int, _ text: String, class name: String = "") -> String {
    let escaped = text.map { ["&": "&amp;", "<": "&lt;", ">": "&gt;"][$0] ?? String($0) }.joined()
    return "<text x=\"\(x)\" y=\"\(y)\"\(name.isEmpty ? "" : " class=\"\(name)\"")>\(escaped)</text>\n"
  }
}
