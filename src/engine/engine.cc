#include "engine/engine.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>

#include "engine/session_limits.h"
#include "graph/model.h"

namespace hetero {

Result<std::unique_ptr<Engine>> Engine::open(EngineOptions options) {
  std::unique_ptr<Engine> engine(new Engine());
  engine->options_ = std::move(options);
  const EngineOptions& o = engine->options_;
  const auto progress = [&](const char* what) {
    if (o.progress) {
      o.progress(what, 0, 0);
    }
  };
  progress("reading the model");
  GgufOpen how;
  how.map = o.map;
  how.progress = [&](Bytes done, Bytes total) {
    if (o.progress) {
      o.progress("reading the model, MB", static_cast<int>(done / 1'000'000),
                 static_cast<int>(total / 1'000'000));
    }
  };
  HETERO_TRY(engine->file_, GgufFile::open(o.model, how));
  HETERO_TRY(engine->graph_, build_graph(*engine->file_, o.context));
  HETERO_TRY(engine->tokenizer_, Tokenizer::load(*engine->file_));
  const ModelShape& shape = engine->graph_.shape;
  if (engine->tokenizer_->size() > shape.vocabulary) {
    return malformed(fmt::format("{}: the tokenizer has {} tokens, but the model only {}", o.model,
                                 engine->tokenizer_->size(), shape.vocabulary));
  }
  engine->context_ = o.context > 0 ? o.context : shape.default_context;
  if (engine->context_ > shape.context) {
    return invalid_argument(fmt::format("-c {}: the model was trained for {} tokens of context",
                                        engine->context_, shape.context));
  }
  progress("looking for processors");
  engine->found_ = find_processors(needed(o.request));
  HETERO_TRY(engine->selection_, select(engine->found_, o.request));
  HETERO_RETURN_IF_ERROR(engine->open_processors(o.cache_dir));
  return engine;
}

Status Engine::open_processors(const std::string& cache_dir) {
  for (Member& member : selection_.members) {
    if (options_.progress) {
      options_.progress("opening " + member.found->info.id, 0, 0);
    }
    member.options.cache_dir = cache_dir;
    auto opened = member.found->open(member.found->info, member.options);
    if (!opened.ok()) {
      return opened.status().with_prefix(member.found->info.id);
    }
    processors_.push_back(std::move(opened).value());
  }
  // A GPU or an NPU may lack an operator, or a dtype of this model; then another does it (the CPU
  // joins where it is needed), and the user is told.
  const auto lacking = [&](const std::string& id, int op) -> Status {
    for (const auto& p : processors_) {
      if (p->info().id == id) {
        return p->supports(graph_, {op, 0, graph_.output_cols(op)});
      }
    }
    return {};
  };
  struct Lack {
    Status first;
    int count = 0;
  };
  const auto lacks = [&](const std::string& id, bool linear_only) {
    Lack lack;
    for (int op = 0; op < static_cast<int>(graph_.ops.size()) && !id.empty(); ++op) {
      if (linear_only && !graph_.op(op).is<Linear>()) {
        continue;
      }
      if (Status status = lacking(id, op); !status.ok() && lack.count++ == 0) {
        lack.first = std::move(status);
      }
    }
    return lack;
  };
  const Lack gpu = lacks(selection_.team.gpu, false);
  if (gpu.count > 0 && selection_.team.cpu.empty()) {
    const FoundProcessor& cpu = found_.front();
    OpenOptions options;
    options.cpus = selection_.members.front().options.cpus;
    options.threads = static_cast<int>(options.cpus.size());
    HETERO_TRY(auto opened, cpu.open(cpu.info, options));
    processors_.push_back(std::move(opened));
    selection_.team.cpu = cpu.info.id;
  }
  if (gpu.count > 0) {
    selection_.notices.push_back(fmt::format("{} cannot run {} operators, the CPU does: {}",
                                             selection_.team.gpu, gpu.count, gpu.first.message()));
  }
  if (const Lack npu = lacks(selection_.team.npu, true); npu.count > 0) {
    selection_.notices.push_back(
        fmt::format("{} cannot run {} linear operators, {} does: {}", selection_.team.npu, npu.count,
                    selection_.team.gpu.empty() ? "the CPU" : selection_.team.gpu, npu.first.message()));
  }
  selection_.team.can_run = [lacking](const std::string& id, int op) { return lacking(id, op).ok(); };
  return {};
}

std::shared_ptr<const TokenTrie> Engine::token_trie() {
  if (token_trie_ == nullptr) {
    token_trie_ = std::make_shared<const TokenTrie>(*tokenizer_);
  }
  return token_trie_;
}

Bytes Engine::device_bytes() const {
  Bytes bytes = 0;
  for (const auto& p : processors_) {
    bytes += p->device_bytes();
  }
  return bytes;
}

Result<std::unique_ptr<Session>> Engine::new_session() {
  std::vector<Processor*> processors;
  for (const auto& p : processors_) {
    processors.push_back(p.get());
  }
  // A processor may fill rows beyond the prompt's, so memory is for whole standard lengths.
  const RowCapacity capacity{kMaxPassTokens, kMaxHeadRows, context_};
  HETERO_TRY(auto executor, Executor::create(graph_, std::move(processors), capacity));
  executor->set_sync(options_.sync);
  return std::unique_ptr<Session>(new Session(*this, std::move(executor)));
}

std::string default_cache_dir() {
  if (const char* xdg = std::getenv("XDG_CACHE_HOME"); xdg != nullptr && *xdg == '/') {
    return std::string(xdg) + "/heteroinfer";
  }
  if (const char* home = std::getenv("HOME"); home != nullptr && *home == '/') {
    return std::string(home) + "/.cache/heteroinfer";
  }
  return "";
}

}  // namespace hetero
