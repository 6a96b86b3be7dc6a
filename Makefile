# Weir. Two commands do all set-up on a bare Debian 12 machine:
#
#   make demo     build, start a broker, feed it a history of orders, watch three consumers
#   make test     build and pass the tests
#
# `make help` lists the rest. Everything is built below build/.

PRESET ?= release
BUILD := build/$(PRESET)
JOBS ?= $(shell nproc)
CTEST_ARGS ?=
SHELL := /bin/bash

.DEFAULT_GOAL := build
.PHONY: help deps deps-bench build demo test check test-asan test-tsan fuzz crash-search soak faults bench \
    format format-check lint install clean

help:
	@echo "make demo            the main job, on bundled orders, with data in ./demo-data"
	@echo "make test            build and run all tests            (PRESET=release|debug|asan|tsan|clang)"
	@echo "make build           build broker, command line, library"
	@echo "make deps            install what is missing (apt, npm); says what"
	@echo "make test-asan       the tests with address and undefined-behaviour sanitizers"
	@echo "make test-tsan       the threaded tests with the thread sanitizer"
	@echo "make fuzz            every fuzz target for FUZZ_SECONDS (60) each, with libFuzzer"
	@echo "make crash-search    the power-cut and crash tests at full size (CRASH_ROUNDS)"
	@echo "make soak            a broker under mixed load and faults for SOAK_SECONDS (600)"
	@echo "make bench B=NAME    one benchmark, with its peer in the same run (B=list lists them)"
	@echo "make format          clang-format over the tree       make lint   clang-tidy over the tree"
	@echo "make install         DESTDIR and PREFIX as usual"

deps:
	@cmake/deps.sh build test

deps-bench:
	@cmake/deps.sh build test bench

$(BUILD)/build.ninja: CMakeLists.txt CMakePresets.json
	@cmake/deps.sh build
	@cmake --preset $(PRESET) $(CMAKE_ARGS)

build: $(BUILD)/build.ninja
	@cmake --build $(BUILD) -j $(JOBS)

demo:
	@cmake/deps.sh build
	@$(MAKE) --no-print-directory build PRESET=demo
	@build/demo/bin/weir-demo --data ./demo-data

test: deps
	@$(MAKE) --no-print-directory build
	@cd $(BUILD) && ctest --output-on-failure --no-tests=error -j $(JOBS) $(CTEST_ARGS)

check: test

test-asan:
	@$(MAKE) --no-print-directory test PRESET=asan

test-tsan:
	@$(MAKE) --no-print-directory test PRESET=tsan CTEST_ARGS="-R 'threads|unit/transport|unit/client|unit/sys|system/daemon|system/libweir'"

FUZZ_SECONDS ?= 60
fuzz:
	@cmake/deps.sh build fuzz
	@$(MAKE) --no-print-directory build PRESET=fuzz
	@tests/fuzz/run.sh build/fuzz/fuzz $(FUZZ_SECONDS)

CRASH_ROUNDS ?= 200
crash-search:
	@$(MAKE) --no-print-directory deps build
	@WEIR_CRASH_ROUNDS=$(CRASH_ROUNDS) ctest --test-dir $(BUILD) --output-on-failure -L crash --timeout 7200

SOAK_SECONDS ?= 600
soak:
	@$(MAKE) --no-print-directory deps build
	@tests/fault/soak.sh $(BUILD) $(SOAK_SECONDS)

bench:
	@cmake/deps.sh build bench
	@$(MAKE) --no-print-directory build PRESET=release
	@bench/run $(BUILD) "$(B)"

format:
	@git ls-files '*.c' '*.h' | xargs clang-format-14 -i

format-check:
	@git ls-files '*.c' '*.h' | xargs clang-format-14 --dry-run -Werror

lint: $(BUILD)/build.ninja
	@cmake/deps.sh lint
	@git ls-files 'proto/*.c' 'broker/*.c' 'consumers/*.c' | xargs -P $(JOBS) -n 4 clang-tidy-14 --quiet -p $(BUILD)

PREFIX ?= /usr/local
install: build
	@cmake --install $(BUILD) --prefix $(PREFIX)

clean:
	@rm -rf build demo-data
