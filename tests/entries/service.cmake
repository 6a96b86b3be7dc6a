# broker/service, broker/native
weir_test(unit broker SOURCES unit/native/test_broker.c unit/native/harness.c NEEDS native memfs)
weir_test(unit native_faults SOURCES unit/native/test_faults.c unit/native/harness.c NEEDS native memfs)
weir_test(unit native_protocol SOURCES unit/native/test_protocol.c unit/native/harness.c NEEDS native memfs)
weir_test(unit native_threads SOURCES unit/native/test_threads.c unit/native/harness.c NEEDS native memfs TIMEOUT 600)
weir_fuzz(native SOURCES fuzz/fuzz_native.c NEEDS native memfs)
