// What a warp multiplies: tiles of scores S = own^T other [16, 64], and G other^T [16, channels] for the gradients, on
// tensor cores (mma.sync; sm_80 and later) or, for float64 and exact float32, with plain multiply-adds.
//
// Maps lie in shared memory as [channels, tile] with rows `tile_pitch` apart. Results are spread over the warp as the
// matrix instructions have them: lane 4 g + t holds rows g and g + 8, columns 2 t and 2 t + 1 of every 16 x 8 part,
// element e in row g + 8 (e / 2), column 2 t + e % 2. On the host the instructions are emulated by collectives of the
// warp (tests/cpp/emulator.h).
#pragma once

#include <cstdint>

#include "../core/scalar.h"
#include "block.cuh"
#include "pack.cuh"

namespace pmx {

constexpr int tile_size = 64;   // positions of either side
constexpr int tile_pitch = 72;  // 16-byte rows, 8 banks apart: fragments load without conflicts
constexpr int tile_parts = tile_size / 8;
constexpr int warp_rows = 16;

template <class A>
struct Part {
  A at[4];
};

template <class T>
PMX_HD float half_of(uint32_t pair, int which) {
  return widen(T{static_cast<uint16_t>(pair >> (16 * which))});
}

// The registers of an instruction's factors: A [16, 16] and B [16, 8] of 16-bit elements, or A [16, 8] and B [8, 8].
struct Factors {
  uint32_t a[4];
  uint32_t b[2];
  float c[4];
};

// c += a b over `depth`, from all lanes' factors; a_at(lane's factors, register, half) reads an element.
template <int depth, class Parts, class Results, class AAt>
void multiply_on_host(const Parts& parts, const Results& results, const AAt& element) {
  constexpr int halves = depth / 8;  // elements in a register
  for (int row = 0; row < 16; ++row) {
    for (int column = 0; column < 8; ++column) {
      const int owner = row % 8 * 4 + column / 2, e = row / 8 * 2 + column % 2;
      float sum = parts[owner]->c[e];
      for (int k = 0; k < depth; ++k) {
        const int t = k % (4 * halves) / halves, half = k % halves, high = k / (4 * halves);
        sum += element(parts[row % 8 * 4 + t]->a[row / 8 + 2 * high], half) *
               element(parts[column * 4 + t]->b[high], half);
      }
      results[owner]->at[e] = sum;
    }
  }
}

template <class T, class Block>
PMX_HD void multiply_halves(Block& block, Part<float>& c, const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
#if defined(__CUDA_ARCH__)
  if constexpr (std::is_same_v<T, BFloat16>) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c.at[0]), "+f"(c.at[1]), "+f"(c.at[2]), "+f"(c.at[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  } else {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c.at[0]), "+f"(c.at[1]), "+f"(c.at[2]), "+f"(c.at[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  }
#else
  const Factors mine = {{a[0], a[1], a[2], a[3]}, {b0, b1}, {c.at[0], c.at[1], c.at[2], c.at[3]}};
  c = block.template collective<Part<float> >(
      mine,
      [](const auto& parts, const auto& results) {
        multiply_on_host<16>(parts, results, [](uint32_t pair, int half) { return half_of<T>(pair, half); });
      },
      16);
#endif
}

template <class Block>
PMX_HD void multiply_tf32(Block& block, Part<float>& c, const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
#if defined(__CUDA_ARCH__)
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c.at[0]), "+f"(c.at[1]), "+f"(c.at[2]), "+f"(c.at[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else
  const Factors mine = {{a[0], a[1], a[2], a[3]}, {b0, b1}, {c.at[0], c.at[1], c.at[2], c.at[3]}};
  c = block.template collective<Part<float> >(
      mine,
      [](const auto& parts, const auto& results) {
        multiply_on_host<8>(parts, results, [](uint32_t bits, int) { return detail::bits_to_float(bits); });
      },
      8);
#endif
}

struct Registers {
  uint32_t at[4];
};

// Four 8 x 8 matrices of 16-bit elements, one row's address from each lane (lanes 8 i to 8 i + 7: matrix i); lane
// 4 g + t gets elements 2 t and 2 t + 1 of row g, or with `transposed` rows 2 t and 2 t + 1 of column g.
template <bool transposed, class T, class Block>
PMX_HD Registers load_matrices(Block& block, const T* row) {
#if defined(__CUDA_ARCH__)
  Registers r;
  const uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  if constexpr (transposed) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r.at[0]), "=r"(r.at[1]), "=r"(r.at[2]), "=r"(r.at[3])
                 : "r"(address)
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r.at[0]), "=r"(r.at[1]), "=r"(r.at[2]), "=r"(r.at[3])
                 : "r"(address)
                 : "memory");
  }
  return r;
