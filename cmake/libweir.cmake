# libweir as others see it: headers that any C or C++ compiler reads, a shared and a static library,
# a pkg-config file and a CMake package. Included by consumers/client.

# The headers in the tree are for our build: quoted includes by module, C23 attributes, declarations
# that libweir does not export. The ones that are installed are made from them.
function(weir_public_headers)
    set(in "${CMAKE_SOURCE_DIR}")
    set(out "${CMAKE_BINARY_DIR}/include/weir")
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS
        "${in}/consumers/client/weir.h" "${in}/proto/base/status.h" "${in}/proto/base/error.h")

    file(READ "${in}/consumers/client/weir.h" weir)
    file(CONFIGURE OUTPUT "${out}/weir.h" CONTENT "${weir}" @ONLY)

    file(READ "${in}/proto/base/status.h" status)
    string(REPLACE "enum [[nodiscard]] weir_status" "enum weir_status" status "${status}")
    string(REPLACE "#pragma once\n" "#pragma once\n#ifdef __cplusplus\nextern \"C\" {\n#endif\n"
        status "${status}")
    string(APPEND status "#ifdef __cplusplus\n}\n#endif\n")
    # An #include has no place inside extern "C".
    string(REGEX MATCHALL "#include <[^>]*>\n" includes "${status}")
    string(REGEX REPLACE "#include <[^>]*>\n" "" status "${status}")
    list(JOIN includes "" includes)
    string(REPLACE "#pragma once\n" "#pragma once\n${includes}" status "${status}")
    file(CONFIGURE OUTPUT "${out}/base/status.h" CONTENT "${status}" @ONLY)

    file(READ "${in}/proto/base/error.h" error)
    string(REPLACE "#include \"base/status.h\"" "#include \"status.h\"" error "${error}")
    string(FIND "${error}" "\n/* Sets status" end)
    string(SUBSTRING "${error}" 0 ${end} error)
    file(CONFIGURE OUTPUT "${out}/base/error.h" CONTENT "${error}" @ONLY)
endfunction()

# One archive and one shared object of the client and the modules that it stands on.
function(weir_public_library)
    set(modules client transport wire record sys base)
    set(objects "")
    foreach(module IN LISTS modules)
        list(APPEND objects $<TARGET_OBJECTS:weir_${module}>)
    endforeach()
    set(libraries ${NNG_LIBRARY} PkgConfig::PROTOBUFC PkgConfig::LZ4 PkgConfig::XXHASH
        PkgConfig::CRYPTO Threads::Threads)
    set(map "${CMAKE_SOURCE_DIR}/consumers/client/libweir.map")

    add_library(weir_shared SHARED ${objects})
    target_link_libraries(weir_shared PRIVATE ${libraries})
    target_link_options(weir_shared PRIVATE "-Wl,--version-script=${map}")
    set_target_properties(weir_shared PROPERTIES OUTPUT_NAME weir LINKER_LANGUAGE C
        LINK_DEPENDS "${map}" VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR})
    target_include_directories(weir_shared INTERFACE "${CMAKE_BINARY_DIR}/include")

    add_library(weir_static STATIC ${objects})
    set_target_properties(weir_static PROPERTIES OUTPUT_NAME weir LINKER_LANGUAGE C)
endfunction()

function(weir_public_install)
    install(TARGETS weir_shared LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}
        COMPONENT libweir NAMELINK_COMPONENT libweir)
    install(TARGETS weir_static ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT libweir)
    install(DIRECTORY "${CMAKE_BINARY_DIR}/include/weir"
        DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} COMPONENT libweir)

    set(made "${CMAKE_BINARY_DIR}/libweir")
    file(RELATIVE_PATH up "/${CMAKE_INSTALL_LIBDIR}/pkgconfig" "/")
    string(REGEX REPLACE "/$" "" WEIR_PC_UP "${up}")
    configure_file("${CMAKE_SOURCE_DIR}/cmake/libweir.pc.in" "${made}/libweir.pc" @ONLY)
    install(FILES "${made}/libweir.pc"
        DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig COMPONENT libweir)

    include(CMakePackageConfigHelpers)
    set(package "${CMAKE_INSTALL_LIBDIR}/cmake/weir")
    configure_package_config_file("${CMAKE_SOURCE_DIR}/cmake/weirConfig.cmake.in"
        "${made}/weirConfig.cmake" INSTALL_DESTINATION "${package}"
        PATH_VARS CMAKE_INSTALL_INCLUDEDIR CMAKE_INSTALL_LIBDIR)
    write_basic_package_version_file("${made}/weirConfigVersion.cmake"
        COMPATIBILITY SameMinorVersion)
    install(FILES "${made}/weirConfig.cmake" "${made}/weirConfigVersion.cmake"
        DESTINATION "${package}" COMPONENT libweir)
endfunction()
