internal import CNetdevSystem
internal import Glibc
internal import LibeventConcurrency
internal import Virtio

/// One queue of a TAP interface, served in place: `writev` from the driver's transmit buffers, `readv` into its receive
/// buffers, no copy in between.
///
/// The virtio-net header is not passed through: the kernel gets and gives one in private memory, and the driver gets a plain
/// one, so that nothing that was not negotiated crosses, and the driver cannot change a header after it was judged.
///
/// The descriptor is watched for frames only while there are receive buffers: a level-triggered descriptor that nobody can
/// read from would keep the loop awake. Without buffers the frames wait in the kernel's queue and the receive ring is asked
/// for a kick. Idle, the port does nothing at all.
@safe final class TapPort: BackendPort {
  private let queue: TapQueue
  private let number: Int
  /// Header and frame of the longest kind that the interface carries: MTU, Ethernet header, two VLAN tags.
  private let longest: Int
  private let observer: (any FrameObserver)?

  // Owned by this port, freed in deinit; touched on the loop.
  /// What the kernel is given: the private header, the driver's buffers, and a byte behind them.
  private let vector: UnsafeMutablePointer<iovec>
  /// 12 bytes of header for each direction, then the byte that shows that a frame was longer than its room.
  private let scratch: UnsafeMutableRawPointer
  private static let vectorCapacity = 1024  // IOV_MAX

  private var readable: LoopSource?
  private var writable: LoopSource?
  /// There may be frames to read: said by the source, taken back by EAGAIN.
  private var mayRead = false
  private var isWatching = false
  /// The kernel takes no more for now.
  private var isBlocked = false

  init(queue: TapQueue, number: Int, mtu: Int, observer: (any FrameObserver)?) {
    self.queue = queue
    self.number = number
    longest = VirtioNetHeader.size + mtu + 14 + 8
    self.observer = observer
    unsafe vector = .allocate(capacity: Self.vectorCapacity)
    unsafe scratch = .allocate(byteCount: 64, alignment: 16)
    unsafe scratch.initializeMemory(as: UInt8.self, repeating: 0, count: 64)
  }

  deinit {
    unsafe vector.deallocate()
    unsafe scratch.deallocate()
  }

  // MARK: Life

  func start(_ bell: ServiceBell) throws(BackendError) {
    do throws(LoopError) {
      readable = try bell.loop.makeSource(descriptor: queue.descriptor, readiness: .readable) { [weak self] in
        self?.mayRead = true
        bell.ring()
      }
      writable = try bell.loop.makeSource(descriptor: queue.descriptor, readiness: .writable) { [weak self] in
        self?.isBlocked = false
        self?.writable?.suspend()
        bell.ring()
      }
    } catch {
      throw BackendError(
        .system, "watching queue \(number) of a TAP interface", errno: error.errno, advice: error.description)
    }
    setEnabled(true)
  }

  func setEnabled(_ enabled: Bool) {
    queue.setAttached(enabled)
    mayRead = enabled
    watch(enabled)
    if !enabled {
      writable?.suspend()
      isBlocked = false
    }
  }

  func close() {
    guard readable != nil || writable != nil else { return }
    readable?.cancel()
    writable?.cancel()
    readable = nil
    writable = nil
    queue.setAttached(false)
  }

  private func watch(_ watching: Bool) {
    guard watching != isWatching else { return }
    isWatching = watching
    if watching { readable?.resume() } else { readable?.suspend() }
  }

  // MARK: Service

  func serve(_ rings: inout EngineRings, budget: Int) -> ServeResult {
    transmit(&rings, budget: budget).union(mayRead ? receive(&rings, budget: budget) : [])
  }

  private func transmit(_ rings: inout EngineRings, budget: Int) -> ServeResult {
    guard !isBlocked else { return .transmitBlocked }
    rings.beginTransmit()
    var budget = budget
    while let chain = rings.nextFrame(&budget) {
      // One place for the header.
      guard chain.readableCount < Self.vectorCapacity else {
        rings.drop(chain, .tooManySegments)
        continue
      }
      let length = chain.readableLength - VirtioNetHeader.size
      switch write(chain) {
      case 0:
        if let observer { report(chain, length: length, to: observer) }
        rings.release(chain, frameLength: length)
      case EAGAIN, ENOBUFS, ENOMEM:
        guard rings.putBack(chain) else {
          rings.drop(chain, .refused)
          continue
        }
        isBlocked = true
        writable?.resume()
        return .transmitBlocked
      case EIO, EBADFD, ENODEV, ENETDOWN:
        rings.drop(chain, .linkDown)
      default:
        rings.drop(chain, .refused)
      }
    }
    return rings.hasMoreFrames ? .moreWork : []
  }

