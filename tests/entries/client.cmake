foreach(name connection producer subscription)
    weir_test(unit client_${name} SOURCES unit/client/test_${name}.c unit/client/fake.c
        NEEDS client TIMEOUT 300)
endforeach()

# Sanitized libraries do not link with a plain compiler call.
if(NOT WEIR_SANITIZE AND NOT WEIR_COVERAGE AND NOT WEIR_FUZZ)
    add_test(NAME install/libweir
        COMMAND "${CMAKE_SOURCE_DIR}/tests/install/libweir.sh" "${CMAKE_SOURCE_DIR}" "${CMAKE_BINARY_DIR}")
    set_tests_properties(install/libweir PROPERTIES TIMEOUT 300 LABELS install)
endif()

if(TARGET weir-broker)
    weir_test(system libweir SOURCES system/test_libweir.c NEEDS client DEPENDS weir-broker TIMEOUT 300)
endif()
