// The convolution before the scan, forward and backward: for cpp.cc.

#pragma once

#include "vectors.h"

namespace {

// A depthwise causal convolution and silu, in one or both directions. A task owns a block of channels of
// one example. Kernels have up to TAPS taps, the missing ones zero.
// Operands: x, and per direction kernel [W, E], bias.
template <int TAPS>
struct Taps {
  Vec tap[TAPS], bias, past[TAPS] = {};
  Taps(const float* kernel, const float* shift, int64_t count, int64_t width) {
    for (int i = 0; i < TAPS; ++i)
      tap[i] = i < TAPS - count ? Vec{} : load(kernel + (i - TAPS + count) * width);
    bias = shift ? load(shift) : Vec{};
  }
  // The sum for the next token.
  Vec operator()(Vec x) {
    Vec sum = bias;
#pragma GCC unroll 16
    for (int i = 0; i < TAPS; ++i) {
      past[i] = i < TAPS - 1 ? past[i + 1] : x;
      sum += tap[i] * past[i];
    }
    return sum;
  }
};

// Results: y per direction.
template <int TAPS>
void convolve(ffi::ThreadPool& pool, const Call& call, int64_t directions, bool reverse) {
  const int64_t batch = call.size(0, 0), length = call.size(0, 1), width = call.size(0, 2);
  const int64_t blocks = width / LANES;
  all(pool, batch * blocks, [&](int64_t task) {
    const int64_t e = task % blocks * LANES, from = task / blocks * length * width + e;
    for (int64_t k = 0; k < directions; ++k) {
      const float *x = call.in(0) + from, *bias = call.in(2 + 2 * k);
      float* y = call.out(k) + from;
      Taps<TAPS> taps(call.in(1 + 2 * k) + e, bias ? bias + e : bias, call.size(1 + 2 * k, 0), width);
      const Walk walk{0, length, length, reverse != (k > 0)};
      for (int64_t j = 0; j < length; ++j) {
        const int64_t t = walk[j] * width;
        Vec sum = taps(load(x + t));
        store(y + t, sum * sigmoid(sum));
      }
    }
  });
}

// Operands: also dy, last of each direction. Results: dx, work, and per direction the gradients of
// kernel and bias, [W + 1, E].
template <int TAPS>
void convolve_back(ffi::ThreadPool& pool, const Call& call, int64_t directions, bool reverse) {
  const int64_t batch = call.size(0, 0), length = call.size(0, 1), width = call.size(0, 2);
  const int64_t blocks = width / LANES, count = call.size(1, 0), shared = (count + 1) * width;
  all(pool, batch * blocks, [&](int64_t task) {
    const int64_t b = task / blocks, e = task % blocks * LANES, from = b * length * width + e;
    for (int64_t k = 0; k < directions; ++k) {
      const float *x = call.in(0) + from, *bias = call.in(2 + 3 * k), *dy = call.in(3 + 3 * k) + from;
      float *dx = call.out(0) + from, *own = call.out(1) + (k * batch + b) * shared + e;
      Taps<TAPS> taps(call.in(1 + 3 * k) + e, bias ? bias + e : bias, count, width);
      Vec dtap[TAPS] = {}, dbias = {}, due[TAPS] = {};  // due: to the last tokens, the oldest first
      const Walk walk{0, length, length, reverse != (k > 0)};
      for (int64_t j = 0; j < length + TAPS - 1; ++j) {
        Vec d = {};
        if (j < length) {
          const int64_t t = walk[j] * width;
          Vec sum = taps(load(x + t)), open = sigmoid(sum);
          d = load(dy + t) * open * (1.0f + sum * (1.0f - open));
        }
        dbias += d;
#pragma GCC unroll 16
        for (int i = 0; i < TAPS; ++i) {
          dtap[i] += d * taps.past[i];
          due[i] += d * taps.tap[i];
        }
        if (j >= TAPS - 1) {
          float* to = dx + walk[j - TAPS + 1] * width;
          store(to, k ? load(to) + due[0] : due[0]);
        }
#pragma GCC unroll 16
        for (int i = 0; i < TAPS; ++i) due[i] = i < TAPS - 1 ? due[i + 1] : Vec{};
      }
      for (int i = 0; i < count; ++i) store(own + i * width, dtap[TAPS - count + i]);
      store(own + count * width, dbias);
    }
  });
  std::vector<Sum> sums;
  for (int64_t k = 0; k < directions; ++k)
    sums.push_back({call.out(2 + k), call.out(1) + k * batch * shared, batch, shared, shared});
  all_sums(pool, sums);
}

ffi::Error Convolve(ffi::ThreadPool pool, ffi::RemainingArgs args, ffi::RemainingRets rets, bool reverse) {
  Call call{args, rets};
  auto run = call.size(1, 0) > 4 ? convolve<16> : convolve<4>;
  run(pool, call, (args.size() - 1) / 2, reverse);
  return ffi::Error::Success();
}

ffi::Error ConvolveBack(ffi::ThreadPool pool, ffi::RemainingArgs args, ffi::RemainingRets rets, bool reverse) {
  Call call{args, rets};
  auto run = call.size(1, 0) > 4 ? convolve_back<16> : convolve_back<4>;
  run(pool, call, (args.size() - 1) / 3, reverse);
  return ffi::Error::Success();
}

}  // namespace
