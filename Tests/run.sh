#!/usr/bin/env bash
# What `make test` does: builds everything, then runs all tests. Prints a line a step, what failed, and a summary; the rest of the
# output is in .build/test.log.
#
# In several runs: the ring tests keep both cores of a small machine busy on purpose, and the tests with real kernels and with DPDK
# start processes and time-outs of their own. One test at a time where loops of a test's own must not starve.
set -uo pipefail
cd "$(dirname "$0")/.."
log=$PWD/.build/test.log
mkdir -p .build
: >"$log"
output=$(mktemp)
trap 'rm -f "$output"' EXIT
echo "Builds all targets and runs all tests, in six steps; the first build aside, some ten minutes on two idle cores."
[ "$(id -u)" = 0 ] || echo "Not as root: the tests with the kernel's interfaces are skipped."
echo "All output: $log"
failures=0

# step TITLE COMMAND…
step() {
  local title=$1 start=$SECONDS result=ok
  shift
  printf '%-58s' "$title"
  "$@" >"$output" 2>&1 || result=FAILED
  { echo "== $title"; cat "$output"; } >>"$log"
  printf '%-7s %4d s  %s\n' "$result" "$((SECONDS - start))" \
    "$(grep -hoE 'Test run with [0-9]+ tests[^;]*' "$output" | tail -1 | sed -E 's/ after.*//; s/^Test run with //')"
  [ "$result" = ok ] && return 0
  failures=$((failures + 1))
  # What failed, and where; of a build, its errors; of a crash, its end.
  grep -E '✘|error:|Fatal error' "$output" | head -60 || true
  grep -qE '✘|error:' "$output" || tail -20 "$output"
  return 1
}

step "build" swift build --build-tests || exit 1
step "rings" swift test --disable-xctest --skip-build --filter '^(VirtioTests|RingThreads)[.]'
step "library" swift test --disable-xctest --skip-build --no-parallel --skip '^(VirtioTests|RingThreads|IntegrationTests|InteropTests)[.]'
step "kernel interfaces, sockets, programs" swift test --disable-xctest --skip-build --no-parallel --filter '^IntegrationTests[.]'
step "DPDK" swift test --disable-xctest --skip-build --no-parallel --filter '^InteropTests[.]'
step "benchmarks' own tests" swift test --disable-xctest --no-parallel -c release --package-path Benchmarks
skips=$(grep -hoE 'skipped: ".*"' "$log" | sort | uniq -c)
[ -z "$skips" ] || printf 'Tests and suites that were skipped:\n%s\n' "$skips"
[ "$failures" = 0 ] && echo "all passed" || echo "$failures of 5 runs failed: see above, and $log"
exit "$failures"
