#!/bin/bash
# Mixed load and faults for SECONDS, on the programs of the build directory BUILD.
#     tests/fault/soak.sh BUILD SECONDS
set -euo pipefail
[ $# = 2 ] || { echo "usage: soak.sh BUILD SECONDS" >&2; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
build=$(cd "$1" && pwd)
sanitize=$(sed -n 's/^WEIR_SANITIZE:STRING=//p' "$build/CMakeCache.txt")
WEIR_SOURCE_DIR=$(cd "$here/../.." && pwd) WEIR_BIN_DIR=$build/bin WEIR_SANITIZE=$sanitize WEIR_SOAK_SECONDS=$2 \
    exec python3 -B "$here/test_soak.py" soak