#else
  return block.template collective<Registers>(
      row,
      [](const auto& rows, const auto& results) {
        for (int lane = 0; lane < warp_size; ++lane) {
          for (int i = 0; i < 4; ++i) {
            const int g = lane / 4, t = lane % 4;
            const auto element = [&](int j) {
              return transposed ? (*rows[8 * i + j])[g].bits : (*rows[8 * i + g])[j].bits;
            };
            results[lane]->at[i] = element(2 * t) | static_cast<uint32_t>(element(2 * t + 1)) << 16;
          }
        }
      },
      transposed ? 1 : 2);
#endif
}

// bfloat16 and float16 on tensor cores.
template <class T>
struct HalfMath {
  using Element = T;
  static constexpr int depth_step = 16;
  static constexpr int channels = 128;  // of a map that shared memory holds at a time
  static constexpr bool exact = false;
  static constexpr bool stages = false;

  template <class Block>
  static PMX_HD void scores(Block& block, const T* own, const T* other, int depth, Part<float> (&s)[tile_parts]) {
    const int lane = block.thread() % warp_size, i = lane / 8, r = lane % 8;
    // A: matrices (k 0-7, rows 0-7), (k 0-7, rows 8-15), (k 8-15, rows 0-7), ...; B: (k 0-7), (k 8-15) of two parts.
    const T* a_row = own + (r + i / 2 * 8) * tile_pitch + i % 2 * 8;
    const T* b_row = other + (r + i % 2 * 8) * tile_pitch + i / 2 * 8;
    PMX_UNROLL_BY(1)
    for (int k = 0; k < depth; k += 16) {
      const Registers a = load_matrices<true>(block, a_row + k * tile_pitch);
      PMX_UNROLL
      for (int j = 0; j < tile_parts; j += 2) {
        const Registers b = load_matrices<true>(block, b_row + k * tile_pitch + j * 8);
        multiply_halves<T>(block, s[j], a.at, b.at[0], b.at[1]);
        multiply_halves<T>(block, s[j + 1], a.at, b.at[2], b.at[3]);
      }
    }
  }

  template <class Block>
  static PMX_HD void gradients(Block& block, const Part<float> (&g)[tile_parts], const float*, const T* other,
                               int depth, Part<float> (&out)[channels / 8]) {
    const int lane = block.thread() % warp_size, i = lane / 8, r = lane % 8;
    const T* b_row = other + (r + i / 2 * 8) * tile_pitch + i % 2 * 8;
    PMX_UNROLL
    for (int m = 0; m < tile_parts; m += 2) {
      const uint32_t a[4] = {pack_pair<T>(g[m].at[0], g[m].at[1]), pack_pair<T>(g[m].at[2], g[m].at[3]),
                             pack_pair<T>(g[m + 1].at[0], g[m + 1].at[1]),
                             pack_pair<T>(g[m + 1].at[2], g[m + 1].at[3])};
      PMX_UNROLL
      for (int j = 0; j < channels / 8; j += 2) {
        if (j * 8 < depth) {
          const Registers b = load_matrices<false>(block, b_row + j * 8 * tile_pitch + m * 8);
          multiply_halves<T>(block, out[j], a, b.at[0], b.at[1]);
          multiply_halves<T>(block, out[j + 1], a, b.at[2], b.at[3]);
        }
      }
    }
  }
};

PMX_HD uint32_t to_tf32(float value) {
#if defined(__CUDA_ARCH__)
  uint32_t rounded;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(rounded) : "f"(value));
  return rounded;
#else
  const uint32_t bits = detail::float_to_bits(value);
  return (bits & 0x7fffffffu) >= 0x7f800000u ? bits : (bits + 0x1000u) & ~0x1fffu;
#endif
}

