#include "emulator.h"

#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include <algorithm>
#include <csetjmp>
#include <csignal>
#include <cstring>
#include <memory>
#include <random>
#include <stdexcept>

#if defined(__SANITIZE_ADDRESS__)
#define PMX_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define PMX_ASAN 1
#endif
#endif
#if defined(PMX_ASAN)
#include <sanitizer/common_interface_defs.h>
#endif

namespace pmx::emulator {
namespace {

constexpr unsigned char poison = 0xff;  // a NaN in every floating-point type
constexpr size_t stack_bytes = 256 * 1024;

size_t page() {
  static const size_t bytes = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  return bytes;
}

// Memory between two pages that nobody may touch; `end` lies at the second of them.
class Guarded {
 public:
  explicit Guarded(size_t bytes) : inner_((bytes + page() - 1) / page() * page()) {
    void* all = mmap(nullptr, inner_ + 2 * page(), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (all == MAP_FAILED) throw std::runtime_error("out of memory for the emulator");
    begin_ = static_cast<unsigned char*>(all) + page();
    if (inner_ > 0) mprotect(begin_, inner_, PROT_READ | PROT_WRITE);
  }
  ~Guarded() { munmap(begin_ - page(), inner_ + 2 * page()); }
  Guarded(const Guarded&) = delete;

  unsigned char* begin() const { return begin_; }
  unsigned char* end() const { return begin_ + inner_; }
  bool guards(const void* address) const {
    const auto* at = static_cast<const unsigned char*>(address);
    return (at >= begin_ - page() && at < begin_) || (at >= end() && at < end() + page());
  }

 private:
  size_t inner_;
  unsigned char* begin_;
};

enum class State { ready, at_barrier, in_exchange, finished };
enum class Order { forward, backward, shuffled };
constexpr Order orders[] = {Order::forward, Order::backward, Order::shuffled};

const char* name(Order order) {
  return order == Order::forward ? "forward" : order == Order::backward ? "backward" : "shuffled";
}

struct Fiber {
  Guarded stack{stack_bytes};
  ucontext_t start;
  jmp_buf resume_point;
  bool started = false;
  void* fake_stack = nullptr;  // of the address sanitizer
  State state = State::ready;
  const Exchange* exchange = nullptr;
};

}  // namespace

// Fibers are made once and loop over the blocks. They begin through ucontext and switch by _longjmp, because
// swapcontext calls the kernel each time for the signal mask.
class Scheduler {
 public:
  static Scheduler& instance() {
    static Scheduler scheduler;
    return scheduler;
  }

  int threads() const { return shape_.threads; }
  int64_t index() const { return index_; }
  unsigned char* shared() const { return shared_; }

  void wait_at_barrier() { suspend(State::at_barrier); }
  void meet(const Exchange& exchange) {
    current_->exchange = &exchange;
    suspend(State::in_exchange);
  }

  void run_grid(const Launch& shape, const Body& body, Order order) {
    shape_ = shape;
    body_ = &body;
    order_ = order;
    random_.seed(7);
    const size_t rounded = (shape.shared + 15) / 16 * 16;
    if (memory_ == nullptr || shape.shared != memory_for_) memory_ = std::make_unique<Guarded>(rounded);
    memory_for_ = shape.shared;
    shared_ = memory_->end() - rounded;
    while (fibers_.size() < static_cast<size_t>(shape.threads)) fibers_.push_back(std::make_unique<Fiber>());
    std::vector<int64_t> blocks(static_cast<size_t>(shape.blocks));
    for (int64_t b = 0; b < shape.blocks; ++b) blocks[b] = order == Order::backward ? shape.blocks - 1 - b : b;
    if (order == Order::shuffled) std::shuffle(blocks.begin(), blocks.end(), random_);
    struct sigaction ours = {}, before = {};
    ours.sa_sigaction = on_fault;
    ours.sa_flags = SA_SIGINFO | SA_NODEFER;
    sigaction(SIGSEGV, &ours, &before);
    previous_ = before;
    try {
      for (int64_t block : blocks) run_block(block);
    } catch (...) {
      for (auto& fiber : fibers_) fiber->started = false;  // left in the middle of a body: begin anew next time
      sigaction(SIGSEGV, &before, nullptr);
      throw;
    }
    sigaction(SIGSEGV, &before, nullptr);
  }

