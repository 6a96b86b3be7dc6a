# One program per figure; bench/run names them with '-' for '_'.
weir_bench(other SOURCES other.c NEEDS bench)
foreach(name ingest ingest_shards ack delivery fanout stalled replay recovery memory)
    weir_bench(${name} SOURCES ${name}.c NEEDS bench)
endforeach()
if(WEIR_TESTS AND TARGET weir-broker)
    add_test(NAME bench/smoke COMMAND ${CMAKE_SOURCE_DIR}/bench/run --smoke ${CMAKE_BINARY_DIR} all)
    set_tests_properties(bench/smoke PROPERTIES TIMEOUT 300 LABELS bench)
endif()