// float32 on tensor cores, its factors rounded to TF32.
struct Tf32Math {
  using Element = float;
  static constexpr int depth_step = 8;
  static constexpr int channels = 128;
  static constexpr bool exact = false;
  static constexpr bool stages = false;

  template <class Block>
  static PMX_HD void scores(Block& block, const float* own, const float* other, int depth,
                            Part<float> (&s)[tile_parts]) {
    const int lane = block.thread() % warp_size, g = lane / 4, t = lane % 4;
    PMX_UNROLL_BY(1)
    for (int k = 0; k < depth; k += 8) {
      const float* near = own + (k + t) * tile_pitch + g;
      const float* far = near + 4 * tile_pitch;
      const uint32_t a[4] = {to_tf32(near[0]), to_tf32(near[8]), to_tf32(far[0]), to_tf32(far[8])};
      const float* b = other + (k + t) * tile_pitch + g;
      PMX_UNROLL
      for (int j = 0; j < tile_parts; ++j) {
        multiply_tf32(block, s[j], a, to_tf32(b[j * 8]), to_tf32(b[j * 8 + 4 * tile_pitch]));
      }
    }
  }

  // The order of the positions that a product sums over is free: position 2 t of a part is taken as the instruction's
  // t, position 2 t + 1 as its t + 4, so that the scores are factors without leaving their lanes.
  template <class Block>
  static PMX_HD void gradients(Block& block, const Part<float> (&s)[tile_parts], const float*, const float* other,
                               int depth, Part<float> (&out)[channels / 8]) {
    const int lane = block.thread() % warp_size, g = lane / 4, t = lane % 4;
    PMX_UNROLL
    for (int m = 0; m < tile_parts; ++m) {
      const uint32_t a[4] = {to_tf32(s[m].at[0]), to_tf32(s[m].at[2]), to_tf32(s[m].at[1]), to_tf32(s[m].at[3])};
      PMX_UNROLL
      for (int j = 0; j < channels / 8; ++j) {
        if (j * 8 < depth) {
          const float* b = other + (j * 8 + g) * tile_pitch + m * 8 + 2 * t;
          multiply_tf32(block, out[j], a, to_tf32(b[0]), to_tf32(b[1]));
        }
      }
    }
  }
};

// Multiply-adds in full precision. The scores' gradients pass through shared memory, `stage`, [tile_size] for each row.
template <class T>
struct PlainMath {
  using Element = T;
  static constexpr int depth_step = 8;
  static constexpr int channels = sizeof(T) == 8 ? 32 : 64;
  static constexpr bool exact = true;
  static constexpr bool stages = true;

  template <class Block>
  static PMX_HD void scores(Block& block, const T* own, const T* other, int depth, Part<T> (&s)[tile_parts]) {
    const int lane = block.thread() % warp_size, g = lane / 4, t = lane % 4;
    PMX_UNROLL_BY(2)
    for (int k = 0; k < depth; ++k) {
      const T low = own[k * tile_pitch + g], high = own[k * tile_pitch + g + 8];
      PMX_UNROLL
      for (int j = 0; j < tile_parts; ++j) add(s[j], low, high, other + k * tile_pitch + j * 8 + 2 * t, 1);
    }
  }

  template <class Block>
  static PMX_HD void gradients(Block& block, const Part<T> (&)[tile_parts], const T* stage, const T* other, int depth,
                               Part<T> (&out)[channels / 8]) {
    const int lane = block.thread() % warp_size, g = lane / 4, t = lane % 4;
    PMX_UNROLL_BY(2)
    for (int m = 0; m < tile_size; ++m) {
      const T low = stage[g * tile_pitch + m], high = stage[(g + 8) * tile_pitch + m];
      PMX_UNROLL
      for (int j = 0; j < channels / 8; ++j) {
        if (j * 8 < depth) add(out[j], low, high, other + (j * 8 + 2 * t) * tile_pitch + m, tile_pitch);
      }
    }
  }

 private:
  static PMX_HD void add(Part<T>& part, T low, T high, const T* b, int step) {
    part.at[0] += low * b[0];
    part.at[1] += low * b[step];
    part.at[2] += high * b[0];
    part.at[3] += high * b[step];
  }
};

}  // namespace pmx
