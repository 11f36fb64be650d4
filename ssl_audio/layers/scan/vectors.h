// Vectors and what is computed with them, work in threads, operands and results: for cpp.cc and conv.h.
//
// Vectors of the compiler (GCC, Clang), not of one processor, and as wide as a register: of several, GCC makes
// code that is ten times slower.

#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>
#include <vector>

#if defined(__AVX512F__)
#include <immintrin.h>
#define LANES 16  // channels at a time
#elif defined(__AVX__)
#define LANES 8
#else
#define LANES 4
#endif

#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace {

constexpr int R = TILE;  // states at a time; TILE and CHUNK: see cpp.py
constexpr int HALF = R / 2;  // for which a backward pass has registers
static_assert(TILE == 16, "add_sums() is written for halves of 8 states");
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

// Lanes of two vectors, those of the second from number LANES on.
#ifdef __clang__
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else  // GCC before 12 does not know that
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, Int{__VA_ARGS__})
#endif
// The same four lanes of each 128 bits, which processors shuffle at once.
#define EIGHT(a, b, c, d) a, b, c, d, a + 4, b + 4, c + 4, d + 4
#if LANES == 16
#define EACH(a, b, c, d) EIGHT(a, b, c, d), EIGHT(a + 8, b + 8, c + 8, d + 8)
#elif LANES == 8
#define EACH(a, b, c, d) EIGHT(a, b, c, d)
#else
#define EACH(a, b, c, d) a, b, c, d
#endif

// Adds to p[i] the sum of the lanes of v[i], for 8 vectors.
inline void add_sums(float* p, const Vec* v) {
  Vec pair[4], four[2];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    Vec a = v[2 * i], b = v[2 * i + 1];
    pair[i] = SHUFFLE(a, b, EACH(0, LANES, 1, LANES + 1)) + SHUFFLE(a, b, EACH(2, LANES + 2, 3, LANES + 3));
  }
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i) {
    Vec a = pair[2 * i], b = pair[2 * i + 1];
    four[i] = SHUFFLE(a, b, EACH(0, 1, LANES, LANES + 1)) + SHUFFLE(a, b, EACH(2, 3, LANES + 2, LANES + 3));
  }
  Vec a = four[0], b = four[1];  // sums of 4 lanes, of vectors 0 to 3 and 4 to 7
#if LANES == 16
  Vec x = SHUFFLE(a, b, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27) +
          SHUFFLE(a, b, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31);
  x = SHUFFLE(x, x, 0, 1, 2, 3, 8, 9, 10, 11, 0, 1, 2, 3, 8, 9, 10, 11) +
      SHUFFLE(x, x, 4, 5, 6, 7, 12, 13, 14, 15, 4, 5, 6, 7, 12, 13, 14, 15);
  typedef float Eight __attribute__((vector_size(32)));
  Eight old, more;
  std::memcpy(&old, p, sizeof old);
  std::memcpy(&more, &x, sizeof more);
  more += old;
  std::memcpy(p, &more, sizeof more);
#elif LANES == 8
  add(p, SHUFFLE(a, b, 0, 1, 2, 3, 8, 9, 10, 11) + SHUFFLE(a, b, 4, 5, 6, 7, 12, 13, 14, 15));
#else
  add(p, a), add(p + 4, b);
#endif
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
    if (count) std::copy_n(parts, size, out);
    else std::fill_n(out, size, 0.0f);
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

}  // namespace
