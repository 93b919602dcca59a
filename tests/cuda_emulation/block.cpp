#include "block.h"

#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <vector>

namespace emulation {

Extent thread_index, block_index, block_extent, grid_extent;

namespace {

constexpr std::size_t kStack = 256 * 1024;
constexpr std::size_t kGuard = 4096;     // bytes before and after the dynamic shared memory
constexpr unsigned char kPoison = 0xff;  // floating-point numbers of these bytes are NaN

enum class State { ready, at_block, at_warp, done };

struct Thread {
  State state;
  Place place;
  Extent index;
  unsigned exchanges;
  bool started;
  ucontext_t entry;
  jmp_buf resume;
  std::unique_ptr<unsigned char[]> stack;
};

struct alignas(16) WarpSlots {
  // Two sets take turns: a lane writes to one again only after all lanes have read from it and met in the other.
  unsigned char bytes[2][kLanes * kLargestExchange];
};

std::vector<Thread> threads;
std::vector<WarpSlots> slots;
std::vector<unsigned char> shared;
Thread* running = nullptr;
jmp_buf scheduler;
const std::function<void()>* body = nullptr;
std::string message;

// ucontext starts a fiber on its own stack; afterwards setjmp and longjmp switch without a system call.
void suspend(State state, Place place) {
  running->state = state;
  running->place = place;
  if (_setjmp(running->resume) == 0) _longjmp(scheduler, 1);
}

void fiber() {
  for (;;) {
    (*body)();
    suspend(State::done, {"", 0});
  }
}

void resume(Thread& thread) {
  running = &thread;
  thread_index = thread.index;
  if (_setjmp(scheduler) != 0) return;
  if (thread.started) _longjmp(thread.resume, 1);
  thread.started = true;
  setcontext(&thread.entry);
}

std::string describe(Place place) { return std::string(place.file) + ":" + std::to_string(place.line); }

// Whether all of [begin, end) wait in `state`; they are let go. At different places it is a failure.
bool release(std::size_t begin, std::size_t end, State state) {
  for (std::size_t i = begin; i < end; ++i) {
    if (threads[i].state != state) return false;
  }
  for (std::size_t i = begin; i < end; ++i) {
    const Place &a = threads[begin].place, &b = threads[i].place;
    if (a.line != b.line || std::strcmp(a.file, b.file) != 0) {
      message = "threads " + std::to_string(begin) + " and " + std::to_string(i) +
                " wait at different places: " + describe(a) + " and " + describe(b);
      return false;
    }
    threads[i].state = State::ready;
  }
  return true;
}

std::string standstill() {
  std::string text = "threads wait for each other for ever:";
  for (std::size_t i = 0; i < threads.size(); ++i) {
    const Thread& thread = threads[i];
    if (i > 0 && thread.state == threads[i - 1].state && thread.place.line == threads[i - 1].place.line) continue;
    text += " from " + std::to_string(i) + " on ";
    if (thread.state == State::done) text += "they have returned;";
    if (thread.state == State::at_warp) text += "for the warp at " + describe(thread.place) + ";";
    if (thread.state == State::at_block) text += "for the block at " + describe(thread.place) + ";";
  }
  return text;
}

// Runs a warp until all of its threads wait for the block or have returned. Returns whether any of them ran.
bool run_warp(std::size_t begin, const std::vector<std::size_t>& lanes) {
  bool progress = false;
  do {
    for (const std::size_t lane : lanes) {
      if (threads[begin + lane].state != State::ready) continue;
      resume(threads[begin + lane]);
      progress = true;
    }
  } while (release(begin, begin + kLanes, State::at_warp));
  return progress;
}

bool run_block(const std::vector<std::size_t>& warps, const std::vector<std::size_t>& lanes) {
  std::fill(shared.begin(), shared.end(), kPoison);
  for (Thread& thread : threads) {
    thread.state = State::ready;
    thread.exchanges = 0;
  }
  const auto is_done = [](const Thread& thread) { return thread.state == State::done; };
  while (!std::all_of(threads.begin(), threads.end(), is_done)) {
    bool progress = false;
    for (const std::size_t warp : warps) progress |= run_warp(warp * kLanes, lanes);
    progress |= release(0, threads.size(), State::at_block);
    if (!progress && message.empty()) message = standstill();
    if (!message.empty()) return false;
  }
  const auto touched = [](unsigned char byte) { return byte != kPoison; };
  if (std::any_of(shared.begin(), shared.begin() + kGuard, touched) ||
      std::any_of(shared.end() - kGuard, shared.end(), touched)) {
    message = "a block wrote outside its " + std::to_string(shared.size() - 2 * kGuard) +
              " bytes of dynamic shared memory";
    return false;
  }
  return true;
}

void prepare_threads(Extent block) {
  threads.resize(block.x * block.y * block.z);
  slots.resize(threads.size() / kLanes);
  for (std::size_t i = 0; i < threads.size(); ++i) {
    Thread& thread = threads[i];
    const auto at = static_cast<unsigned>(i);
    thread.index = {at % block.x, at / block.x % block.y, at / (block.x * block.y)};
    thread.started = false;
    if (thread.stack == nullptr) thread.stack.reset(new unsigned char[kStack]);
    getcontext(&thread.entry);
    thread.entry.uc_stack.ss_sp = thread.stack.get();
    thread.entry.uc_stack.ss_size = kStack;
    thread.entry.uc_link = nullptr;
    makecontext(&thread.entry, fiber, 0);
  }
}

std::vector<std::size_t> in_order(std::size_t count) {
  std::vector<std::size_t> order(count);
  std::iota(order.begin(), order.end(), std::size_t{0});
  if (device().order == 1) std::reverse(order.begin(), order.end());
  if (device().order > 1) std::shuffle(order.begin(), order.end(), std::mt19937(device().order));
  return order;
}

// The next block to run along a dimension of the grid: those between its two ends are left out where `edge` says so.
unsigned after(unsigned index, unsigned count) {
  const unsigned edge = device().edge;
  return edge != 0 && index + 1 == edge && count > 2 * edge ? count - edge : index + 1;
}

}  // namespace

Device& device() {
  static Device device;
  return device;
}

const char* failure() { return message.c_str(); }

unsigned char* dynamic_shared() { return shared.data() + kGuard; }

void wait_for_block(Place place) { suspend(State::at_block, place); }

const unsigned char* exchange(const void* mine, std::size_t size, Place place) {
  const std::size_t thread = running - threads.data();
  unsigned char* set = slots[thread / kLanes].bytes[running->exchanges++ % 2];
  std::memcpy(set + thread % kLanes * kLargestExchange, mine, size);
  suspend(State::at_warp, place);
  return set;
}

bool run(Extent grid, Extent block, std::size_t shared_bytes, const std::function<void()>& kernel) {
  message.clear();
  if (block.x * block.y * block.z % kLanes != 0 || block.x * block.y * block.z == 0) {
    message = "blocks must consist of whole warps";
    return false;
  }
  body = &kernel;
  block_extent = block;
  grid_extent = grid;
  shared.resize(shared_bytes + 2 * kGuard);
  prepare_threads(block);
  const std::vector<std::size_t> warps = in_order(threads.size() / kLanes), lanes = in_order(kLanes);
  for (block_index.z = 0; block_index.z < grid.z; block_index.z = after(block_index.z, grid.z)) {
    for (block_index.y = 0; block_index.y < grid.y; block_index.y = after(block_index.y, grid.y)) {
      for (block_index.x = 0; block_index.x < grid.x; block_index.x = after(block_index.x, grid.x)) {
        if (!run_block(warps, lanes)) return false;
      }
    }
  }
  return true;
}

}  // namespace emulation
