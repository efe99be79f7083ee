#!/usr/bin/env python3
"""Names the public symbols that have no documentation comment; the exit status is 1 when there are any.

    undocumented.py SOURCES SYMBOLS

SYMBOLS has the symbol graphs of the modules, as swift-symbolgraph-extract writes them. Only symbols that are written in a
file below SOURCES count: not what the compiler makes, and not what a module gets from another one. A member that a protocol
already describes may do without a comment of its own.
"""

import glob
import json
import os
import sys

sources, folder = sys.argv[1:3]
missing = []
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
        if any(line["text"].strip() for line in lines) or symbol["identifier"]["precise"] in implements:
            continue
        where = uri.removeprefix("file://" + sources + "/")
        line = symbol["location"]["position"]["line"] + 1
        missing.append(f"{where}:{line}: {module}.{'.'.join(symbol['pathComponents'])}")

print("\n".join(missing) + "\n" if missing else "", end="")
print(f"{count} public symbols, {len(missing)} without a comment")
sys.exit(1 if missing or count == 0 else 0)
