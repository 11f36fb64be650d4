// The selective scan for CPUs, with everything around its recurrence (softplus, mask, skip, gate), and the
// convolution before it, forward and backward: called by XLA through fused_cpp.py.
//
// Vectors of the compiler (GCC, Clang), not of one processor: 16 channels in float32, which become as
// many registers as the machine needs. A task owns a block of channels of one example and walks along
// its tokens with the state [16 states, 16 channels] at hand, once for each direction and each 16 states
// (a sweep). The forward pass stores that state every CHUNK tokens, if `starts` has room; the backward
// pass starts from there, keeps the states and decays of one chunk and returns.
// Arrays: u, delta, z, y [B, N, E]; B, C [B, N, R]; A [R, E]; D, bias [E]; states [B, R, E]; E and R
// multiples of 16. What an operand leaves out is empty.

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>
#include <vector>

#ifdef __AVX512F__
#include <immintrin.h>
#endif

#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace {

constexpr int LANES = TILE, R = TILE;  // channels and states at a time; both and CHUNK: see cpp.py
static_assert(TILE == 16, "sums_of() is written for 16");
constexpr int HALF = R / 2;  // states for which a backward pass has registers
constexpr float LOG2E = 1.44269504f;
constexpr float ROUND = 12582912.0f;  // 1.5 * 2^23: a float of this size has no fraction
typedef float Vec __attribute__((vector_size(4 * LANES)));
typedef int32_t Int __attribute__((vector_size(4 * LANES)));

inline Vec load(const float* p) {
  Vec v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

inline void store(float* p, Vec v) { std::memcpy(p, &v, sizeof v); }

inline void add(float* p, Vec v) { store(p, load(p) + v); }

inline Vec all_of(float x) { return Vec{} + x; }

// 2^(whole + f), f in [-0.5, 0.5], to 2e-7 of itself: a polynomial times a power of 2.
inline Vec power(Vec whole, Vec f) {
  Vec p = f * 1.3333539e-3f + 9.6662454e-3f;
  p = p * f + 5.5505004e-2f;
  p = p * f + 2.4022351e-1f;
  p = p * f + 6.9314712e-1f;
  p = p * f + 1.0f;
#ifdef __AVX512F__  // an instruction, as rounding below
  return (Vec)_mm512_scalef_ps((__m512)p, (__m512)whole);
#else
  return (Vec)((Int)p + ((Int)(whole + ROUND) << 23));
#endif
}

inline Vec nearest(Vec x) {
#ifdef __AVX512F__
  return (Vec)_mm512_roundscale_ps((__m512)x, 8);
#else
  return (x + ROUND) - ROUND;
#endif
}

inline Vec within(Vec x, float low, float high) {  // not a number stays so
  x = x < low ? all_of(low) : x;
  return x > high ? all_of(high) : x;
}

// 2^x. Beyond the normal floats the nearest of them may come: a decay below is as good as 0.
inline Vec exp2(Vec x) {
#ifndef __AVX512F__
  x = within(x, -126.0f, 127.0f);
#endif
  Vec whole = nearest(x);
  return power(whole, x - whole);
}

// e^x for x from -87 to 88, or that of the nearest of these.
inline Vec exp(Vec x) {
  x = within(x, -87.0f, 88.0f);
  Vec whole = nearest(x * LOG2E);
  return power(whole, (x - whole * 0.693359375f + whole * 2.12194440e-4f) * LOG2E);  // log 2 in two parts
}

inline Vec sigmoid(Vec x) { return 1.0f / (1.0f + exp(-x)); }

// log(1 + e^x) and its slope; small values keep their digits: log(1 + e) = 2 atanh(e / (2 + e)).
inline Vec softplus(Vec x, Vec& slope) {
  Vec size = x > 0.0f ? -x : x, e = exp(size);
  Vec s = e / (2.0f + e), q = s * s, whole = 1.0f / (1.0f + e);
  Vec p = q * 0.14089167f + 0.13980301f;
  p = p * q + 0.20012455f;
  p = p * q + 0.33333158f;
  p = p * q + 1.0f;
  slope = x > 0.0f ? whole : e * whole;
  return (x > 0.0f ? x : Vec{}) + 2.0f * s * p;
}

// Lanes of two vectors, those of the second from number 16 on.
#ifdef __clang__
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else  // GCC before 12 does not know that
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, Int{__VA_ARGS__})
#endif

