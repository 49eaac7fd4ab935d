// Speed of linear operators on any processor of this machine, through the interface that the engine
// uses: what a plan can expect of it.
//
//   processors_bench --processor=gpu0 --threads=1 --benchmark_filter='llama8b.*Q4_0'
//
// One iteration submits one operator after the other, each with a weight of its own so that no cache
// holds what decoding reads, and waits for the last; times are for one operator. Counters: GFLOP/s,
// and GB/s of weights in their file's blocks.
#include <benchmark/benchmark.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "base/threads.h"
#include "cpu/cpu.h"
#include "npu/npu.h"
#include "opencl/opencl.h"

namespace hetero {
namespace {

struct Shape {
  const char* name;
  int64_t k;
  int64_t n;
};

constexpr Shape kShapes[] = {
    {"smollm2.qkv", 576, 960},     {"smollm2.gate_up", 576, 3072},   {"smollm2.down", 1536, 576},
    {"smollm2.head", 576, 49152},  {"llama1b.gate_up", 2048, 16384}, {"llama1b.down", 8192, 2048},
    {"llama8b.qkv", 4096, 6144},   {"llama8b.o", 4096, 4096},        {"llama8b.gate_up", 4096, 28672},
    {"llama8b.down", 14336, 4096},
};

constexpr DType kTypes[] = {DType::kF32,  DType::kF16,    DType::kBF16,   DType::kQ4_0,
                            DType::kQ4_1, DType::kQ5_0,   DType::kQ5_1,   DType::kQ8_0,
                            DType::kQ2_K, DType::kQ3_K,   DType::kQ4_K,   DType::kQ5_K,
                            DType::kQ6_K, DType::kIQ4_NL, DType::kIQ4_XS, DType::kMXFP4};

constexpr int64_t kRunsInFlight = 8;

void linear(benchmark::State& state, Processor& processor, DType dtype, const Shape& shape, int64_t tokens) {
  const Bytes weight_bytes = shape.n * row_bytes(dtype, shape.k);
  const int64_t copies =
      tokens > 8 ? 1 : std::clamp<int64_t>((Bytes{256} << 20) / weight_bytes, 1, kRunsInFlight);
  auto weights = PageMemory::allocate(copies * weight_bytes);
  auto x = PageMemory::allocate(tokens * shape.k * 4);
  auto y = PageMemory::allocate(tokens * shape.n * 4);
  if (!weights.ok() || !x.ok() || !y.ok()) {
    state.SkipWithError("out of memory");
    return;
  }
  // Bytes that make small, finite numbers in every type.
  std::minstd_rand random(7);
  const Bytes drawn = std::min(copies * weight_bytes, Bytes{1} << 20);
  for (Bytes i = 0; i < drawn; ++i) {
    weights->data()[i] = static_cast<std::byte>(random() >> 12 & 0x3f);
  }
  for (Bytes i = drawn; i < copies * weight_bytes; i += drawn) {
    std::memcpy(weights->data() + i, weights->data(),
                static_cast<size_t>(std::min(drawn, copies * weight_bytes - i)));
  }
  for (int64_t i = 0; i < tokens * shape.k; ++i) {
    reinterpret_cast<float*>(x->data())[i] = static_cast<float>(random() % 1000) / 1000.0f - 0.5f;
  }
  Graph graph;
  graph.values = {{"x", Rows::kTokens, shape.k, DType::kF32}, {"y", Rows::kTokens, shape.n, DType::kF32}};
  for (int c = 0; c < copies; ++c) {
    graph.weights.push_back(
        {fmt::format("w{}", c), dtype, shape.n, shape.k, weights->data() + c * weight_bytes});
    Op op;
    op.name = "linear";
    op.params = Linear{};
    op.inputs = {0};
    op.outputs = {1};
    op.weights = {c};
    graph.ops.push_back(op);
  }
  graph.head_begin = static_cast<int>(copies);
  const auto run = [&]() -> Status {
    HETERO_TRY(const auto x_buffer, processor.import(x->data(), x->size()));
    HETERO_TRY(const auto y_buffer, processor.import(y->data(), y->size()));
    std::vector<std::unique_ptr<Executable>> executables;
    for (int c = 0; c < copies; ++c) {
      HETERO_RETURN_IF_ERROR(processor.supports(graph, {c, 0, shape.n}));
      HETERO_TRY(auto executable, processor.compile(graph, {c, 0, shape.n}, tokens));
      executables.push_back(std::move(executable));
    }
    const Binding in{x_buffer.get(), 0, shape.k};
    const Binding out{y_buffer.get(), 0, shape.n};
    const auto pass = [&]() -> Status {
      Fence last;
      for (int64_t i = 0; i < kRunsInFlight; ++i) {
        HETERO_TRY(last, processor.submit(*executables[static_cast<size_t>(i % copies)],
                                          {tokens, 0, {&in, 1}, {&out, 1}}));
      }
      processor.flush();
      return last.wait();
    };
    HETERO_RETURN_IF_ERROR(pass());
    for (auto _ : state) {
      const Nanos begin = now();
      HETERO_RETURN_IF_ERROR(pass());
      state.SetIterationTime(std::chrono::duration<double>(now() - begin).count() / kRunsInFlight);
    }
    return {};
  };
  if (const Status status = run(); !status.ok()) {
    state.SkipWithError(status.message().c_str());
    return;
  }
  const auto rate = [&](double per_run) {
    return benchmark::Counter(per_run * static_cast<double>(state.iterations()), benchmark::Counter::kIsRate);
  };
  state.counters["GFLOP/s"] = rate(2.0 * static_cast<double>(tokens * shape.k * shape.n) / 1e9);
  state.counters["GB/s"] = rate(static_cast<double>(weight_bytes) / 1e9);
}

/// The processor of that id: a kind, and its number among those found.
Result<std::unique_ptr<Processor>> open(const std::string& id, int threads) {
  std::vector<FoundProcessor> found;
  for (auto [kind, all] :
       {std::pair{"cpu", std::vector{find_cpu()}}, {"gpu", find_opencl()}, {"npu", find_npu()}}) {
    for (size_t i = 0; i < all.size(); ++i) {
      const std::string name = std::string_view(kind) == "cpu" ? "cpu" : fmt::format("{}{}", kind, i);
      if (name == id) {
        ProcessorInfo info = all[i].info;
        info.id = id;
        benchmark::AddCustomContext("processor", fmt::format("{}: {} ({})", id, info.name, info.driver));
        OpenOptions options;
        options.threads = threads;
        if (threads > 0 && (info.kind == "cpu" || info.stand_in)) {
          options.cpus = available_cpus();
          options.cpus.resize(std::min(options.cpus.size(), static_cast<size_t>(threads)));
        }
        return all[i].open(info, options);
      }
    }
  }
  return not_found("no processor " + id);
}

int bench_main(int argc, char** argv) {
  std::string id = "cpu";
  int threads = 0;
  int kept = 1;
  for (int i = 1; i < argc; ++i) {
    if (std::strncmp(argv[i], "--processor=", 12) == 0) {
      id = argv[i] + 12;
    } else if (std::strncmp(argv[i], "--threads=", 10) == 0) {
      threads = std::max(0, std::atoi(argv[i] + 10));
    } else {
      argv[kept++] = argv[i];
    }
  }
  argc = kept;
  benchmark::Initialize(&argc, argv);
  auto processor = open(id, threads);
  if (!processor.ok()) {
    fmt::print(stderr, "{}\n", processor.status().message());
    return 2;
  }
  for (const Shape& shape : kShapes) {
    for (const DType dtype : kTypes) {
      for (const int64_t m : {1, 4, 32, 64, 256, 512}) {
        benchmark::RegisterBenchmark(
            fmt::format("linear/{}/{}/m={}", shape.name, traits(dtype).name, m).c_str(),
            [=, &processor](benchmark::State& s) { linear(s, **processor, dtype, shape, m); })
            ->UseManualTime();
      }
    }
  }
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}

}  // namespace
}  // namespace hetero

int main(int argc, char** argv) {
  return hetero::bench_main(argc, argv);
}
