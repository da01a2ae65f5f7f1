// Translated kernels by name, and a stand-in for libcudart that launches them where nvcc's host code launches its own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "emulator.h"

namespace pmx::ptx {

using emulator::Block;

struct Parameter {
  size_t at, bytes;
};

struct Kernel {
  const char* name;  // mangled
  void (*run)(const Block& block, unsigned char* parameters);
  size_t parameter_bytes;
  int max_threads;
  std::vector<Parameter> parameters;
};

// Adds the kernels of a translated file to those that can be launched.
struct Registration {
  explicit Registration(std::vector<Kernel> kernels);
};

// What the next launches write: compared bit for bit between the orders in which threads and blocks run.
void expect_outputs(std::vector<emulator::Output> outputs);

// Counts executions of basic blocks by warps: where a thread of a launch counts, one number for each basic block.
uint32_t* count(const Block& block, size_t basic_blocks);

// From here on, launches belong to an operator's case and mode, with the number of its results and the bytes that it
// cannot avoid to move; an empty name ends this.
void count_as(std::string name, std::string mode = "", int64_t results = 0, int64_t bytes = 0);

// What was counted, one line of JSON for each launch.
void write_counts(const std::string& path);

// Kernels that were never launched, with readable names.
std::vector<std::string> never_launched();

// Memory between two pages that nobody may touch; it ends at the second one but for its alignment to 16 bytes, and is
// filled with NaN.
void* guarded(size_t bytes);

}  // namespace pmx::ptx
