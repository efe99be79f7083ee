/// The loop as a task executor: tasks that prefer it run their nonisolated parts on the loop too.
///
/// An object of its own: one object that is both serial and task executor re-enqueues at every await. Its jobs are
/// tagged, so that the loop runs them as what they are. A preference doubles the cost of every await; code that runs in
/// a queue's own `run` body does not need one.
public final class LoopTaskExecutor: TaskExecutor {
  /// The loop that runs the jobs.
  public let loop: LoopExecutor

  /// A task executor on a loop; make one a loop and keep it.
  public init(loop: LoopExecutor) { self.loop = loop }

  /// Queues a job; from any thread.
  public func enqueue(_ job: consuming ExecutorJob) {
    let address = unsafe UInt(bitPattern: Unmanaged.passUnretained(self).toOpaque())
    loop.enqueue(UnownedJob(job), tag: address)
  }
}
