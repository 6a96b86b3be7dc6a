# Whole programs: the user's way (system/) and faults (fault/). One ctest entry for each promise.
if(NOT TARGET weir-broker OR NOT TARGET weir)
    return()
endif()
find_package(Python3 REQUIRED COMPONENTS Interpreter)

weir_program(witness NO_INSTALL SOURCES fault/witness.c NEEDS client)
set_target_properties(witness PROPERTIES RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/tests")

function(weir_script folder file)
    cmake_parse_arguments(S "" "TIMEOUT" "LABELS;TESTS" ${ARGN})
    # Every wait inside has its own deadline. Rounds of crash tests may be many (WEIR_CRASH_ROUNDS).
    if("crash" IN_LIST S_LABELS)
        set(S_TIMEOUT 7200)
    elseif(NOT S_TIMEOUT)
        set(S_TIMEOUT 600)
    endif()
    foreach(test IN LISTS S_TESTS)
        add_test(NAME ${folder}/${test}
            COMMAND Python3::Interpreter "${CMAKE_CURRENT_SOURCE_DIR}/${folder}/${file}.py" ${test})
        set_tests_properties(${folder}/${test} PROPERTIES
            TIMEOUT ${S_TIMEOUT} LABELS "${folder};${S_LABELS}" SKIP_RETURN_CODE 77
            ENVIRONMENT "WEIR_SOURCE_DIR=${CMAKE_SOURCE_DIR};WEIR_BIN_DIR=${CMAKE_BINARY_DIR}/bin;\
WEIR_SANITIZE=${WEIR_SANITIZE};PYTHONDONTWRITEBYTECODE=1")
    endforeach()
endfunction()

weir_script(system test_journey TESTS orders real_history gzip_export export_options not_change_records
    export_follows_resharding)
weir_script(system test_journey LABELS crash TESTS killed_broker killed_history export_killed)
weir_script(system test_cli TESTS streams records live_tail exit_statuses help_texts broker_settings broker_reload
    offline checkpoints replay_range resharding empty_generations retention_by_size bench_and_stats)
if(TARGET weir-demo)
    weir_script(system test_cli LABELS demo TESTS demo)
endif()

weir_script(fault test_crash LABELS crash TESTS kill_under_load kill_with_producers kill_in_reshard
    terminate_under_load kill_with_metadata)
weir_script(fault test_disk LABELS crash TESTS power_cut flipped_bit torn_tail)
weir_script(fault test_disk TESTS full_disk second_broker strange_directory)
weir_script(fault test_peers TESTS stopped_subscriber vanished_subscribers hostile_bytes many_connections
    too_many_connections)
weir_script(fault test_soak LABELS soak TESTS soak)
weir_script(system test_s3 TESTS s3_equals_directory s3_faults s3_without_conditions s3_store_down s3_refused)
