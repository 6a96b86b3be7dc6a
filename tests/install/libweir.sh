#!/bin/sh
# libweir installed into an empty prefix is all that a program needs: its headers compile as C and C++,
# pkg-config and the CMake package find it, both examples build and link, shared and static, and it
# exports what its headers declare and nothing else.
#
# usage: libweir.sh SOURCE_DIR BUILD_DIR
# shellcheck disable=SC2046 # the flags of pkg-config are several words
set -eu
source=$1 build=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
prefix=$work/prefix
say() { echo "libweir: $*"; }

cmake --install "$build" --prefix "$prefix" --component libweir >/dev/null
PKG_CONFIG_PATH=$(dirname "$(find "$prefix" -name libweir.pc)")
export PKG_CONFIG_PATH
lib=$(pkg-config --variable=libdir libweir)

say "exports what the headers declare"
sed -n 's/.*[ *]\(weir_[a-z_]*\)(.*/\1/p' "$prefix"/include/weir/weir.h "$prefix"/include/weir/base/*.h |
    sort -u >"$work/declared"
nm -D --defined-only "$lib/libweir.so" | awk '{ print $3 }' | sort -u >"$work/exported"
diff "$work/declared" "$work/exported"

say "headers stand alone, as C17 and as C++"
echo '#include <weir/weir.h>
int main(void) { return weir_status_retryable(WEIR_OK); }' >"$work/alone.c"
cc -std=c17 -pedantic -Wall -Wextra -Werror "$work/alone.c" $(pkg-config --cflags --libs libweir) \
    -o "$work/alone"
if command -v c++ >/dev/null; then
    c++ -std=c++17 -Wall -Wextra -Werror -x c++ "$work/alone.c" -x none \
        $(pkg-config --cflags --libs libweir) -o "$work/alone-cxx"
fi
LD_LIBRARY_PATH=$lib "$work/alone"

say "examples build with pkg-config"
for name in put follow; do
    cc -Wall -Wextra -Werror "$source/consumers/examples/$name.c" \
        $(pkg-config --cflags --libs libweir) -o "$work/$name"
    cc "$source/consumers/examples/$name.c" $(pkg-config --cflags libweir) "$lib/libweir.a" \
        $(pkg-config --static --libs libweir | sed 's/-lweir//') -o "$work/$name-static"
done

say "examples build with the CMake package"
cmake -S "$source/tests/install/project" -B "$work/project" -DCMAKE_PREFIX_PATH="$prefix" \
    -DEXAMPLES="$source/consumers/examples" >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
cmake --build "$work/project" >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }

say "programs start and say that there is no broker"
export LD_LIBRARY_PATH="$lib" WEIR_BROKER="nonsense"
for program in "$work/put" "$work/put-static" "$work/project/put" "$work/project/put-static"; do
    if "$program" </dev/null >/dev/null 2>"$work/log"; then
        say "$program: no error"
        exit 1
    fi
    grep -q "cannot connect to the broker at 'nonsense'" "$work/log"
done
if [ -x "$build/bin/weir-broker" ]; then
    say "examples do what they say, against the broker"
    cat >"$work/create.c" <<'C'
#include <stdio.h>
#include <weir/weir.h>
int main(void)
{
    struct weir_client *c = NULL;
    struct weir_error err = {0};
    struct weir_stream_options options = {.name = "orders", .shard_count = 2};
    enum weir_status st = weir_client_open(NULL, &c, &err);
    if (!st)
        st = weir_create_stream(c, &options, &err);
    if (st)
        fprintf(stderr, "create: %s\n", err.text);
    weir_client_close(c);
    return st != WEIR_OK;
}
C
    cc "$work/create.c" $(pkg-config --cflags --libs libweir) -o "$work/create"
    WEIR_BROKER="ipc://$work/socket"
    mkfifo "$work/ready"
    "$build/bin/weir-broker" --data="$work/data" --listen="$WEIR_BROKER" --segment-size=4MiB \
        --prewrite=0 --ready-fd=9 9>"$work/ready" 2>"$work/log" &
    broker=$!
    trap 'kill $broker; wait $broker; rm -rf "$work"' EXIT
    read -r _ <"$work/ready"
    "$work/create"
    seq -f 'order-%g paid' 500 | "$work/put" orders | grep -qx '500 of 500 stored'
    seq -f 'order-%g sent' 500 | "$work/project/put-static" orders | grep -qx '500 of 500 stored'
    "$work/follow" orders mailer --once >"$work/all"
    "$work/project/follow" orders other --once | cut -d' ' -f3- | sort >"$work/other"
    { seq -f 'order-%g paid' 500; seq -f 'order-%g sent' 500; } | sort >"$work/wanted"
    cut -d' ' -f3- "$work/all" | sort | diff - "$work/wanted"
    diff "$work/other" "$work/wanted"
    # Again, as the same consumer: only what is new.
    echo 'order-1 returned' | "$work/put-static" orders >/dev/null
    "$work/follow-static" orders mailer --once | cut -d' ' -f3- | grep -qx 'order-1 returned'
    "$work/follow" orders mailer --once >"$work/none"
    test ! -s "$work/none"
fi
say "done"