 private:
  void run_block(int64_t index) {
    index_ = index;
    std::memset(memory_->begin(), poison, memory_->end() - memory_->begin());
    const int count = shape_.threads, warps = (count + lanes - 1) / lanes;
    for (int t = 0; t < count; ++t) fibers_[t]->state = State::ready;
    std::vector<int> turn(warps);
    for (int w = 0; w < warps; ++w) turn[w] = order_ == Order::backward ? warps - 1 - w : w;
    while (true) {
      bool ran = false;
      if (order_ == Order::shuffled) {
        // One step of each warp at a time, in any order.
        std::shuffle(turn.begin(), turn.end(), random_);
        for (int warp : turn) ran |= step(warp);
      } else {
        // Each warp as far as it comes by itself: the greatest distance between warps that is possible.
        for (int warp : turn) {
          while (step(warp)) ran = true;
        }
      }
      if (ran) continue;
      int at_barrier = 0, finished = 0;
      for (int t = 0; t < count; ++t) {
        at_barrier += fibers_[t]->state == State::at_barrier;
        finished += fibers_[t]->state == State::finished;
      }
      if (finished == count) break;
      if (at_barrier != count) throw std::runtime_error(where() + "threads diverge: " + census());
      for (int t = 0; t < count; ++t) fibers_[t]->state = State::ready;
    }
    for (const unsigned char* at = memory_->begin(); at < memory_->end(); ++at) {
      const bool outside = at < shared_ || at >= shared_ + shape_.shared;
      if (outside && *at != poison) throw std::runtime_error(where() + beyond());
    }
  }

  // Runs the ready lanes of a warp until each waits, then completes their exchange. False when none was ready.
  bool step(int warp) {
    const int first = warp * lanes, last = std::min(first + lanes, shape_.threads);
    std::array<int, lanes> turn;
    int ready = 0;
    for (int t = first; t < last; ++t) {
      if (fibers_[t]->state == State::ready) turn[ready++] = t;
    }
    if (ready == 0) return false;
    if (order_ == Order::backward) std::reverse(turn.begin(), turn.begin() + ready);
    if (order_ == Order::shuffled) std::shuffle(turn.begin(), turn.begin() + ready, random_);
    for (int i = 0; i < ready; ++i) resume(turn[i]);
    Exchange::Lanes of_warp;
    for (int t = first; t < last; ++t) {
      if (fibers_[t]->state != State::in_exchange) return true;
      of_warp[t - first] = fibers_[t]->exchange;
    }
    if (last - first < lanes) throw std::runtime_error(where() + "an exchange in a warp that is not full");
    for (const Exchange* lane : of_warp) {
      if (lane->complete != of_warp[0]->complete || lane->tag != of_warp[0]->tag) {
        throw std::runtime_error(where() + "lanes of warp " + std::to_string(warp) + " meet in different exchanges");
      }
    }
    of_warp[0]->complete(of_warp);
    for (int t = first; t < last; ++t) fibers_[t]->state = State::ready;
    return true;
  }

  void resume(int thread) {
    current_ = fibers_[thread].get();
    thread_ = thread;
    switch_to_fiber();
    if (fault_) {
      fault_ = false;
      throw std::runtime_error(where() + beyond());
    }
    if (!error_.empty()) throw std::runtime_error(where() + std::exchange(error_, {}));
  }

  void switch_to_fiber() {
    if (_setjmp(home_) == 0) {
      about_to_switch(&home_fake_stack_, current_->stack.begin(), stack_bytes);
      if (current_->started) _longjmp(current_->resume_point, 1);
      current_->started = true;
      getcontext(&current_->start);
      current_->start.uc_stack.ss_sp = current_->stack.begin();
      current_->start.uc_stack.ss_size = stack_bytes;
      current_->start.uc_link = nullptr;
      makecontext(&current_->start, fiber_main, 0);
      setcontext(&current_->start);
    }
    switched(home_fake_stack_);
  }

  void suspend(State state) {
    current_->state = state;
    if (_setjmp(current_->resume_point) == 0) {
      about_to_switch(&current_->fake_stack, home_stack_, home_stack_bytes_);
      _longjmp(home_, 1);
    }
    switched(current_->fake_stack);
  }

  static void fiber_main() {
    Scheduler& scheduler = instance();
#if defined(PMX_ASAN)
    __sanitizer_finish_switch_fiber(nullptr, &scheduler.home_stack_, &scheduler.home_stack_bytes_);
#endif
    while (true) {
      scheduler.run_body();
      scheduler.suspend(State::finished);
    }
  }

