// The recurrence of the selective scan for CPUs, forward and backward: called by XLA through cpp.py.
//
// Vectors of the compiler (GCC, Clang), not of one processor: 16 channels in float32, which become as
// many registers as the machine needs. A task owns a block of channels of one example and walks along
// its tokens with the state [16 states, 16 channels] at hand. The forward pass stores that state every
// CHUNK tokens, if `starts` has room; the backward pass starts from there, keeps the states and decays
// of one chunk and returns.
// Arrays: u, delta, y [B, N, E]; B, C [B, N, R]; A [R, E]; states [B, R, E]; E a multiple of 16.

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>
#include <vector>

#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace {

constexpr int LANES = TILE, R = TILE;  // channels and states at a time; both and CHUNK: see cpp.py
static_assert(TILE == 16, "sums() is written for 16");
typedef float Vec __attribute__((vector_size(4 * LANES)));
typedef int32_t Int __attribute__((vector_size(4 * LANES)));

inline Vec load(const float* p) {
  Vec v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

inline void store(float* p, Vec v) { std::memcpy(p, &v, sizeof v); }

inline void add(float* p, Vec v) { store(p, load(p) + v); }

// 2^x to 1e-7 of itself: 2^f, f in [-0.5, 0.5], as a polynomial, times a power put into the exponent.
// Between -126 and 127 only; a decay below is as good as 0.
inline Vec exp2(Vec x) {
  const Vec low = Vec{} - 126.0f, high = Vec{} + 127.0f;
  x = x < low ? low : x;
  x = x > high ? high : x;
  const Vec round = Vec{} + 12582912.0f;  // 1.5 * 2^23: a float of this size has no fraction
  Vec whole = x + round, f = x - (whole - round);
  Vec p = f * 1.5345802e-4f + 1.3399931e-3f;
  p = p * f + 9.6184891e-3f;
  p = p * f + 5.5503286e-2f;
  p = p * f + 2.4022646e-1f;
  p = p * f + 6.9314718e-1f;
  p = p * f + 1.0f;
  return (Vec)((Int)p + ((Int)whole << 23));
}

// The lanes `first`, first + 2, … of two vectors, one after the other.
template <int first>
inline Vec every_other(Vec a, Vec b) {
#ifdef __clang__
  return __builtin_shufflevector(a, b, first, first + 2, first + 4, first + 6, first + 8, first + 10, first + 12,
                                 first + 14, first + 16, first + 18, first + 20, first + 22, first + 24,
                                 first + 26, first + 28, first + 30);
#else  // which GCC before 12 does not know
  const Int lanes = {0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30};
  return __builtin_shuffle(a, b, lanes + first);
#endif
}

// Sums of 16 vectors, one in each lane.
inline Vec sums(Vec v[16]) {
#pragma GCC unroll 4
  for (int n = 8; n; n /= 2)
#pragma GCC unroll 16
    for (int i = 0; i < n; ++i) {
      Vec a = v[2 * i], b = v[2 * i + 1];
      v[i] = every_other<0>(a, b) + every_other<1>(a, b);
    }
  return v[0];
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
using Result = ffi::ResultBuffer<ffi::F32>;

// Where a task finds its channels.
struct Place {
  int64_t length, width, blocks, chunks, b, e;
  Place(const Array& u, int64_t task)
      : length(u.dimensions()[1]), width(u.dimensions()[2]), blocks(width / LANES),
        chunks((length + CHUNK - 1) / CHUNK), b(task / blocks), e(task % blocks * LANES) {}
  int64_t tokens() const { return b * length * width + e; }
  int64_t mixes() const { return b * length * R; }
  int64_t state() const { return b * R * width + e; }
  int64_t starts() const { return (b * blocks + e / LANES) * chunks * R * LANES; }
};

ffi::Error Forward(ffi::ThreadPool pool, Array u, Array delta, Array A, Array B, Array C, Array state,
                   Result y, Result last, Result starts, bool reverse) {
  bool keep = starts->element_count();
  auto run = [=](int64_t task) mutable {
    Place at(u, task);
    const float *pu = u.typed_data() + at.tokens(), *pd = delta.typed_data() + at.tokens();
    const float *pb = B.typed_data() + at.mixes(), *pc = C.typed_data() + at.mixes();
    float *py = y->typed_data() + at.tokens(), *ps = starts->typed_data() + at.starts();
    Vec h[R], rate[R];
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      h[r] = load(state.typed_data() + at.state() + r * at.width);
      rate[r] = load(A.typed_data() + at.e + r * at.width) * 1.44269504f;
    }
    for (int64_t i = 0; i < at.length; ++i) {
      if (keep && i % CHUNK == 0)
        for (int r = 0; r < R; ++r, ps += LANES) store(ps, h[r]);
      int64_t t = reverse ? at.length - 1 - i : i;
      Vec step = load(pd + t * at.width), in = step * load(pu + t * at.width), out[2] = {};
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        h[r] = exp2(step * rate[r]) * h[r] + in * pb[t * R + r];
        out[r % 2] += h[r] * pc[t * R + r];
      }
      store(py + t * at.width, out[0] + out[1]);
    }
    for (int r = 0; r < R; ++r) store(last->typed_data() + at.state() + r * at.width, h[r]);
  };
  all(pool, u.dimensions()[0] * (u.dimensions()[2] / LANES), run);
  return ffi::Error::Success();
}

