#!/usr/bin/env bash
# fuzz.sh SECONDS [TARGET...]: builds the fuzzers, for addresses too, and runs each so long, from its seeds and from whatever
# earlier runs have kept in .build-fuzz/corpus. Says how many inputs were run and how much code they reached. Ends with 1 at
# the first finding, and says how to see it again.
set -euo pipefail
cd "$(dirname "$0")"
seconds=${1:?usage: fuzz.sh SECONDS [TARGET...]}
shift
targets=("$@")
if [ $# = 0 ]; then targets=(FuzzMessages FuzzRings FuzzFrames FuzzURLs); fi

build=$(cd .. && pwd)/.build-fuzz
mkdir -p "$build"
# Release, as it is used: overflow still traps there. Without the coverage flags only the harness would be watched.
flags=(--scratch-path "$build" -c release --sanitize=fuzzer --sanitize=address -Xswiftc -enable-testing
  -Xswiftc -sanitize-coverage=edge,indirect-calls,trace-cmp,inline-8bit-counters,pc-table)
# One by one: built together, the main package's executables would meet libFuzzer's own `main`.
for target in "${targets[@]}"; do
  swift build "${flags[@]}" --product "$target" >"$build/build.log" 2>&1 || { tail -40 "$build/build.log"; exit 1; }
done
bin=$(swift build "${flags[@]}" --show-bin-path)

# The backtracer would hang in a process that libFuzzer watches.
export SWIFT_BACKTRACE=enable=no
for target in "${targets[@]}"; do
  seeds=$build/seeds/$target corpus=$build/corpus/$target findings=$build/findings/$target log=$build/$target.log
  rm -rf "$seeds"
  mkdir -p "$seeds" "$corpus" "$findings"
  FUZZ_SEEDS=$seeds "$bin/$target"
  status=0
  "$bin/$target" -max_total_time="$seconds" -timeout=20 -print_final_stats=1 -artifact_prefix="$findings/" \
    "$corpus" "$seeds" >"$log" 2>&1 || status=$?
  runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
  reached=$(grep -ao 'cov: [0-9]* ft: [0-9]*' "$log" | tail -1 || true)
  echo "$target: ${runs:-0} runs in $seconds s, ${reached:-nothing reached}"
  if [ $status != 0 ]; then
    grep -av -e NEW -e REDUCE -e RELOAD "$log" | tail -40
    file=$(sed -n 's/.*Test unit written to //p' "$log" | tail -1)
    echo "$target has found something. See it again:  SWIFT_BACKTRACE=enable=no $bin/$target ${file:-$corpus/*}"
    exit 1
  fi
done
