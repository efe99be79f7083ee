#!/usr/bin/env bash
# What a newcomer does with the getting-started page: makes the two files that it shows, word for word, builds the package
# that they are, runs the program, and expects what the page says that it prints.
set -euo pipefail
cd "$(dirname "$0")/../.."
page=Sources/Netdev/Netdev.docc/GettingStarted.md
# Beside each other, as the page has them; kept, so that a second run builds only what has changed.
work=.build-newcomer
rm -rf "$work/newcomer/Sources" "$work/newcomer/Package.swift" "$work/swift-netdev"
mkdir -p "$work/newcomer/Sources/newcomer"
ln -s "$PWD" "$work/swift-netdev"

# block WORD LANGUAGE: the first block of this language after the first line with this word; it must be there.
block() {
  awk -v word="$1" -v fence='```'"$2" '
    !found && index($0, word) { found = 1 }
    found && !open && $0 == fence { open = 1; next }
    open && $0 == "```" { exit }
    open { print; lines++ }
    END { if (!lines) exit 1 }' "$page"
}
block '`Package.swift`' swift >"$work/newcomer/Package.swift"
block '`Sources/newcomer/main.swift`' swift >"$work/newcomer/Sources/newcomer/main.swift"
block '`swift run` prints' '' >"$work/expected"

lines=$(grep -cv '^$' "$work/newcomer/Sources/newcomer/main.swift")
[ "$lines" -le 20 ] || { echo "the program of $page has $lines lines; it shall be a short one" >&2; exit 1; }
cd "$work/newcomer"
swift build >../build.log 2>&1 || { cat ../build.log >&2; exit 1; }
# A program that does not end by itself is stopped.
timeout 60 "$(swift build --show-bin-path)/newcomer" >../output
diff ../expected ../output
echo "the $lines lines of $page build, run and print what it says"