inline Vec joined(Vec a, Vec b) {
  return SHUFFLE(a, b, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27) +
         SHUFFLE(a, b, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31);
}

// Sums of 8 vectors in two parts, which joined() adds. The shuffles are such as processors have: within
// 128 bits first, then of 128 bits as a whole.
inline Vec sums_of(const Vec* v) {
  Vec pair[4], four[2];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    Vec a = v[2 * i], b = v[2 * i + 1];
    pair[i] = SHUFFLE(a, b, 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29) +
              SHUFFLE(a, b, 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31);
  }
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i) {
    Vec a = pair[2 * i], b = pair[2 * i + 1];
    four[i] = SHUFFLE(a, b, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29) +
              SHUFFLE(a, b, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
  }
  return joined(four[0], four[1]);
}

// Runs every task, on this thread and those the pool can spare.
template <class Run>
void all(ffi::ThreadPool& pool, int64_t tasks, Run run) {
  struct Work {
    Run run;
    int64_t tasks;
    std::atomic<int64_t> next{0}, done{0};
    std::mutex mutex;
    std::condition_variable finished;
    Work(Run r, int64_t n) : run(r), tasks(n) {}
    void help() {
      for (int64_t i; (i = next++) < tasks;) {
        run(i);
        if (++done < tasks) continue;
        std::lock_guard<std::mutex> lock(mutex);
        finished.notify_one();
      }
    }
  };
  auto work = std::make_shared<Work>(run, tasks);  // a helper may come when all is done
  for (int64_t i = std::min(pool.num_threads(), tasks); i > 1; --i)
    pool.Schedule([work] { work->help(); });
  work->help();
  std::unique_lock<std::mutex> lock(work->mutex);
  work->finished.wait(lock, [&] { return work->done == work->tasks; });
}

using Array = ffi::Buffer<ffi::F32>;

// The operands and results of a call by number; one that is left out is a null pointer.
struct Call {
  const ffi::RemainingArgs& args;
  const ffi::RemainingRets& rets;
  const float* in(size_t i) const {
    Array array = *args.get<Array>(i);
    return array.element_count() ? array.typed_data() : nullptr;
  }
  float* out(size_t i) const {
    ffi::Result<Array> array = *rets.get<Array>(i);
    return array->element_count() ? array->typed_data() : nullptr;
  }
  int64_t size(size_t i, int axis) const { return args.get<Array>(i)->dimensions()[axis]; }
};

// `out` is the sum of `count` arrays of its size, `apart` from each other.
struct Sum {
  float* out;
  const float* parts;
  int64_t count, apart, size;
  void run() const {
    std::copy_n(parts, size, out);
    for (int64_t k = 1; k < count; ++k)
      for (int64_t i = 0; i < size; ++i) out[i] += parts[k * apart + i];
  }
};

void all_sums(ffi::ThreadPool& pool, const std::vector<Sum>& sums) {
  all(pool, sums.size(), [&](int64_t i) { sums[i].run(); });
}

// Some tokens of a sequence in the order of a direction.
struct Walk {
  int64_t first, count, length;
  bool reverse;
  int64_t operator[](int64_t j) const { return reverse ? length - 1 - first - j : first + j; }
};

// What a sweep reads and writes, from the first token and the task's first channel on.
struct Sweep {
  const float *u, *delta, *B, *C, *A, *D, *bias, *mask;
  int64_t width, states;
  bool soft;

  // The operands from number `at` on: u, delta, A, B, C, D, bias.
  Sweep(const Call& call, size_t at, int64_t b, int64_t e, int64_t part, bool soft) : soft(soft) {
    int64_t length = call.size(at, 1);
    width = call.size(at, 2), states = call.size(at + 2, 0);
    u = call.in(at) + b * length * width + e, delta = call.in(at + 1) + b * length * width + e;
    A = call.in(at + 2) + part * R * width + e;
    B = call.in(at + 3) + b * length * states + part * R;
    C = call.in(at + 4) + b * length * states + part * R;
    D = call.in(at + 5) && !part ? call.in(at + 5) + e : nullptr;
    bias = call.in(at + 6) ? call.in(at + 6) + e : nullptr;
    mask = call.in(1) ? call.in(1) + b * length : nullptr;
  }

