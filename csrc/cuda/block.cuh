// How a kernel body sees its thread block. Bodies are templates over a Block, so that the same code runs on the device
// (DeviceBlock) and, in the C++ tests, on the host (tests/cpp/emulator.h). A Block provides
//
//     thread()  threads()  index()      position, as threadIdx.x, blockDim.x, blockIdx.x
//     sync()                            barrier over the block
//     shuffle_xor(value, mask)          exchange within a warp; every lane of the warp must take part
//     shared()                          the block's shared memory, 16-byte aligned
#pragma once

#include <cstdint>
#include <type_traits>

#include "../core/macros.h"

namespace pmx {

constexpr int warp_size = 32;
// Threads of the blocks whose groups of threads share rows.
constexpr int block_threads = 256;

#if defined(__CUDACC__)
struct DeviceBlock {
  __device__ __forceinline__ int thread() const { return static_cast<int>(threadIdx.x); }
  __device__ __forceinline__ int threads() const { return static_cast<int>(blockDim.x); }
  __device__ __forceinline__ int64_t index() const { return static_cast<int64_t>(blockIdx.x); }
  __device__ __forceinline__ void sync() const { __syncthreads(); }
  template <class V>
  __device__ __forceinline__ V shuffle_xor(V value, int mask) const {
    return __shfl_xor_sync(0xffffffffu, value, mask);
  }
  __device__ __forceinline__ unsigned char* shared() const {
    extern __shared__ __align__(16) unsigned char memory[];
    return memory;
  }
};
#endif

// Computes a number here, once: the compiler would rather compute it again wherever it is used.
template <class Value>
PMX_HD void compute_once([[maybe_unused]] Value& value) {
#if defined(__CUDA_ARCH__)
  if constexpr (sizeof(Value) == 8) {
    asm volatile("" : "+l"(value));
  } else {
    asm volatile("" : "+r"(value));
  }
#endif
}

// Combines the values of the warps of a group, each of which has its own in every lane. `Value` needs
// merge(other, arguments...).
template <int group, class Block, class Value, class... Arguments>
PMX_HD void combine_warps([[maybe_unused]] Block& block, [[maybe_unused]] Value& value,
                          [[maybe_unused]] Arguments... arguments) {
  if constexpr (group > warp_size) {
    Value* slots = reinterpret_cast<Value*>(block.shared());
    const int warps = block.threads() / warp_size;
    if (block.thread() % warp_size == 0) slots[block.thread() / warp_size] = value;
    block.sync();
    value = slots[0];
    for (int w = 1; w < warps; ++w) value.merge(slots[w], arguments...);
    block.sync();  // the slots may be written again
  }
}

// Visits the elements of a row that belong to this lane, `packs` packs at a time: body(index of the first). A pack
// begins group * pack elements behind the one before it, so the last ones may lie behind the row.
template <int group, int pack, int packs = 1, class Block, class Body>
PMX_HD void over_lane(const Block& block, int64_t classes, Body&& body) {
  // 32 bits hold the positions in a row that a warp shares (launch_plan.h).
  using Index = std::conditional_t<(group > warp_size), int64_t, int>;
  const auto lane = static_cast<Index>(static_cast<unsigned>(block.thread()) % group);
  for (Index j = lane * pack; j < static_cast<Index>(classes); j += group * pack * packs) body(j);
}

template <int group, class Block>
PMX_HD int64_t row_of(const Block& block) {
  return block.index() * (block_threads / group) + static_cast<unsigned>(block.thread()) / group;
}

}  // namespace pmx
