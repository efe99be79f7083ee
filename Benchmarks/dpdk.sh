#!/usr/bin/env bash
# The driver beside DPDK's: testpmd's virtio-user and ours, in turn, on testpmd's vhost-user port, with the same CPUs, page
# size, ring size and features. Prints millions of frames a second and ratios, and draws them in .build/dpdk.svg, or where
# `--plot FILE` says.
#
#   ./dpdk.sh [arguments of TimeDPDK]
#
# Needs dpdk-testpmd and two CPUs; no rights. Everything takes about an hour; `--rounds 1 --sizes 64` gives an idea.
set -euo pipefail
cd "$(dirname "$0")"

command -v dpdk-testpmd >/dev/null || {
  echo "dpdk.sh: dpdk-testpmd is not installed; type:  sudo apt-get install dpdk dpdk-dev" >&2
  exit 69
}
log=$(mktemp)
trap 'rm -f "$log"' EXIT
swift build -c release --product TimeDPDK >"$log" 2>&1 || {
  cat "$log" >&2
  exit 2
}
"$(swift build -c release --show-bin-path 2>/dev/null)/TimeDPDK" --plot .build/dpdk.svg "$@"
