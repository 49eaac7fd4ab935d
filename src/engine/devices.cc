#include "engine/devices.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "base/threads.h"
#include "cpu/cpu.h"
#include "npu/npu.h"
#include "opencl/opencl.h"

namespace hetero {
namespace {

const FoundProcessor* find_id(const std::vector<FoundProcessor>& found, const std::string& id) {
  const auto it =
      std::find_if(found.begin(), found.end(), [&](const FoundProcessor& p) { return p.info.id == id; });
  return it == found.end() ? nullptr : &*it;
}

/// The first of a kind, real ones first; among `allowed` only, unless that is empty.
const FoundProcessor* first_of(const std::vector<FoundProcessor>& found, const std::string& kind,
                               const std::vector<std::string>& allowed, bool stand_ins) {
  for (const FoundProcessor& p : found) {
    const bool may = allowed.empty() || std::find(allowed.begin(), allowed.end(), p.info.id) != allowed.end();
    if (p.info.kind == kind && may && (stand_ins || !p.info.stand_in)) {
      return &p;
    }
  }
  return nullptr;
}

/// Shares `cpus` out among the members that run on them: the CPU and stand-ins, in equal parts. With
/// `joined`, two stand-ins have all of them, and the CPU works where the last one (an NPU) does.
void share_cpus(std::vector<Member>& members, std::vector<int> cpus, bool joined) {
  std::vector<Member*> hosted;
  Member* guest = nullptr;
  for (Member& m : members) {
    if (m.found->info.kind == "cpu" || m.found->info.stand_in) {
      hosted.push_back(&m);
    }
  }
  if (const auto cpu = std::find_if(hosted.begin(), hosted.end(),
                                    [](const Member* m) { return m->found->info.kind == "cpu"; });
      joined && cpu != hosted.end() && hosted.size() > 2) {
    guest = *cpu;
    hosted.erase(cpu);
  }
  const size_t parts = std::min(hosted.size(), cpus.size());
  for (size_t i = 0; i < hosted.size(); ++i) {
    const size_t part = i % std::max<size_t>(parts, 1);
    const size_t begin = part * cpus.size() / parts;
    const size_t end = (part + 1) * cpus.size() / parts;
    hosted[i]->options.cpus.assign(cpus.begin() + static_cast<int64_t>(begin),
                                   cpus.begin() + static_cast<int64_t>(end));
    hosted[i]->options.threads = static_cast<int>(end - begin);
  }
  if (guest != nullptr) {
    guest->options = hosted.back()->options;
  }
}

/// The CPUs to use: the first `threads`, or all.
std::vector<int> first_cpus(int threads) {
  std::vector<int> cpus = available_cpus();
  if (threads > 0 && static_cast<size_t>(threads) < cpus.size()) {
    cpus.resize(static_cast<size_t>(threads));
  }
  return cpus;
}

Status check_ids(const std::vector<FoundProcessor>& found, const std::vector<std::string>& ids) {
  std::vector<std::string> known;
  for (const FoundProcessor& p : found) {
    known.push_back(p.info.id);
  }
  for (const std::string& id : ids) {
    if (find_id(found, id) == nullptr) {
      return not_found(fmt::format("--processors: \"{}\" is not a processor of this machine (found: {})", id,
                                   fmt::join(known, ", ")));
    }
  }
  return {};
}

}  // namespace

std::vector<FoundProcessor> find_processors(const Discovery& discovery) {
  std::vector<FoundProcessor> found;
  found.push_back(find_cpu());
  found.back().info.id = "cpu";
  const auto add = [&](std::vector<FoundProcessor> more) {
    int index = 0;
    for (FoundProcessor& p : more) {
      p.info.id = fmt::format("{}{}", p.info.kind, index++);
      found.push_back(std::move(p));
    }
  };
  if (discovery.gpu) {
    add(find_opencl());
  }
  if (discovery.npu) {
    add(find_npu());
  }
  return found;
}

Discovery needed(const Request& request) {
  const auto named = [&](const char* kind) {
    return std::any_of(request.processors.begin(), request.processors.end(),
                       [&](const std::string& id) { return id.starts_with(kind); });
  };
  const bool any = request.processors.empty();
  const bool automatic = !request.strategy.has_value();
  return {named("gpu") || (any && (automatic || uses_gpu(*request.strategy))),
          named("npu") || (any && (automatic || uses_npu(*request.strategy)))};
}

Result<std::vector<Member>> members_of(const std::vector<FoundProcessor>& found,
                                       const std::vector<std::string>& ids, int threads) {
  HETERO_RETURN_IF_ERROR(check_ids(found, ids));
  std::vector<Member> members;
  for (const FoundProcessor& p : found) {
    const bool named = std::find(ids.begin(), ids.end(), p.info.id) != ids.end();
    if (ids.empty() ? !p.info.stand_in : named) {
      members.push_back({&p, {}});
    }
  }
  share_cpus(members, first_cpus(threads), false);
  return members;
}

Result<Selection> select(const std::vector<FoundProcessor>& found, const Request& request) {
  HETERO_RETURN_IF_ERROR(check_ids(found, request.processors));
  // Auto leaves stand-ins out, unless they were named.
  const bool stand_ins = request.strategy.has_value() || !request.processors.empty();
  const FoundProcessor* cpu = first_of(found, "cpu", request.processors, true);
  const FoundProcessor* gpu = first_of(found, "gpu", request.processors, stand_ins);
  const FoundProcessor* npu = first_of(found, "npu", request.processors, stand_ins);

  Selection s;
  if (request.strategy) {
    s.strategy = *request.strategy;
  } else if (gpu != nullptr && npu != nullptr) {
    s.strategy = Strategy::kTensor;
  } else if (gpu != nullptr) {
    s.strategy = Strategy::kGpu;
  } else {
    s.strategy = npu != nullptr ? Strategy::kNpuPadding : Strategy::kCpu;
  }
  const auto missing = [&](const char* what, const char* hint) {
    const std::string who = request.processors.empty() ? std::string("none was found")
                                                       : fmt::format("--processors {} names none",
                                                                     fmt::join(request.processors, ","));
    return unavailable(
        fmt::format("strategy {} needs {}, but {}{}", strategy_name(s.strategy), what, who, hint));
  };
  if (uses_gpu(s.strategy) && gpu == nullptr) {
    return missing("a GPU", " (GPUs need an OpenCL driver; pocl-opencl-icd is a stand-in)");
  }
  if (uses_npu(s.strategy) && npu == nullptr) {
    return missing("an NPU", " (NPUs need OpenVINO, which also brings a stand-in)");
  }
  const bool needs_cpu = s.strategy == Strategy::kCpu || (!uses_gpu(s.strategy) && gpu == nullptr);
  if (cpu == nullptr && needs_cpu) {
    return missing("the CPU", "");
  }
  // The npu strategies keep the rest of the work on the CPU, unless only a GPU was named.
  const bool with_gpu = uses_gpu(s.strategy) || (s.strategy != Strategy::kCpu && cpu == nullptr);
  // With auto and tensor the solver decides what the CPU is good for beside a GPU.
  const bool solved = !request.strategy.has_value() || s.strategy == Strategy::kTensor;
  const bool with_cpu = cpu != nullptr && (!uses_gpu(s.strategy) || solved);
  const auto take = [&](const FoundProcessor* p, std::string& id) {
    s.members.push_back({p, {}});
    id = p->info.id;
    if (p->info.stand_in) {
      s.notices.push_back(fmt::format("{} is a stand-in: {} ({})", id, p->info.name, p->info.provider));
    }
  };
  if (with_cpu) {
    take(cpu, s.team.cpu);
  }
  if (with_gpu) {
    take(gpu, s.team.gpu);
  }
  if (uses_npu(s.strategy)) {
    take(npu, s.team.npu);
  }
  share_cpus(s.members, first_cpus(request.threads), true);
  s.int8_activations =
      request.int8_activations.value_or(!request.strategy.has_value() && s.strategy == Strategy::kCpu);
  for (Member& m : s.members) {
    m.options.int8_activations = s.int8_activations;
  }
  if (s.int8_activations && !with_cpu) {
    s.notices.push_back(
        "--activations q8 changes nothing: only the CPU rounds activations, and it takes no part");
  }
  return s;
}

}  // namespace hetero
