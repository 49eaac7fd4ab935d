// Plans by a profile in a whole engine: measured on first use, kept, planned by, and told.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>

#include "cases.h"
#include "engine/generate.h"
#include "fake_machine.h"
#include "scene.h"

namespace hetero {
namespace {

std::string tiny_model() {
  return cases_dir() + "/tiny/llama-gqa-untied-f32.gguf";
}

std::vector<TokenId> prompt(size_t count = 20) {
  std::vector<TokenId> ids;
  for (size_t i = 0; i < count; ++i) {
    ids.push_back(static_cast<TokenId>((i * 29 + 3) % 48));
  }
  return ids;
}

class PlanningScene : public testing::Test {
 protected:
  void SetUp() override {
    if (!std::ifstream(tiny_model()).good()) {
      GTEST_SKIP() << "no " << tiny_model();
    }
    folder_ = testing::TempDir() + "hetero_planning_" + std::to_string(getpid());
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  EngineOptions options(Strategy strategy) {
    EngineOptions o = machine_.options(tiny_model(), strategy);
    o.cache_dir = folder_;
    o.measure_within = std::chrono::seconds(30);
    return o;
  }

  static std::vector<TokenId> generate(Engine& engine, Session::Predicted* predicted = nullptr) {
    auto session = engine.new_session();
    EXPECT_TRUE(session.ok());
    GenerateOptions o;
    o.max_tokens = 12;
    o.ignore_eos = true;
    o.sampler.temperature = 0.0f;
    const auto g = hetero::generate(**session, prompt(), o);
    EXPECT_TRUE(g.ok()) << g.status().message();
    if (predicted != nullptr) {
      *predicted = (*session)->predicted();
    }
    return g.ok() ? g->ids : std::vector<TokenId>();
  }

  std::vector<std::string> profiles() const {
    std::vector<std::string> files;
    if (std::filesystem::exists(folder_ + "/profiles")) {
      for (const auto& entry : std::filesystem::directory_iterator(folder_ + "/profiles")) {
        files.push_back(entry.path());
      }
    }
    return files;
  }

  FakeMachine machine_;
  std::string folder_;
};

TEST_F(PlanningScene, MeasuresOnFirstUseKeepsItAndPlansByIt) {
  auto cpu = Engine::open(options(Strategy::kCpu));
  ASSERT_TRUE(cpu.ok()) << cpu.status().message();
  const std::vector<TokenId> expected = generate(**cpu);
  EXPECT_EQ((*cpu)->profile(), nullptr);  // one processor: nothing to decide
  EXPECT_TRUE(profiles().empty());

  auto first = Engine::open(options(Strategy::kTensor));
  ASSERT_TRUE(first.ok()) << first.status().message();
  ASSERT_NE((*first)->profile(), nullptr);
  ASSERT_EQ(profiles().size(), 1u);
  EXPECT_GT(machine_.gpu->submitted(), 0);
  Session::Predicted predicted;
  EXPECT_EQ(generate(**first, &predicted), expected);
  EXPECT_TRUE(predicted.known);
  EXPECT_GT(predicted.time, Nanos{});
  EXPECT_GE(predicted.best_single, predicted.time);

  auto second = Engine::open(options(Strategy::kTensor));
  ASSERT_TRUE(second.ok());
  EXPECT_NE((*second)->profile(), nullptr);
  EXPECT_EQ(machine_.gpu->submitted(), 0);  // read, not measured again
  EXPECT_EQ(generate(**second), expected);
}

TEST_F(PlanningScene, TheCacheFolderKeepsToItsLimit) {
  const auto long_ago = std::filesystem::file_time_type::clock::now() - std::chrono::hours(24);
  const auto add = [&](const std::string& name, int hours_later) {
    std::ofstream(folder_ + "/" + name) << std::string(1000, 'x');
    std::filesystem::last_write_time(folder_ + "/" + name, long_ago + std::chrono::hours(hours_later));
  };
  add("npu-0123456789abcdef.blob", 2);
  add("npu-0123456789abcdef.blob.17.0", 0);
  add("opencl-rows-0123456789abcdef.bin", 1);
  add("opencl-tuned-0123456789abcdef.txt", 0);
  add("somebody's file", 0);
  const auto left = [&] {
    std::set<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(folder_)) {
      names.insert(entry.path().filename().string());
    }
    return names;
  };
  const auto open = [&](std::optional<Bytes> limit) {
    EngineOptions o = options(Strategy::kCpu);
    o.cache_limit = limit;
    auto engine = Engine::open(o);
    ASSERT_TRUE(engine.ok()) << engine.status().message();
    EXPECT_EQ(left().count("opencl-tuned-0123456789abcdef.txt"), 1u);
    std::ofstream(folder_ + "/npu-written.blob") << std::string(1000, 'x');
  };
  open(std::nullopt);
  EXPECT_EQ(left().size(), 6u);
  open(4000);
  EXPECT_EQ(left(), (std::set<std::string>{"npu-0123456789abcdef.blob", "npu-written.blob",
                                           "opencl-tuned-0123456789abcdef.txt", "somebody's file"}));
  open(0);  // what the engine itself has written stays
  EXPECT_EQ(left(), (std::set<std::string>{"npu-written.blob", "opencl-tuned-0123456789abcdef.txt",
                                           "somebody's file"}));
}

TEST_F(PlanningScene, TheLimitOfTheCacheIsAskedFor) {
  unsetenv("HETERO_CACHE_MB");
  const auto usual = default_cache_limit(folder_ + "/not/there/yet");
  ASSERT_TRUE(usual.ok());
  EXPECT_GT(*usual, 0);
  EXPECT_LE(*usual, 8'000'000'000);
  for (const auto& [text, expected] :
       {std::pair{"0", 0LL}, {"250", 250'000'000LL}, {"100000", 100'000'000'000LL}}) {
    setenv("HETERO_CACHE_MB", text, 1);
    const auto limit = default_cache_limit(folder_);
    ASSERT_TRUE(limit.ok()) << text;
    EXPECT_EQ(*limit, expected);
  }
  for (const char* text : {"-1", "4G", "1.5", "99999999999999999999", "9223372036854775807", " "}) {
    setenv("HETERO_CACHE_MB", text, 1);
    const auto limit = default_cache_limit(folder_);
    ASSERT_FALSE(limit.ok()) << text;
    EXPECT_NE(limit.status().message().find(std::string("HETERO_CACHE_MB=") + text), std::string::npos);
  }
  unsetenv("HETERO_CACHE_MB");
}

TEST_F(PlanningScene, MeasuresBehindTheFirstAnswerWhereAsked) {
  EngineOptions o = options(Strategy::kTensor);
  o.measure_within = {};
  auto first = Engine::open(o);
  ASSERT_TRUE(first.ok());
  EXPECT_TRUE((*first)->lacks_profile());
  EXPECT_EQ((*first)->profile(), nullptr);
  Session::Predicted predicted;
  const std::vector<TokenId> expected = generate(**first, &predicted);
  EXPECT_FALSE(predicted.known);
  ASSERT_TRUE((*first)->measure_for_next_time(std::chrono::seconds(30), nullptr).ok());
  EXPECT_FALSE((*first)->lacks_profile());
  EXPECT_EQ(profiles().size(), 1u);
  auto second = Engine::open(o);
  ASSERT_TRUE(second.ok());
  EXPECT_NE((*second)->profile(), nullptr);
  EXPECT_EQ(generate(**second), expected);
}

// Choosing the columns to compile took 0.2 s of every start.
TEST_F(PlanningScene, KeepsTheChosenColumnsAsLongAsWhatTheyFollowFromIsTheSame) {
  machine_.npu_script.traits.copies_weights = true;
  ASSERT_TRUE(Engine::open(options(Strategy::kTensor)).ok());
  ASSERT_EQ(profiles().size(), 1u);
  const std::string file = folder_ + "/columns" + profiles()[0].substr(profiles()[0].rfind('/'));
  const auto read = [&] {
    std::ifstream in(file);
    return nlohmann::ordered_json::parse(in, nullptr, false);
  };
  const nlohmann::ordered_json chosen = read();
  ASSERT_TRUE(chosen.is_object()) << file;
  // What the file says is taken, so it was not chosen again: here, nothing for the NPU.
  nlohmann::ordered_json none = chosen;
  for (auto& range : none["processors"][0]["columns"]) {
    range = {0, 0};
  }
  std::ofstream(file) << none.dump();
  const auto uses_npu = [&] {
    auto engine = Engine::open(options(Strategy::kTensor));
    EXPECT_TRUE(engine.ok());
    const auto plan = (*engine)->make_plan(false, 64, false, options(Strategy::kTensor).npu_share);
    EXPECT_TRUE(plan.ok());
    return std::any_of(plan->steps.begin(), plan->steps.end(), [&](const Step& s) {
      return plan->processors[static_cast<size_t>(s.processor)] == "npu0";
    });
  };
  EXPECT_FALSE(uses_npu());
  EXPECT_EQ(read(), none);
  // With another profile it is chosen anew, and a broken file is as good as none.
  Profile other = *read_profile(profiles()[0]);
  for (ProfiledProcessor& p : other.processors) {
    for (Series& s : p.series) {
      for (Point& point : s.points) {
        point.median *= p.id == "npu0" ? 1 : 1000;
      }
    }
  }
  ASSERT_TRUE(write_profile(other, profiles()[0]).ok());
  EXPECT_TRUE(uses_npu());
  EXPECT_NE(read()["key"], chosen["key"]);
  const nlohmann::ordered_json anew = read();
  std::ofstream(file) << "{\"key\": " << anew["key"] << ", \"processors\": [{\"processor\": \"npu0\"}]}";
  EXPECT_TRUE(uses_npu());
  EXPECT_EQ(read(), anew);
  // So are other options.
  EngineOptions reserve = options(Strategy::kTensor);
  reserve.reserve = {"cpu"};
  ASSERT_TRUE(Engine::open(reserve).ok());
  EXPECT_NE(read()["key"], anew["key"]);
}

TEST_F(PlanningScene, WeightsTakeNoMoreMemoryThanAllowed) {
  machine_.npu_script.traits.copies_weights = true;
  EngineOptions o = options(Strategy::kTensor);
  o.measure_within = std::chrono::minutes(5);  // all of it, with sanitizers too
  const auto ratio = [](Engine& engine, double share) {
    std::vector<Plan> plans;
    bool on_npu = false;
    for (const auto& [head, tokens] : {std::pair(false, 1), std::pair(false, 64), std::pair(true, 1)}) {
      auto plan = engine.make_plan(head, tokens, false, share);
      EXPECT_TRUE(plan.ok()) << plan.status().message();
      on_npu = on_npu || std::count(plan->processors.begin(), plan->processors.end(), "npu0") > 0;
      plans.push_back(*std::move(plan));
    }
    EXPECT_TRUE(on_npu);
    return weight_ratio(engine.graph(), plans, [](const std::string& id) { return id == "npu0"; });
  };
  ASSERT_TRUE(Engine::open(o).ok());  // leaves a profile
  // One in which the NPU gains in prompts and loses in decoding.
  Profile uneven = *read_profile(profiles()[0]);
  for (Handoff& h : uneven.handoffs) {  // measured in milliseconds where a sanitizer or other programs run
    h.median = std::chrono::microseconds(1);
  }
  for (ProfiledProcessor& p : uneven.processors) {
    p.submit = std::chrono::microseconds(1);
    for (Series& s : p.series) {
      for (Point& point : s.points) {
        const int64_t us = s.work.kind != "linear" ? 10 : point.tokens == 1 && p.id == "npu0" ? 400 : 100;
        point.median = std::chrono::microseconds(p.id == "gpu0" && point.tokens > 1 ? 2 * us : us);
      }
    }
  }
  uneven.together.clear();
  ASSERT_TRUE(write_profile(uneven, profiles()[0]).ok());
  auto free = Engine::open(o);
  ASSERT_TRUE(free.ok()) << free.status().message();
  const double most = ratio(**free, o.npu_share);
  EXPECT_GT(most, 1.2);
  const std::vector<TokenId> expected = generate(**free);
  for (const double limit : {1.0, 1.1, 1.0 + (most - 1.0) / 2, most}) {
    o.memory_ratio = limit;
    auto bound = Engine::open(o);
    ASSERT_TRUE(bound.ok()) << bound.status().message();
    EXPECT_LE(ratio(**bound, o.npu_share), limit + 1e-9);
    EXPECT_EQ(generate(**bound), expected);
  }
}

TEST_F(PlanningScene, ALimitOfMemoryThatRulesCannotKeepIsRefusedWithTheLeast) {
  machine_.npu_script.traits.copies_weights = true;
  EngineOptions o = options(Strategy::kLayer);  // prompts on the NPU, decoding on the GPU
  o.memory_ratio = 1.2;
  const auto refused = Engine::open(o);
  ASSERT_FALSE(refused.ok());
  const std::string message = refused.status().message();
  const std::string start = "--memory-ratio 1.2: with these plans (layer) weights take at least ";
  ASSERT_EQ(message.find(start), 0u) << message;
  o.memory_ratio = std::stod(message.substr(start.size()));
  EXPECT_GT(o.memory_ratio, 1.5);
  EXPECT_LE(o.memory_ratio, 2.0);
  EXPECT_TRUE(Engine::open(o).ok());
  // The NPU's strategies decode there as well.
  o = options(Strategy::kNpuPadding);
  o.memory_ratio = 1.0;
  EXPECT_TRUE(Engine::open(o).ok());
}

TEST_F(PlanningScene, AProfileOfSomethingElseIsRefused) {
  ASSERT_TRUE(Engine::open(options(Strategy::kTensor)).ok());
  ASSERT_EQ(profiles().size(), 1u);
  Profile other = *read_profile(profiles()[0]);
  other.identity.model = "another";
  const std::string file = folder_ + "/other.json";
  ASSERT_TRUE(write_profile(other, file).ok());
  EngineOptions o = options(Strategy::kTensor);
  o.profile = file;
  const auto opened = Engine::open(o);
  ASSERT_FALSE(opened.ok());
  EXPECT_NE(opened.status().message().find("other.json: it is of another model: another"), std::string::npos)
      << opened.status().message();
}

TEST_F(PlanningScene, RunsAGivenPlan) {
  auto plain = Engine::open(options(Strategy::kTensor));
  ASSERT_TRUE(plain.ok());
  const std::vector<TokenId> expected = generate(**plain);
  // Everything of the prompt's pass on the GPU.
  const auto plan = make_plan((*plain)->graph(), Strategy::kGpu, {"", "gpu0", "", {}}, false, 20);
  ASSERT_TRUE(plan.ok());
  const std::string file = folder_ + "/plan.json";
  std::ofstream(file) << to_json((*plain)->graph(), *plan).dump();
  EngineOptions o = options(Strategy::kTensor);
  o.plan = file;
  auto given = Engine::open(o);
  ASSERT_TRUE(given.ok()) << given.status().message();
  const auto used = (*given)->make_plan(false, 20, false, o.npu_share);
  ASSERT_TRUE(used.ok());
  EXPECT_EQ(used->processors, std::vector<std::string>{"gpu0"});
  EXPECT_EQ(used->steps.size(), plan->steps.size());
  EXPECT_EQ(generate(**given), expected);

  // One for the last row serves whoever wants the logits of all as well.
  const auto logits = [](Engine& engine) {
    auto session = engine.new_session();
    EXPECT_TRUE(session.ok());
    return all_logits(**session, prompt());
  };
  StrategyOptions last;
  last.last_row = true;
  const auto short_plan = make_plan((*plain)->graph(), Strategy::kGpu, {"", "gpu0", "", {}}, false, 20, last);
  ASSERT_TRUE(short_plan.ok());
  std::ofstream(file) << to_json((*plain)->graph(), *short_plan).dump();
  auto shorter = Engine::open(o);
  ASSERT_TRUE(shorter.ok()) << shorter.status().message();
  EXPECT_EQ(generate(**shorter), expected);
  EXPECT_EQ(logits(**shorter), logits(**given));
  const auto of_all = (*shorter)->make_plan(false, 20, true, o.npu_share);
  ASSERT_TRUE(of_all.ok());
  EXPECT_EQ(of_all->processors, std::vector<std::string>{"gpu0"});
  EXPECT_FALSE(of_all->last_row);

  o.request.strategy = Strategy::kCpu;
  const auto absent = Engine::open(o);
  ASSERT_FALSE(absent.ok());
  EXPECT_NE(absent.status().message().find("plan.json: it uses gpu0, which takes no part"),
            std::string::npos);
}

}  // namespace
}  // namespace hetero
