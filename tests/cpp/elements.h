// The element types of the operators, by what they are called at run time and by what a rounding to them may cost.
#pragma once

#include "core/scalar.h"

namespace pmx {

template <class T>
constexpr Dtype dtype_of = Dtype::f32;
template <>
constexpr Dtype dtype_of<double> = Dtype::f64;
template <>
constexpr Dtype dtype_of<BFloat16> = Dtype::bf16;
template <>
constexpr Dtype dtype_of<Half> = Dtype::f16;

template <class T>
constexpr double element_eps = 0;
template <>
constexpr double element_eps<float> = 1.2e-7;
template <>
constexpr double element_eps<double> = 2.3e-16;
template <>
constexpr double element_eps<BFloat16> = 7.9e-3;
template <>
constexpr double element_eps<Half> = 9.8e-4;

}  // namespace pmx
