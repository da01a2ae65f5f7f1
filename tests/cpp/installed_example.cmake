# Installs the build, moves the installation elsewhere, and builds and runs the example against it as a user would.
# Nothing in the package may name the build directory, or it would work on this machine alone.
set(work ${build}/installed_example)
file(REMOVE_RECURSE ${work})

function(run)
  execute_process(COMMAND ${ARGV} COMMAND_ERROR_IS_FATAL ANY)
endfunction()

run(${CMAKE_COMMAND} --install ${build} --config ${config} --prefix ${work}/first)
file(RENAME ${work}/first ${work}/moved)
file(GLOB_RECURSE package ${work}/moved/*.cmake)
foreach(file ${package})
  file(READ ${file} text)
  string(FIND "${text}" "${build}" position)
  if(NOT position EQUAL -1)
    message(FATAL_ERROR "${file} names the build directory: the installation cannot be moved")
  endif()
endforeach()

run(${CMAKE_COMMAND} -S ${example} -B ${work}/build -G ${generator} -D CMAKE_BUILD_TYPE=${config} -D
    CMAKE_CXX_COMPILER=${compiler} -D "CMAKE_CXX_FLAGS=${flags}" -D CMAKE_PREFIX_PATH=${work}/moved)
run(${CMAKE_COMMAND} --build ${work}/build --config ${config})
run(${CMAKE_CTEST_COMMAND} --test-dir ${work}/build --build-config ${config} --output-on-failure)