  void run_body() {
    try {
      Block block(*this, thread_);
      (*body_)(block);
    } catch (const std::exception& error) {
      error_ = std::string("the body threw: ") + error.what();
    }
  }

  // A touched guard page ends the fiber's run; any other fault is a crash like everywhere.
  static void on_fault(int, siginfo_t* info, void*) {
    Scheduler& scheduler = instance();
    if (scheduler.memory_ == nullptr || !scheduler.memory_->guards(info->si_addr)) {
      sigaction(SIGSEGV, &scheduler.previous_, nullptr);
      return;
    }
    scheduler.fault_ = true;
    scheduler.suspend(State::finished);
  }

#if defined(PMX_ASAN)
  static void about_to_switch(void** save, const void* stack, size_t bytes) {
    __sanitizer_start_switch_fiber(save, stack, bytes);
  }
  static void switched(void* saved) { __sanitizer_finish_switch_fiber(saved, nullptr, nullptr); }
#else
  static void about_to_switch(void**, const void*, size_t) {}
  static void switched(void*) {}
#endif

  std::string where() const {
    return "block " + std::to_string(index_) + " of " + std::to_string(shape_.blocks) + ", " + name(order_) +
           " order: ";
  }
  std::string beyond() const {
    return "thread " + std::to_string(thread_) + " or one before it left the shared memory of " +
           std::to_string(shape_.shared) + " bytes";
  }
  std::string census() const {
    const std::pair<State, const char*> states[] = {
        {State::at_barrier, "at a barrier"}, {State::in_exchange, "in a warp exchange"}, {State::finished, "finished"}};
    std::string text;
    for (const auto& [state, label] : states) {
      int count = 0, first = -1;
      for (int t = 0; t < shape_.threads; ++t) {
        if (fibers_[t]->state != state) continue;
        if (count++ == 0) first = t;
      }
      if (count == 0) continue;
      text += (text.empty() ? "" : ", ") + std::to_string(count) + " " + label + " (thread " + std::to_string(first) +
              (count > 1 ? " first)" : ")");
    }
    return text;
  }

  Launch shape_ = {};
  const Body* body_ = nullptr;
  Order order_ = Order::forward;
  std::mt19937 random_;
  int64_t index_ = 0;
  std::unique_ptr<Guarded> memory_;
  size_t memory_for_ = 0;
  unsigned char* shared_ = nullptr;
  std::vector<std::unique_ptr<Fiber>> fibers_;
  Fiber* current_ = nullptr;
  int thread_ = 0;
  jmp_buf home_;
  void* home_fake_stack_ = nullptr;
  const void* home_stack_ = nullptr;
  size_t home_stack_bytes_ = 0;
  struct sigaction previous_ = {};
  bool fault_ = false;
  std::string error_;
};

int Block::threads() const { return scheduler_->threads(); }
int64_t Block::index() const { return scheduler_->index(); }
void Block::sync() const { scheduler_->wait_at_barrier(); }
unsigned char* Block::shared() const { return scheduler_->shared(); }
void Block::meet(const Exchange& exchange) const { scheduler_->meet(exchange); }

void launch(const Launch& shape, const std::vector<Output>& outputs, const Body& body) {
  const auto read = [](const Output& output) {
    const auto* bytes = static_cast<const unsigned char*>(output.data);
    return std::vector<unsigned char>(bytes, bytes + output.bytes);
  };
  std::vector<std::vector<unsigned char>> before, first;
  for (const Output& output : outputs) before.push_back(read(output));
  for (Order order : orders) {
    for (size_t i = 0; i < outputs.size(); ++i) {
      if (!before[i].empty()) std::memcpy(outputs[i].data, before[i].data(), before[i].size());
    }
    Scheduler::instance().run_grid(shape, body, order);
    for (size_t i = 0; i < outputs.size(); ++i) {
      const std::vector<unsigned char> now = read(outputs[i]);
      if (order == orders[0]) {
        first.push_back(now);
      } else if (now != first[i]) {
        size_t at = 0;
        while (now[at] == first[i][at]) ++at;
        throw std::runtime_error(outputs[i].name + " depends on the order of the threads: byte " + std::to_string(at) +
                                 " differs between forward and " + name(order) + " order");
      }
    }
  }
}

}  // namespace pmx::emulator
