// What each family makes of its files' settings, and how it refuses wrong ones. That the result
// computes what it should is tested in tests/families_test.cc and by files with expected logits.
#include <gtest/gtest.h>

#include <cmath>

#include "graph/model.h"
#include "random_model.h"

namespace hetero {
namespace {

RandomModel model_of(const std::string& architecture, int layers = 1) {
  RandomModel m;
  m.architecture = architecture;
  m.layers = layers;
  m.width = 64;
  m.ffn = 64;
  m.head_dim = 16;
  return m;
}

Graph graph_of(const RandomModel& model, int64_t context = 0) {
  const auto file = model.file();
  auto graph = build_graph(*file, context);
  EXPECT_TRUE(graph.ok()) << graph.status().message();
  return graph.ok() ? std::move(graph).value() : Graph();
}

std::string error_of(const RandomModel& model) {
  const auto file = model.file();
  return build_graph(*file).status().message();
}

template <class T>
std::vector<const Op*> ops_of(const Graph& graph) {
  std::vector<const Op*> found;
  for (const Op& op : graph.ops) {
    if (op.is<T>()) {
      found.push_back(&op);
    }
  }
  return found;
}

TEST(Families, LlamaRotatesAdjacentPairsAndTheOthersHalves) {
  for (const std::string& architecture : supported_architectures()) {
    RandomModel model = model_of(architecture);
    if (architecture.ends_with("moe")) {
      model.experts = 4;
      model.experts_used = 2;
    }
    const Graph graph = graph_of(model);
    const bool adjacent = architecture == "llama" || architecture == "internlm2";
    EXPECT_EQ(ops_of<Rope>(graph)[0]->as<Rope>()->pairs, adjacent ? RopePairs::kAdjacent : RopePairs::kHalves)
        << architecture;
  }
}

TEST(Families, MistralsWindowHoldsInAllLayers) {
  RandomModel model = model_of("llama", 3);
  model.numbers["attention.sliding_window"] = 9;
  const Graph graph = graph_of(model);
  EXPECT_EQ(graph.shape.window, 9);
  for (const Op* op : ops_of<Attention>(graph)) {
    EXPECT_EQ(op->as<Attention>()->window, 9);
  }
}

TEST(Families, Gemma2HasCapsAndEverySecondLayerAWindow) {
  RandomModel model = model_of("gemma2", 4);
  model.numbers["attention.sliding_window"] = 16;
  model.reals["attn_logit_softcapping"] = 3.0f;
  const Graph graph = graph_of(model);
  const auto attentions = ops_of<Attention>(graph);
  ASSERT_EQ(attentions.size(), 4u);
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(attentions[i]->as<Attention>()->window, i % 2 == 0 ? 16 : 0);
    EXPECT_EQ(attentions[i]->as<Attention>()->cap, 3.0f);
    EXPECT_FLOAT_EQ(attentions[i]->as<Attention>()->scale, 0.25f);
  }
  EXPECT_EQ(graph.ops.back().as<SoftCap>()->cap, 30.0f);  // what files without the key mean
  EXPECT_EQ(graph.value(graph.logits).name, "output_cap");
  EXPECT_FLOAT_EQ(graph.op(0).as<Embed>()->scale, 8.0f);
  EXPECT_EQ(ops_of<RmsNorm>(graph).size(), 4u * 4 + 1);
}

TEST(Families, Gemma3HasTwoRopesAndNormsOfHeads) {
  RandomModel model = model_of("gemma3", 7);
  model.numbers["attention.sliding_window"] = 12;
  model.reals["rope.freq_base"] = 1e6f;
  model.strings["rope.scaling.type"] = "linear";
  model.reals["rope.scaling.factor"] = 8.0f;
  const Graph graph = graph_of(model);
  const auto tables = ops_of<RopeTable>(graph);
  ASSERT_EQ(tables.size(), 2u);
  EXPECT_NEAR(tables[0]->as<RopeTable>()->inv_freq[1], std::pow(1e6, -2.0 / 16) / 8.0, 1e-12);
  EXPECT_NEAR(tables[1]->as<RopeTable>()->inv_freq[1], std::pow(1e4, -2.0 / 16), 1e-12);
  const auto ropes = ops_of<Rope>(graph);
  const auto attentions = ops_of<Attention>(graph);
  for (size_t i = 0; i < 7; ++i) {
    EXPECT_EQ(attentions[i]->as<Attention>()->window, i == 5 ? 0 : 12) << i;
    EXPECT_EQ(ropes[i]->inputs[1], tables[i == 5 ? 0 : 1]->outputs[0]) << i;
    EXPECT_EQ(ropes[i]->weights.size(), 2u);
  }
  model.numbers["attention.sliding_window_pattern"] = 2;
  EXPECT_EQ(ops_of<Attention>(graph_of(model))[1]->as<Attention>()->window, 0);
}

TEST(Families, LongropeGoesByTheContextOfTheSession) {
  RandomModel model = model_of("phi3");
  model.context = 128;
  model.numbers["rope.scaling.original_context_length"] = 32;
  model.reals["rope.scaling.attn_factor"] = 1.25f;
  model.vectors = {{"rope_factors_long.weight", std::vector<float>(8, 4.0f)},
                   {"rope_factors_short.weight", std::vector<float>(8, 2.0f)}};
  for (const int64_t context : {0, 16, 32, 33, 128}) {
    const Graph graph = graph_of(model, context);
    const RopeTable& table = *graph.op(1).as<RopeTable>();
    EXPECT_EQ(table.inv_freq[0], context > 32 ? 0.25 : 0.5) << context;
    EXPECT_EQ(table.magnitude, 1.25f);
    EXPECT_EQ(graph.shape.default_context, 32);
  }
  model.vectors["rope_factors_long.weight"][3] = 0.0f;
  EXPECT_NE(error_of(model).find("rope_factors_long.weight[3] is 0"), std::string::npos);
  model.vectors["rope_factors_long.weight"].resize(7, 1.0f);
  EXPECT_NE(error_of(model).find("rope_factors_long.weight has shape [7], expected [8]"), std::string::npos);
  model.vectors.erase("rope_factors_long.weight");
  EXPECT_NE(error_of(model).find("tensor rope_factors_long.weight is missing"), std::string::npos);
}

TEST(Families, YarnScalesTheMagnitude) {
  RandomModel model = model_of("qwen2");
  model.strings["rope.scaling.type"] = "yarn";
  model.reals["rope.scaling.factor"] = 4.0f;
  EXPECT_NEAR(graph_of(model).op(1).as<RopeTable>()->magnitude, 1.0 + 0.1 * std::log(4.0), 1e-6);
  model.reals["rope.scaling.yarn_attn_factor"] = 1.5f;
  EXPECT_NEAR(graph_of(model).op(1).as<RopeTable>()->magnitude, 1.5, 1e-6);
}

TEST(Families, ExpertsAreRoutedAsTheFamilyDoes) {
  RandomModel model = model_of("qwen2moe");
  model.experts = 4;
  model.experts_used = 2;
  const Graph shared = graph_of(model);
  const auto routes = ops_of<Route>(shared);
  ASSERT_EQ(routes.size(), 1u);
  EXPECT_FALSE(routes[0]->as<Route>()->normalize);
  EXPECT_TRUE(routes[0]->as<Route>()->shared);
  EXPECT_EQ(shared.value(routes[0]->inputs[0]).cols, 5);
  EXPECT_EQ(shared.value(routes[0]->outputs[0]).cols, 5);
  EXPECT_EQ(ops_of<ExpertSum>(shared)[0]->inputs.size(), 3u);
  for (const char* architecture : {"qwen3moe", "llama"}) {
    model.architecture = architecture;
    const Graph graph = graph_of(model);
    EXPECT_TRUE(ops_of<Route>(graph)[0]->as<Route>()->normalize);
    const Op& gate_up = *ops_of<ExpertLinear>(graph)[0];
    EXPECT_EQ(graph.weight(gate_up.weights[0]).rows, 4 * 64);
    EXPECT_EQ(graph.value(gate_up.outputs[0]).cols, 2 * 2 * 64);
    const int index = static_cast<int>(&gate_up - graph.ops.data());
    EXPECT_EQ(op_macs(graph, index, 0, graph.output_cols(index), 3, 0),
              3 * 2 * 128 * 64);  // chosen experts only
  }
  model.numbers["expert_gating_func"] = 2;
  EXPECT_NE(error_of(model).find("expert_gating_func is 2"), std::string::npos);
  model = model_of("qwen3moe");
  EXPECT_NE(error_of(model).find("qwen3moe.expert_count is missing"), std::string::npos);
}

TEST(Families, MacsOfAttentionCountTheWindow) {
  RandomModel model = model_of("llama");
  model.numbers["attention.sliding_window"] = 5;
  const Graph graph = graph_of(model);
  for (int i = 0; i < static_cast<int>(graph.ops.size()); ++i) {
    if (graph.op(i).is<Attention>()) {
      // Rows 4, 5, 5 of 3 tokens at position 3; then none but the window far behind it.
      EXPECT_EQ(op_macs(graph, i, 0, 64, 3, 3), 2 * (4 + 5 + 5) * 64);
      EXPECT_EQ(op_macs(graph, i, 0, 64, 2, 100), 2 * 10 * 64);
    }
  }
}

TEST(Families, WrongSettingsAreNamed) {
  RandomModel model = model_of("phi3");
  model.numbers["attention.key_length"] = 16;
  model.numbers["attention.value_length"] = 8;
  EXPECT_NE(error_of(model).find("phi3.attention.value_length is 8"), std::string::npos);
  model = model_of("gemma2");
  model.reals["final_logit_softcapping"] = -1.0f;
  EXPECT_NE(error_of(model).find("gemma2.final_logit_softcapping is -1"), std::string::npos);
  model = model_of("qwen3");
  model.vectors["blk.0.attn_q_norm.bias"] = std::vector<float>(16);
  EXPECT_NE(error_of(model).find("tensor blk.0.attn_q_norm.bias is not known"), std::string::npos);
  model = model_of("llama");
  model.strings["attention.sliding_window"] = "wide";
  EXPECT_NE(error_of(model).find("llama.attention.sliding_window"), std::string::npos);
  model = model_of("llama");
  model.experts = 2;
  model.experts_used = 3;
  EXPECT_NE(error_of(model).find("llama.expert_used_count is 3, expected 1 to 2"), std::string::npos);
}

}  // namespace
}  // namespace hetero
