// Runs kernel bodies (templates over a Block, csrc/cuda/block.cuh) on the host: a grid of blocks whose threads are
// fibers, with barriers, warp exchanges and shared memory.
//
//     emulator::launch({blocks, threads, shared bytes}, {emulator::output("states", states)},
//                      [&](emulator::Block& block) { some_body(block, ...); });
//
// What a GPU would punish by a hang or by a wrong number now and then is an exception here:
//   - a barrier or an exchange that some threads reach and others do not,
//   - lanes of a warp that meet in different exchanges,
//   - access outside the shared memory that was asked for (guard pages, and marks in the odd bytes beside it),
//   - a result that depends on the order in which threads or blocks run: every launch runs in several orders, and the
//     outputs must agree bit for bit. A missing barrier shows up this way, the more so because shared memory is filled
//     with NaN before each block.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace pmx::emulator {

constexpr int lanes = 32;

struct Launch {
  int64_t blocks;
  int threads;
  size_t shared = 0;
};

// Memory that a launch writes: set back before each run, and compared after it.
struct Output {
  std::string name;
  void* data;
  size_t bytes;
};
template <class T>
Output output(std::string name, std::vector<T>& values) {
  return {std::move(name), values.data(), values.size() * sizeof(T)};
}

// How one lane takes part in an exchange of its warp. `complete` computes the results of all lanes at once, when the
// last of them has come.
struct Exchange {
  using Lanes = std::array<const Exchange*, lanes>;
  const void* deposit;
  void* result;
  const void* compute;
  void (*complete)(const Lanes& of_warp);
  int tag;  // must agree over the lanes
};

class Scheduler;

// A thread's view of its block.
class Block {
 public:
  Block(Scheduler& scheduler, int thread) : scheduler_(&scheduler), thread_(thread) {}

  int thread() const { return thread_; }
  int threads() const;
  int64_t index() const;
  void sync() const;
  unsigned char* shared() const;

  template <class V>
  V shuffle_xor(V value, int mask) const {
    return collective<V>(
        value,
        [mask](const auto& values, const auto& results) {
          for (int lane = 0; lane < lanes; ++lane) *results[lane] = *values[lane ^ mask];
        },
        mask);
  }

  // Anything that a warp does together. Each lane hands in a `deposit`; when all lanes have, `compute(deposits,
  // results)` runs once, with an array of pointers to the lanes' deposits and one to where their results go. Matrix
  // instructions are built on this. Lanes whose `tag` or types differ are not in the same exchange: an error.
  template <class Result, class Deposit, class Compute>
  Result collective(const Deposit& deposit, const Compute& compute, int tag = 0) const {
    static_assert(std::is_trivially_copyable_v<Deposit> && std::is_trivially_copyable_v<Result>);
    Result result{};
    const Exchange mine = {&deposit, &result, &compute,
                           [](const Exchange::Lanes& of_warp) {
                             std::array<const Deposit*, lanes> deposits;
                             std::array<Result*, lanes> results;
                             for (int lane = 0; lane < lanes; ++lane) {
                               deposits[lane] = static_cast<const Deposit*>(of_warp[lane]->deposit);
                               results[lane] = static_cast<Result*>(of_warp[lane]->result);
                             }
                             (*static_cast<const Compute*>(of_warp[0]->compute))(deposits, results);
                           },
                           tag};
    meet(mine);
    return result;
  }

 private:
  void meet(const Exchange& exchange) const;

  Scheduler* scheduler_;
  int thread_;
};

using Body = std::function<void(Block&)>;

// Runs the grid in every order. Throws std::runtime_error on misuse, naming the block and the threads.
void launch(const Launch& shape, const std::vector<Output>& outputs, const Body& body);

}  // namespace pmx::emulator
