// hetero chat: a conversation in the terminal.
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <iostream>

#include "cli/chat_prompt.h"
#include "cli/commands.h"
#include "engine/generate.h"

namespace hetero {
namespace {

struct ChatOptions {
  ModelOptions model;
  SamplerOptions sampler;
  ConstraintOptions constraints;
  std::string system;
  int64_t tokens = 1024;
};

/// Drops the oldest question and its answer; false when only the newest question is left.
bool drop_oldest_turn(nlohmann::ordered_json& history) {
  const size_t first = !history.empty() && history[0]["role"] == "system" ? 1 : 0;
  if (history.size() < first + 3) {
    return false;
  }
  history.erase(history.begin() + static_cast<int64_t>(first),
                history.begin() + static_cast<int64_t>(first) + 2);
  return true;
}

Status chat(const ChatOptions& o) {
  GenerateOptions options;
  options.sampler = o.sampler;
  HETERO_RETURN_IF_ERROR(apply(o.constraints, options));
  HETERO_TRY(const OpenedModel model, open_model(o.model));
  Session& session = *model.session;
  HETERO_RETURN_IF_ERROR(session.prepare(1));  // while the user thinks of a question
  HETERO_TRY(const ChatPrompt prompt, ChatPrompt::create(*model.engine));
  auto history = nlohmann::ordered_json::array();
  if (!o.system.empty()) {
    history.push_back({{"role", "system"}, {"content", o.system}});
  }
  const bool terminal = isatty(STDIN_FILENO) != 0;
  if (terminal) {
    fmt::print(stderr, "Type a question; Ctrl-C stops an answer, Ctrl-D or /bye ends, /new starts over.\n");
  }
  std::string line;
  for (;;) {
    interrupted() = false;
    if (terminal) {
      fmt::print("> ");
      std::fflush(stdout);
    }
    if (!std::getline(std::cin, line)) {
      if (interrupted()) {  // Ctrl-C at the prompt clears the line
        std::cin.clear();
        std::clearerr(stdin);
        fmt::print("\n");
        continue;
      }
      break;
    }
    interrupted() = false;  // Ctrl-C just before the prompt must not stop the answer to this line
    if (line == "/bye") {
      break;
    }
    if (line == "/new") {
      history.erase(history.begin() + (o.system.empty() ? 0 : 1), history.end());
      continue;
    }
    if (line.empty()) {
      continue;
    }
    history.push_back({{"role", "user"}, {"content", line}});
    // Room for an answer, at least a quarter of the context; old turns make way for it.
    HETERO_TRY(std::vector<TokenId> ids, prompt.encode(history));
    const int64_t room = std::min(o.tokens, std::max<int64_t>(1, model.engine->context() / 4));
    bool fits = true;
    bool dropped = false;
    while (fits && static_cast<int64_t>(ids.size()) + room > model.engine->context()) {
      fits = drop_oldest_turn(history);
      if (fits) {
        dropped = true;
        HETERO_TRY(ids, prompt.encode(history));
      }
    }
    if (dropped) {
      fmt::print(stderr, "hetero: the context of {} tokens is full; the oldest turns were forgotten\n",
                 model.engine->context());
    }
    if (static_cast<int64_t>(ids.size()) > model.engine->context()) {
      fmt::print(stderr, "hetero: this question has {} tokens, but the context holds {} (-c sets it)\n",
                 ids.size(), model.engine->context());
      history.erase(history.end() - 1);
      continue;
    }
    options.max_tokens = o.tokens;
    options.cancel = &interrupted();
    HETERO_TRY(const Generation g, generate(session, ids, options, [](std::string_view piece) {
                 fmt::print("{}", piece);
                 std::fflush(stdout);
               }));
    fmt::print("\n");
    if (g.stop == Stop::kCancelled) {
      fmt::print(stderr, "hetero: stopped\n");
    } else if (g.stop == Stop::kContext) {
      fmt::print(stderr, "hetero: stopped: the context of {} tokens is full\n", model.engine->context());
    }
    if (o.model.verbose) {
      fmt::print(stderr, "hetero: {} tokens ({} kept) at {:.1f} tok/s, {} at {:.1f} tok/s\n", g.prompt_tokens,
                 g.reused_tokens, g.prefill_tps(), g.ids.size(), g.decode_tps());
    }
    history.push_back({{"role", "assistant"}, {"content", g.text}});
  }
  return {};
}

}  // namespace

Command register_chat(CLI::App& app) {
  CLI::App* command = app.add_subcommand("chat", "Talk with a model in the terminal");
  auto o = std::make_shared<ChatOptions>();
  add_model_options(*command, o->model);
  command->add_option("--system", o->system, "System message");
  command->add_option("-n,--tokens", o->tokens, "Most tokens of one answer")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 31))
      ->capture_default_str();
  add_sampler_options(*command, o->sampler);
  add_constraint_options(*command, o->constraints);
  command->footer("Example:\n  hetero chat -m model.gguf --system \"You answer in one sentence.\"");
  return [o] { return chat(*o); };
}

}  // namespace hetero
