/// Weakenings that no model finds, because the code does not need what they take away, and why that is so.
///
/// They stay as they are in the code where that costs nothing on the machines that there are, or where one rule for a file is easier
/// to believe than two. What is left out of a load is the look: the thread takes what it has read there last.
enum Unneeded {
  static let reasons: [String: String] = [
    // Who asks a loop to end wakes it in any case, and nothing that it stored before is looked at without a lock.
    "LoopInlet shallStop load 1: relaxed": "the end brings nothing along",
    "LoopInlet shallStop load 1: left out": "what the look before sleeping has read is as good",
    "LoopInlet requestStop store 1: releasing": "the wake-up is unconditional",
    "LoopInlet requestStop store 1: relaxed": "the wake-up is unconditional",
    "LoopInlet beginSleep load 3: acquiring": "the wake-up is unconditional",
    "LoopInlet beginSleep load 3: relaxed": "the wake-up is unconditional",
    "LoopInlet beginSleep load 3: left out": "the wake-up is unconditional",
    // Hints, before the look in order.
    "LoopInlet beginTurn load 1: left out": "what the look before sleeping has read is as good",
    "LoopInlet hasJobs load 1: left out": "what the look before sleeping has read is as good",
    "LoopInlet push load 1: left out": "the exchange says what is there",
    // The exchange chooses one who wakes; the load before it is what stands in the order.
    "LoopInlet wakeIfSleeping exchange 1: acquiringAndReleasing": "only that it is one step counts",
    "LoopInlet wakeIfSleeping exchange 1: acquiring": "only that it is one step counts",
    "LoopInlet wakeIfSleeping exchange 1: releasing": "only that it is one step counts",
    // It acquires what came with the request, and says nothing itself.
    "LoopInlet beginTurn exchange 1: acquiringAndReleasing": "it need only acquire",
    "LoopInlet beginTurn exchange 1: acquiring": "it need only acquire",
    // Who pushes reads nothing of the list; who pops writes nothing that the next one reads.
    "SharedSlots push load 1: left out": "the exchange says what is there",
    "SharedSlots push exchange 1: releasing": "who pushes reads no link",
    "SharedSlots pop exchange 1: acquiring": "who pops has written no link",
    "SharedSlots pop exchange 2: acquiring": "who pops has written no link",
    "SharedSlots count load 1: left out": "who has pushed knows of at least its own slot",
    "PoolQueues+Wishes keep store 1: relaxed": "the fences on both sides order it",
    "PoolQueues+Wishes wake load 1: left out": "the thread's own word",
    "PoolQueues+Wishes claimed load 1: left out": "a missed claim costs a turn, no wake-up",
    // The counter itself orders the two threads, by the kernel.
    "Doorbell isQuiet load 2: left out": "the watch's own word",
    "Doorbell look load 2: left out": "the watch's own word",
    "Doorbell letOut load 1: relaxed": "nothing is read behind it",
    "Doorbell letOut load 1: left out": "the look that found the call has read it",
    // The order with dozing is `isQuiet`'s; what a look misses the next one sees.
    "Doorbell look load 1: acquiring": "what it misses it sees at the next look",
    "Doorbell look load 1: relaxed": "what it misses it sees at the next look",
    "Doorbell look load 1: left out": "the look before dozing has read it",
    "Doorbell ring load 1: left out": "a blocked bell is rung once more, and let out again",
    "Doorbell ring load 2: left out": "the loop's own word",
    "Doorbell ring load 3: left out": "the next ring looks again",
    "Doorbell ring store 2: relaxed": "nothing is read behind it",
    // Who wakes the watch twice does no harm: the alarm's counter makes one of the two.
    "Doze endsByRing exchange 1: acquiringAndReleasing": "the load before it stands in the order",
    "Doze endsByRing exchange 1: acquiring": "the load before it stands in the order",
    "Doze endsByRing exchange 1: releasing": "the load before it stands in the order",
    "Doze endsByRing exchange 1: load and store": "two wake-ups are as good as one",
    "Doze begin exchange 1: acquiringAndReleasing": "the store before it stands in the order",
    "Doze begin exchange 1: acquiring": "the store before it stands in the order",
    "Doze begin exchange 1: releasing": "the store before it stands in the order",
    "Doze begin exchange 1: load and store": "two wake-ups are as good as one",
    // Looks whose answer is only that there is something: the look that follows acquires.
    "SplitDriverRing+Notifications armInterrupt load 1: relaxed": "taking back acquires",
    "SplitDeviceRing+Notifications armKick load 1: relaxed": "taking acquires",
    "PackedDriverRing isUsed load 1: relaxed": "taking back acquires",
    "PackedDriverRing+InOrder goesOn load 1: relaxed": "taking back, which follows, acquires",
    "PackedDeviceRing isAvailable load 1: relaxed": "taking acquires",
    "PackedDriverRing+InOrder takeOrderly load 1: left out": "what the look after arming has read is as good",
    "PackedDriverRing+InOrder goesOn load 1: left out": "taking back has looked",
    "PackedDeviceRing availableFlags load 1: left out": "what the look after arming has read is as good",
    // What does not fit goes the general way, which looks at all of it again.
    "SplitDeviceRing takeSingle load 2: left out": "an old address is in no memory, or the same",
    "SplitDriverRing+InOrder takeOrderly load 1: left out": "an old id is another chain's, or the same",
    // No model has a batch, as only one that is made of several chains has any.
    "PackedDriverRing+InOrder goesOn load 2: left out": "only a batch in order uses the length",
    // The id is one word with the flags, which were loaded before.
    "PackedDriverRing+InOrder goesOn load 3: left out": "the flags have brought the id",
    "PackedDeviceRing init load 3: left out": "the flags have brought the id",
    "SplitDeviceRing refresh load 1: left out": "what the look after arming has read is as good",
    "SplitDriverRing refresh load 1: left out": "what the look after arming has read is as good",
    // The first notification is unconditional, and a ring of three rounds would be too large a model.
    "SplitDriverRing+Notifications needsKick load 1: left out": "old flags of 0 ring once too often",
    "SplitDeviceRing+Notifications needsCall load 1: left out": "old flags of 0 interrupt once too often",
  ]
}
