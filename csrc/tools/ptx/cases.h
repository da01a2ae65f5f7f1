// What the cases of an operator are written with: inputs in memory between guard pages, and comparisons with double
// precision.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "core/scalar.h"
#include "driver.h"

namespace pmx::ptx {

struct Case {
  std::string name;
  std::function<void()> run;
};

// Defined once for each operator.
std::vector<Case> all_cases();

constexpr Dtype dtypes[] = {Dtype::f32, Dtype::f64, Dtype::bf16, Dtype::f16};
const char* name_of(Dtype dtype);
size_t size_of(Dtype dtype);
inline Dtype accumulation(Dtype dtype) { return dtype == Dtype::f64 ? Dtype::f64 : Dtype::f32; }

// Elements of a dtype in guarded memory; `shift` elements off the alignment that wide loads need.
class Array {
 public:
  Array(int64_t count, Dtype dtype, int64_t shift = 0);

  double operator[](int64_t i) const;
  void set(int64_t i, double value);
  void* data() const { return data_; }
  int64_t count() const { return count_; }
  Dtype dtype() const { return dtype_; }
  emulator::Output output(const char* name) const;

 private:
  unsigned char* data_;
  int64_t count_;
  Dtype dtype_;
};

// Normally distributed numbers; every call draws others, and every run of the program the same.
Array random_array(int64_t count, Dtype dtype, double scale = 1, int64_t shift = 0);
int64_t random_below(int64_t bound);

// How far a result of this dtype may be from double precision, relative to the norm of all of it.
double tolerance(Dtype dtype);

// Throws std::runtime_error, naming the array and its error, unless |got - expected| <= allowed |expected|, but for the
// rounding of very small numbers.
void compare(const char* what, const Array& got, const std::vector<double>& expected, double allowed);

// Throws if a launch was refused.
void check_launch(const char* what);

}  // namespace pmx::ptx
