// What it costs when one processor goes on with another's result: --sync fast against --sync driver.
//
//   handoff_bench [width] [tokens]
//
// For each pair of this machine's processors (the CPU and stand-ins confined to half of the cores
// each), a chain of 64 products [tokens, width] x [width, width]^T in which every product is the other
// processor's than the one before. The overhead of a hand-off is the time of the pass in which neither
// processor ran anything, by their own timestamps, over the number of hand-offs. Medians of passes
// that alternate between the two ways.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <memory>
#include <random>

#include "base/threads.h"
#include "engine/devices.h"
#include "runtime/executor.h"

namespace hetero {
namespace {

constexpr int kProducts = 64;
constexpr int kPasses = 60;
constexpr int64_t kVocabulary = 64;

struct Chain {
  Graph graph;
  std::vector<float> data;

  explicit Chain(int64_t width) : data(static_cast<size_t>(kProducts * width * width)) {
    std::minstd_rand random(7);
    const float scale = 2.0f / std::sqrt(static_cast<float>(width));
    for (float& x : data) {
      x = scale * (static_cast<float>(random() % 1000) / 1000.0f - 0.5f);
    }
    const auto value = [&](const std::string& name, int64_t cols, DType dtype) {
      graph.values.push_back({name, Rows::kTokens, cols, dtype});
      return static_cast<ValueId>(graph.values.size()) - 1;
    };
    graph.ids = value("ids", 1, DType::kI32);
    ValueId x = value("x", width, DType::kF32);
    graph.weights.push_back({"table", DType::kF32, kVocabulary, width, bytes(0)});
    graph.ops.push_back({"embed", -1, Embed{}, {graph.ids}, {x}, {0}, {}});
    for (int i = 0; i < kProducts; ++i) {
      const ValueId y = value(fmt::format("y{}", i), width, DType::kF32);
      graph.weights.push_back({fmt::format("w{}", i), DType::kF32, width, width, bytes(i * width * width)});
      graph.ops.push_back({fmt::format("blk.{}.product", i), i, Linear{}, {x}, {y}, {i + 1}, {}});
      x = y;
    }
    graph.head_begin = static_cast<int>(graph.ops.size());
    graph.logits = x;
  }
  const std::byte* bytes(int64_t at) const { return reinterpret_cast<const std::byte*>(data.data() + at); }
};

double median(std::vector<double> v) {
  std::nth_element(v.begin(), v.begin() + static_cast<int64_t>(v.size() / 2), v.end());
  return v[v.size() / 2];
}

Status measure(const Chain& chain, Processor& first, Processor& second, int64_t tokens) {
  HETERO_TRY(const auto executor, Executor::create(chain.graph, {&first, &second}, {tokens, 1, tokens}));
  Plan plan;
  plan.tokens = tokens;
  plan.processors = {first.info().id, second.info().id};
  for (int op = 0; op <= kProducts; ++op) {
    const int processor = op > 0 ? (op - 1) % 2 : 0;
    plan.steps.push_back({op, processor, 0, tokens, 0, chain.graph.output_cols(op), tokens, {}});
  }
  link(chain.graph, plan);
  HETERO_TRY(const LinkedPlan* const linked, executor->prepare(plan));
  std::vector<double> overhead[2];
  std::vector<double> load[2];
  double busy = 0.0;
  for (int pass = 0; pass < kPasses; ++pass) {
    for (const Sync sync : {Sync::kFast, Sync::kDriver}) {
      executor->set_sync(sync);
      std::fill(executor->ids().begin(), executor->ids().end(), 1);
      executor->clear_use();
      const Nanos cpu = thread_cpu_time();
      const Nanos begin = now();
      HETERO_RETURN_IF_ERROR(executor->run(*linked, 0));
      const Nanos took = now() - begin;
      const Nanos used = thread_cpu_time() - cpu;
      const Nanos ran = executor->use()[0].busy + executor->use()[1].busy;
      if (pass >= 10) {  // the first ones warm up
        overhead[static_cast<int>(sync)].push_back(static_cast<double>((took - ran).count()) / 1e3 /
                                                   kProducts);
        load[static_cast<int>(sync)].push_back(static_cast<double>(used.count()) /
                                               static_cast<double>(took.count()));
        busy = static_cast<double>(ran.count()) / 1e3 / kProducts;
      }
    }
  }
  const double fast = median(overhead[0]);
  const double driver = median(overhead[1]);
  fmt::print("{:<6} {:<6} {:>7} {:>12.1f} {:>10.1f} {:>10.1f} {:>8.1f} {:>9.0f}% {:>9.0f}%\n",
             first.info().id, second.info().id, tokens, busy, fast, driver, driver / fast,
             100 * median(load[0]), 100 * median(load[1]));
  return {};
}

Status run(int64_t width, int64_t tokens) {
  const Chain chain(width);
  const std::vector<FoundProcessor> found = find_processors();
  const std::vector<int> cpus = available_cpus();
  fmt::print(
      "microseconds; products of {} x {}\n{:<6} {:<6} {:>7} {:>12} {:>10} {:>10} {:>8} {:>10} {:>10}\n",
      width, width, "first", "second", "tokens", "each runs", "fast", "driver", "ratio", "core fast",
      "driver");
  for (size_t a = 0; a < found.size(); ++a) {
    if (found[a].info.kind == "npu") {
      break;  // they come last, and have no embedding
    }
    for (size_t b = a + 1; b < found.size(); ++b) {
      std::unique_ptr<Processor> opened[2];
      for (int i = 0; i < 2; ++i) {
        const FoundProcessor& f = found[i == 0 ? a : b];
        OpenOptions options;
        if (f.info.kind == "cpu" || f.info.stand_in) {
          const auto half = static_cast<int64_t>((cpus.size() + 1) / 2);
          options.cpus = i == 0 ? std::vector<int>(cpus.begin(), cpus.begin() + half)
                                : std::vector<int>(cpus.end() - half, cpus.end());
          options.threads = static_cast<int>(half);
        }
        HETERO_TRY(opened[i], f.open(f.info, options));
      }
      HETERO_RETURN_IF_ERROR(measure(chain, *opened[0], *opened[1], tokens));
    }
  }
  return {};
}

}  // namespace
}  // namespace hetero

int main(int argc, char** argv) {
  const int64_t width = argc > 1 ? std::atoll(argv[1]) : 512;
  const int64_t tokens = argc > 2 ? std::atoll(argv[2]) : 1;
  if (const hetero::Status status = hetero::run(width, tokens); !status.ok()) {
    fmt::print(stderr, "handoff_bench: {}\n", status.message());
    return 1;
  }
  return 0;
}
