extension [UInt8] {
  /// The bytes as decoders take them.
  var raw: RawSpan {
    @_lifetime(borrow self)
    get {
      // An array of bytes has no padding, so all of it is initialized.
      unsafe span.bytes
    }
  }
}
