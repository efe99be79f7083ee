# Two commands do everything: `make echo` runs the echo server, `make test` builds and tests.
# Both install the one system package they need, or say exactly what to type.

SHELL := /bin/bash
APT_PACKAGES := libevent-dev pkg-config
TEST_PACKAGES := iproute2 iputils-ping ethtool iperf3 dpdk dpdk-dev tshark busybox

.PHONY: echo test test-traits test-newcomer docs test-sanitized bench bench-count bench-dpdk lint format deps test-deps

echo: deps
	swift run EchoServer

# Prints a line a step, what failed, and a summary; the rest is in .build/test.log.
test: deps test-deps
	Tests/run.sh

# The products that are empty without their traits, and the tests that need the trait Testing. A build of its own: other traits mean
# other objects.
test-traits: deps
	swift test --disable-xctest --traits Examples,ServiceLifecycle,Metrics,Testing --scratch-path .build-traits \
	  --filter '^((NetdevServiceTests|NetdevMetricsTests)[.]|SimulationTests[.](AccountTests|DisturbanceTests|LockedCallTests)/)'

# The getting-started page, word for word, as a package of its own.
test-newcomer: deps
	Tests/Newcomer/run.sh

# The documentation, in docs/: every public symbol has a comment, and no link leads nowhere. Builds what test-traits builds.
docs: deps
	Documentation/build.sh

# The system package of the library: found, installed by root, or named.
deps:
	@pkg-config --exists libevent_core 2>/dev/null || $(MAKE) --no-print-directory install PACKAGES="$(APT_PACKAGES)"

# What the tests with real kernels, with DPDK and with a reader of captures need; without it they skip and say so.
test-deps:
	@if [ "$$(id -u)" = 0 ] && ! { command -v ip && command -v ethtool && command -v ping && command -v iperf3 && command -v dpdk-testpmd && command -v tshark && command -v busybox; } >/dev/null; then \
	  $(MAKE) --no-print-directory install PACKAGES="$(TEST_PACKAGES)"; fi

.PHONY: install
install:
	@if [ "$$(id -u)" = 0 ]; then apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $(PACKAGES) >/dev/null; \
	else echo "Missing system packages; type:  sudo apt-get install $(PACKAGES)"; exit 1; fi

lint:
	swift format lint --strict -r -p --configuration .swift-format Package.swift Sources Tests Examples Benchmarks Fuzz FaultSweep Simulate Models
	FaultSweep/seam.py

format:
	swift format -i -r -p --configuration .swift-format Package.swift Sources Tests Examples Benchmarks Fuzz FaultSweep Simulate Models

# Exact counts: instructions, mallocs, retains and releases a packet.
bench-count: deps
	Benchmarks/count.sh

# Times, as ratios against peers measured in the same run.
bench: deps
	Benchmarks/time.sh

# The driver beside DPDK's on DPDK's device: a table of rates and ratios, and a plot in Benchmarks/.build/dpdk.svg, or where
# ARGUMENTS='--plot FILE.svg' says.
bench-dpdk: deps test-deps
	Benchmarks/dpdk.sh $(ARGUMENTS)

# Two queues on two CPUs beside one, and which words both write.
.PHONY: bench-scaling
bench-scaling: deps
	Benchmarks/scaling.sh $(ARGUMENTS)

# The example KeyValueStore beside the same store on kernel sockets.
.PHONY: bench-store
bench-store: deps test-deps
	Benchmarks/store.sh $(ARGUMENTS)

# What comes from outside, made up by libFuzzer: ten minutes for each fuzzer, or half a minute to see that nothing has changed.
.PHONY: fuzz fuzz-short
fuzz: deps
	Fuzz/fuzz.sh 600

fuzz-short: deps
	Fuzz/fuzz.sh 30

# Each system call of the library refused with each error that it may report, in scenarios from opening to closing: all of it,
# or SLICE=k/N of it, or as much as MINUTES=m allow, in the order that SEED=n gives.
FAULTS := FaultSweep/.build/debug/FaultScenarios
FAULT_OPTIONS = $(if $(SLICE),--slice $(SLICE)) $(if $(SEED),--seed $(SEED)) $(if $(MINUTES),--minutes $(MINUTES)) \
  $(if $(KINDS),--kinds $(KINDS))
