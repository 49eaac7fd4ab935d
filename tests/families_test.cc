// Every model family with random weights: all processors against the reference, and the table of
// docs/models.md. HETERO_MODELS_TABLE names a file for that table's data (tests/models_table.py).
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>

#include "cpu/cpu.h"
#include "graph/model.h"
#include "graph/reference.h"
#include "npu/npu.h"
#include "opencl/opencl.h"
#include "plan/strategy.h"
#include "random_model.h"
#include "runtime/executor.h"

namespace hetero {
namespace {

/// The CPU, and a GPU and an NPU (or their stand-ins) where there are some. Opened once.
struct Machine {
  std::unique_ptr<Processor> cpu;
  std::unique_ptr<Processor> gpu;
  std::unique_ptr<Processor> npu;

  static Machine& get() {
    static Machine machine;
    return machine;
  }

 private:
  Machine() {
    const auto open = [](std::vector<FoundProcessor> found, const char* id) -> std::unique_ptr<Processor> {
      if (found.empty()) {
        return nullptr;
      }
      found[0].info.id = id;
      OpenOptions options;
      options.threads = 2;
      options.cache_dir = testing::TempDir() + "hetero_families_cache";
      auto opened = found[0].open(found[0].info, options);
      EXPECT_TRUE(opened.ok()) << opened.status().message();
      return opened.ok() ? std::move(opened).value() : nullptr;
    };
    cpu = open({find_cpu()}, "cpu");
    gpu = open(find_opencl(), "gpu0");
    npu = open(find_npu(), "npu0");
  }
};

constexpr int64_t kContext = 64;

/// Logits of every row, in passes of `pass` tokens.
Result<std::vector<float>> logits_of(const Graph& graph, Strategy strategy, const std::vector<int32_t>& ids,
                                     size_t pass) {
  Machine& machine = Machine::get();
  const auto id = [](const std::unique_ptr<Processor>& p) { return p != nullptr ? p->info().id : ""; };
  Team team{id(machine.cpu), id(machine.gpu), id(machine.npu), {}};
  const StrategyOptions options{{1, 8, 32}, 0.5, 8};
  std::vector<Processor*> processors;
  for (const auto* p : {&machine.cpu, &machine.gpu, &machine.npu}) {
    if (*p != nullptr) {
      processors.push_back(p->get());
    }
  }
  team.can_run = [&](const std::string& who, int op) {
    const auto found =
        std::find_if(processors.begin(), processors.end(), [&](Processor* p) { return p->info().id == who; });
    return (*found)->supports(graph, {op, 0, graph.output_cols(op)}).ok();
  };
  HETERO_TRY(const auto executor, Executor::create(graph, processors, {kContext, 32, kContext}));
  const auto vocabulary = static_cast<size_t>(graph.shape.vocabulary);
  std::vector<float> rows;
  for (size_t begin = 0; begin < ids.size(); begin += pass) {
    const size_t count = std::min(pass, ids.size() - begin);
    HETERO_TRY(const Plan body,
               make_plan(graph, strategy, team, false, static_cast<int64_t>(count), options));
    HETERO_TRY(const LinkedPlan* const linked, executor->prepare(body));
    std::copy_n(ids.begin() + static_cast<int64_t>(begin), count, executor->ids().begin());
    HETERO_RETURN_IF_ERROR(executor->run(*linked, static_cast<int64_t>(begin)));
    for (size_t first = 0; first < count; first += 32) {
      const size_t some = std::min<size_t>(32, count - first);
      HETERO_TRY(const Plan head,
                 make_plan(graph, strategy, team, true, static_cast<int64_t>(some), options));
      HETERO_TRY(const LinkedPlan* const linked_head, executor->prepare(head));
      HETERO_RETURN_IF_ERROR(executor->run(*linked_head, 0, static_cast<int64_t>(first)));
      rows.insert(rows.end(), executor->logits(), executor->logits() + some * vocabulary);
    }
  }
  return rows;
}

std::vector<int32_t> some_ids(size_t count, int64_t vocabulary) {
  std::vector<int32_t> ids;
  for (size_t i = 0; i < count; ++i) {
    ids.push_back(static_cast<int32_t>(static_cast<int64_t>(i * 29 + 3 + i / 7) % vocabulary));
  }
  return ids;
}

double worst_difference(const std::vector<float>& a, const std::vector<float>& b) {
  double worst = a.size() == b.size() ? 0.0 : HUGE_VAL;
  for (size_t i = 0; i < a.size() && i < b.size(); ++i) {
    const double difference = std::abs(double{a[i]} - b[i]);
    worst = std::max(worst, std::isnan(difference) ? HUGE_VAL : difference);
  }
  return worst;
}

/// As in cases/README.md. Logits here are about 1 in size, as in those models.
double tolerance_of(DType dtype) {
  return dtype == DType::kF32 ? 1e-3 : 0.1;
}

struct Variant {
  const char* name;
  RandomModel model;
  int64_t context = kContext;  // that the graph is built for
};

std::vector<Variant> variants() {
  const std::vector<float> shorter = {1.0f, 1.1f, 1.2f, 1.4f, 1.6f, 1.8f, 2.0f, 2.5f};
  const std::vector<float> longer = {1.1f, 1.6f, 2.4f, 4.0f, 7.0f, 12.0f, 20.0f, 31.5f};
  RandomModel base;
  base.width = 64;
  base.ffn = 96;
  base.head_dim = 16;
  const auto with = [&](const std::string& architecture,
                        const std::function<void(RandomModel&)>& change = {}) {
    RandomModel m = base;
    m.architecture = architecture;
    if (change) {
      change(m);
    }
    return m;
  };
  return {
      {"llama", with("llama")},
      {"internlm2", with("internlm2", [](RandomModel& m) { m.biases = true; })},
      {"one layer, tied", with("llama", [](RandomModel& m) { m.layers = 1, m.tied = true; })},
      {"multi-query", with("llama", [](RandomModel& m) { m.kv_heads = 1; })},
      {"all heads with keys of their own", with("llama", [](RandomModel& m) { m.kv_heads = 4; })},
      {"head_dim 80", with("llama", [](RandomModel& m) { m.head_dim = 80; })},
      {"head_dim 96", with("qwen2", [](RandomModel& m) { m.head_dim = 96, m.heads = 2; })},
      {"head_dim 100", with("llama", [](RandomModel& m) { m.head_dim = 100, m.heads = 3, m.kv_heads = 1; })},
      {"head_dim 10", with("qwen3", [](RandomModel& m) { m.head_dim = 10, m.heads = 6, m.kv_heads = 3; })},
      {"partial rotation", with("llama", [](RandomModel& m) { m.numbers["rope.dimension_count"] = 6; })},
      {"biases everywhere", with("qwen2", [](RandomModel& m) { m.biases = true; })},
      {"odd sizes", with("llama",
                         [](RandomModel& m) {
                           m.width = 60, m.ffn = 75, m.head_dim = 20, m.heads = 3, m.kv_heads = 3,
                           m.vocabulary = 61;
                         })},
      {"linear scaling", with("llama",
                              [](RandomModel& m) {
                                m.strings["rope.scaling.type"] = "linear";
                                m.reals["rope.scaling.factor"] = 4.0f;
                              })},
      {"yarn beyond the first context", with("qwen2",
                                             [](RandomModel& m) {
                                               m.strings["rope.scaling.type"] = "yarn";
                                               m.reals["rope.scaling.factor"] = 4.0f;
                                               m.numbers["rope.scaling.original_context_length"] = 16;
                                             })},
      {"longrope beyond the first context",
       with("phi3",
            [&](RandomModel& m) {
              m.vectors = {{"rope_factors_long.weight", longer}, {"rope_factors_short.weight", shorter}};
              m.numbers["rope.scaling.original_context_length"] = 32;
              m.reals["rope.scaling.attn_factor"] = 1.2f;
            })},
      {"longrope within it",
       with("phi3",
            [&](RandomModel& m) {
              m.vectors = {{"rope_factors_long.weight", longer}, {"rope_factors_short.weight", shorter}};
              m.numbers["rope.scaling.original_context_length"] = 128;
            })},
      {"phi3 with groups and biases", with("phi3", [](RandomModel& m) { m.biases = true; })},
      {"mistral, a window shorter than the prompt",
       with("llama", [](RandomModel& m) { m.numbers["attention.sliding_window"] = 5; })},
      {"window of one", with("llama", [](RandomModel& m) { m.numbers["attention.sliding_window"] = 1; })},
      {"gemma", with("gemma", [](RandomModel& m) { m.kv_heads = 1, m.head_dim = 32; })},
      {"gemma2", with("gemma2",
                      [](RandomModel& m) {
                        m.layers = 4;
                        m.numbers["attention.sliding_window"] = 7;
                        m.reals["attn_logit_softcapping"] = 2.0f;
                        m.reals["final_logit_softcapping"] = 3.0f;
                      })},
      {"gemma3", with("gemma3",
                      [](RandomModel& m) {
                        m.layers = 7;
                        m.numbers["attention.sliding_window"] = 6;
                        m.reals["rope.freq_base"] = 1e6f;
                        m.strings["rope.scaling.type"] = "linear";
                        m.reals["rope.scaling.factor"] = 8.0f;
                      })},
      {"qwen3", with("qwen3", [](RandomModel& m) { m.tied = true; })},
      {"mixtral", with("llama", [](RandomModel& m) { m.experts = 8, m.experts_used = 2; })},
      {"experts, one for each token",
       with("llama", [](RandomModel& m) { m.experts = 5, m.experts_used = 1; })},
      {"experts, all of them", with("qwen3moe", [](RandomModel& m) { m.experts = 3, m.experts_used = 3; })},
      {"qwen3moe", with("qwen3moe", [](RandomModel& m) { m.experts = 32, m.experts_used = 4; })},
      {"qwen2moe", with("qwen2moe",
                        [](RandomModel& m) {
                          m.experts = 6, m.experts_used = 2;
                          m.numbers["expert_shared_feed_forward_length"] = 96;
                        })},
  };
}

TEST(Families, EveryVariantAgreesWithTheReferenceInEveryStrategy) {
  for (const Variant& v : variants()) {
    const auto file = v.model.file();
    ASSERT_NE(file, nullptr) << v.name;
    const auto graph = build_graph(*file, v.context);
    ASSERT_TRUE(graph.ok()) << v.name << ": " << graph.status().message();
    const std::vector<int32_t> ids = some_ids(40, v.model.vocabulary);
    Reference reference(*graph, kContext);
    const std::vector<float> truth = reference.forward(ids, 0);
    const Machine& machine = Machine::get();
    for (const Strategy strategy : {Strategy::kCpu, Strategy::kGpu, Strategy::kLayer, Strategy::kTensor}) {
      if ((uses_gpu(strategy) && machine.gpu == nullptr) || (uses_npu(strategy) && machine.npu == nullptr)) {
        continue;
      }
      for (const size_t pass : {ids.size(), size_t{13}, size_t{1}}) {
        const auto found = logits_of(*graph, strategy, ids, pass);
        ASSERT_TRUE(found.ok()) << v.name << ": " << found.status().message();
        EXPECT_LE(worst_difference(*found, truth), tolerance_of(v.model.dtype))
            << v.name << ", strategy " << strategy_name(strategy) << ", passes of " << pass;
      }
    }
  }
}

constexpr DType kTypes[] = {DType::kF32,  DType::kF16,    DType::kBF16,   DType::kQ4_0,
                            DType::kQ4_1, DType::kQ5_0,   DType::kQ5_1,   DType::kQ8_0,
                            DType::kQ2_K, DType::kQ3_K,   DType::kQ4_K,   DType::kQ5_K,
                            DType::kQ6_K, DType::kIQ4_NL, DType::kIQ4_XS, DType::kMXFP4};

/// The first reason why `p` cannot run all that a strategy would give it.
std::string lacking(const Graph& graph, const Processor& p) {
  for (int op = 0; op < static_cast<int>(graph.ops.size()); ++op) {
    if (!p.traits().static_shapes || graph.op(op).is<Linear>()) {
      if (const Status s = p.supports(graph, {op, 0, graph.output_cols(op)}); !s.ok()) {
        return s.message();
      }
    }
  }
  return "";
}

TEST(Families, EveryTypeOfEveryArchitectureAgreesWhereItIsSupported) {
  const Machine& machine = Machine::get();
  nlohmann::ordered_json table = nlohmann::ordered_json::object();
  std::vector<std::string> rows = supported_architectures();
  rows.push_back("llama with experts");
  for (const std::string& name : rows) {
    const std::string architecture = name.substr(0, name.find(' '));
    for (const DType dtype : kTypes) {
      RandomModel model;
      model.architecture = architecture;
      model.dtype = dtype;
      model.layers = 1;
      model.kv_heads = 1;
      if (architecture.ends_with("moe") || name != architecture) {
        model.experts = 3;
        model.experts_used = 2;
      }
      const auto file = model.file();
      ASSERT_NE(file, nullptr);
      const auto graph = build_graph(*file);
      ASSERT_TRUE(graph.ok()) << graph.status().message();
      const std::vector<int32_t> ids = some_ids(9, model.vocabulary);
      Reference reference(*graph, kContext);
      const std::vector<float> truth = reference.forward(ids, 0);
      auto& row = table[name][std::string(traits(dtype).name)] = nlohmann::ordered_json::object();
      struct Run {
        const char* kind;
        const Processor* processor;
        Strategy strategy;
      };
      for (const Run& run :
           {Run{"cpu", machine.cpu.get(), Strategy::kCpu}, Run{"gpu", machine.gpu.get(), Strategy::kGpu},
            Run{"npu", machine.npu.get(), Strategy::kNpuOnline}}) {
        if (run.processor == nullptr) {
          continue;
        }
        if (const std::string why = lacking(*graph, *run.processor); !why.empty()) {
          row[run.kind] = why;
          continue;
        }
        const auto found = logits_of(*graph, run.strategy, ids, ids.size());
        ASSERT_TRUE(found.ok()) << name << ": " << found.status().message();
        const double worst = worst_difference(*found, truth);
        EXPECT_LE(worst, tolerance_of(dtype)) << name << " " << traits(dtype).name << " on " << run.kind;
        row[run.kind] = worst <= tolerance_of(dtype) ? "ok" : "wrong";
      }
      EXPECT_EQ(row["cpu"], "ok") << name << " " << traits(dtype).name;
    }
  }
  if (const char* path = std::getenv("HETERO_MODELS_TABLE")) {
    nlohmann::ordered_json json;
    for (const auto* p : {&machine.cpu, &machine.gpu, &machine.npu}) {
      if (*p != nullptr) {
        const ProcessorInfo& info = (*p)->info();
        json["processors"][info.kind] = {
            {"name", info.name}, {"provider", info.provider}, {"stand_in", info.stand_in}};
      }
    }
    json["table"] = table;
    std::ofstream(path) << json.dump(1) << "\n";
  }
}

}  // namespace
}  // namespace hetero
