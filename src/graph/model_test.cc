#include "graph/model.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "cases.h"
#include "gguf/writer.h"
#include "graph/reference.h"

namespace hetero {
namespace {

/// A tiny llama file whose parts a test can change or leave out before it is written.
struct Model {
  std::map<std::string, uint32_t> numbers = {
      {"llama.block_count", 1},      {"llama.embedding_length", 32},    {"llama.feed_forward_length", 64},
      {"llama.context_length", 128}, {"llama.attention.head_count", 4}, {"llama.attention.head_count_kv", 2}};
  std::map<std::string, float> reals = {{"llama.attention.layer_norm_rms_epsilon", 1e-5f}};
  std::map<std::string, std::string> strings = {{"general.architecture", "llama"}};
  std::map<std::string, std::vector<int64_t>> tensors = {
      {"token_embd.weight", {32, 48}},     {"output_norm.weight", {32}},
      {"blk.0.attn_norm.weight", {32}},    {"blk.0.ffn_norm.weight", {32}},
      {"blk.0.attn_q.weight", {32, 32}},   {"blk.0.attn_k.weight", {32, 16}},
      {"blk.0.attn_v.weight", {32, 16}},   {"blk.0.attn_output.weight", {32, 32}},
      {"blk.0.ffn_gate.weight", {32, 64}}, {"blk.0.ffn_up.weight", {32, 64}},
      {"blk.0.ffn_down.weight", {64, 32}}};

  std::shared_ptr<const GgufFile> file() const {
    GgufWriter w;
    for (const auto& [key, value] : strings) {
      w.set_string(key, value);
    }
    for (const auto& [key, value] : numbers) {
      w.set_uint(key, value);
    }
    for (const auto& [key, value] : reals) {
      w.set_float(key, value);
    }
    for (const auto& [name, dims] : tensors) {
      int64_t count = 1;
      for (const int64_t d : dims) {
        count *= d;
      }
      std::vector<float> data(static_cast<size_t>(count));
      for (size_t i = 0; i < data.size(); ++i) {
        data[i] = dims.size() == 1 ? 1.0f : 0.2f * std::sin(static_cast<float>(i * 7 + name.size()));
      }
      const auto* bytes = reinterpret_cast<const std::byte*>(data.data());
      w.add_tensor(name, DType::kF32, dims, {bytes, bytes + data.size() * sizeof(float)});
    }
    const std::string path = testing::TempDir() + "model_test.gguf";
    EXPECT_TRUE(w.write(path).ok());
    auto opened = GgufFile::open(path);
    EXPECT_TRUE(opened.ok()) << opened.status().message();
    return std::move(opened).value();
  }

