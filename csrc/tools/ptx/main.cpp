// Runs the cases of an operator whose names contain the argument, or all of them, and then names the kernels that none
// of them launched. Exits with 0 if there is nothing to report. A second argument is the file for what was counted.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <random>
#include <stdexcept>

#include "cases.h"

namespace pmx::ptx {
namespace {

std::mt19937_64 random_engine(5);

template <class T>
T* elements(const void* data) {
  return static_cast<T*>(const_cast<void*>(data));
}

}  // namespace

const char* name_of(Dtype dtype) {
  constexpr const char* names[] = {"float32", "float64", "bfloat16", "float16"};
  return names[static_cast<int>(dtype)];
}

size_t size_of(Dtype dtype) { return dtype == Dtype::f64 ? 8 : dtype == Dtype::f32 ? 4 : 2; }

Array::Array(int64_t count, Dtype dtype, int64_t shift) : count_(count), dtype_(dtype) {
  const size_t bytes = static_cast<size_t>(count + shift) * size_of(dtype);
  data_ = static_cast<unsigned char*>(guarded(bytes)) + static_cast<size_t>(shift) * size_of(dtype);
}

double Array::operator[](int64_t i) const {
  switch (dtype_) {
    case Dtype::f32:
      return elements<float>(data_)[i];
    case Dtype::f64:
      return elements<double>(data_)[i];
    case Dtype::bf16:
      return widen(elements<BFloat16>(data_)[i]);
    default:
      return widen(elements<Half>(data_)[i]);
  }
}

void Array::set(int64_t i, double value) {
  switch (dtype_) {
    case Dtype::f32:
      elements<float>(data_)[i] = static_cast<float>(value);
      break;
    case Dtype::f64:
      elements<double>(data_)[i] = value;
      break;
    case Dtype::bf16:
      elements<BFloat16>(data_)[i] = narrow<BFloat16>(static_cast<float>(value));
      break;
    default:
      elements<Half>(data_)[i] = narrow<Half>(static_cast<float>(value));
  }
}

emulator::Output Array::output(const char* name) const {
  return {name, data_, static_cast<size_t>(count_) * size_of(dtype_)};
}

Array random_array(int64_t count, Dtype dtype, double scale, int64_t shift) {
  std::normal_distribution<double> normal(0, scale);
  Array array(count, dtype, shift);
  for (int64_t i = 0; i < count; ++i) array.set(i, normal(random_engine));
  return array;
}

int64_t random_below(int64_t bound) { return static_cast<int64_t>(random_engine() % static_cast<uint64_t>(bound)); }

double tolerance(Dtype dtype) {
  constexpr double allowed[] = {1e-5, 1e-12, 8e-3, 1.5e-3};
  return allowed[static_cast<int>(dtype)];
}

void compare(const char* what, const Array& got, const std::vector<double>& expected, double allowed) {
  double difference = 0, norm = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    const double error = got[static_cast<int64_t>(i)] - expected[i];
    difference += error * error;
    norm += expected[i] * expected[i];
  }
  // Numbers below the normal ones of float16 are rounded to multiples of 2^-24, whatever their size.
  const double step = got.dtype() == Dtype::f16 ? std::ldexp(0.5, -24) : 0;
  const double floor = step * std::sqrt(static_cast<double>(expected.size()));
  if (!(std::sqrt(difference) <= allowed * std::sqrt(norm) + floor)) {
    throw std::runtime_error(std::string(what) + " is off by " + std::to_string(std::sqrt(difference / norm)) +
                             " of its norm, allowed " + std::to_string(allowed));
  }
}

void check_launch(const char* what) {
  const cudaError_t error = cudaGetLastError();
  if (error != cudaSuccess) {
    throw std::runtime_error(std::string(what) + " was refused with CUDA error " + std::to_string(error));
  }
}

}  // namespace pmx::ptx

int main(int count, char** arguments) {
  using namespace pmx::ptx;
  const std::string only = count > 1 ? arguments[1] : "", counts = count > 2 ? arguments[2] : "";
  const auto start = std::chrono::steady_clock::now();
  int run = 0, failed = 0;
  for (const Case& one : all_cases()) {
    if (one.name.find(only) == std::string::npos) continue;
    ++run;
    count_as("");
    try {
      one.run();
    } catch (const std::exception& error) {
      ++failed;
      std::printf("FAILED %s: %s\n", one.name.c_str(), error.what());
    }
  }
  if (!counts.empty()) write_counts(counts);
  const std::vector<std::string> missed = only.empty() ? never_launched() : std::vector<std::string>{};
  for (const std::string& kernel : missed) std::printf("never launched: %s\n", kernel.c_str());
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  std::printf("%d cases, %d failed, %zu kernels never launched, %.1f s\n", run, failed, missed.size(), seconds.count());
  return run == 0 || failed > 0 || !missed.empty();
}
