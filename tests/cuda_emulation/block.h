// Runs the threads of one block as fibers of one host thread: a thread runs until it meets a barrier or exchanges
// values with its warp, then another one runs; a warp runs until it waits for the block, then another one.
//
// Threads progress one at a time and as far as they can, so what is a race on a GPU is a definite wrong result here: a
// missing barrier lets a thread read shared memory that its neighbour has not written yet (it holds NaN), or has
// overwritten already.
#pragma once

#include <cstddef>
#include <functional>

namespace emulation {

constexpr unsigned kLanes = 32;
constexpr std::size_t kLargestExchange = 64;  // bytes

// Where the kernel's source calls; all threads that meet must have come from the same place.
struct Place {
  const char* file;
  int line;
};

struct Extent {
  unsigned x = 1, y = 1, z = 1;
};

// What a launch finds on the device; tests change it (emulated.py has the same fields).
struct Device {
  int processors = 3;
  int capability = 9;  // major
  int shared_per_block = 227 * 1024;
  int shared_per_processor = 228 * 1024;
  unsigned order = 0;  // of warps and lanes: 0 ascending, 1 descending, else shuffled with it as the seed
  unsigned edge = 0;   // blocks that run at either end of each of a grid's dimensions, for large grids; 0: all
};
Device& device();

// Indices of the running thread.
extern Extent thread_index, block_index, block_extent, grid_extent;

// Runs `kernel` for every thread of every block. Returns false, with a message in `failure()`, where threads of a block
// wait for each other for ever or at different places, or write past the dynamic shared memory.
bool run(Extent grid, Extent block, std::size_t shared_bytes, const std::function<void()>& kernel);
const char* failure();

void wait_for_block(Place place);
unsigned char* dynamic_shared();

// Every lane of a warp gives `size` bytes, and gets those of all 32 lanes, kLargestExchange apart.
const unsigned char* exchange(const void* mine, std::size_t size, Place place);

}  // namespace emulation
