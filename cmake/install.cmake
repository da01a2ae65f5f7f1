# What an installation holds: the public headers, the libraries, and a package for find_package(pymixunlearn) that can
# be moved anywhere.
include(CMakePackageConfigHelpers)
include(GNUInstallDirs)

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/pymixunlearn)
install(DIRECTORY csrc/include/ DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(TARGETS pymixunlearn_core EXPORT core INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(EXPORT core NAMESPACE pymixunlearn:: FILE core.cmake DESTINATION ${package_dir})
if(TARGET pymixunlearn_ops)
  install(TARGETS pymixunlearn_ops EXPORT ops)
  install(EXPORT ops NAMESPACE pymixunlearn:: FILE ops.cmake DESTINATION ${package_dir})
endif()
configure_package_config_file(cmake/pymixunlearn-config.cmake.in pymixunlearn-config.cmake
                              INSTALL_DESTINATION ${package_dir})
# Before 1.0 a minor version may change the interface.
write_basic_package_version_file(pymixunlearn-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/pymixunlearn-config.cmake ${PROJECT_BINARY_DIR}/pymixunlearn-config-version.cmake
        DESTINATION ${package_dir})
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})
