// Arguments of the functions for C++ users: how one is refused, and its element type for the kernels.
#pragma once

#include <sstream>
#include <stdexcept>
#include <type_traits>

#include "../core/scalar.h"

namespace pymixunlearn {

// Throws std::invalid_argument with the parts in a row unless `met`.
template <class... Parts>
void require(bool met, const Parts&... parts) {
  if (met) return;
  std::ostringstream message;
  (message << ... << parts);
  throw std::invalid_argument(message.str());
}

template <class T>
constexpr pmx::Dtype dtype = std::is_same_v<T, double> ? pmx::Dtype::f64 : pmx::Dtype::f32;

}  // namespace pymixunlearn
