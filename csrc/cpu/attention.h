// The attention kernels of the CPU as raw function pointers, and how the pairs of their backward are scheduled.
#pragma once

#include <cstdint>

#include "../core/attention.h"

namespace pmx {

// Pairs of a grid in rounds whose pairs share no image: within a round every pair may add to the gradients of its
// images, and over the rounds an image meets its partners in a fixed order. In zip pairing one round has all pairs.
struct GridRounds {
  int64_t rounds;
  int64_t pairs;  // in each round

  explicit GridRounds(const Attention& in) : rounds(1), pairs(in.images[0]), retain_(in.images[1]), grid_(in.grid) {
    if (!in.grid) return;
    rounds = in.images[0] > retain_ ? in.images[0] : retain_;
    pairs = in.images[0] < retain_ ? in.images[0] : retain_;
  }
  int64_t pair(int64_t round, int64_t i) const {
    if (!grid_) return i;
    const int64_t partner = (i + round) % rounds;
    return pairs == retain_ ? partner * retain_ + i : i * retain_ + partner;
  }

 private:
  int64_t retain_;
  bool grid_;
};

// Each call handles units [begin, end), in `scratch_bytes` of memory of its own, aligned to 64 bytes. `states` is as in
// core/attention.h, in accumulation type; `grad` and `out` are [pairs, tokens] contiguous. The backward writes
// gradients in accumulation type and, in grid pairing, adds them to what is there: units of a round in any order,
// rounds in turn.
struct AttentionKernels {
  int64_t (*scratch_bytes)(const Attention& in, bool backward);
  int64_t (*forward_units)(const Attention& in);
  void (*forward)(const Attention& in, int64_t begin, int64_t end, void* scratch, void* states, void* out);
  void (*backward)(const Attention& in, int64_t round, int64_t begin, int64_t end, const void* grad, const void* states,
                   void* scratch, const AttentionGradients& to);
};

}  // namespace pmx
