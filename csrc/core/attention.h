// What MixBlock's cross-attention computes, shared by the CPU and the CUDA kernels, and the signatures of these.
//
// Two directions of the same kind: forget queries over retain keys with forget values, and the reverse. With the scores
// s_nm = <q_n, k_m> of one direction, t = 1 / sqrt(d) and the scalar values v_m,
//
//     p_nm = exp(t (s_nm - top_n)) / sum_m exp(t (s_nm - top_n))      l_n = sum_m p_nm v_m
//     out  = l of the first direction - l of the second
//
// and with the gradient g_n of l_n
//
//     ds_nm = t g_n p_nm (v_m - l_n)     dq_n = sum_m ds_nm k_m     dk_m = sum_n ds_nm q_n     dv_m = sum_n g_n p_nm
//
// A query is described by three numbers, its state: top_n, 1 / sum and l_n. The log-sum-exp is kept in its two parts
// because t s_nm - lse would lose all digits of p_nm when scores are large, and could exceed 0.
#pragma once

#include <cmath>
#include <cstdint>

#include "scalar.h"
#include "stream.h"

namespace pmx {

// A batch of maps [images, channels, positions] (queries, keys) or [images, positions] (values), with any strides.
struct Maps {
  const void* data;
  int64_t image;
  int64_t channel;
  int64_t position;
};

// The maps of one direction. Its queries and values belong to one image of a pair, its keys to the other.
struct Direction {
  Maps query;
  Maps key;
  Maps value;
};

constexpr int state_parts = 3;  // top, 1 / sum, l

struct Attention {
  Direction direction[2];  // forget queries; retain queries
  int64_t images[2];       // forget; retain
  bool grid;
  int64_t dim;
  int64_t tokens;
  double scale;  // 1 / sqrt(dim)

  PMX_HD int64_t pairs() const { return grid ? images[0] * images[1] : images[0]; }
  // The image of a pair on the forget (0) or the retain (1) side. Direction k has queries and values of side k.
  PMX_HD int64_t image_of(int side, int64_t pair) const {
    if (!grid) return pair;
    return side == 0 ? pair / images[1] : pair % images[1];
  }
  // Where a part of the state [pairs, 2, state_parts, tokens] begins.
  PMX_HD int64_t state_at(int64_t pair, int k, int part) const {
    return ((pair * 2 + k) * state_parts + part) * tokens;
  }
};

// Where the gradients go: contiguous, by direction; null where none is wanted.
struct AttentionGradients {
  void* query[2];
  void* key[2];
  void* value[2];

  PMX_HD bool wanted(int k) const { return query[k] != nullptr || key[k] != nullptr || value[k] != nullptr; }
};

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

// The CPU kernels. Each call handles units [begin, end), in `scratch_bytes` of memory of its own, aligned to 64 bytes.
// `states` is as above, in accumulation type; `grad` and `out` are [pairs, tokens] contiguous. The backward writes
// gradients in accumulation type and, in grid pairing, adds them to what is there: units of a round in any order,
// rounds in turn.
struct AttentionKernels {
  int64_t (*scratch_bytes)(const Attention& in, bool backward);
  int64_t (*forward_units)(const Attention& in);
  void (*forward)(const Attention& in, int64_t begin, int64_t end, void* scratch, void* states, void* out);
  void (*backward)(const Attention& in, int64_t round, int64_t begin, int64_t end, const void* grad, const void* states,
                   void* scratch, const AttentionGradients& to);
};

// The launchers of the CUDA kernels: raw device pointers, sizes and a stream. Nothing here waits for the device.
namespace cuda {

// `states` is as above, in accumulation type; `out` [pairs, tokens] in `dtype`. Positions of all maps are
// neighbours in memory. `tf32` lets float32 use TF32.
void attention_forward(const Attention& in, Dtype dtype, bool tf32, void* states, void* out, Stream stream);

// `grad` is [pairs, tokens] contiguous; gradients are in `dtype`; `of_values` is scratch memory of [pairs, 2, tokens]
// in accumulation type, needed if the gradient of a value is wanted.
void attention_backward(const Attention& in, Dtype dtype, bool tf32, const void* grad, const void* states,
                        const AttentionGradients& to, void* of_values, Stream stream);

}  // namespace cuda

}  // namespace pmx
