#include "driver.h"

#include <cuda_runtime_api.h>
#include <cxxabi.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <map>
#include <set>
#include <stdexcept>

namespace pmx::ptx {
namespace {

// Of an H200; what a kernel may have without asking, and at the most.
constexpr size_t shared_by_default = 48 * 1024;
constexpr size_t shared_at_most = 227 * 1024;
constexpr unsigned grid_at_most = 0x7fffffffu;

// Everything is set up before main, by static objects of several files.
std::vector<Kernel>& registered() {
  static std::vector<Kernel> kernels;
  return kernels;
}
std::map<const void*, std::string>& names_of_stubs() {
  static std::map<const void*, std::string> names;
  return names;
}

std::vector<emulator::Output> expected_outputs;
std::map<const Kernel*, size_t> shared_allowed;
std::set<const Kernel*> launched;
cudaError_t last_error = cudaSuccess;

struct Configuration {
  dim3 grid, block;
  size_t shared;
  cudaStream_t stream;
};
std::vector<Configuration> configurations;

cudaError_t report(cudaError_t error) {
  if (error != cudaSuccess) last_error = error;
  return error;
}

const Kernel* kernel_of(const void* stub) {
  const auto name = names_of_stubs().find(stub);
  if (name == names_of_stubs().end()) return nullptr;
  for (const Kernel& kernel : registered()) {
    if (name->second == kernel.name) return &kernel;
  }
  return nullptr;
}

cudaError_t launch(const Kernel* kernel, dim3 grid, dim3 block, void** arguments, size_t shared) {
  if (kernel == nullptr) return report(cudaErrorInvalidDeviceFunction);
  const bool flat = grid.y == 1 && grid.z == 1 && block.y == 1 && block.z == 1;
  const bool within =
      grid.x > 0 && grid.x <= grid_at_most && block.x > 0 && static_cast<int>(block.x) <= kernel->max_threads;
  if (!flat || !within) return report(cudaErrorInvalidConfiguration);
  const auto allowed = shared_allowed.find(kernel);
  if (shared > (allowed == shared_allowed.end() ? shared_by_default : allowed->second))
    return report(cudaErrorInvalidValue);
  std::vector<uint64_t> memory((kernel->parameter_bytes + 7) / 8 + 1, ~uint64_t{0});
  auto* parameters = reinterpret_cast<unsigned char*>(memory.data());
  for (size_t i = 0; i < kernel->parameters.size(); ++i) {
    memcpy(parameters + kernel->parameters[i].at, arguments[i], kernel->parameters[i].bytes);
  }
  launched.insert(kernel);
  emulator::launch({grid.x, static_cast<int>(block.x), shared}, expected_outputs,
                   [&](Block& of_thread) { kernel->run(of_thread, parameters); });
  return cudaSuccess;
}

std::string readable(const char* name) {
  int status = 0;
  char* plain = abi::__cxa_demangle(name, nullptr, nullptr, &status);
  const std::string text = plain != nullptr ? plain : name;
  std::free(plain);
  return text.substr(0, text.find(">("));
}

}  // namespace

Registration::Registration(std::vector<Kernel> kernels) {
  for (Kernel& kernel : kernels) registered().push_back(std::move(kernel));
}

void expect_outputs(std::vector<emulator::Output> outputs) { expected_outputs = std::move(outputs); }

std::vector<std::string> never_launched() {
  std::vector<std::string> names;
  for (const Kernel& kernel : registered()) {
    if (launched.count(&kernel) == 0) names.push_back(readable(kernel.name));
  }
  return names;
}

void* guarded(size_t bytes) {
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  const size_t inside = (bytes + page - 1) / page * page;
  void* all = mmap(nullptr, inside + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (all == MAP_FAILED) throw std::runtime_error("no memory between guard pages");
  unsigned char* begin = static_cast<unsigned char*>(all) + page;
  if (inside > 0) {
    mprotect(begin, inside, PROT_READ | PROT_WRITE);
    memset(begin, 0xff, inside);
  }
  return begin + inside - (bytes + 15) / 16 * 16;
}

}  // namespace pmx::ptx

// --- what nvcc's host code calls -------------------------------------------------------------------------------------

extern "C" {

void** __cudaRegisterFatBinary(void*) {
  static void* handle = nullptr;
  return &handle;
}
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void**) {}
char __cudaInitModule(void**) { return 1; }
void __cudaRegisterVar(void**, char*, char*, const char*, int, size_t, int, int) {}

void __cudaRegisterFunction(void**, const char* stub, char*, const char* name, int, uint3*, uint3*, dim3*, dim3*,
                            int*) {
  pmx::ptx::names_of_stubs()[stub] = name;
}

unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, cudaStream_t stream) {
  pmx::ptx::configurations.push_back({grid, block, shared, stream});
  return 0;
}

cudaError_t __cudaPopCallConfiguration(dim3* grid, dim3* block, size_t* shared, void* stream) {
  const pmx::ptx::Configuration last = pmx::ptx::configurations.back();
  pmx::ptx::configurations.pop_back();
  *grid = last.grid;
  *block = last.block;
  *shared = last.shared;
  *static_cast<cudaStream_t*>(stream) = last.stream;
  return cudaSuccess;
}

cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* stub) {
  *kernel = reinterpret_cast<cudaKernel_t>(const_cast<pmx::ptx::Kernel*>(pmx::ptx::kernel_of(stub)));
  return cudaSuccess;  // a kernel that is missing is reported by its launch
}

cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void** arguments, size_t shared,
                               cudaStream_t) {
  return pmx::ptx::launch(reinterpret_cast<const pmx::ptx::Kernel*>(kernel), grid, block, arguments, shared);
}

cudaError_t cudaLaunchKernel(const void* stub, dim3 grid, dim3 block, void** arguments, size_t shared, cudaStream_t) {
  return pmx::ptx::launch(pmx::ptx::kernel_of(stub), grid, block, arguments, shared);
}

cudaError_t cudaFuncSetAttribute(const void* stub, cudaFuncAttribute attribute, int value) {
  const pmx::ptx::Kernel* kernel = pmx::ptx::kernel_of(stub);
  if (kernel == nullptr) return pmx::ptx::report(cudaErrorInvalidDeviceFunction);
  if (attribute == cudaFuncAttributeMaxDynamicSharedMemorySize) {
    if (static_cast<size_t>(value) > pmx::ptx::shared_at_most) return pmx::ptx::report(cudaErrorInvalidValue);
    pmx::ptx::shared_allowed[kernel] = static_cast<size_t>(value);
  }
  return cudaSuccess;
}

cudaError_t cudaGetLastError() {
  const cudaError_t error = pmx::ptx::last_error;
  pmx::ptx::last_error = cudaSuccess;
  return error;
}

}  // extern "C"
