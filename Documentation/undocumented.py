#!/usr/bin/env python3
"""Names the public symbols that have no documentation comment, and the operations that throw an error of their own whose
comment does not say when; the exit status is 1 when there are any.

    undocumented.py SOURCES SYMBOLS

SYMBOLS has the symbol graphs of the modules, as swift-symbolgraph-extract writes them. Only symbols that are written in a
file below SOURCES count: not what the compiler makes, and not what a module gets from another one. A member that a protocol
already describes may do without a comment of its own; who throws what a closure throws has nothing to say.
"""

import glob
import json
import os
import re
import sys


def without_parentheses(declaration):
    """What a declaration says of itself, and not of its parameters."""
    depth, kept = 0, []
    for character in declaration:
        depth -= character == ")"
        if depth == 0:
            kept.append(character)
        depth += character == "("
    return "".join(kept)


sources, folder = sys.argv[1:3]
missing = []
silent = []
count = 0
for path in sorted(glob.glob(os.path.join(folder, "*", "*.symbols.json"))):
    with open(path, encoding="utf-8") as file:
        graph = json.load(file)
    module = graph["module"]["name"]
    # What implements a requirement: the comment stands there.
    implements = {
        edge["source"]
        for edge in graph["relationships"]
        if edge["kind"] in ("defaultImplementationOf", "overrides")
        or "sourceOrigin" in edge
    }
    for symbol in graph["symbols"]:
        uri = symbol.get("location", {}).get("uri", "")
        if not uri.startswith("file://" + sources):
            continue
        count += 1
        lines = symbol.get("docComment", {}).get("lines", [])
        # An extension is no symbol of its own; what it adds is.
        if symbol["kind"]["identifier"] == "swift.extension" or symbol["identifier"]["precise"] in implements:
            continue
        where = uri.removeprefix("file://" + sources + "/")
        line = symbol["location"]["position"]["line"] + 1
        name = f"{where}:{line}: {module}.{'.'.join(symbol['pathComponents'])}"
        comment = " ".join(line["text"] for line in lines)
        declaration = "".join(part["spelling"] for part in symbol.get("declarationFragments", []))
        throws = symbol["kind"]["identifier"] != "swift.typealias" and "throws" in without_parentheses(declaration)
        if not comment.strip():
            missing.append(name)
        elif throws and "throws(Failure)" not in declaration and not re.search(r"[Tt]hrow", comment):
            silent.append(name)

for name in missing:
    print(f"{name}: no comment")
for name in silent:
    print(f"{name}: does not say when it throws")
print(f"{count} public symbols, {len(missing)} without a comment, {len(silent)} that throw without saying when")
sys.exit(1 if missing or silent or count == 0 else 0)