  private func receive(_ rings: inout EngineRings, budget: Int) -> ServeResult {
    rings.beginReceive()
    var done = 0
    while done < budget {
      let room = rings.takeBuffers(for: longest)
      guard room > 0 else {
        watch(false)
        return rings.receive.isBroken ? [] : .needsReceiveBuffers
      }
      let offered = fillVector(from: &rings)
      let count = unsafe netdev_tap_read(queue.descriptor, vector, CInt(offered.places))
      guard count >= 0 else {
        mayRead = false
        // Anything but an empty queue means that there will be no more: the interface was deleted.
        watch(count == -Int(EAGAIN))
        return []
      }
      done += 1
      let frame = count - VirtioNetHeader.size
      guard frame > 0 else {
        rings.statistics.drops[.malformedFrame] &+= 1
        continue
      }
      guard count <= offered.room else {
        rings.statistics.drops[rings.lack(of: room)] &+= 1
        continue
      }
      if let observer { report(&rings, length: frame, to: observer) }
      rings.finishReceive(length: count)
    }
    return .moreWork
  }

  // MARK: The kernel's view

  /// Writes the frame of a chain behind a plain header. Zero, or the error.
  private func write(_ chain: DescriptorChain) -> CInt {
    unsafe vector[0] = iovec(iov_base: scratch, iov_len: VirtioNetHeader.size)
    var skip = VirtioNetHeader.size
    var places = 1
    for index in 0..<chain.readableCount {
      let segment = unsafe chain.segments[index]
      let skipped = min(skip, segment.length)
      skip -= skipped
      guard segment.length > skipped else { continue }
      // Fewer segments than places: the caller has counted.
      unsafe vector[places] = iovec(iov_base: segment.base + skipped, iov_len: segment.length - skipped)
      places += 1
    }
    return unsafe -netdev_tap_write(queue.descriptor, vector, CInt(places))
  }

  /// Lays out the private header, the buffers in hand behind their own header, and the byte that tells a frame too long.
  private func fillVector(from rings: inout EngineRings) -> (places: Int, room: Int) {
    unsafe vector[0] = iovec(iov_base: scratch + 16, iov_len: VirtioNetHeader.size)
    var places = 1
    var room = VirtioNetHeader.size
    var skip = VirtioNetHeader.size
    rings.forEachSegmentInHand { segment in
      guard places < Self.vectorCapacity - 1 else { return }
      let skipped = min(skip, segment.length)
      skip -= skipped
      guard segment.length > skipped else { return }
      unsafe vector[places] = iovec(iov_base: segment.base + skipped, iov_len: segment.length - skipped)
      room += segment.length - skipped
      places += 1
    }
    unsafe vector[places] = iovec(iov_base: scratch + 32, iov_len: 1)
    return (places + 1, room)
  }

  // MARK: Observation

  private func report(_ chain: DescriptorChain, length: Int, to observer: any FrameObserver) {
    unsafe report(.transmitted, length, to: observer) { unsafe chain.copyBytes(from: VirtioNetHeader.size, into: $0) }
  }

  private func report(_ rings: inout EngineRings, length: Int, to observer: any FrameObserver) {
    unsafe report(.received, length, to: observer) { unsafe rings.copyFromHand(at: VirtioNetHeader.size, into: $0) }
  }

  /// Shows the observer a private copy of the frame's first bytes, which `copy` makes.
  private func report(
    _ direction: FrameDirection, _ length: Int, to observer: any FrameObserver,
    _ copy: (UnsafeMutableRawBufferPointer) -> Int
  ) {
    var prefix = InlineArray<64, UInt8>(repeating: 0)
    var span = prefix.mutableSpan
    let count = unsafe span.withUnsafeMutableBytes { unsafe copy($0) }
    // Bytes: any value is a valid one.
    let bytes = unsafe span.bytes.extracting(0..<min(count, length))
    observer.observe(queue: number, direction: direction, length: length, prefix: bytes)
  }
}