// Gradients of B and C are sums over channels: each of `groups` of blocks has its own.
ffi::Error Backward(ffi::ThreadPool pool, Array u, Array delta, Array A, Array B, Array C, Array starts,
                    Array dy, Array dlast, Result du, Result ddelta, Result dA, Result dB, Result dC,
                    Result dstate, bool reverse) {
  int64_t batch = u.dimensions()[0], blocks = u.dimensions()[2] / LANES, groups = dB->dimensions()[1];
  auto block = [=](int64_t task, float* pdb, float* pdc, std::vector<Vec>& kept) mutable {
    Place at(u, task);
    const float *pu = u.typed_data() + at.tokens(), *pd = delta.typed_data() + at.tokens();
    const float *pb = B.typed_data() + at.mixes(), *pc = C.typed_data() + at.mixes();
    const float *py = dy.typed_data() + at.tokens(), *ps = starts.typed_data() + at.starts();
    float *pdu = du->typed_data() + at.tokens(), *pdd = ddelta->typed_data() + at.tokens();
    Vec dh[R], rate[R], drate[R] = {}, into[R];
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      dh[r] = load(dlast.typed_data() + at.state() + r * at.width);
      rate[r] = load(A.typed_data() + at.e + r * at.width);
    }
    for (int64_t chunk = at.chunks - 1; chunk >= 0; --chunk) {
      int64_t first = chunk * CHUNK, count = std::min<int64_t>(CHUNK, at.length - first);
      Vec h[R], *before = kept.data(), *decay = before + R;
      for (int r = 0; r < R; ++r) h[r] = load(ps + (chunk * R + r) * LANES);
      for (int64_t j = 0; j < count; ++j, before += 2 * R, decay += 2 * R) {
        int64_t t = reverse ? at.length - 1 - first - j : first + j;
        Vec step = load(pd + t * at.width), in = step * load(pu + t * at.width);
        Vec grad = load(py + t * at.width), scaled = step * 1.44269504f;
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) {
          before[r] = h[r];
          decay[r] = exp2(scaled * rate[r]);
          h[r] = decay[r] * h[r] + in * pb[t * R + r];
          into[r] = h[r] * grad;
        }
        add(pdc + t * R, sums(into));
      }
      for (int64_t j = count - 1; j >= 0; --j) {
        before -= 2 * R, decay -= 2 * R;
        int64_t t = reverse ? at.length - 1 - first - j : first + j;
        Vec step = load(pd + t * at.width), x = load(pu + t * at.width), in = step * x;
        Vec grad = load(py + t * at.width), entered[2] = {}, aged[2] = {};
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) {
          Vec g = dh[r] + grad * pc[t * R + r];
          into[r] = g * in;
          entered[r % 2] += g * pb[t * R + r];
          dh[r] = g * decay[r];
          Vec through = dh[r] * before[r];
          aged[r % 2] += through * rate[r];
          drate[r] += through * step;
        }
        add(pdb + t * R, sums(into));
        Vec sum = entered[0] + entered[1];
        store(pdu + t * at.width, step * sum);
        store(pdd + t * at.width, aged[0] + aged[1] + x * sum);
      }
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      store(dA->typed_data() + at.state() + r * at.width, drate[r]);
      store(dstate->typed_data() + at.state() + r * at.width, dh[r]);
    }
  };
  auto run = [=](int64_t task) mutable {
    int64_t b = task / groups, group = task % groups, size = u.dimensions()[1] * R;
    float *pdb = dB->typed_data() + task * size, *pdc = dC->typed_data() + task * size;
    std::fill_n(pdb, size, 0.0f), std::fill_n(pdc, size, 0.0f);
    std::vector<Vec> kept(2 * R * CHUNK);
    for (int64_t k = group * blocks / groups; k < (group + 1) * blocks / groups; ++k)
      block(b * blocks + k, pdb, pdc, kept);
  };
  all(pool, batch * groups, run);
  return ffi::Error::Success();
}

}  // namespace

#define ARG Arg<Array>()
#define RET Ret<Array>()
XLA_FFI_DEFINE_HANDLER_SYMBOL(SelectiveScanForward, Forward,
                              ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().ARG.ARG.ARG.ARG.ARG.ARG
                                  .RET.RET.RET.Attr<bool>("reverse"));
XLA_FFI_DEFINE_HANDLER_SYMBOL(SelectiveScanBackward, Backward,
                              ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().ARG.ARG.ARG.ARG.ARG.ARG.ARG.ARG
                                  .RET.RET.RET.RET.RET.RET.Attr<bool>("reverse"));
