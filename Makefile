# Two commands do everything: `make echo` runs the echo server, `make test` builds and tests.
# Both install the one system package they need, or say exactly what to type.

SHELL := /bin/bash
APT_PACKAGES := libevent-dev pkg-config
TEST_PACKAGES := iproute2 iputils-ping

.PHONY: echo test test-traits test-sanitized bench bench-count lint format deps test-deps

echo: deps
	swift run EchoServer

# In three runs: the ring tests keep both cores of a small machine busy on purpose, and the tests with real peers start
# processes and time-outs of their own. One test at a time where loops of a test's own must not starve.
test: deps test-deps
	swift build --build-tests
	swift test --disable-xctest --skip-build --filter '^VirtioTests[.]'
	swift test --disable-xctest --skip-build --no-parallel --skip '^(VirtioTests|IntegrationTests)[.]'
	swift test --disable-xctest --skip-build --no-parallel --filter '^IntegrationTests[.]'
	swift test --disable-xctest -c release --package-path Benchmarks

# The products that are empty without their traits. A build of its own: other traits mean other objects.
test-traits: deps
	swift test --disable-xctest --traits ServiceLifecycle,Metrics --scratch-path .build-traits \
	  --filter '^(NetdevServiceTests|NetdevMetricsTests)[.]'

# The system package of the library: found, installed by root, or named.
deps:
	@pkg-config --exists libevent_core 2>/dev/null || $(MAKE) --no-print-directory install PACKAGES="$(APT_PACKAGES)"

# What the tests with real kernels need; without it they skip and say so.
test-deps:
	@if [ "$$(id -u)" = 0 ] && ! { command -v ip && command -v ping; } >/dev/null; then \
	  $(MAKE) --no-print-directory install PACKAGES="$(TEST_PACKAGES)"; fi

.PHONY: install
install:
	@if [ "$$(id -u)" = 0 ]; then apt-get update -qq && apt-get install -y -qq $(PACKAGES) >/dev/null; \
	else echo "Missing system packages; type:  sudo apt-get install $(PACKAGES)"; exit 1; fi

lint:
	swift format lint --strict -r -p --configuration .swift-format Package.swift Sources Tests Examples Benchmarks

format:
	swift format -i -r -p --configuration .swift-format Package.swift Sources Tests Examples Benchmarks

# Exact counts: instructions, mallocs, retains and releases a packet.
bench-count: deps
	Benchmarks/count.sh

# Times, as ratios against peers measured in the same run.
bench: deps
	Benchmarks/time.sh

# The tests once under each sanitizer.
test-sanitized: deps
	swift test --disable-xctest --sanitize=address --scratch-path .build-asan
	swift test --disable-xctest --sanitize=thread --scratch-path .build-tsan -c release -Xswiftc -enable-testing
