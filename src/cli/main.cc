// hetero: the command line of the engine. Start reading here: every command is one file beside
// this one.
#include <fmt/format.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <exception>
#include <utility>
#include <vector>

#include "cli/commands.h"

namespace hetero {

std::atomic<bool>& interrupted() {
  static std::atomic<bool> flag = false;
  return flag;
}

namespace {

void on_interrupt(int) {
  if (interrupted().exchange(true)) {
    _exit(130);  // asked twice: do not wait for anything
  }
}

int fail(int code, const std::string& message) {
  fmt::print(stderr, "hetero: error: {}\n", message);
  return code;
}

int run(int argc, char** argv) {
  CLI::App app{"HeteroInfer runs language models on the GPU, the NPU and the CPU of one chip together."};
  app.name("hetero");
  app.require_subcommand(1);
  app.set_version_flag("--version", "hetero " HETERO_VERSION);
  app.footer(
      "Examples:\n"
      "  hetero devices\n"
      "  hetero run -m model.gguf -p \"Why is the sky blue?\"\n"
      "  hetero run -m model.gguf -p \"Why is the sky blue?\" --strategy tensor\n"
      "  hetero chat -m model.gguf\n"
      "\"hetero COMMAND --help\" tells more.");
  std::vector<std::pair<std::string, Command>> commands = {
      {"devices", register_devices(app)},
      {"run", register_run(app)},
      {"chat", register_chat(app)},
      {"logprobs", register_logprobs(app)},
      {"tokenize", register_tokenize(app)},
      {"detokenize", register_detokenize(app)},
      {"render", register_render(app)},
      {"inspect", register_inspect(app)},
      {"quantize", register_quantize(app)},
      {"perplexity", register_perplexity(app)},
      {"import", register_import(app)},
      {"bench", register_bench(app)},
      {"profile", register_profile(app)},
      {"plan", register_plan(app)},
      {"characterize", register_characterize(app)},
      {"simulate", register_simulate(app)},
  };
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    if (e.get_exit_code() == 0) {
      return app.exit(e);  // --help, --version
    }
    return fail(2, e.what());
  }
  for (const auto& [name, command] : commands) {
    if (app.got_subcommand(name)) {
      const Status status = command();
      if (!status.ok()) {
        const bool wrong_call = status.code() == Code::kInvalidArgument;
        return status.code() == Code::kCancelled ? 130 : fail(wrong_call ? 2 : 1, status.message());
      }
    }
  }
  return 0;
}

}  // namespace
}  // namespace hetero

int main(int argc, char** argv) {
  struct sigaction action = {};
  action.sa_handler = hetero::on_interrupt;
  sigaction(SIGINT, &action, nullptr);  // no SA_RESTART: reading a line ends at once
  std::signal(SIGPIPE, SIG_IGN);        // `hetero run | head` ends by a failed write
  try {
    return hetero::run(argc, argv);
  } catch (const std::bad_alloc&) {
    return hetero::fail(1, "out of memory");
  } catch (const std::exception& e) {
    return hetero::fail(1, fmt::format("internal: {}", e.what()));
  }
}