.PHONY: faults faults-life faults-planted faults-build soak
faults-build: deps
	swift build --package-path FaultSweep

faults: faults-build
	FaultSweep/faults.py $(FAULTS) $(FAULT_OPTIONS)

# Each call that a scenario makes refused wherever it is made, from the first moment to the last, as a filter of system calls does.
faults-life: faults-build
	FaultSweep/faults.py $(FAULTS) --life $(FAULT_OPTIONS)

# That the sweep finds what it looks for: a leaked descriptor, an ignored result and a double free of our own.
faults-planted: faults-build
	FaultSweep/faults.py $(FAULTS) --planted

# Devices opened, used, lost, returned and closed CYCLES times, mixed by SEED, with an allocator that shows each use after a free.
CYCLES := 10000
soak: faults-build
	GLIBC_TUNABLES=glibc.malloc.tcache_count=0 MALLOC_PERTURB_=85 SWIFT_BACKTRACE=enable=no \
	  $(FAULTS) soak $(CYCLES) $(or $(SEED),1)

# Programs and devices in a world whose order of events comes from a seed: SEEDS=n runs in all worlds, from FIRST=n on; and that the
# faults of our own that can be planted are found.
SEEDS := 20000
.PHONY: simulate simulate-planted simulate-build
simulate-build: deps
	swift build -c release --package-path Simulate

simulate: simulate-build
	Simulate/simulate.sh $(SEEDS) $(or $(FIRST),0)

simulate-planted: simulate-build
	Simulate/simulate.sh planted

# The tests once under each sanitizer: addresses in debug, threads in release, where races through raw pointers are seen.
# WITHOUT_PEERS=1 leaves out the tests with real kernels and with DPDK. The drivers and programs that are faulty on purpose run
# without a search for leaks: what one of them never ends keeps what waits for it.
# The thread sanitizer's runner is called by itself: a library preloaded for the tests would not fit the compiler.
WITH_PEERS := ^(IntegrationTests|InteropTests)[.]
FAULTY := ^(ConformanceTests[.]FaultTests|SimulationTests[.](FindingTests|WatchTests))/
ASAN_TEST := LSAN_OPTIONS=suppressions=$(CURDIR)/Tests/Sanitizers/lsan.supp:print_suppressions=0 SWIFT_BACKTRACE=enable=no \
  NETDEV_FEWER=1 swift test --disable-xctest --skip-build --no-parallel --sanitize=address --scratch-path .build-asan
TSAN_TEST := LD_PRELOAD=$(CURDIR)/.build-tsan/tsan_mutex.so TSAN_OPTIONS=suppressions=Tests/Sanitizers/tsan.supp \
  SWIFT_BACKTRACE=enable=no NETDEV_FEWER=1 .build-tsan/release/swift-netdevPackageTests.xctest --testing-library swift-testing --no-parallel

.PHONY: test-address test-thread
test-sanitized: test-address test-thread

test-address: deps test-deps
	swift build --build-tests --sanitize=address --scratch-path .build-asan
	$(ASAN_TEST) --skip '$(FAULTY)' $(if $(WITHOUT_PEERS),--skip '$(WITH_PEERS)')
	ASAN_OPTIONS=detect_leaks=0 $(ASAN_TEST) --filter '$(FAULTY)'

test-thread: deps test-deps
	swift build --build-tests --sanitize=thread --scratch-path .build-tsan -c release -Xswiftc -enable-testing
	clang -O1 -shared -fPIC Tests/Sanitizers/tsan_mutex.c -o .build-tsan/tsan_mutex.so
	$(TSAN_TEST) $(if $(WITHOUT_PEERS),--skip '$(WITH_PEERS)')

# The lock-free parts, the library's own files, in every order and with every value that the memory model allows; and that each of
# their memory orders is needed, or known to change nothing. ARGUMENTS='ring' runs the models of that name alone.
.PHONY: models
models:
	swift build -c release --package-path Models
	Models/.build/release/Models $(ARGUMENTS)
