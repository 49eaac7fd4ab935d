// An engine over scripted processors: a CPU, a GPU and an NPU that compute by the reference, so that
// every strategy gives the same numbers to the bit.
#pragma once

#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "engine/engine.h"
#include "processor/fake.h"

namespace hetero {

struct FakeMachine {
  FakeScript gpu_script;
  FakeScript npu_script;
  // Owned by the engine; nullptr as long as it has not opened them.
  FakeProcessor* cpu = nullptr;
  FakeProcessor* gpu = nullptr;
  FakeProcessor* npu = nullptr;
  std::vector<std::string> notices;

  EngineOptions options(const std::string& model, Strategy strategy) {
    npu_script.traits.static_shapes = true;
    EngineOptions o;
    o.model = model;
    o.context = 128;
    o.request.strategy = strategy;
    o.notice = [this](const std::string& what) { notices.push_back(what); };
    o.find = [this](const Discovery&) {
      std::vector<FoundProcessor> found;
      for (auto [kind, id, script, out] :
           {std::tuple{"cpu", "cpu", FakeScript(), &cpu}, std::tuple{"gpu", "gpu0", gpu_script, &gpu},
            std::tuple{"npu", "npu0", npu_script, &npu}}) {
        FoundProcessor f;
        f.info.id = id;
        f.info.kind = kind;
        f.open = [kind = std::string(kind), script = script, out = out](
                     const ProcessorInfo& info, const OpenOptions&) -> Result<std::unique_ptr<Processor>> {
          auto fake = std::make_unique<FakeProcessor>(info.id, kind, script);
          *out = fake.get();
          return std::unique_ptr<Processor>(std::move(fake));
        };
        found.push_back(std::move(f));
      }
      return found;
    };
    return o;
  }
};

}  // namespace hetero
