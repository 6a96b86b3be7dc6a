#!/bin/bash
# Every fuzz target for SECONDS each, with libFuzzer: tests/fuzz/run.sh DIRECTORY SECONDS
# New inputs are kept below DIRECTORY, not in the repository; a crash leaves its input there and fails.
set -uo pipefail
directory=$1 seconds=$2
here=$(cd "$(dirname "$0")" && pwd)
failed=()
for target in "$directory"/fuzz_*; do
    [ -x "$target" ] && [ -f "$target" ] || continue
    name=$(basename "$target")
    name=${name#fuzz_}
    found="$directory/found/$name"
    mkdir -p "$found"
    seeds=()
    [ -d "$here/corpus/$name" ] && seeds=("$here/corpus/$name")
    echo "== $name, $seconds s"
    "$target" -max_total_time="$seconds" -rss_limit_mb=4096 -timeout=30 -print_final_stats=0 -verbosity=0 \
        -artifact_prefix="$found/crash-" "$found" "${seeds[@]}" || failed+=("$name")
done
if [ ${#failed[@]} -gt 0 ]; then
    echo "fuzz: FAILED: ${failed[*]}"
    exit 1
fi
echo "fuzz: no finding"