  // The steps of some tokens and, for gradients, their slopes.
  void steps(const Walk& walk, Vec* step, Vec* slope) const {
    Vec shift = bias ? load(bias) : Vec{};
    for (int64_t j = 0; j < walk.count; ++j) {
      int64_t t = walk[j];
      __builtin_prefetch(u + t * width);
      Vec x = load(delta + t * width) + shift, s = all_of(1.0f);
      if (soft) x = softplus(x, s);
      if (mask && mask[t] == 0.0f) x = s = Vec{};
      step[j] = x, slope[j] = s;
    }
  }
};

struct Buffers {  // for the tokens of a chunk
  Vec step[CHUNK], slope[CHUNK], grad[CHUNK], y[CHUNK], entered[CHUNK], aged[CHUNK], sums[CHUNK];
  Vec before[CHUNK * R], decay[CHUNK * R];
};

Buffers& buffers() {
  static thread_local Buffers kept;
  return kept;
}

// Operands: z, mask, and per direction u, delta, A, B, C, D, bias, state.
// Results: y, and per direction last, starts.
ffi::Error Forward(ffi::ThreadPool pool, ffi::RemainingArgs args, ffi::RemainingRets rets, bool reverse,
                   bool soft) {
  Call call{args, rets};
  const int64_t batch = call.size(2, 0), length = call.size(2, 1), width = call.size(2, 2);
  const int64_t states = call.size(4, 0), parts = states / R, blocks = width / LANES;
  const int64_t chunks = (length + CHUNK - 1) / CHUNK, directions = (args.size() - 2) / 8;
  all(pool, batch * blocks, [&](int64_t task) {
    const int64_t b = task / blocks, e = task % blocks * LANES;
    const float* z = call.in(0) ? call.in(0) + b * length * width + e : nullptr;
    float* y = call.out(0) + b * length * width + e;
    Buffers& chunk = buffers();
    for (int64_t sweep = 0; sweep < directions * parts; ++sweep) {
      const int64_t k = sweep / parts, part = sweep % parts, state = (b * states + part * R) * width + e;
      const Sweep at(call, 2 + 8 * k, b, e, part, soft);
      const float* start = call.in(9 + 8 * k);
      float *last = call.out(1 + 2 * k), *starts = call.out(2 + 2 * k);
      if (starts) starts += (task * parts + part) * chunks * R * LANES;
      const bool gate = z && sweep == directions * parts - 1;
      Vec h[R], rate[R], skip = at.D ? load(at.D) : Vec{};
      for (int r = 0; r < R; ++r) {
        h[r] = start ? load(start + state + r * width) : Vec{};
        rate[r] = load(at.A + r * width) * LOG2E;
      }
      for (int64_t first = 0; first < length; first += CHUNK) {
        const Walk walk{first, std::min<int64_t>(CHUNK, length - first), length, reverse != (k > 0)};
        if (starts)
          for (int r = 0; r < R; ++r, starts += LANES) store(starts, h[r]);
        at.steps(walk, chunk.step, chunk.slope);
        for (int64_t j = 0; j < walk.count; ++j) {
          const int64_t t = walk[j];
          const float *pb = at.B + t * states, *pc = at.C + t * states;
          Vec step = chunk.step[j], in = step * load(at.u + t * width), out[2] = {};
#pragma GCC unroll 16
          for (int r = 0; r < R; ++r) {
            h[r] = exp2(step * rate[r]) * h[r] + in * pb[r];
            out[r % 2] += h[r] * pc[r];
          }
          chunk.y[j] = out[0] + out[1];
        }
        for (int64_t j = 0; j < walk.count; ++j) {
          const int64_t t = walk[j] * width;
          Vec out = chunk.y[j] + skip * load(at.u + t);
          if (sweep) out += load(y + t);
          if (gate) out *= load(z + t) * sigmoid(load(z + t));
          store(y + t, out);
        }
      }
      for (int r = 0; r < R; ++r) store(last + state + r * width, h[r]);
    }
  });
  return ffi::Error::Success();
}

