#!/bin/bash
# Installs what is missing for the purposes named (build, test, bench, fuzz, lint), and says what.
# Debian 12; as root or with sudo. Asks the package registry only when something is missing.
set -euo pipefail
cd "$(dirname "$0")/.."

build=(gcc libc6-dev cmake ninja-build pkg-config git libnng-dev libmbedtls-dev protobuf-c-compiler libprotobuf-c-dev
    liblz4-dev libxxhash-dev libssl-dev libsqlite3-dev libcurl4-openssl-dev zlib1g-dev libyaml-dev)
test=(libcriterion-dev python3 xz-utils openssl e2fsprogs curl)
bench=(g++ libsimdjson-dev nats-server libnats-dev redis-server linux-perf)
fuzz=(clang-14 libclang-rt-14-dev)
lint=(clang-tidy-14 clang-format-14)

want=()
npm=no
for purpose in "$@"; do
    case $purpose in
    build) want+=("${build[@]}") ;;
    test) want+=("${test[@]}"); npm=yes ;;
    bench) want+=("${bench[@]}") ;;
    fuzz) want+=("${fuzz[@]}") ;;
    lint) want+=("${lint[@]}") ;;
    *) echo "deps: unknown purpose '$purpose'" >&2; exit 2 ;;
    esac
done
if [ $npm = yes ] && ! command -v npm >/dev/null; then
    want+=(nodejs npm)
fi

missing=()
for package in "${want[@]}"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
    echo "deps: installing with apt: ${missing[*]}"
    root=()
    [ "$(id -u)" = 0 ] || root=(sudo)
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get update -qq
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

if [ $npm = yes ] && [ -f tests/npm/package-lock.json ]; then
    stamp=tests/npm/node_modules/.installed
    if ! cmp -s tests/npm/package-lock.json "$stamp"; then
        echo "deps: installing with npm: $(node -p 'Object.keys(require("./tests/npm/package.json").dependencies).join(" ")')"
        (cd tests/npm && npm ci --no-audit --no-fund --silent)
        cp tests/npm/package-lock.json "$stamp"
    fi
fi
