#include "driver.h"

#include <cuda_runtime_api.h>
#include <cxxabi.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <fstream>
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

// Executions by warps. A warp executes a basic block as often as that of its lanes that does so most often: lanes that
// take different branches of the same loop take them one after the other.
class Counts {
 public:
  uint32_t* lane(const Block& block, size_t basic_blocks) {
    const auto thread = static_cast<size_t>(block.thread()), threads = static_cast<size_t>(block.threads());
    if (started_.size() != threads || block.index() != block_ || started_[thread]) {
      flush();
      block_ = block.index();
      basic_blocks_ = basic_blocks;
      started_.assign(threads, false);
      lanes_.assign(threads * basic_blocks, 0);
      total_.resize(basic_blocks);
    }
    started_[thread] = true;
    return &lanes_[thread * basic_blocks];
  }

  // The sums over the blocks that ran since the last call, and how many these were.
  std::pair<std::vector<uint64_t>, int64_t> take() {
    flush();
    std::pair<std::vector<uint64_t>, int64_t> taken = {std::move(total_), runs_};
    total_ = {};
    runs_ = 0;
    return taken;
  }

 private:
  void flush() {
    if (started_.empty()) return;
    for (size_t begin = 0; begin < started_.size(); begin += emulator::lanes) {
      const size_t end = std::min(started_.size(), begin + emulator::lanes);
      for (size_t i = 0; i < basic_blocks_; ++i) {
        uint32_t most = 0;
        for (size_t lane = begin; lane < end; ++lane) most = std::max(most, lanes_[lane * basic_blocks_ + i]);
        total_[i] += most;
      }
    }
    ++runs_;
    started_.clear();
  }

  int64_t block_ = -1, runs_ = 0;
  size_t basic_blocks_ = 0;
  std::vector<bool> started_;
  std::vector<uint32_t> lanes_;
  std::vector<uint64_t> total_;
};

Counts counts;
std::string counted_as;  // the beginning of a line
std::vector<std::string> counted_lines;

void keep_counts(const Kernel& kernel, dim3 grid, dim3 block, size_t shared) {
  const auto [executions, runs] = counts.take();
  if (counted_as.empty() || runs == 0) return;
  std::string line = counted_as + ", \"kernel\": \"" + kernel.name + "\", \"blocks\": " + std::to_string(grid.x) +
                     ", \"threads\": " + std::to_string(block.x) + ", \"shared\": " + std::to_string(shared) +
                     ", \"executions\": [";
  for (size_t i = 0; i < executions.size(); ++i) {  // every launch runs its grid several times
    line += (i > 0 ? ", " : "") + std::to_string(executions[i] * grid.x / static_cast<uint64_t>(runs));
  }
  counted_lines.push_back(line + "]}");
}

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
  keep_counts(*kernel, grid, block, shared);
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

uint32_t* count(const Block& block, size_t basic_blocks) { return counts.lane(block, basic_blocks); }

void count_as(std::string name, std::string mode, int64_t results, int64_t bytes) {
  counted_as = name.empty()
                   ? ""
                   : "{\"case\": \"" + name + "\", \"mode\": \"" + mode +
                         "\", \"results\": " + std::to_string(results) + ", \"bytes\": " + std::to_string(bytes);
}

void write_counts(const std::string& path) {
  std::ofstream file(path);
  for (const std::string& line : counted_lines) file << line << '\n';
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
