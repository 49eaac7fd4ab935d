#include "graph/shapes.h"

#include <gtest/gtest.h>

namespace hetero {
namespace {

int64_t parameters(const Graph& graph) {
  int64_t count = 0;
  for (const Weight& w : graph.weights) {
    count += w.name.starts_with("token_embd") && count > 0 ? 0 : w.rows * w.cols;  // a tied head counts once
  }
  return count;
}

TEST(Shapes, HaveTheirModelsSizes) {
  // Parameters as published, in millions.
  const std::pair<const char*, double> expected[] = {
      {"llama-3-8b", 8030},    {"llama-2-7b", 6738},   {"llama-3.2-3b", 3213}, {"llama-3.2-1b", 1236},
      {"internlm-1.8b", 1889}, {"qwen2.5-1.5b", 1544}, {"smollm2-135m", 134.5}};
  EXPECT_EQ(shape_names().size(), std::size(expected));
  for (const auto& [name, millions] : expected) {
    const auto graph = graph_of_shape(name);
    ASSERT_TRUE(graph.ok()) << graph.status().message();
    EXPECT_NEAR(static_cast<double>(parameters(*graph)) / 1e6, millions, 0.002 * millions) << name;
    EXPECT_EQ(graph->weight(graph->op(0).weights[0]).data, nullptr);
    EXPECT_EQ(graph->shape.name, name);
  }
}

TEST(Shapes, MatricesHaveTheAskedType) {
  const auto graph = graph_of_shape("smollm2-135m", DType::kQ8_0);
  ASSERT_TRUE(graph.ok());
  EXPECT_EQ(graph->weight(graph->op(0).weights[0]).dtype, DType::kQ8_0);
  EXPECT_EQ(graph->shape.layers, 30);
}

TEST(Shapes, UnknownNamesAreErrorsThatListTheKnownOnes) {
  const auto graph = graph_of_shape("llama-9");
  ASSERT_FALSE(graph.ok());
  EXPECT_NE(graph.status().message().find("\"llama-9\" (known: llama-3-8b, llama-2-7b"), std::string::npos);
}

}  // namespace
}  // namespace hetero
