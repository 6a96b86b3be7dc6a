# simdjson is C++. Its part is compiled on its own, and only where both are there.
find_program(WEIR_CXX NAMES c++ g++ clang++)
find_path(SIMDJSON_INCLUDE simdjson.h)
find_library(SIMDJSON_LIBRARY simdjson)
set(peer)
if(WEIR_CXX AND SIMDJSON_INCLUDE AND SIMDJSON_LIBRARY AND NOT WEIR_SANITIZE)
    set(peer "${CMAKE_CURRENT_BINARY_DIR}/flatten_simdjson.o")
    add_custom_command(OUTPUT "${peer}"
        COMMAND "${WEIR_CXX}" -std=c++17 -O2 -fPIE "-I${SIMDJSON_INCLUDE}" -c
                "${CMAKE_CURRENT_SOURCE_DIR}/flatten_simdjson.cpp" -o "${peer}"
        DEPENDS flatten_simdjson.cpp VERBATIM)
    set_source_files_properties("${peer}" PROPERTIES EXTERNAL_OBJECT TRUE GENERATED TRUE)
endif()
weir_bench(flatten SOURCES flatten.c ${peer} NEEDS change)
if(peer)
    target_link_libraries(bench_flatten PRIVATE "${SIMDJSON_LIBRARY}" stdc++)
endif()
target_compile_definitions(bench_flatten PRIVATE "WEIR_BENCH_SOURCE_DIR=\"${CMAKE_SOURCE_DIR}\"")
