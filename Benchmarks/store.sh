#!/usr/bin/env bash
# The example KeyValueStore on a TAP interface, on a packet socket and behind testpmd, against the same store on kernel sockets with
# recvmmsg over veth, in one run: microseconds, rates, and the ratios that count. A stopwatch on a shared machine is noisy, so nothing here fails because of
# a figure.
#
#   ./store.sh [arguments of TimeStore]
#
# Needs root, /dev/net/tun and iproute2; without dpdk-testpmd the switch is left out.
set -euo pipefail
cd "$(dirname "$0")"

log=$(mktemp)
trap 'rm -f "$log"' EXIT
swift build -c release --product TimeStore >"$log" 2>&1 || {
  cat "$log" >&2
  exit 2
}
"$(swift build -c release --show-bin-path 2>/dev/null)/TimeStore" "$@"
