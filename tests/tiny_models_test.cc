// Random-weight models of a few megabytes against float64 logits, in every strategy, as a whole
// prompt and token by token. Tolerances: cases/README.md.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "cases.h"
#include "scene.h"

namespace hetero {
namespace {

/// Names of all models of the folder, without ".gguf".
std::vector<std::string> tiny_models() {
  std::vector<std::string> names;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(cases_dir() + "/tiny", error)) {
    if (entry.path().extension() == ".gguf") {
      names.push_back(entry.path().stem());
    }
  }
  std::sort(names.begin(), names.end());
  return names;
}

/// F32 1e-3, F16 and BF16 0.1, quantized 0.12 with activations in f32.
double tolerance_of(const nlohmann::json& model) {
  double tolerance = 1e-3;
  for (const auto& type : model.at("tensor_types")) {
    const double needed = type == "F32" ? 1e-3 : type == "F16" || type == "BF16" ? 0.1 : 0.12;
    tolerance = std::max(tolerance, needed);
  }
  return tolerance;
}

/// Largest difference, and whether every row's likeliest token agrees where it is clear.
void expect_close(const std::vector<float>& found, const std::vector<float>& expected, size_t vocabulary,
                  double tolerance, const std::string& what) {
  ASSERT_EQ(found.size(), expected.size()) << what;
  double worst = 0.0;
  for (size_t i = 0; i < found.size(); ++i) {
    const double difference = std::abs(double{found[i]} - expected[i]);
    worst = std::max(worst, std::isnan(difference) ? HUGE_VAL : difference);
  }
  EXPECT_LE(worst, tolerance) << what;
  for (size_t row = 0; row < found.size(); row += vocabulary) {
    const auto begin = static_cast<int64_t>(row);
    const auto end = begin + static_cast<int64_t>(vocabulary);
    const auto top_found = std::max_element(found.begin() + begin, found.begin() + end) - found.begin();
    const auto top = std::max_element(expected.begin() + begin, expected.begin() + end) - expected.begin();
    const double gap = expected[static_cast<size_t>(top)] - expected[static_cast<size_t>(top_found)];
    EXPECT_LE(gap, tolerance) << what << ": another token is clearly likelier in row " << row / vocabulary;
  }
}

class TinyModels : public testing::TestWithParam<std::string> {};
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(TinyModels);

TEST_P(TinyModels, LogitsAreWithinToleranceInEveryStrategy) {
  const std::string base = cases_dir() + "/tiny/" + GetParam();
  std::ifstream in(base + ".json");
  const auto json = nlohmann::json::parse(in);
  const double tolerance = tolerance_of(json);
  int checked = 0;
  for (const Strategy strategy : kAllStrategies) {
    Scene scene(base + ".gguf", strategy);
    if (scene.absent()) {
      continue;
    }
    ASSERT_TRUE(scene.status.ok()) << scene.status.message();
    const auto vocabulary = static_cast<size_t>(scene.engine->graph().shape.vocabulary);
    for (const auto& c : json.at("cases")) {
      auto ids = c.at("prompt").get<std::vector<TokenId>>();
      const auto continuation = c.at("continuation").get<std::vector<TokenId>>();
      ids.insert(ids.end(), continuation.begin(), continuation.end());
      const std::vector<float> expected =
          read_npy(cases_dir() + "/tiny/" + c.at("logits_npy").get<std::string>());
      const std::string what = GetParam() + ", strategy " + strategy_name(strategy);
      scene.session->truncate(0);
      expect_close(scene.all_logits(ids), expected, vocabulary, tolerance, what);
      scene.session->truncate(0);
      std::vector<float> stepwise;
      for (const TokenId id : ids) {
        const std::vector<float> row = scene.all_logits({id});
        stepwise.insert(stepwise.end(), row.begin(), row.end());
      }
      expect_close(stepwise, expected, vocabulary, tolerance, what + ", token by token");
      // In one pass for the last token's logits, which leaves out what no others need.
      scene.session->truncate(0);
      ASSERT_TRUE(scene.session->feed(ids).ok());
      expect_close({scene.session->logits().begin(), scene.session->logits().end()},
                   {expected.end() - static_cast<int64_t>(vocabulary), expected.end()}, vocabulary, tolerance,
                   what + ", the last token's");
      ++checked;
    }
  }
  EXPECT_GT(checked, 0);
}

INSTANTIATE_TEST_SUITE_P(All, TinyModels, testing::ValuesIn(tiny_models()), [](const auto& parameters) {
  std::string name = parameters.param;
  std::replace_if(
      name.begin(), name.end(), [](char c) { return std::isalnum(static_cast<unsigned char>(c)) == 0; }, '_');
  return name;
});

TEST(TinyModelCases, AllModelsAreThere) {
  HETERO_NEED_CASES("tiny");
  EXPECT_GE(tiny_models().size(), 25u);
}

TEST(TinyModelLengths, PromptsOfEveryLengthGiveTheSameLogitsInEveryStrategy) {
  HETERO_NEED_CASES("tiny");
  const std::string model = cases_dir() + "/tiny/qllama-q4_1.gguf";
  Scene cpu(model, Strategy::kCpu);
  ASSERT_TRUE(cpu.status.ok()) << cpu.status.message();
  const auto vocabulary = static_cast<size_t>(cpu.engine->graph().shape.vocabulary);
  const auto limit = static_cast<size_t>(std::min<int64_t>(300, cpu.engine->context()));
  std::vector<TokenId> ids;
  for (size_t i = 0; i < limit; ++i) {
    ids.push_back(static_cast<TokenId>((i * 37 + 11) % vocabulary));
  }
  const std::vector<float> truth = cpu.all_logits(ids);
  for (const Strategy strategy : kAllStrategies) {
    Scene scene(model, strategy);
    if (scene.absent()) {
      continue;
    }
    ASSERT_TRUE(scene.status.ok()) << scene.status.message();
    for (size_t length = 1; length <= limit; length = length == 70 ? 255 : length == 257 ? 300 : length + 1) {
      scene.session->truncate(0);
      ASSERT_TRUE(scene.session->feed(std::span(ids).first(length)).ok());
      const auto row = truth.begin() + static_cast<int64_t>((length - 1) * vocabulary);
      expect_close({scene.session->logits().begin(), scene.session->logits().end()},
                   {row, row + static_cast<int64_t>(vocabulary)}, vocabulary, 0.12,
                   std::string(strategy_name(strategy)) + ", length " + std::to_string(length));
    }
  }
}

}  // namespace
}  // namespace hetero
