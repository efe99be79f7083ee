#!/usr/bin/env bash
# Builds the documentation of the public libraries, with the toolchain's own tools: the symbols of the modules that
# `swift build` made, DocC for each module, and one archive of all. A warning of DocC is an error, and so is a public symbol
# without a comment (undocumented.py).
#
#   Documentation/build.sh [--no-build]
#
# The result, a folder for any web server or `docc preview`, is docs/ in the root of the package. It needs no package beyond
# the library's own, so whoever depends on the library fetches none for it.
set -euo pipefail
cd "$(dirname "$0")/.."

# In the order of their imports: what a module links to is built before it.
modules='LibeventConcurrency Virtio PacketFormats Netdev VirtioNet VirtioDevice InProcess VhostUser PacketSocket Responder
  NetdevDevices NetdevTesting NetdevProgram NetdevService NetdevMetrics'
# What two modules have only with their traits, and what a build of everything needs; and Testing, so that this builds what
# `make test-traits` builds.
traits=Examples,ServiceLifecycle,Metrics,Testing
scratch=.build-traits

tools=$(dirname "$(readlink -f "$(command -v swift)")")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

if [ "${1:-}" != --no-build ]; then
  swift build --traits "$traits" --scratch-path "$scratch" >"$work/build.log" 2>&1 || { cat "$work/build.log" >&2; exit 2; }
fi
products=$(swift build --traits "$traits" --scratch-path "$scratch" --show-bin-path 2>/dev/null)
target=$(swift -print-target-info | sed -n 's/^ *"unversionedTriple": "\(.*\)",*$/\1/p')
maps=()
for map in "$PWD"/Sources/*/module.modulemap "$PWD"/Sources/*/include/module.modulemap; do
  [ ! -e "$map" ] || maps+=(-Xcc "-fmodule-map-file=$map")
done

for module in $modules; do
  mkdir -p "$work/symbols/$module"
  "$tools/swift-symbolgraph-extract" -module-name "$module" -I "$products/Modules" "${maps[@]}" -target "$target" \
    -minimum-access-level public -skip-synthesized-members -emit-extension-block-symbols -output-dir "$work/symbols/$module"
done
python3 Documentation/undocumented.py "$PWD/Sources" "$work/symbols"

archives=()
for module in $modules; do
  # A module without pages of its own still has its symbols.
  catalog=()
  [ ! -d "Sources/$module/$module.docc" ] || catalog=("Sources/$module/$module.docc")
  dependencies=()
  for archive in "${archives[@]}"; do dependencies+=(--dependency "$archive"); done
  "$tools/docc" convert "${catalog[@]}" --additional-symbol-graph-dir "$work/symbols/$module" \
    --output-dir "$work/$module.doccarchive" --fallback-display-name "$module" --fallback-bundle-identifier "$module" \
    --fallback-default-module-kind Library --enable-experimental-external-link-support "${dependencies[@]}" \
    --warnings-as-errors --transform-for-static-hosting >"$work/docc.log" || {
    cat "$work/docc.log" >&2
    exit 1
  }
  archives+=("$work/$module.doccarchive")
done
rm -rf docs
"$tools/docc" merge "${archives[@]}" --synthesized-landing-page-name swift-netdev \
  --synthesized-landing-page-kind Package --output-path docs
echo "docs/: $(find docs/data/documentation -name '*.json' | wc -l) pages of ${#archives[@]} modules, no warning"
