extension RingFormat {
  /// The format that follows from the negotiated features.
  public init(_ features: FeatureSet) { self = features.contains(.ringPacked) ? .packed : .split }
}
