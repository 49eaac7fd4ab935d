// Plans that the solver makes for given profiles, as text in tests/data/plans, so that a change of the
// solver shows in review as a change of plans. HETERO_UPDATE_PLANS=1 writes them anew.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <sstream>

#include "graph/shapes.h"
#include "plan/solver.h"

namespace hetero {
namespace {

const std::string kData = HETERO_TEST_DATA;

std::string read(const std::string& file) {
  std::ifstream in(file);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

std::string describe(const Solution& solution) {
  std::string text =
      fmt::format("{:.0f} us as {}; best single processor {:.0f} us\n",
                  static_cast<double>(solution.predicted.count()) / 1e3, solution.plan.strategy,
                  static_cast<double>(solution.plan.best_single_predicted.count()) / 1e3);
  for (const OperatorChoice& c : solution.operators) {
    text += fmt::format("  {:<22} [{},{}] {} {:.0f} us:", c.op, c.out, c.in, c.strategy,
                        static_cast<double>(c.predicted.count()) / 1e3);
    for (const auto& [id, part] : c.share) {
      text += fmt::format(" {} {:.1f}%", id, 100.0 * part);
    }
    text += "; not";
    for (const Alternative& r : c.rejected) {
      text += fmt::format(" {} {:.0f}", r.strategy, static_cast<double>(r.predicted.count()) / 1e3);
    }
    text += "\n";
  }
  return text;
}

void check(const std::string& profile_name, const std::string& shape) {
  const auto profile =
      profile_from_json(nlohmann::ordered_json::parse(read(kData + "/" + profile_name + ".json")));
  const auto graph = graph_of_shape(shape);
  ASSERT_TRUE(profile.ok() && graph.ok());
  std::string text;
  for (const int64_t tokens : {1, 32, 128, 200, 256, 264, 300, 512, 525}) {
    SolveOptions options;
    options.predict.position = tokens == 1 ? 256 : 0;
    const auto body = solve(*graph, *profile, false, tokens, options);
    ASSERT_TRUE(body.ok()) << body.status().message();
    text += fmt::format("{} tokens: {}", tokens, describe(*body));
  }
  const auto head = solve(*graph, *profile, true, 1);
  ASSERT_TRUE(head.ok()) << head.status().message();
  text += fmt::format("head: {}", describe(*head));
  const std::string file = kData + "/plans/" + profile_name + "." + shape + ".txt";
  if (std::getenv("HETERO_UPDATE_PLANS") != nullptr) {
    std::ofstream(file) << text;
  }
  EXPECT_EQ(text, read(file)) << file
                              << ": plans changed; if that is meant, HETERO_UPDATE_PLANS=1 writes them";
}

TEST(Golden, Table3) {
  check("table3", "llama-3-8b");
}

}  // namespace
}  // namespace hetero
