// The losses' rows in double precision, written straight from the equations: softmax, cosine, and the derivative of the
// cosine through the softmax. Nothing of csrc is used.
#pragma once

#include <cmath>
#include <vector>

namespace reference {

using Row = std::vector<double>;

inline Row softmax(const Row& z, double T = 1) {
  double top = -INFINITY, total = 0;
  for (double x : z) top = x > top ? x : top;
  Row p;
  for (double x : z) p.push_back(std::exp((x - top) / T)), total += p.back();
  for (double& x : p) x /= total;
  return p;
}

inline double dot(const Row& a, const Row& b) {
  double total = 0;
  for (size_t i = 0; i < a.size(); ++i) total += a[i] * b[i];
  return total;
}

// 1 - cos(softmax(z), t); a target of zeros has cosine 0.
inline double sim(const Row& z, const Row& t) {
  const Row p = softmax(z);
  const double length = std::sqrt(dot(t, t));
  return length == 0 ? 1 : 1 - dot(p, t) / (std::sqrt(dot(p, p)) * length);
}

// d sim / d z: the chain rule through p = softmax(z).
inline Row sim_gradient(const Row& z, const Row& t) {
  const Row p = softmax(z);
  const double p2 = dot(p, p), length = std::sqrt(dot(t, t));
  Row by_p(p.size(), 0), by_z;
  if (length > 0) {
    const double cosine = dot(p, t) / (std::sqrt(p2) * length);
    for (size_t j = 0; j < p.size(); ++j) by_p[j] = -(t[j] / (std::sqrt(p2) * length) - cosine * p[j] / p2);
  }
  const double mean = dot(p, by_p);
  for (size_t j = 0; j < p.size(); ++j) by_z.push_back(p[j] * (by_p[j] - mean));
  return by_z;
}

inline double logsumexp(const Row& x) {
  if (x.empty()) return 0;  // the convention for an empty forget set
  double top = -INFINITY, total = 0;
  for (double value : x) top = value > top ? value : top;
  for (double value : x) total += std::exp(value - top);
  return top + std::log(total);
}

}  // namespace reference
