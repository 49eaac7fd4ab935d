// Speed of the CPU's operators in GFLOP/s and GB/s, next to the machine's own limits measured in the
// same run: the peak of fused multiply-adds and of 8-bit products from registers, and the bandwidth of
// plain reads. "*q8": activations are rounded to 8 bits; of_peak then is of the 8-bit peak.
//
//   kernels_cpu_bench --threads=1 --benchmark_filter='linear.*m=256'
//
// Counters: of_peak = GFLOP/s as a fraction of the peak, of_read = GB/s of weights (or of the KV
// cache) as a fraction of read bandwidth. HETERO_CPU chooses the level.
#include <benchmark/benchmark.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <random>

#include "cpu/levels.h"
#include "cpu/ops.h"
#include "cpu/roofline.h"
#include "gguf/random_blocks.h"

namespace hetero {
namespace {

using Machine = cpu::Roofline;

/// An operator with buffers of its own.
struct Scene {
  Graph graph;
  std::vector<PageMemory> memory;
  std::unique_ptr<cpu::CpuExecutable> executable;
  cpu::Work work;

  std::byte* bytes(Bytes size) {
    auto m = PageMemory::allocate(std::max<Bytes>(size, 64));
    if (!m.ok()) {
      std::exit(1);
    }
    memory.push_back(std::move(*m));
    return memory.back().data();
  }
  float* floats(int64_t count) {
    auto* p = reinterpret_cast<float*>(bytes(count * 4));
    std::minstd_rand random(1);
    for (int64_t i = 0; i < count; ++i) {
      p[i] = static_cast<float>(random()) / static_cast<float>(std::minstd_rand::max()) - 0.5f;
    }
    return p;
  }
  /// With `packed`, activations are rounded to 8 bits.
  void finish(int64_t tokens, const cpu::Kernels& kernels, ThreadPool& pool,
              cpu::PackedWeights* packed = nullptr) {
    const OpSlice slice{0, 0, graph.output_cols(0)};
    executable = cpu::prepare(graph, slice, tokens, kernels, pool.size(), packed);
    for (const cpu::PackedSegment& segment : executable->packed) {
      if (!cpu::pack(*segment.rows, *kernels.int8, pool).ok()) {
        std::exit(1);
      }
    }
    auto scratch = PageMemory::allocate(std::max<Bytes>(executable->scratch_floats * 4, 64));
    work.executable = executable.get();
    work.scratch = std::make_shared<PageMemory>(std::move(*scratch));
    work.tokens = tokens;
  }
};

/// A linear operator over enough copies of its weight that decoding does not find them in a cache.
void linear(benchmark::State& state, DType dtype, bool q8, int64_t m, int64_t k, int64_t n,
            const cpu::Kernels& kernels, ThreadPool& pool, Machine machine) {
  const Bytes weight_bytes = n * row_bytes(dtype, k);
  const int64_t copies = m > 8 ? 1 : std::max<int64_t>(1, (Bytes{256} << 20) / weight_bytes);
  Scene s;
  std::byte* weights = s.bytes(copies * weight_bytes);
  const std::vector<std::byte> blocks = random_blocks(dtype, n * k, 7);
  for (int64_t c = 0; c < copies; ++c) {
    std::memcpy(weights + c * weight_bytes, blocks.data(), static_cast<size_t>(weight_bytes));
  }
  s.graph.values = {{"x", Rows::kTokens, k, DType::kF32}, {"y", Rows::kTokens, n, DType::kF32}};
  s.graph.weights = {{"w", dtype, n, k, weights}};
  s.graph.ops = {{"linear", 0, Linear{}, {0}, {1}, {0}, {}}};
  cpu::PackedWeights packed;
  std::vector<std::unique_ptr<cpu::CpuExecutable>> executables;
  for (int64_t c = 0; c < copies; ++c) {
    s.graph.weights[0].data = weights + c * weight_bytes;
    s.finish(m, kernels, pool, q8 ? &packed : nullptr);
    executables.push_back(std::move(s.executable));
  }
  s.work.in[0] = {reinterpret_cast<std::byte*>(s.floats(m * k)), k};
  s.work.out[0] = {reinterpret_cast<std::byte*>(s.floats(m * n)), n};
  size_t next = 0;
  for (auto _ : state) {
    s.work.executable = executables[next].get();
    next = (next + 1) % executables.size();
    benchmark::DoNotOptimize(cpu::run(s.work, kernels, pool).ok());
  }
  const double runs = static_cast<double>(state.iterations());
  const auto rate = [&](double per_run) {
    return benchmark::Counter(per_run * runs, benchmark::Counter::kIsRate);
  };
  const double gflop = 2.0 * static_cast<double>(m * k * n) / 1e9;
  const double peak = q8 ? machine.int8_gops : machine.f32_gflops;
  state.counters["GFLOP/s"] = rate(gflop);
  if (peak > 0.0) {
    state.counters["of_peak"] = rate(gflop / peak);
  }
  state.counters["GB/s"] = rate(static_cast<double>(weight_bytes) / 1e9);
  state.counters["of_read"] = rate(static_cast<double>(weight_bytes) / 1e9 / machine.read_gbs);
}

void attention(benchmark::State& state, int64_t tokens, int64_t position, int heads, int kv_heads,
               int head_dim, const cpu::Kernels& kernels, ThreadPool& pool, Machine machine) {
  Scene s;
  const int64_t kv_cols = int64_t{kv_heads} * head_dim;
  const int64_t rows = position + tokens;
  s.graph.values = {{"q", Rows::kTokens, int64_t{heads} * head_dim, DType::kF32},
                    {"k", Rows::kContext, kv_cols, DType::kF16},
                    {"v", Rows::kContext, kv_cols, DType::kF16},
                    {"a", Rows::kTokens, int64_t{heads} * head_dim, DType::kF32}};
  const float scale = 1.0f / std::sqrt(static_cast<float>(head_dim));
  s.graph.ops = {{"attention", 0, Attention{heads, kv_heads, head_dim, scale}, {0, 1, 2}, {3}, {}, {}}};
  s.finish(tokens, kernels, pool);
  const int64_t cols = s.graph.values[0].cols;
  s.work.in[0] = {reinterpret_cast<std::byte*>(s.floats(tokens * cols)), cols};
  for (size_t i = 1; i <= 2; ++i) {
    s.work.in[i] = {s.bytes(rows * kv_cols * 2), kv_cols};
    auto* p = reinterpret_cast<uint16_t*>(s.work.in[i].data);
    std::minstd_rand random(3);
    for (int64_t e = 0; e < rows * kv_cols; ++e) {
      p[e] = static_cast<uint16_t>(0x3000 + (random() >> 8) % 0x0bff);
    }
  }
  s.work.out[0] = {reinterpret_cast<std::byte*>(s.floats(tokens * cols)), cols};
  s.work.position = position;
  for (auto _ : state) {
    benchmark::DoNotOptimize(cpu::run(s.work, kernels, pool).ok());
  }
  const double runs = static_cast<double>(state.iterations());
  const auto rate = [&](double per_run) {
    return benchmark::Counter(per_run * runs, benchmark::Counter::kIsRate);
  };
  const double gflop = 2.0 * static_cast<double>(op_macs(s.graph, 0, 0, cols, tokens, position)) / 1e9;
  const double gb = 4.0 * static_cast<double>(rows * kv_cols) / 1e9;
  state.counters["GFLOP/s"] = rate(gflop);
  state.counters["of_peak"] = rate(gflop / machine.f32_gflops);
  state.counters["GB/s"] = rate(gb);
  state.counters["of_read"] = rate(gb / machine.read_gbs);
}

void gated(benchmark::State& state, int64_t tokens, int64_t f, Activation activation,
           const cpu::Kernels& kernels, ThreadPool& pool) {
  Scene s;
  s.graph.values = {{"x", Rows::kTokens, 2 * f, DType::kF32}, {"s", Rows::kTokens, f, DType::kF32}};
  s.graph.ops = {{"gated", 0, Gated{activation}, {0}, {1}, {}, {}}};
  s.finish(tokens, kernels, pool);
  s.work.in[0] = {reinterpret_cast<std::byte*>(s.floats(2 * tokens * f)), 2 * f};
  s.work.out[0] = {reinterpret_cast<std::byte*>(s.floats(tokens * f)), f};
  for (auto _ : state) {
    benchmark::DoNotOptimize(cpu::run(s.work, kernels, pool).ok());
  }
  state.counters["elements/s"] =
      benchmark::Counter(static_cast<double>(state.iterations() * tokens * f), benchmark::Counter::kIsRate);
}

void add_all(const cpu::Kernels& kernels, ThreadPool& pool, Machine machine) {
  // One thread is measured by its own CPU time, which a busy machine disturbs least.
  using benchmark::internal::Benchmark;
  const auto clock = pool.size() > 1 ? +[](Benchmark* b) { b->UseRealTime(); } : +[](Benchmark*) {};
  struct Shape {
    const char* name;
    int64_t k, n;
  };
  const Shape shapes[] = {
      {"smollm2.qkv", 576, 960},   {"smollm2.o", 576, 576},          {"smollm2.gate_up", 576, 3072},
      {"smollm2.down", 1536, 576}, {"smollm2.head", 576, 49152},     {"llama1b.qkv", 2048, 3072},
      {"llama1b.o", 2048, 2048},   {"llama1b.gate_up", 2048, 16384}, {"llama1b.down", 8192, 2048}};
  const DType dtypes[] = {DType::kQ4_0,  DType::kQ4_1, DType::kQ5_0,   DType::kQ5_1,
                          DType::kQ8_0,  DType::kQ2_K, DType::kQ3_K,   DType::kQ4_K,
                          DType::kQ5_K,  DType::kQ6_K, DType::kIQ4_NL, DType::kIQ4_XS,
                          DType::kMXFP4, DType::kF16,  DType::kBF16,   DType::kF32};
  for (const Shape& shape : shapes) {
    for (const DType dtype : dtypes) {
      for (const bool q8 : {false, true}) {
        if (shape.k % traits(dtype).block_elements != 0 ||
            (q8 && kernels.int8->panel_bytes(dtype, 256) == 0)) {
          continue;
        }
        for (const int64_t m : {1, 2, 4, 8, 16, 32, 64, 256, 512}) {
          benchmark::RegisterBenchmark(
              fmt::format("linear/{}/{}{}/m={}", shape.name, traits(dtype).name, q8 ? "*q8" : "", m).c_str(),
              [=, &kernels, &pool](benchmark::State& s) {
                linear(s, dtype, q8, m, shape.k, shape.n, kernels, pool, machine);
              })
              ->Apply(clock);
        }
      }
    }
  }
  for (const auto& [tokens, position] :
       {std::pair{1, 255}, {1, 4095}, {4, 4092}, {64, 0}, {256, 0}, {512, 0}, {256, 3840}}) {
    for (const auto& [heads, kv_heads, head_dim] : {std::tuple{9, 3, 64}, {32, 8, 64}, {32, 32, 128}}) {
      benchmark::RegisterBenchmark(
          fmt::format("attention/heads={}:{}/hd={}/m={}/position={}", heads, kv_heads, head_dim, tokens,
                      position)
              .c_str(),
          [=, t = tokens, p = position, h = heads, kv = kv_heads, hd = head_dim, &kernels,
           &pool](benchmark::State& s) { attention(s, t, p, h, kv, hd, kernels, pool, machine); })
          ->Apply(clock);
    }
  }
  for (const Activation a : {Activation::kSilu, Activation::kGeluTanh}) {
    benchmark::RegisterBenchmark(
        fmt::format("gated/{}", a == Activation::kSilu ? "silu" : "gelu").c_str(),
        [=, &kernels, &pool](benchmark::State& s) { gated(s, 256, 1536, a, kernels, pool); })
        ->Apply(clock);
  }
}

int bench_main(int argc, char** argv) {
  int threads = static_cast<int>(available_cpus().size());
  int kept = 1;
  for (int i = 1; i < argc; ++i) {
    if (std::strncmp(argv[i], "--threads=", 10) == 0) {
      threads = std::max(1, std::atoi(argv[i] + 10));
    } else {
      argv[kept++] = argv[i];
    }
  }
  argc = kept;
  benchmark::Initialize(&argc, argv);
  const cpu::CpuDescription description = cpu::describe_cpu();
  const auto kernels = cpu::choose_kernels(cpu::kernels_for(description.flags), std::getenv("HETERO_CPU"));
  if (!kernels.ok()) {
    fmt::print(stderr, "{}\n", kernels.status().message());
    return 2;
  }
  ThreadPool pool(threads);
  const Machine machine = cpu::measure_roofline((*kernels)->level, pool);
  benchmark::AddCustomContext("cpu", description.name);
  benchmark::AddCustomContext("level", (*kernels)->level);
  benchmark::AddCustomContext("threads", std::to_string(threads));
  benchmark::AddCustomContext("peak_gflops", fmt::format("{:.1f}", machine.f32_gflops));
  benchmark::AddCustomContext("peak_int8_gops", fmt::format("{:.1f}", machine.int8_gops));
  benchmark::AddCustomContext("read_gbs", fmt::format("{:.1f}", machine.read_gbs));
  add_all(**kernels, pool, machine);
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}

}  // namespace
}  // namespace hetero

int main(int argc, char** argv) {
  return hetero::bench_main(argc, argv);
}
