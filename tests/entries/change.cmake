weir_test(unit change_flatten SOURCES unit/change/test_flatten.c NEEDS change)
weir_test(unit change_peek SOURCES unit/change/test_peek.c NEEDS change)
weir_fuzz(flatten SOURCES fuzz/fuzz_flatten.c NEEDS change)
weir_fuzz(change_peek SOURCES fuzz/fuzz_change_peek.c NEEDS change)

# The model is Python; a small program stands for our side.
find_package(Python3 REQUIRED COMPONENTS Interpreter)
weir_program(flatten_lines NO_INSTALL SOURCES model/flatten_lines.c NEEDS change)
set_target_properties(flatten_lines PROPERTIES
    RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/tests")
foreach(what random history)
    add_test(NAME model/flatten_${what}
        COMMAND Python3::Interpreter "${CMAKE_CURRENT_SOURCE_DIR}/model/test_flatten.py" ${what}
                $<TARGET_FILE:flatten_lines>)
    set_tests_properties(model/flatten_${what} PROPERTIES
        TIMEOUT 300 LABELS model SKIP_RETURN_CODE 77
        ENVIRONMENT "WEIR_SOURCE_DIR=${CMAKE_SOURCE_DIR};PYTHONDONTWRITEBYTECODE=1")
endforeach()
