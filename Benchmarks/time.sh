#!/usr/bin/env bash
# Times, as ratios against peers measured in the same run: echo over TAP against a C loop and kernel sockets, then the
# queue and the ring core by ordo-one/benchmark. A stopwatch on a shared machine is noisy, so nothing here fails because of
# a figure; what a packet costs exactly is what count.sh says.
#
#   ./time.sh [arguments of TimeEcho]
#
# The echo needs root and /dev/net/tun and is left out without them. The tool's package is fetched on its first use.
set -euo pipefail
cd "$(dirname "$0")"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# build ARGUMENTS: says nothing unless it fails.
build() {
  swift build -c release "$@" >"$work/build.log" 2>&1 || {
    cat "$work/build.log" >&2
    exit 2
  }
}

if [ "$(id -u)" != 0 ]; then
  echo "time.sh: the echo over TAP is left out: it needs root"
elif [ ! -c /dev/net/tun ]; then
  echo "time.sh: the echo over TAP is left out: there is no /dev/net/tun (modprobe tun)"
else
  build --product TimeEcho
  "$(swift build -c release --show-bin-path 2>/dev/null)/TimeEcho" "$@"
fi

echo
# A scratch path of its own: what it builds with the trait is not what count.sh builds without.
swift package --package-path . --scratch-path .build-timing --traits Timing \
  benchmark --target TimeQueue --scale --no-progress
