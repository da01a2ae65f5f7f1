// The emulator itself: bodies that are right run, and each kind of mistake is found.
#include "check.h"
#include "cuda/block.cuh"
#include "emulator.h"

using namespace pmx;

namespace {

std::string error_of(const emulator::Launch& shape, const std::vector<emulator::Output>& outputs,
                     const emulator::Body& body) {
  try {
    emulator::launch(shape, outputs, body);
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return "";
}

bool contains(const std::string& text, const char* part) {
  if (text.find(part) != std::string::npos) return true;
  std::printf("the message was: \"%s\"\n", text.c_str());
  return false;
}

struct Sum {
  float value;
  void merge(const Sum& other) { value += other.value; }
};

}  // namespace

TEST(positions_cover_the_grid) {
  std::vector<int> seen(3 * 96, 0);
  emulator::launch({3, 96}, {emulator::output("seen", seen)}, [&](emulator::Block& block) {
    seen[block.index() * block.threads() + block.thread()] += 1 + block.thread();
  });
  for (int i = 0; i < 3 * 96; ++i) CHECK(seen[i] == 1 + i % 96);
}

TEST(shuffles_exchange_lanes) {
  std::vector<double> got(64);
  emulator::launch({1, 64}, {emulator::output("got", got)},
                   [&](emulator::Block& block) { got[block.thread()] = block.shuffle_xor(block.thread() * 1.5, 5); });
  for (int i = 0; i < 64; ++i) CHECK(got[i] == (i ^ 5) * 1.5);
}

TEST(groups_of_every_size_combine) {
  std::vector<float> got(256);
  const auto sums = [&](auto group) {
    emulator::launch({1, 256, 8 * sizeof(Sum)}, {emulator::output("got", got)}, [&](emulator::Block& block) {
      Sum sum = {static_cast<float>(block.thread())};
      for (int mask = (group() < warp_size ? group() : warp_size) / 2; mask > 0; mask /= 2) {
        sum.value += block.shuffle_xor(sum.value, mask);
      }
      combine_warps<group()>(block, sum);
      got[block.thread()] = sum.value;
    });
    for (int t = 0; t < 256; ++t) {
      const int first = t / group() * group();
      CHECK(got[t] == group() * first + group() * (group() - 1) / 2);
    }
  };
  sums(std::integral_constant<int, 1>{});
  sums(std::integral_constant<int, 8>{});
  sums(std::integral_constant<int, 32>{});
  sums(std::integral_constant<int, 256>{});
}

// A matrix product by a warp, as a matrix instruction does it: each lane holds a part of both factors and of the
// result.
TEST(collectives_carry_matrix_products) {
  struct Fragment {
    float a[4], b[2];
  };
  struct Tile {
    float at[4];
  };
  const auto a_of = [](int i, int k) { return 0.25f * i - k; };           // 16 x 8
  const auto b_of = [](int k, int j) { return 1.f + k * j - 0.5f * j; };  // 8 x 8
  std::vector<float> product(16 * 8);
  emulator::launch({1, 32}, {emulator::output("product", product)}, [&](emulator::Block& block) {
    const int lane = block.thread();
    Fragment mine;
    for (int i = 0; i < 4; ++i) mine.a[i] = a_of((lane * 4 + i) / 8, (lane * 4 + i) % 8);
    for (int i = 0; i < 2; ++i) mine.b[i] = b_of((lane * 2 + i) / 8, (lane * 2 + i) % 8);
    const Tile tile = block.collective<Tile>(mine, [](const auto& parts, const auto& results) {
      for (int i = 0; i < 128; ++i) {
        float sum = 0;
        for (int k = 0; k < 8; ++k) {
          const int a = i / 8 * 8 + k, b = k * 8 + i % 8;
          sum += parts[a / 4]->a[a % 4] * parts[b / 2]->b[b % 2];
        }
        results[i / 4]->at[i % 4] = sum;
      }
    });
    for (int i = 0; i < 4; ++i) product[lane * 4 + i] = tile.at[i];
  });
  for (int i = 0; i < 16; ++i) {
    for (int j = 0; j < 8; ++j) {
      float expected = 0;
      for (int k = 0; k < 8; ++k) expected += a_of(i, k) * b_of(k, j);
      CHECK(product[i * 8 + j] == expected);
    }
  }
}

TEST(a_barrier_that_some_threads_miss_is_found) {
  const std::string error = error_of({2, 64}, {}, [](emulator::Block& block) {
    if (block.index() == 1 && block.thread() >= 40) return;
    block.sync();
  });
  CHECK(contains(error, "block 1 of 2") && contains(error, "40 at a barrier (thread 0 first)") &&
        contains(error, "24 finished (thread 40 first)"));
}

TEST(a_barrier_against_an_exchange_is_found) {
  const std::string error = error_of({1, 64}, {}, [](emulator::Block& block) {
    if (block.thread() < 32) {
      block.sync();
    } else {
      block.shuffle_xor(1, 1);
      if (block.thread() == 63) block.sync();
      block.shuffle_xor(1, 1);
      block.sync();
    }
  });
  CHECK(contains(error, "diverge") && contains(error, "33 at a barrier") && contains(error, "31 in a warp exchange"));
}

TEST(lanes_in_different_exchanges_are_found) {
  const auto mask = [](emulator::Block& block) { block.shuffle_xor(1.f, block.thread() % 2 ? 1 : 2); };
  CHECK(contains(error_of({1, 32}, {}, mask), "different exchanges"));
  const auto type = [](emulator::Block& block) {
    if (block.thread() < 16) {
      block.shuffle_xor(1.f, 1);
    } else {
      block.shuffle_xor(1.0, 1);
    }
  };
  CHECK(contains(error_of({1, 32}, {}, type), "different exchanges"));
  CHECK(contains(error_of({1, 48}, {}, [](emulator::Block& block) { block.shuffle_xor(1, 1); }), "not full"));
}

TEST(leaving_the_shared_memory_is_found) {
  const auto writes = [](size_t shared, int64_t at) {
    return error_of({1, 32, shared}, {}, [=](emulator::Block& block) {
      if (block.thread() == 3) static_cast<volatile unsigned char*>(block.shared())[at] = 1;
    });
  };
  CHECK(writes(64, 0).empty() && writes(64, 63).empty());
  for (int64_t at : {64, 80, 4000}) CHECK(contains(writes(64, at), "left the shared memory of 64 bytes"));
  CHECK(contains(writes(64, -1), "left the shared memory"));     // into the marked bytes before it
  CHECK(contains(writes(64, -4090), "left the shared memory"));  // into the page before those
  CHECK(contains(writes(60, 61), "left the shared memory of 60 bytes"));
  CHECK(contains(writes(0, 0), "left the shared memory of 0 bytes"));
  std::vector<float> got(1);
  const std::string read = error_of({1, 32, 64}, {emulator::output("got", got)}, [&](emulator::Block& block) {
    if (block.thread() == 0) got[0] = reinterpret_cast<volatile float*>(block.shared())[16];
  });
  CHECK(contains(read, "left the shared memory"));
}

TEST(shared_memory_starts_as_nan_in_every_block) {
  std::vector<float> first(2);
  emulator::launch({2, 32, 128}, {emulator::output("first", first)}, [&](emulator::Block& block) {
    float* shared = reinterpret_cast<float*>(block.shared());
    if (block.thread() == 0) first[block.index()] = shared[7];
    block.sync();
    shared[block.thread()] = 1.f;
  });
  CHECK(std::isnan(first[0]) && std::isnan(first[1]));
}

TEST(a_missing_barrier_is_found) {
  // Neighbours across lanes, then across warps: each would pass in one of the orders alone.
  for (int step : {1, 63, 32}) {
    std::vector<float> got(64);
    const auto body = [&](bool with_barrier) {
      return [&, with_barrier](emulator::Block& block) {
        float* shared = reinterpret_cast<float*>(block.shared());
        shared[block.thread()] = static_cast<float>(block.thread());
        if (with_barrier) block.sync();
        got[block.thread()] = shared[(block.thread() + step) % 64];
      };
    };
    const emulator::Launch shape = {1, 64, 64 * sizeof(float)};
    CHECK(contains(error_of(shape, {emulator::output("got", got)}, body(false)), "got depends on the order"));
    CHECK(error_of(shape, {emulator::output("got", got)}, body(true)).empty());
  }
}

TEST(a_second_round_without_a_barrier_is_found) {
  // Slots that are written again while other warps may still read them.
  std::vector<float> got(64);
  const auto body = [&](emulator::Block& block) {
    float* shared = reinterpret_cast<float*>(block.shared());
    for (int round = 0; round < 2; ++round) {
      shared[block.thread()] = static_cast<float>(block.thread() + 100 * round);
      block.sync();
      got[block.thread()] += shared[(block.thread() + 32) % 64];
    }
  };
  CHECK(contains(error_of({1, 64, 256}, {emulator::output("got", got)}, body), "depends on the order"));
}

TEST(blocks_that_depend_on_each_other_are_found) {
  std::vector<int> total(1), got(4);
  const auto body = [&](emulator::Block& block) {
    if (block.thread() == 0) got[block.index()] = ++total[0];
  };
  const std::string error = error_of({4, 32}, {emulator::output("total", total), emulator::output("got", got)}, body);
  CHECK(contains(error, "got depends on the order"));
}

TEST(an_exception_in_a_body_is_reported_and_the_emulator_goes_on) {
  const auto body = [](emulator::Block& block) {
    block.sync();
    if (block.thread() == 9) throw std::runtime_error("no");
    block.sync();
  };
  CHECK(contains(error_of({1, 32}, {}, body), "the body threw: no"));
  CHECK(error_of({1, 32}, {}, [](emulator::Block& block) { block.sync(); }).empty());
}

TEST_MAIN
