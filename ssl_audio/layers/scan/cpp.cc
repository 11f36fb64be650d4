// The selective scan for CPUs, with everything around its recurrence (softplus, mask, skip, gate), and the
// convolution before it, forward and backward: called by XLA through fused_cpp.py.
//
// A task owns a block of channels of one example and walks along its tokens with the state
// [16 states, 16 channels] at hand, once for each direction and each 16 states (a sweep). The forward pass
// stores that state every CHUNK tokens, if `starts` has room; the backward pass starts from there, keeps
// the states and decays of one chunk and returns.
// Arrays: u, delta, z, y [B, N, E]; B, C [B, N, R]; A [R, E]; D, bias [E]; states [B, R, E]; E and R
// multiples of 16. What an operand leaves out is empty.

#include "conv.h"
#include "vectors.h"

namespace {

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
  Vec step[CHUNK], slope[CHUNK], grad[CHUNK], y[CHUNK], entered[CHUNK], aged[CHUNK];
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
            add_sums(pdc + t * states + half, into);
            chunk.y[j] = half ? chunk.y[j] + (out[0] + out[1]) : out[0] + out[1];
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
            add_sums(pdb + t * states + half, into);
            Vec into_u = entered[0] + entered[1], into_step = aged[0] + aged[1];
            chunk.entered[j] = half ? chunk.entered[j] + into_u : into_u;
            chunk.aged[j] = half ? chunk.aged[j] + into_step : into_step;
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

}  // namespace

#define BIND ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().RemainingArgs().RemainingRets().Attr<bool>("reverse")
XLA_FFI_DEFINE_HANDLER_SYMBOL(SelectiveScanForward, Forward, BIND.Attr<bool>("softplus"));
XLA_FFI_DEFINE_HANDLER_SYMBOL(SelectiveScanBackward, Backward,
                              BIND.Attr<bool>("softplus").Attr<int64_t>("groups"));
XLA_FFI_DEFINE_HANDLER_SYMBOL(CausalConvForward, Convolve, BIND);
XLA_FFI_DEFINE_HANDLER_SYMBOL(CausalConvBackward, ConvolveBack, BIND);
