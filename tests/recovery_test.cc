// What happens when processors fail, become slow, or have nothing compiled yet: the tokens stay the
// same, and the user is told.
#include <gtest/gtest.h>

#include <thread>

#include "cases.h"
#include "engine/generate.h"
#include "fake_machine.h"
#include "scene.h"

namespace hetero {
namespace {

using std::chrono::milliseconds;

constexpr int64_t kTokens = 24;

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

struct Opened {
  std::unique_ptr<Engine> engine;
  std::unique_ptr<Session> session;

  explicit Opened(EngineOptions options) {
    auto opened = Engine::open(std::move(options));
    EXPECT_TRUE(opened.ok()) << opened.status().message();
    if (opened.ok()) {
      engine = std::move(opened).value();
      auto made = engine->new_session();
      EXPECT_TRUE(made.ok()) << made.status().message();
      session = std::move(made).value();
    }
  }
  Result<std::vector<TokenId>> generate(const std::vector<TokenId>& ids, int64_t tokens = kTokens) {
    GenerateOptions o;
    o.max_tokens = tokens;
    o.ignore_eos = true;
    o.sampler.temperature = 0.0f;
    HETERO_TRY(const Generation g, hetero::generate(*session, ids, o));
    return g.ids;
  }
};

std::vector<TokenId> truth() {
  FakeMachine machine;
  Opened run(machine.options(tiny_model(), Strategy::kCpu));
  const auto ids = run.generate(prompt());
  EXPECT_TRUE(ids.ok()) << ids.status().message();
  return ids.ok() ? *ids : std::vector<TokenId>();
}

class Recovery : public testing::Test {
 protected:
  void SetUp() override {
    if (!std::ifstream(tiny_model()).good()) {
      GTEST_SKIP() << "no " << tiny_model();
    }
  }
};

TEST_F(Recovery, AProcessorThatFailsIsDroppedAndTheTokensStayTheSame) {
  const std::vector<TokenId> expected = truth();
  for (const Strategy strategy :
       {Strategy::kGpu, Strategy::kLayer, Strategy::kTensor, Strategy::kNpuPadding}) {
    for (const bool coherent : {true, false}) {
      for (const char* who : {"gpu0", "npu0"}) {
        const bool gpu = std::string(who) == "gpu0";
        if (!(gpu ? uses_gpu(strategy) : uses_npu(strategy))) {
          continue;
        }
        for (const uint64_t at : {1u, 30u, 150u}) {
          SCOPED_TRACE(testing::Message() << strategy_name(strategy) << ", " << who << " fails at " << at
                                          << (coherent ? "" : ", memory of its own"));
          FakeMachine machine;
          machine.gpu_script.traits.coherent = coherent;
          (gpu ? machine.gpu_script : machine.npu_script).fail_at = at;
          Opened run(machine.options(tiny_model(), strategy));
          const auto ids = run.generate(prompt());
          ASSERT_TRUE(ids.ok()) << ids.status().message();
          EXPECT_EQ(*ids, expected);
          const bool failed = static_cast<uint64_t>((gpu ? machine.gpu : machine.npu)->submitted()) >= at;
          ASSERT_EQ(machine.notices.size(), failed ? 1u : 0u);
          if (failed) {
            EXPECT_NE(machine.notices[0].find(std::string(who) + " failed and is not used any more"),
                      std::string::npos)
                << machine.notices[0];
          }
        }
      }
    }
  }
}

TEST_F(Recovery, WhenGpuAndNpuFailTheCpuGoesOn) {
  FakeMachine machine;
  machine.gpu_script.fail_at = 40;
  machine.npu_script.fail_at = 60;
  Opened run(machine.options(tiny_model(), Strategy::kTensor));
  const auto ids = run.generate(prompt());
  ASSERT_TRUE(ids.ok()) << ids.status().message();
  EXPECT_EQ(*ids, truth());
  EXPECT_EQ(machine.notices.size(), 2u);
  EXPECT_EQ(run.engine->selection().strategy, Strategy::kCpu);
}

TEST_F(Recovery, ASecondSessionFollowsAndItsCacheIsWhole) {
  FakeMachine machine;
  machine.gpu_script.traits.coherent = false;
  machine.gpu_script.fail_at = 120;
  Opened run(machine.options(tiny_model(), Strategy::kTensor));
  auto second = run.engine->new_session();
  ASSERT_TRUE(second.ok());
  ASSERT_TRUE((*second)->feed(prompt()).ok());
  ASSERT_TRUE(run.generate(prompt()).ok());
  ASSERT_EQ(machine.notices.size(), 1u);
  std::swap(run.session, *second);
  const auto ids = run.generate(prompt());
  ASSERT_TRUE(ids.ok()) << ids.status().message();
  EXPECT_EQ(*ids, truth());
}

TEST_F(Recovery, WhatNobodyElseCanDoIsAnError) {
  FakeMachine machine;
  EngineOptions options = machine.options(tiny_model(), Strategy::kCpu);
  options.find = [](const Discovery&) {
    FoundProcessor f;
    f.info.id = "cpu";
    f.info.kind = "cpu";
    f.open = [](const ProcessorInfo&, const OpenOptions&) -> Result<std::unique_ptr<Processor>> {
      FakeScript script;
      script.fail_at = 5;
      return std::unique_ptr<Processor>(std::make_unique<FakeProcessor>("cpu", "cpu", script));
    };
    return std::vector{f};
  };
  Opened run(std::move(options));
  const auto ids = run.generate(prompt());
  ASSERT_FALSE(ids.ok());
  EXPECT_EQ(ids.status().code(), Code::kDeviceLost);
}

TEST_F(Recovery, TheFirstTokenDoesNotWaitForGraphs) {
  for (const Strategy strategy : {Strategy::kTensor, Strategy::kLayer, Strategy::kNpuPadding}) {
    SCOPED_TRACE(strategy_name(strategy));
    FakeMachine machine;
    machine.npu_script.compile_delay = milliseconds(20);
    EngineOptions options = machine.options(tiny_model(), strategy);
    options.compile = EngineOptions::Compile::kAuto;
    Opened run(std::move(options));
    ASSERT_TRUE(run.session->prepare(20).ok());
    const auto [done, total] = run.session->compiling();
    EXPECT_LT(done, total);
    const auto ids = run.generate(prompt());
    ASSERT_TRUE(ids.ok()) << ids.status().message();
    EXPECT_EQ(*ids, truth());
    ASSERT_EQ(machine.notices.size(), 1u);
    EXPECT_NE(machine.notices[0].find("in the background"), std::string::npos);
    if (strategy == Strategy::kLayer) {
      continue;  // decodes on the GPU
    }
    // In the end the NPU takes part, with the same tokens still.
    for (int i = 0; i < 2000 && run.session->compiling().first < total; ++i) {
      std::this_thread::sleep_for(milliseconds(5));
    }
    const int before = machine.npu->submitted();
    run.session->truncate(0);
    const auto again = run.generate(prompt());
    ASSERT_TRUE(again.ok()) << again.status().message();
    EXPECT_EQ(*again, truth());
    EXPECT_GT(machine.npu->submitted(), before);
  }
}

TEST_F(Recovery, AGraphThatCannotBeCompiledBehindDropsTheNpu) {
  FakeMachine machine;
  machine.npu_script.compile_delay = milliseconds(1);
  machine.npu_script.fail_compile = true;
  EngineOptions options = machine.options(tiny_model(), Strategy::kTensor);
  options.compile = EngineOptions::Compile::kBehind;
  Opened run(std::move(options));
  ASSERT_TRUE(run.session->prepare(20).ok());
  const auto dropped = [&] { return !run.engine->dropped().empty(); };
  for (int i = 0; i < 400 && !dropped(); ++i) {
    run.session->truncate(0);
    const auto ids = run.generate(prompt());
    ASSERT_TRUE(ids.ok()) << ids.status().message();
    EXPECT_EQ(*ids, truth());
  }
  ASSERT_TRUE(dropped());
  EXPECT_NE(machine.notices.back().find("npu0 failed"), std::string::npos) << machine.notices.back();
  EXPECT_EQ(run.engine->selection().strategy, Strategy::kGpu);
  const auto ids = run.generate(prompt());
  ASSERT_TRUE(ids.ok()) << ids.status().message();
  EXPECT_EQ(*ids, truth());
}

TEST_F(Recovery, TheRatioFollowsAProcessorThatBecomesSlow) {
  FakeMachine machine;
  machine.gpu_script.delay = milliseconds(1);
  machine.npu_script.delay = milliseconds(1);
  Opened run(machine.options(tiny_model(), Strategy::kTensor));
  const std::vector<TokenId> ids = prompt();
  ASSERT_TRUE(run.session->feed(ids).ok());
  const auto step = [&] {
    run.session->truncate(20);
    return run.session->feed(std::vector<TokenId>{5}).ok();
  };
  for (int i = 0; i < 40; ++i) {
    ASSERT_TRUE(step());
  }
  EXPECT_EQ(run.session->adaptations(), 0);
  machine.npu->set_delay(milliseconds(4));
  for (int i = 0; i < 500 && run.session->adaptations() == 0; ++i) {
    ASSERT_TRUE(step());
  }
  EXPECT_EQ(run.session->adaptations(), 1);
  // And the numbers stay what they are.
  run.session->truncate(0);
  machine.npu->set_delay(milliseconds(1));
  const auto generated = run.generate(ids);
  ASSERT_TRUE(generated.ok());
  EXPECT_EQ(*generated, truth());
}

TEST_F(Recovery, WithoutAdaptationThePlanStays) {
  FakeMachine machine;
  EngineOptions options = machine.options(tiny_model(), Strategy::kTensor);
  options.adapt = false;
  Opened run(std::move(options));
  ASSERT_TRUE(run.session->feed(prompt()).ok());
  for (int i = 0; i < 80; ++i) {
    machine.npu->set_delay(milliseconds(i < 40 ? 0 : 5));
    run.session->truncate(20);
    ASSERT_TRUE(run.session->feed(std::vector<TokenId>{5}).ok());
  }
  EXPECT_EQ(run.session->adaptations(), 0);
}

// Real processors, made to fail.

TEST(RealProcessors, LostInMidGenerationGiveTheSameTokens) {
  const std::string model = real_model();
  if (model.empty()) {
    GTEST_SKIP() << "no real model";
  }
  std::optional<DType> kv_cache;
  const auto generate = [&](const char* fail) -> Result<std::vector<TokenId>> {
    if (fail != nullptr) {
      setenv("HETERO_FAIL", fail, 1);
    } else {
      unsetenv("HETERO_FAIL");
    }
    Scene scene(model, Strategy::kTensor, 0.5, kv_cache);
    unsetenv("HETERO_FAIL");
    HETERO_RETURN_IF_ERROR(scene.status);
    HETERO_TRY(const std::vector<TokenId> ids,
               scene.engine->tokenizer().encode("The capital of France is", true, false));
    GenerateOptions o;
    o.max_tokens = 16;
    o.sampler.temperature = 0.0f;
    HETERO_TRY(const Generation g, hetero::generate(*scene.session, ids, o));
    EXPECT_EQ(scene.engine->dropped().size(), fail != nullptr ? 1u : 0u);
    return g.ids;
  };
  const auto expected = generate(nullptr);
  if (expected.status().code() == Code::kUnavailable) {
    GTEST_SKIP() << expected.status().message();
  }
  ASSERT_TRUE(expected.ok()) << expected.status().message();
  for (const char* fail : {"npu0:70", "npu0:400", "gpu0:100", "gpu0:2000"}) {
    const auto found = generate(fail);
    ASSERT_TRUE(found.ok()) << fail << ": " << found.status().message();
    EXPECT_EQ(*found, *expected) << fail;
  }
  kv_cache = DType::kQ8_0;
  const auto rounded = generate(nullptr);
  ASSERT_TRUE(rounded.ok()) << rounded.status().message();
  const auto found = generate("gpu0:2000");
  ASSERT_TRUE(found.ok()) << found.status().message();
  EXPECT_EQ(*found, *rounded);
}

}  // namespace
}  // namespace hetero