// Operands: z, mask, dy, and per direction u, delta, A, B, C, D, bias, starts, dlast.
// Results: dz, work, and per direction du, ddelta, dB, dC, dstate and the gradients of A, D and bias,
// [R + 2, E]. Those of B and C are sums over channels, of which each of `groups` of blocks has its own
// at first, and the last ones sums over the batch: both in `work`.
ffi::Error Backward(ffi::ThreadPool pool, ffi::RemainingArgs args, ffi::RemainingRets rets, bool reverse,
                    bool soft, int64_t groups) {
  Call call{args, rets};
  const int64_t batch = call.size(3, 0), length = call.size(3, 1), width = call.size(3, 2);
  const int64_t states = call.size(5, 0), parts = states / R, blocks = width / LANES;
  const int64_t chunks = (length + CHUNK - 1) / CHUNK, directions = (args.size() - 3) / 9;
  const int64_t mix = length * states, shared = (states + 2) * width;
  auto mixes = [&](int64_t k, int64_t b, int64_t which, int64_t group) {
    return call.out(1) + directions * batch * shared + (((k * batch + b) * 2 + which) * groups + group) * mix;
  };
  auto block = [&](int64_t b, int64_t group, int64_t e) {
    const int64_t from = b * length * width + e;
    const float *z = call.in(0) ? call.in(0) + from : nullptr, *dy = call.in(2) + from;
    float* dz = z ? call.out(0) + from : nullptr;
    Buffers& chunk = buffers();
    for (int64_t sweep = 0; sweep < directions * parts; ++sweep) {
      const int64_t k = sweep / parts, part = sweep % parts, state = (b * states + part * R) * width + e;
      const Sweep at(call, 3 + 9 * k, b, e, part, soft);
      const float *starts = call.in(10 + 9 * k), *dlast = call.in(11 + 9 * k) + state;
      starts += ((b * blocks + e / LANES) * parts + part) * chunks * R * LANES;
      float *du = call.out(2 + 6 * k) + from, *ddelta = call.out(3 + 6 * k) + from;
      float *dstate = call.out(6 + 6 * k) + state, *own = call.out(1) + (k * batch + b) * shared + e;
      float *pdb = mixes(k, b, 0, group) + part * R, *pdc = mixes(k, b, 1, group) + part * R;
      const bool finish = sweep == directions * parts - 1;
      Vec dh[R], rate[R], drate[R] = {}, dskip = {}, dbias = {};
      const Vec skip = at.D ? load(at.D) : Vec{};
      for (int r = 0; r < R; ++r) {
        dh[r] = load(dlast + r * width);
        rate[r] = load(at.A + r * width);
      }
      for (int64_t c = chunks - 1; c >= 0; --c) {
        const int64_t first = c * CHUNK;
        const Walk walk{first, std::min<int64_t>(CHUNK, length - first), length, reverse != (k > 0)};
        at.steps(walk, chunk.step, chunk.slope);
        for (int64_t j = 0; j < walk.count; ++j) {
          Vec grad = load(dy + walk[j] * width);
          if (z) {
            Vec gate = load(z + walk[j] * width);
            grad *= gate * sigmoid(gate);
          }
          chunk.grad[j] = grad;
        }
        for (int half = 0; half < R; half += HALF) {
          Vec h[HALF], rate[HALF], into[HALF];
          for (int r = 0; r < HALF; ++r) {
            h[r] = load(starts + (c * R + half + r) * LANES);
            rate[r] = load(at.A + (half + r) * width) * LOG2E;
          }
          for (int64_t j = 0; j < walk.count; ++j) {
            const int64_t t = walk[j], slot = half * CHUNK + j * HALF;
            const float *pb = at.B + t * states + half, *pc = at.C + t * states + half;
            Vec step = chunk.step[j], in = step * load(at.u + t * width), grad = chunk.grad[j], out[2] = {};
#pragma GCC unroll 8
            for (int r = 0; r < HALF; ++r) {
              chunk.before[slot + r] = h[r];
              Vec decay = chunk.decay[slot + r] = exp2(step * rate[r]);
              h[r] = decay * h[r] + in * pb[r];
              out[r % 2] += h[r] * pc[r];
              into[r] = h[r] * grad;
            }
            Vec y = out[0] + out[1], sums = sums_of(into);
            if (half) {
              add(pdc + t * states, joined(chunk.sums[j], sums));
              chunk.y[j] += y;
            } else {
              chunk.sums[j] = sums, chunk.y[j] = y;
            }
          }
        }
        for (int64_t j = 0; z && j < walk.count; ++j) {
          const int64_t t = walk[j] * width;
          Vec y = chunk.y[j] + skip * load(at.u + t);
          if (sweep) y += load(dz + t);
          if (finish) {
            Vec gate = load(z + t), open = sigmoid(gate);
            y *= load(dy + t) * open * (1.0f + gate * (1.0f - open));
          }
          store(dz + t, y);
        }
        for (int half = 0; half < R; half += HALF) {
          Vec carried[HALF], scaled[HALF], into[HALF];
          for (int r = 0; r < HALF; ++r) carried[r] = dh[half + r], scaled[r] = drate[half + r];
          for (int64_t j = walk.count - 1; j >= 0; --j) {
            const int64_t t = walk[j], slot = half * CHUNK + j * HALF;
            const float *pb = at.B + t * states + half, *pc = at.C + t * states + half;
            Vec step = chunk.step[j], in = step * load(at.u + t * width), grad = chunk.grad[j];
            Vec entered[2] = {}, aged[2] = {};
#pragma GCC unroll 8
            for (int r = 0; r < HALF; ++r) {
              Vec g = carried[r] + grad * pc[r];
              into[r] = g * in;
              entered[r % 2] += g * pb[r];
              carried[r] = g * chunk.decay[slot + r];
              Vec through = carried[r] * chunk.before[slot + r];
              aged[r % 2] += through * rate[half + r];
              scaled[r] += through * step;
            }
            Vec sums = sums_of(into);
            if (half) {
              add(pdb + t * states, joined(chunk.sums[j], sums));
              chunk.entered[j] += entered[0] + entered[1], chunk.aged[j] += aged[0] + aged[1];
            } else {
              chunk.sums[j] = sums;
              chunk.entered[j] = entered[0] + entered[1], chunk.aged[j] = aged[0] + aged[1];
            }
          }
          for (int r = 0; r < HALF; ++r) dh[half + r] = carried[r], drate[half + r] = scaled[r];
        }
        for (int64_t j = 0; j < walk.count; ++j) {
          const int64_t t = walk[j] * width;
          Vec x = load(at.u + t), dx = chunk.step[j] * chunk.entered[j] + skip * chunk.grad[j];
          Vec dstep = (chunk.aged[j] + x * chunk.entered[j]) * chunk.slope[j];
          dbias += dstep, dskip += x * chunk.grad[j];
          if (part) dx += load(du + t), dstep += load(ddelta + t);
          store(du + t, dx);
          store(ddelta + t, dstep);
        }
      }
      for (int r = 0; r < R; ++r) {
        store(own + (part * R + r) * width, drate[r]);
        store(dstate + r * width, dh[r]);
      }
      if (part) dbias += load(own + (states + 1) * width);
      else store(own + states * width, dskip);
      store(own + (states + 1) * width, dbias);
    }
  };
  all(pool, batch * groups, [&](int64_t task) {
    const int64_t b = task / groups, group = task % groups;
    for (int64_t k = 0; k < directions; ++k)
      for (int which = 0; which < 2; ++which) std::fill_n(mixes(k, b, which, group), mix, 0.0f);
    for (int64_t k = group * blocks / groups; k < (group + 1) * blocks / groups; ++k)
      block(b, group, k * LANES);
  });
  std::vector<Sum> sums;
  for (int64_t k = 0; k < directions; ++k) {
    sums.push_back({call.out(7 + 6 * k), call.out(1) + k * batch * shared, batch, shared, shared});
    for (int64_t i = 0; i < 2 * batch; ++i)
      sums.push_back({call.out(4 + 6 * k + i % 2) + i / 2 * mix, mixes(k, i / 2, i % 2, 0), groups, mix, mix});
  }
  all_sums(pool, sums);
  return ffi::Error::Success();
}

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

#define BIND ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().RemainingArgs().RemainingRets().Attr<bool>("reverse")
XLA_FFI_DEFINE_HANDLER_SYMBOL(SelectiveScanForward, Forward, BIND.Attr<bool>("softplus"));
XLA_FFI_DEFINE_HANDLER_SYMBOL(SelectiveScanBackward, Backward,
                              BIND.Attr<bool>("softplus").Attr<int64_t>("groups"));
XLA_FFI_DEFINE_HANDLER_SYMBOL(CausalConvForward, Convolve, BIND);
XLA_FFI_DEFINE_HANDLER_SYMBOL(CausalConvBackward, ConvolveBack, BIND);
