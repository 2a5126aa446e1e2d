// What every compiled step has in common: helpers, the arguments, and which thread does which rows of which tensor.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#ifdef _OPENMP
#include <omp.h>
#endif

// glibc has these for whole vectors; its headers say so only where NaN may be ignored.
#if defined(__GLIBC__) && defined(__x86_64__) && !defined(__clang__)
extern "C" {
#pragma omp declare simd notinbranch
float expf(float) noexcept;
#pragma omp declare simd notinbranch
float powf(float, float) noexcept;
#pragma omp declare simd notinbranch
double exp(double) noexcept;
#pragma omp declare simd notinbranch
double pow(double, double) noexcept;
#if __GLIBC_PREREQ(2, 35)
#pragma omp declare simd notinbranch
float log1pf(float) noexcept;
#pragma omp declare simd notinbranch
double log1p(double) noexcept;
#endif
}
#endif

struct bfloat16 {
  uint16_t bits;
};

// TYPES

constexpr int64_t LARGE = 1 << 15;  // from so many numbers on all threads share the rows of a tensor
constexpr int64_t BLOCK = 1 << 12;  // so many numbers are added up before the sum is added to that of the others

// One tensor of all candidates. Pointers are those of candidate 0, the next one's numbers are `stride` further.
struct Tensor {
  int64_t rows, columns, whole_rows, whole_columns, kind, group, stride, count_stride, first_row;
  int64_t* count;
  Storage* theta;
  Storage* grad;
  void* states[STATES];
};

// A scalar of each candidate and parameter group.
struct Scalar {
  const Number* value;
  int64_t candidate_stride, group_stride;
};

struct Call {
  int64_t candidates, tensors, threads, rows, first_sweep, last_sweep;
  const Tensor* tensor;
  const Scalar* scalars;
  const int64_t* steps;  // that have been taken, with this one
  const bool* active;    // [candidates, tensors], or null where all are
  Number* kept;          // [slots, candidates, rows]
  Number* parts;         // [totals, candidates, tensors]

  bool works(int64_t k, int64_t j) const { return tensor[j].grad && (!active || active[k * tensors + j]); }
  Number scalar(int i, int64_t k, int64_t group) const {
    return scalars[i].value[k * scalars[i].candidate_stride + group * scalars[i].group_stride];
  }
  Number* rows_of(int slot, int64_t k, const Tensor& u) const {
    return kept + (slot * candidates + k) * rows + u.first_row;
  }
  Number* parts_of(int total, int64_t k) const { return parts + (total * candidates + k) * tensors; }
  Number sum_of(int slot, int64_t k, const Tensor& u) const {
    const Number* row = rows_of(slot, k, u);
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t r = 0; r < u.rows; ++r) sum += row[r];
    return sum;
  }
  Number total_of(int total, int64_t k) const {
    double sum = 0;
    for (int64_t j = 0; j < tensors; ++j)
      if (works(k, j)) sum += parts_of(total, k)[j];
    return sum;
  }
};

// Rows `begin` to `end` of tensor j of candidate k.
using Pass = void (*)(const Call&, const Tensor&, int64_t k, int64_t j, int64_t begin, int64_t end);

template <class S>
inline Number load(const S& x) {
  return x;
}
template <class S>
inline void store(S& to, Number x) {
  to = x;
}
template <>
inline Number load(const bfloat16& x) {
  const uint32_t bits = uint32_t(x.bits) << 16;
  float y;
  std::memcpy(&y, &bits, 4);
  return y;
}
template <>
inline void store(bfloat16& to, Number x) {
  const float y = x;
  uint32_t bits;
  std::memcpy(&bits, &y, 4);
  to.bits = y != y ? 0x7fc0 : (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
}

// As `components/core/rounding.py` has it: up or down by chance, to what it is on average.
inline uint32_t scrambled(uint32_t x) {
  x = (x ^ x >> 15) * 0x2c1b3c6du;
  x = (x ^ x >> 12) * 0x297a2d39u;
  return x ^ x >> 15;
}
inline uint32_t seed(int64_t count, uint32_t salt) { return scrambled(uint32_t(count) ^ salt); }
inline uint32_t noise(int64_t at, uint32_t seed) { return scrambled(uint32_t(at) ^ seed) & 0xffff; }
inline void store(bfloat16& to, Number x, uint32_t noise) {
  const float y = x;
  uint32_t bits;
  std::memcpy(&bits, &y, 4);
  to.bits = y != y ? 0x7fc0 : (bits + noise) >> 16;
}

// As torch has them: NaN is passed on, the remainder has the divisor's sign.
inline Number maximum(Number a, Number b) { return a > b || a != a ? a : b; }
inline Number minimum(Number a, Number b) { return a < b || a != a ? a : b; }
inline Number sign(Number a) { return Number(a > 0) - Number(a < 0); }
inline Number lerp(Number a, Number b, Number w) {
  return std::abs(w) < Number(0.5) ? a + w * (b - a) : b - (b - a) * (1 - w);
}
inline Number floor_remainder(Number a, Number b) {
  const Number r = std::fmod(a, b);
  return r != 0 && (r < 0) != (b < 0) ? r + b : r;
}

template <int KINDS, int SWEEPS, int PASSES>
void drive(const Pass (&passes)[KINDS][SWEEPS][PASSES], const Call& call) {
  const int64_t all = call.candidates * call.tensors;
  for (int64_t i = 0; i < all; ++i) {
    const int64_t k = i / call.tensors, j = i % call.tensors;
    if (call.first_sweep == 0 && call.works(k, j)) ++call.tensor[j].count[k * call.tensor[j].count_stride];
  }
#pragma omp parallel num_threads(call.threads) if (call.threads > 1)
  {
#ifdef _OPENMP
    const int64_t team = omp_get_num_threads(), me = omp_get_thread_num();
#else
    const int64_t team = 1, me = 0;
#endif
    for (int64_t sweep = call.first_sweep; sweep < call.last_sweep; ++sweep) {
      const auto shared = [&](const Tensor& u) { return team > 1 && u.rows * u.columns >= LARGE; };
      for (int64_t i = 0; i < all; ++i) {
        const int64_t k = i / call.tensors, j = i % call.tensors;
        const Tensor& u = call.tensor[j];
        if (!shared(u) || !call.works(k, j)) continue;
        for (int p = 0; p < PASSES && passes[u.kind][sweep][p]; ++p) {
          if (p > 0) {
#pragma omp barrier
          }
          passes[u.kind][sweep][p](call, u, k, j, u.rows * me / team, u.rows * (me + 1) / team);
        }
      }
#pragma omp for schedule(dynamic)
      for (int64_t i = 0; i < all; ++i) {
        const int64_t k = i / call.tensors, j = i % call.tensors;
        const Tensor& u = call.tensor[j];
        if (shared(u) || !call.works(k, j)) continue;
        for (int p = 0; p < PASSES && passes[u.kind][sweep][p]; ++p)
          passes[u.kind][sweep][p](call, u, k, j, 0, u.rows);
      }
    }
  }
}
