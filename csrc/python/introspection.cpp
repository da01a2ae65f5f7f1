// What this build is: compiler, CUDA toolkit and architectures, stable ABI target, and the instruction set chosen at
// run time. A pybind11 module of its own, so that it loads even where the operator libraries cannot.
#include <pybind11/pybind11.h>

#include <string>

#include "../cpu/isa.h"

#define PMX_STRING_(x) #x
#define PMX_STRING(x) PMX_STRING_(x)

namespace {

std::string compiler() {
#if defined(__clang__)
  return "clang " __clang_version__;
#elif defined(__GNUC__)
  return "gcc " __VERSION__;
#else
  return "unknown";
#endif
}

pybind11::dict build_facts() {
  pybind11::dict facts;
  facts["compiler"] = compiler();
  facts["cxx_standard"] = static_cast<long>(__cplusplus);
  facts["built_with_torch"] = PMX_STRING(PMX_BUILD_TORCH);
  facts["torch_abi_target"] = PMX_STRING(PMX_TORCH_TARGET);
#if defined(PMX_CUDA_VERSION)
  facts["cuda"] = PMX_STRING(PMX_CUDA_VERSION);
  facts["cuda_architectures"] = PMX_STRING(PMX_CUDA_ARCHS);
#else
  facts["cuda"] = pybind11::none();
  facts["cuda_architectures"] = pybind11::none();
#endif
  return facts;
}

}  // namespace

PYBIND11_MODULE(_introspection, m) {
  m.doc() = "Facts about how the compiled operators of pymixunlearn were built and what they use at run time.";
  m.def("build_facts", &build_facts, "Compiler, C++ standard, torch and CUDA versions, as a dict.");
  m.def(
      "cpu_isa", [] { return std::string(pmx::isa_name(pmx::chosen_isa())); },
      "Instruction set of the CPU kernels in this process: baseline, avx2 or avx512.");
}
