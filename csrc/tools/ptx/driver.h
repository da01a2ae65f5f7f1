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

// Kernels that were never launched, with readable names.
std::vector<std::string> never_launched();

// Memory between two pages that nobody may touch; it ends at the second one but for its alignment to 16 bytes, and is
// filled with NaN.
void* guarded(size_t bytes);

}  // namespace pmx::ptx
