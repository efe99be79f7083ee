/// How the device tells the driver that a ring has used buffers: VIRTIO's "used buffer notification".
///
/// The engine raises it on its loop's thread, at most once a burst and ring, and only when the driver has not suppressed it
/// (VIRTIO 1.4 §2.7.7.2, §2.7.10). What it does is the transport's business: a driver on the same loop is called, another
/// process is woken through an eventfd. A line that is raised while its driver looks already costs nothing but the call, and
/// raising once too often is harmless.
public protocol InterruptLine: AnyObject {
  /// Tells the driver to look at the ring. Must not block, and must not call back into the engine except for its kicks.
  func raise()
}