  std::string error() const {
    const auto opened = file();
    return build_graph(*opened).status().message();
  }
};

TEST(BuildGraph, DescribesALlama) {
  const auto file = Model().file();
  const auto graph = build_graph(*file);
  ASSERT_TRUE(graph.ok()) << graph.status().message();
  EXPECT_EQ(graph->shape.head_dim, 8);
  EXPECT_EQ(graph->shape.vocabulary, 48);
  EXPECT_EQ(graph->ops.size(), 13u);
  EXPECT_EQ(graph->head_begin, 11);
  EXPECT_EQ(graph->value(graph->logits).cols, 48);
  EXPECT_EQ(graph->value(graph->logits).rows, Rows::kOutputs);
  // Tied: the output is the embedding table.
  EXPECT_EQ(graph->weight(graph->ops.back().weights[0]).name, "token_embd.weight");
}

TEST(BuildGraph, BehindTheLastCacheOneRowIsEnough) {
  for (const int layers : {1, 3}) {
    Model model;
    model.numbers["llama.block_count"] = static_cast<uint32_t>(layers);
    for (const auto& [name, dims] : Model().tensors) {
      for (int layer = 1; layer < layers && name.starts_with("blk.0"); ++layer) {
        model.tensors["blk." + std::to_string(layer) + name.substr(5)] = dims;
      }
    }
    const auto file = model.file();
    const auto graph = build_graph(*file);
    ASSERT_TRUE(graph.ok()) << graph.status().message();
    const std::vector<bool> last = in_last_row(*graph);
    ASSERT_EQ(static_cast<int>(last.size()), graph->head_begin);
    for (int i = 0; i < graph->head_begin; ++i) {
      const Op& op = graph->op(i);
      const bool behind = op.layer == layers - 1 && !op.is<Rope>() &&
                          op.name.find("qkv") == std::string::npos &&
                          op.name.find("attn_norm") == std::string::npos;
      EXPECT_EQ(last[static_cast<size_t>(i)], behind) << op.name;
    }
  }
}

TEST(BuildGraph, AnOutputOfItsOwnIsUsed) {
  Model model;
  model.tensors["output.weight"] = {32, 48};
  const auto file = model.file();
  const auto graph = build_graph(*file);
  ASSERT_TRUE(graph.ok());
  EXPECT_EQ(graph->weight(graph->ops.back().weights[0]).name, "output.weight");
}

TEST(BuildGraph, BiasesOfSomeStackedWeightsAreKept) {
  Model model;
  model.tensors["blk.0.attn_k.bias"] = {16};
  const auto file = model.file();
  const auto graph = build_graph(*file);
  ASSERT_TRUE(graph.ok());
  const Op& qkv = graph->op(3);
  ASSERT_EQ(qkv.biases.size(), 3u);
  EXPECT_EQ(qkv.biases[0], -1);
  EXPECT_EQ(graph->weight(qkv.biases[1]).name, "blk.0.attn_k.bias");
}

TEST(BuildGraph, ErrorsNameKeyOrTensorAndWhatWasExpected) {
  Model model;
  model.strings["general.architecture"] = "frog";
  EXPECT_NE(model.error().find("architecture \"frog\" is not supported (supported: llama"),
            std::string::npos);
  model = {};
  model.numbers.erase("llama.block_count");
  EXPECT_NE(model.error().find("llama.block_count is missing"), std::string::npos);
  model = {};
  model.numbers["llama.attention.head_count"] = 5;
  EXPECT_NE(model.error().find("llama.attention.head_count is 5, which is not a multiple"),
            std::string::npos);
  model = {};
  model.tensors["blk.0.ffn_down.weight"] = {32, 64};
  EXPECT_NE(model.error().find("tensor blk.0.ffn_down.weight has shape [32, 64], expected [64, 32]"),
            std::string::npos);
  model = {};
  model.tensors.erase("blk.0.attn_v.weight");
  EXPECT_NE(model.error().find("tensor blk.0.attn_v.weight is missing"), std::string::npos);
  model = {};
  model.strings["llama.rope.scaling.type"] = "spiral";
  EXPECT_NE(model.error().find("\"spiral\""), std::string::npos);
  model = {};
  model.numbers["llama.expert_count"] = 4;
  EXPECT_NE(model.error().find("llama.expert_used_count is missing"), std::string::npos);
  model.numbers["llama.expert_used_count"] = 5;
  EXPECT_NE(model.error().find("llama.expert_used_count is 5, expected 1 to 4"), std::string::npos);
  model.numbers["llama.expert_used_count"] = 2;
  EXPECT_NE(model.error().find("tensor blk.0.ffn_gate_inp.weight is missing"), std::string::npos);
  model = {};
  model.tensors["blk.0.attn_norm.bias"] = {32};
  EXPECT_NE(model.error().find("tensor blk.0.attn_norm.bias is not known in models of architecture llama"),
            std::string::npos);
}

std::vector<double> inv_freq(const Model& model) {
  const auto file = model.file();
  const auto graph = build_graph(*file);
  EXPECT_TRUE(graph.ok()) << graph.status().message();
  return graph->op(1).as<RopeTable>()->inv_freq;
}

TEST(BuildGraph, KeepsTheCacheAsItIsAskedTo) {
  Model model;
  model.numbers["llama.attention.head_count"] = 1;
  model.numbers["llama.attention.head_count_kv"] = 1;
  model.tensors["blk.0.attn_k.weight"] = model.tensors["blk.0.attn_v.weight"] = {32, 32};
  const auto file = model.file();
  std::vector<std::vector<float>> logits;
  for (const auto& [asked, expected] : {std::pair{std::optional<DType>(), DType::kF32},
                                        {DType::kF16, DType::kF16},
                                        {DType::kQ8_0, DType::kQ8_0}}) {
    const auto graph = build_graph(*file, 0, asked);
    ASSERT_TRUE(graph.ok()) << graph.status().message();
    for (const Value& value : graph->values) {
      EXPECT_TRUE(value.rows != Rows::kContext || value.dtype == expected) << value.name;
    }
    Reference reference(*graph, 8);
    const std::vector<int32_t> ids = {1, 17, 5, 40, 2, 9};
    logits.push_back(reference.forward(ids, 0));
  }
  // Rounding shows, in proportion to its steps: 2^-11 and half of 1/127.
  double apart[2] = {};
  for (size_t i = 0; i < logits[0].size(); ++i) {
    apart[0] = std::max(apart[0], std::abs(double{logits[1][i]} - logits[0][i]));
    apart[1] = std::max(apart[1], std::abs(double{logits[2][i]} - logits[0][i]));
  }
  EXPECT_GT(apart[0], 0.0);
  EXPECT_GT(apart[1], apart[0]);
  EXPECT_LT(apart[1], 0.05);
}

TEST(BuildGraph, HeadsThatBlocksOfTheCacheDoNotDivideAreRefused) {
  const auto file = Model().file();
  const std::string refused = build_graph(*file, 0, DType::kQ8_0).status().message();
  EXPECT_NE(refused.find("model_test.gguf: a KV cache of Q8_0 (--kv-cache) needs heads of a multiple of 32 "
                         "elements, this model's have 8"),
            std::string::npos)
      << refused;
  const std::string no_such = build_graph(*file, 0, DType::kQ4_0).status().message();
  EXPECT_NE(no_such.find("expected F16 or Q8_0"), std::string::npos) << no_such;
}

TEST(RopeTableOp, ScalesAngles) {
  Model model;
  const std::vector<double> plain = inv_freq(model);
  ASSERT_EQ(plain.size(), 4u);
  EXPECT_EQ(plain[0], 1.0);
  EXPECT_NEAR(plain[1], 0.1, 1e-12);  // 10000^(-2/8)
  model.strings["llama.rope.scaling.type"] = "linear";
  model.reals["llama.rope.scaling.factor"] = 4.0f;
  EXPECT_NEAR(inv_freq(model)[1], 0.025, 1e-12);
  model.strings["llama.rope.scaling.type"] = "yarn";
  model.numbers["llama.rope.scaling.original_context_length"] = 128;
  const std::vector<double> yarn = inv_freq(model);
  EXPECT_NEAR(yarn[0], 1.0, 1e-12);             // the fastest rotation is kept
  EXPECT_NEAR(yarn[3], plain[3] / 4.0, 1e-12);  // the slowest is interpolated
  model = {};
  model.tensors["rope_freqs.weight"] = {4};  // all ones
  EXPECT_EQ(inv_freq(model), plain);
}

TEST(GraphHostile, HyperparametersAndShapesAreRefused) {
  HETERO_NEED_CASES("hostile");
  std::ifstream in(cases_dir() + "/hostile/manifest.json");
  const auto manifest = nlohmann::json::parse(in);
  int checked = 0;
  for (const auto& entry : manifest.is_array() ? manifest : manifest.at("files")) {
    const std::string name = entry.at("file");
    const auto file = GgufFile::open(cases_dir() + "/hostile/" + name);
    if (!file.ok()) {
      continue;
    }
    const auto graph = build_graph(**file);
    const std::string stage = entry.at("stage");
    const bool concerned = stage == "hparams" || stage == "shapes" || stage == "kv" || stage == "tensor_info";
    if (concerned && entry.at("expect") == "reject") {
      ++checked;
      EXPECT_FALSE(graph.ok()) << name << ": " << entry.at("what");
    }
    if (stage == "control") {
      EXPECT_TRUE(graph.ok()) << name << ": " << graph.status().message();
    }
  }
  EXPECT_GE(checked, 24);
}

TEST(Reference, TinyModelsGiveTheExpectedLogits) {
  HETERO_NEED_CASES("tiny");
  int checked = 0;
  for (const auto& entry : std::filesystem::directory_iterator(cases_dir() + "/tiny")) {
    if (entry.path().extension() != ".gguf") {
      continue;
    }
    ++checked;
    const std::string name = entry.path().stem();
    const std::string base = cases_dir() + "/tiny/" + name;
    const auto file = GgufFile::open(base + ".gguf");
    ASSERT_TRUE(file.ok()) << file.status().message();
    const auto graph = build_graph(**file);
    ASSERT_TRUE(graph.ok()) << graph.status().message();
    std::ifstream in(base + ".json");
    const auto json = nlohmann::json::parse(in);
    for (const auto& c : json.at("cases")) {
      auto ids = c.at("prompt").get<std::vector<int32_t>>();
      for (const auto& id : c.at("continuation")) {
        ids.push_back(id.get<int32_t>());
      }
      std::ifstream npy(cases_dir() + "/tiny/" + c.at("logits_npy").get<std::string>(), std::ios::binary);
      const std::string bytes((std::istreambuf_iterator<char>(npy)), std::istreambuf_iterator<char>());
      Reference reference(*graph, 256);
      const std::vector<float>& logits = reference.forward(ids, 0);
      ASSERT_GT(bytes.size(), logits.size() * sizeof(float));
      const char* expected = bytes.data() + bytes.size() - logits.size() * sizeof(float);
      double worst = 0.0;
      for (size_t i = 0; i < logits.size(); ++i) {
        float e = 0.0f;
        std::memcpy(&e, expected + i * sizeof e, sizeof e);
        worst = std::max(worst, std::abs(double{logits[i]} - e));
      }
      EXPECT_LE(worst, name.ends_with("f32") ? 1e-3 : 0.1) << name;
    }
  }
  EXPECT_GE(checked, 25);
}

}  // namespace
}  // namespace hetero
