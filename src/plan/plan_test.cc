#include "plan/plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <tuple>

#include "plan/replace.h"
#include "plan/strategy.h"
#include "tiny_graph.h"

namespace hetero {
namespace {

const Team kTeam{"cpu", "gpu0", "npu0", {}};
constexpr Strategy kAll[] = {Strategy::kCpu,        Strategy::kGpu,     Strategy::kNpuOnline,
                             Strategy::kNpuPadding, Strategy::kNpuPipe, Strategy::kLayer,
                             Strategy::kTensor};

const Step& step_of(const Graph& graph, const Plan& plan, const std::string& op,
                    const std::string& processor) {
  for (const Step& s : plan.steps) {
    if (graph.op(s.op).name == op && plan.processors[static_cast<size_t>(s.processor)] == processor) {
      return s;
    }
  }
  ADD_FAILURE() << "no step of " << op << " on " << processor;
  return plan.steps[0];
}

TEST(Strategy, EveryStrategyCoversEveryLengthExactlyOnce) {
  const TinyGraph tiny(1);
  for (const Strategy strategy : kAll) {
    for (const int64_t tokens : {1, 2, 31, 32, 33, 63, 65, 255, 256, 257, 300, 511, 512}) {
      const auto body = make_plan(tiny.graph, strategy, kTeam, false, tokens);
      ASSERT_TRUE(body.ok()) << body.status().message();
      EXPECT_TRUE(validate(tiny.graph, *body).ok());
      EXPECT_LE(rows_needed(*body), 512) << strategy_name(strategy) << " " << tokens;
      const auto head = make_plan(tiny.graph, strategy, kTeam, true, std::min<int64_t>(tokens, 32));
      ASSERT_TRUE(head.ok()) << head.status().message();
      EXPECT_LE(rows_needed(*head), 32);
    }
  }
}

TEST(Strategy, ForTheLastRowTheLastLayerLeavesTheOthersOut) {
  const TinyGraph tiny(2);
  const std::vector<bool> narrow = in_last_row(tiny.graph);
  StrategyOptions options;
  options.last_row = true;
  for (const Strategy strategy : kAll) {
    for (const int64_t tokens : {2, 31, 33, 256, 300, 511}) {
      const auto plan = make_plan(tiny.graph, strategy, kTeam, false, tokens, options);
      ASSERT_TRUE(plan.ok()) << plan.status().message();
      EXPECT_TRUE(validate(tiny.graph, *plan).ok()) << validate(tiny.graph, *plan).message();
      const auto all = make_plan(tiny.graph, strategy, kTeam, false, tokens);
      ASSERT_TRUE(all.ok());
      const auto rows_of_others = [&](const Plan& p) {
        std::vector<std::tuple<int, int, int64_t, int64_t>> rows;
        for (const Step& s : p.steps) {
          if (!narrow[static_cast<size_t>(s.op)]) {
            rows.emplace_back(s.op, s.processor, s.token_begin, s.token_end);
          }
        }
        return rows;
      };
      EXPECT_EQ(rows_of_others(*plan), rows_of_others(*all)) << strategy_name(strategy) << " " << tokens;
      for (const Step& s : plan->steps) {
        if (narrow[static_cast<size_t>(s.op)]) {
          EXPECT_EQ(s.token_end, tokens);
          EXPECT_TRUE(plan->processors[static_cast<size_t>(s.processor)] == "npu0" || s.padded == 1)
              << strategy_name(strategy) << " " << tokens << " " << tiny.graph.op(s.op).name;
        }
      }
      const auto json = to_json(tiny.graph, *plan);
      EXPECT_EQ(json["last_row"], true);
      const auto back = plan_from_json(tiny.graph, json);
      ASSERT_TRUE(back.ok()) << back.status().message();
      EXPECT_EQ(to_json(tiny.graph, *back), json);
      const Plan again = with_all_rows(tiny.graph, *plan);
      EXPECT_FALSE(again.last_row);
      EXPECT_TRUE(validate(tiny.graph, again).ok()) << validate(tiny.graph, again).message();
    }
  }
}

TEST(Strategy, LayerPutsMatmulsOnTheNpuInPrefillAndNothingInDecode) {
  const TinyGraph tiny(1);
  const auto prefill = make_plan(tiny.graph, Strategy::kLayer, kTeam, false, 100);
  const auto decode = make_plan(tiny.graph, Strategy::kLayer, kTeam, false, 1);
  ASSERT_TRUE(prefill.ok() && decode.ok());
  for (const Step& s : prefill->steps) {
    EXPECT_EQ(prefill->processors[static_cast<size_t>(s.processor)],
              tiny.graph.op(s.op).is<Linear>() ? "npu0" : "gpu0");
  }
  EXPECT_EQ(step_of(tiny.graph, *prefill, "blk.0.ffn_down", "npu0").padded, 128);
  EXPECT_EQ(decode->processors, std::vector<std::string>{"gpu0"});
}

TEST(Strategy, TensorCutsColumnsOfTheStandardLengthAndLeavesTheRemainderToTheGpu) {
  const TinyGraph tiny(1);
  StrategyOptions options;
  options.npu_share = 0.75;
  const auto plan = make_plan(tiny.graph, Strategy::kTensor, kTeam, false, 300, options);
  ASSERT_TRUE(plan.ok());
  const Step& npu = step_of(tiny.graph, *plan, "blk.0.ffn_gate_up", "npu0");
  EXPECT_EQ(npu.token_end, 256);
  EXPECT_EQ(npu.padded, 256);
  EXPECT_EQ(npu.out_end, 96);  // three quarters of 128
  int gpu_steps = 0;
  for (const Step& s : plan->steps) {
    gpu_steps += tiny.graph.op(s.op).name == "blk.0.ffn_gate_up" && &s != &npu;
  }
  EXPECT_EQ(gpu_steps, 2);  // the other columns, and rows 256..300
}

TEST(Strategy, PipeUsesStandardLengthsFromTheLargestDownAndPadsTheRest) {
  const TinyGraph tiny(1);
  const auto plan = make_plan(tiny.graph, Strategy::kNpuPipe, kTeam, false, 300);
  ASSERT_TRUE(plan.ok());
  std::vector<int64_t> padded;
  for (const Step& s : plan->steps) {
    if (tiny.graph.op(s.op).name == "blk.0.ffn_down") {
      padded.push_back(s.padded);
    }
  }
  EXPECT_EQ(padded, (std::vector<int64_t>{256, 32, 32}));
}

TEST(Strategy, ExchangesOperandsWhereTheNpuIsKnownToBeFasterWithTheSmallerOneHeld) {
  const TinyGraph tiny(1);
  Team team = kTeam;
  for (const OperandOrders orders :
       {OperandOrders::kOne, OperandOrders::kBoth, OperandOrders::kSmallerStays}) {
    team.npu_orders = orders;
    const auto plan = make_plan(tiny.graph, Strategy::kNpuPadding, team, false, 60);  // padded to 64
    ASSERT_TRUE(plan.ok());
    int exchanged = 0;
    for (const Step& s : plan->steps) {
      exchanged += s.exchanged ? 1 : 0;
      EXPECT_EQ(s.exchanged, orders == OperandOrders::kSmallerStays && tiny.graph.op(s.op).is<Linear>() &&
                                 tiny.graph.output_cols(s.op) > 64);
    }
    EXPECT_EQ(exchanged, orders == OperandOrders::kSmallerStays ? 1 : 0);  // gate and up: 128 columns
  }
}

TEST(Strategy, SaysWhichProcessorIsMissing) {
  const TinyGraph tiny(1);
  const auto plan = make_plan(tiny.graph, Strategy::kLayer, {"cpu", "gpu0", "", {}}, false, 8);
  ASSERT_FALSE(plan.ok());
  EXPECT_EQ(plan.status().message(), "strategy layer needs an NPU, and there is none");
  EXPECT_FALSE(make_plan(tiny.graph, Strategy::kGpu, {"cpu", "", "npu0", {}}, false, 8).ok());
}

TEST(Strategy, OperatorsThatTheGpuLacksGoToTheCpu) {
  const TinyGraph tiny(1);
  const Team team{"cpu", "gpu0", "npu0", [&](const std::string& id, int op) {
                    return id != "gpu0" || !tiny.graph.op(op).is<Embed>();
                  }};
  const auto plan = make_plan(tiny.graph, Strategy::kGpu, team, false, 8);
  ASSERT_TRUE(plan.ok());
  EXPECT_EQ(plan->processors, (std::vector<std::string>{"cpu", "gpu0"}));
}

TEST(Plan, JsonComesBackAsTheSamePlan) {
  const TinyGraph tiny(2);
  for (const Strategy strategy : kAll) {
    const auto plan = make_plan(tiny.graph, strategy, kTeam, false, 77);
    ASSERT_TRUE(plan.ok());
    const auto json = to_json(tiny.graph, *plan);
    const auto back = plan_from_json(tiny.graph, json);
    ASSERT_TRUE(back.ok()) << back.status().message();
    EXPECT_EQ(to_json(tiny.graph, *back), json);
  }
}

TEST(Plan, TheOrderOfOperandsIsPartOfThePlan) {
  const TinyGraph tiny(1);
  auto plan = make_plan(tiny.graph, Strategy::kTensor, kTeam, false, 64);
  ASSERT_TRUE(plan.ok());
  const auto linear = std::find_if(plan->steps.begin(), plan->steps.end(),
                                   [&](const Step& s) { return tiny.graph.op(s.op).is<Linear>(); });
  const auto index = static_cast<size_t>(linear - plan->steps.begin());
  const auto without = to_json(tiny.graph, *plan);
  linear->exchanged = true;
  auto json = to_json(tiny.graph, *plan);
  EXPECT_EQ(json["steps"][index]["exchanged"], true);
  const auto back = plan_from_json(tiny.graph, json);
  ASSERT_TRUE(back.ok()) << back.status().message();
  EXPECT_TRUE(back->steps[index].exchanged);
  EXPECT_EQ(to_json(tiny.graph, *back), json);
  // Plans from before there was a field, and of the default order, have none.
  EXPECT_EQ(without.dump().find("exchanged"), std::string::npos);
  EXPECT_FALSE(plan_from_json(tiny.graph, without)->steps[index].exchanged);
  json["steps"][index]["exchanged"] = "yes";
  EXPECT_NE(plan_from_json(tiny.graph, json).status().message().find("plan: step " + std::to_string(index)),
            std::string::npos);
  Plan norm = *plan;
  for (Step& s : norm.steps) {
    s.exchanged = tiny.graph.op(s.op).is<RmsNorm>();
  }
  EXPECT_NE(validate(tiny.graph, norm).message().find("only linear operators have an order"),
            std::string::npos);
}

TEST(Plan, StepsComeAfterTheForeignStepsThatTheyRead) {
  const TinyGraph tiny(1);
  const auto plan = make_plan(tiny.graph, Strategy::kTensor, kTeam, false, 64);
  ASSERT_TRUE(plan.ok());
  // The gate reads columns that both wrote, so the GPU's step waits for the NPU's.
  const Step& gated = step_of(tiny.graph, *plan, "blk.0.gated", "gpu0");
  ASSERT_EQ(gated.after.size(), 1u);
  const Step& awaited = plan->steps[static_cast<size_t>(gated.after[0])];
  EXPECT_EQ(tiny.graph.op(awaited.op).name, "blk.0.ffn_gate_up");
  EXPECT_EQ(plan->processors[static_cast<size_t>(awaited.processor)], "npu0");
}

TEST(Plan, RefusesHolesOverlapsCutsAndPaddingInTheMiddle) {
  const TinyGraph tiny(1);
  const auto good = make_plan(tiny.graph, Strategy::kTensor, kTeam, false, 64);
  ASSERT_TRUE(good.ok());
  const auto message = [&](auto change) {
    Plan bad = *good;
    change(bad.steps);
    return validate(tiny.graph, bad).message();
  };
  using Steps = std::vector<Step>;
  EXPECT_EQ(message([](Steps&) {}), "");
  EXPECT_NE(message([](Steps& s) { s.pop_back(); }).find("before"), std::string::npos);
  EXPECT_NE(message([](Steps& s) { s.erase(s.begin() + 3); }).find("expected a part of"), std::string::npos);
  EXPECT_NE(message([](Steps& s) { s.insert(s.begin() + 4, s[3]); }).find("computes again"),
            std::string::npos);
  EXPECT_NE(message([](Steps& s) { s[0].out_end -= 1; }).find("only linear"), std::string::npos);
  EXPECT_NE(message([](Steps& s) { s[3].out_end = 100000; }).find("outside"), std::string::npos);
  EXPECT_NE(message([](Steps& s) { s[3].padded = 3; }).find("padded"), std::string::npos);
  EXPECT_NE(message([](Steps& s) { s[2].padded = 90; }).find("padded"), std::string::npos);
  EXPECT_NE(message([](Steps& s) { s[3].processor = 9; }).find("does not exist"), std::string::npos);
}

TEST(Plan, OnlyBodiesSayWhatIsLeftOutAndNeverTheLastRow) {
  const TinyGraph tiny(1);
  StrategyOptions options;
  options.last_row = true;
  auto plan = make_plan(tiny.graph, Strategy::kCpu, kTeam, false, 20, options);
  ASSERT_TRUE(plan.ok());
  ASSERT_TRUE(validate(tiny.graph, *plan).ok());
  Plan moved = *plan;
  moved.steps.back().token_begin = 18;
  moved.steps.back().token_end = 19;
  EXPECT_NE(validate(tiny.graph, moved).message().find("only the last row"), std::string::npos);
  Plan all = *plan;
  all.last_row = false;
  EXPECT_NE(validate(tiny.graph, all).message().find("expected a part of"), std::string::npos);
  auto head = make_plan(tiny.graph, Strategy::kCpu, kTeam, true, 2, options);
  ASSERT_TRUE(head.ok());
  EXPECT_FALSE(head->last_row);
  head->last_row = true;
  EXPECT_NE(validate(tiny.graph, *head).message().find("head"), std::string::npos);
}

TEST(Plan, BadJsonNamesTheStep) {
  const TinyGraph tiny(1);
  const auto plan = make_plan(tiny.graph, Strategy::kCpu, kTeam, false, 4);
  ASSERT_TRUE(plan.ok());
  auto json = to_json(tiny.graph, *plan);
  json["steps"][2]["op"] = "blk.9.nothing";
  EXPECT_EQ(plan_from_json(tiny.graph, json).status().message(),
            "plan: step 2: this model has no operator \"blk.9.nothing\"");
  json["steps"][2].erase("op");
  EXPECT_NE(plan_from_json(tiny.graph, json).status().message().find("plan: step 2: "), std::string::npos);
}

TEST(Plan, NumbersInJsonThatNoModelHasAreRefused) {
  const TinyGraph tiny(1);
  const auto plan = make_plan(tiny.graph, Strategy::kCpu, kTeam, false, 4);
  ASSERT_TRUE(plan.ok());
  const auto good = to_json(tiny.graph, *plan);
  using Json = nlohmann::ordered_json;
  for (const Json& bad : {Json(INT64_MIN), Json(INT64_MAX), Json(UINT64_MAX), Json(-1), Json(1e300),
                          Json(1.5), Json("4"), Json(INT32_MAX), Json("\xFF")}) {
    for (const char* field : {"/tokens", "/steps/3/rows/0", "/steps/3/rows/1", "/steps/3/columns/0",
                              "/steps/3/columns/1", "/steps/3/padded"}) {
      Json json = good;
      json[Json::json_pointer(field)] = bad;
      EXPECT_EQ(plan_from_json(tiny.graph, json).status().message().rfind("plan", 0), 0u) << field;
    }
  }
  Json json = good;
  json["phase"] = "prefill";
  EXPECT_NE(plan_from_json(tiny.graph, json).status().message().find("\"phase\""), std::string::npos);
}

TEST(Plan, AttentionOfTheFirstRowsDoesNotWaitForKeysOfLaterOnes) {
  const TinyGraph tiny(1);
  Plan plan;
  plan.tokens = 20;
  plan.processors = {"gpu0", "cpu"};
  std::map<std::string, std::vector<int>> steps;
  for (int op = 0; op < tiny.graph.head_begin; ++op) {
    for (const auto& [begin, end] : {std::pair(0, 8), std::pair(8, 20)}) {
      steps[kind_name(tiny.graph.op(op))].push_back(static_cast<int>(plan.steps.size()));
      const int processor = tiny.graph.op(op).is<Attention>() ? 1 : 0;
      plan.steps.push_back({op, processor, begin, end, 0, tiny.graph.output_cols(op), end - begin, {}, {}});
    }
  }
  ASSERT_TRUE(validate(tiny.graph, plan).ok()) << validate(tiny.graph, plan).message();
  link(tiny.graph, plan);
  const auto after = [&](int i) { return plan.steps[static_cast<size_t>(i)].after; };
  EXPECT_EQ(after(steps["attention"][0]), std::vector<int>{steps["rope"][0]});
  EXPECT_EQ(after(steps["attention"][1]), steps["rope"]);
  // By columns, only linear operators can be cut.
  Plan cut = plan;
  cut.steps[static_cast<size_t>(steps["attention"][0])].out_end -= 1;
  EXPECT_NE(validate(tiny.graph, cut).message().find("only linear operators"), std::string::npos);
}

TEST(Plan, AnOperatorInVeryManyPartsIsRefusedAtOnce) {
  const TinyGraph tiny(1);
  const auto plan = make_plan(tiny.graph, Strategy::kCpu, kTeam, false, 50'000);
  ASSERT_TRUE(plan.ok());
  Plan parts = *plan;
  const Step whole = parts.steps[3];
  ASSERT_TRUE(tiny.graph.op(whole.op).is<Linear>());
  parts.steps.resize(3);
  for (int64_t row = 0; row < 50'000; ++row) {
    Step s = whole;
    s.token_begin = row;
    s.token_end = row + 1;
    s.padded = 1;
    parts.steps.push_back(s);
  }
  EXPECT_NE(validate(tiny.graph, parts).message().find("parts"), std::string::npos);
}

}  // namespace
}  // namespace hetero
