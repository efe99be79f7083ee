internal import Glibc

/// The inputs that a fuzzer starts from. They are written here as code and become files only when `fuzz.sh` asks for them.
public enum Seeds {
  /// Writes each input to a file of its own in the folder that the environment names as `FUZZ_SEEDS`, and ends the process;
  /// does nothing when it names none. For `LLVMFuzzerInitialize`.
  public static func writeIfAsked(_ seeds: [[UInt8]]) {
    guard let folder = getenv("FUZZ_SEEDS") else { return }
    for (index, seed) in seeds.enumerated() {
      let path = String(cString: folder) + "/seed-\(index)"
      guard let file = fopen(path, "w") else { exit(1) }
      fwrite(seed, 1, seed.count, file)
      fclose(file)
    }
    exit(0)
  }

  /// Bytes from hexadecimal text; spaces do not matter.
  public static func hex(_ text: String) -> [UInt8] {
    let digits = text.compactMap(\.hexDigitValue)
    return stride(from: 0, to: digits.count - 1, by: 2).map { UInt8(digits[$0] << 4 | digits[$0 + 1]) }
  }
}
