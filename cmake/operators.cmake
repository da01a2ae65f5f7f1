# The CPU operators of torch.ops.pymixunlearn as a library for LibTorch programs. The stable ABI needs torch's headers
# and two of its libraries; find_package(Torch) would ask for a CUDA toolkit besides where torch has CUDA.
#
# CMAKE_PREFIX_PATH is what torch.utils.cmake_prefix_path says, or the folder of an unpacked LibTorch.
find_path(PYMIXUNLEARN_TORCH_INCLUDE torch/csrc/stable/library.h PATH_SUFFIXES ../../include)
find_library(PYMIXUNLEARN_TORCH_CPU torch_cpu PATH_SUFFIXES ../../lib)
find_library(PYMIXUNLEARN_C10 c10 PATH_SUFFIXES ../../lib)
foreach(found PYMIXUNLEARN_TORCH_INCLUDE PYMIXUNLEARN_TORCH_CPU PYMIXUNLEARN_C10)
  if(NOT ${found})
    message(FATAL_ERROR "PYMIXUNLEARN_OPS needs LibTorch 2.10 or later in CMAKE_PREFIX_PATH, "
                        "got '${CMAKE_PREFIX_PATH}' (${found} was not found)")
  endif()
endforeach()

read_sources(ops_cpu csrc ops_cpu)
list(TRANSFORM ops_cpu PREPEND csrc/)
string(JSON torch_target GET "${sources_json}" torch_target)
add_library(pymixunlearn_ops SHARED ${ops_cpu})
add_library(pymixunlearn::ops ALIAS pymixunlearn_ops)
target_include_directories(pymixunlearn_ops SYSTEM PRIVATE ${PYMIXUNLEARN_TORCH_INCLUDE})
target_compile_definitions(pymixunlearn_ops PRIVATE TORCH_TARGET_VERSION=${torch_target})
target_compile_options(pymixunlearn_ops PRIVATE ${cxx_flags})
# torch is the program's own: an installation names no torch, and runs under any later one.
target_link_libraries(pymixunlearn_ops PRIVATE pymixunlearn_core $<BUILD_INTERFACE:${PYMIXUNLEARN_TORCH_CPU}>
                                               $<BUILD_INTERFACE:${PYMIXUNLEARN_C10}>)
# Nothing in a program refers to the library by name: it registers its operators as it is loaded.
target_link_options(pymixunlearn_ops INTERFACE LINKER:--no-as-needed)
set_target_properties(pymixunlearn_ops PROPERTIES EXPORT_NAME ops)
