# The C++ tests of the kernels, and the example: inside this build, and as a project of its own against an installation.
add_library(emulator STATIC tests/cpp/emulator.cpp)
target_include_directories(emulator PUBLIC tests/cpp csrc)
target_link_libraries(emulator PUBLIC pymixunlearn::core)
# GCC warns of packs that are read under the very condition under which they were written.
target_compile_options(emulator PUBLIC -Wall -Wextra -Werror "$<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized;-Wno-uninitialized>")
read_sources(cpp_tests tests/cpp cpp_tests)
foreach(source ${cpp_tests})
  get_filename_component(name ${source} NAME_WE)
  add_executable(${name} tests/cpp/${source})
  target_link_libraries(${name} PRIVATE emulator)
  add_test(NAME ${name} COMMAND ${name})
endforeach()

if(TARGET pymixunlearn_ops)
  add_executable(dispatch tests/cpp/dispatch.cpp)
  target_compile_features(dispatch PRIVATE cxx_std_20) # torch's own headers; the operators need no more than 17
  target_include_directories(dispatch SYSTEM PRIVATE ${PYMIXUNLEARN_TORCH_INCLUDE})
  target_link_libraries(dispatch PRIVATE emulator pymixunlearn::ops ${PYMIXUNLEARN_TORCH_CPU} ${PYMIXUNLEARN_C10})
  add_test(NAME dispatch COMMAND dispatch)
endif()

add_subdirectory(examples/cpp)
if(PYMIXUNLEARN_INSTALL)
  set(sanitizers "")
  if(PYMIXUNLEARN_SANITIZE)
    set(sanitizers "-fsanitize=${PYMIXUNLEARN_SANITIZE} -fno-sanitize-recover=all")
  endif()
  add_test(
    NAME installed_example
    COMMAND
      ${CMAKE_COMMAND} -D build=${PROJECT_BINARY_DIR} -D example=${PROJECT_SOURCE_DIR}/examples/cpp -D
      generator=${CMAKE_GENERATOR} -D compiler=${CMAKE_CXX_COMPILER} -D config=$<CONFIG> -D flags=${sanitizers} -P
      ${PROJECT_SOURCE_DIR}/tests/cpp/installed_example.cmake)
endif()
