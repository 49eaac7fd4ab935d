// hetero import: a Hugging Face folder as one GGUF file.
#include "import/import.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <filesystem>

#include "base/threads.h"
#include "cli/commands.h"

namespace hetero {
namespace {

struct ImportCommand {
  std::string folder;
  std::string out;
  std::string type;
  std::string pre;
  int threads = 0;
  bool json = false;
};

Status import(const ImportCommand& o) {
  ImportOptions options;
  std::string name = o.type;
  std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::toupper(c); });
  if (!name.empty()) {
    options.type = dtype_from_name(name);
    constexpr DType kTypes[] = {DType::kF32,  DType::kF16,  DType::kBF16, DType::kQ4_0, DType::kQ4_1,
                                DType::kQ5_0, DType::kQ5_1, DType::kQ8_0, DType::kQ4_K, DType::kQ6_K};
    if (!options.type || std::find(std::begin(kTypes), std::end(kTypes), *options.type) == std::end(kTypes)) {
      return invalid_argument(fmt::format(
          "--type {}: expected F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K or Q6_K", o.type));
    }
  }
  std::string out = o.out;
  if (out.empty()) {
    const std::string folder = std::filesystem::weakly_canonical(o.folder).filename().string();
    out = folder + (name.empty() ? "" : "-" + name) + ".gguf";
  }
  options.pre = o.pre;
  options.threads = o.threads > 0 ? o.threads : static_cast<int>(available_cpus().size());
  Progress progress;
  options.progress = [&](const std::string& tensor, int i, int count) {
    progress.show(tensor, i + 1, count);
  };
  const auto summary = import_folder(o.folder, out, options);
  progress.clear();
  HETERO_RETURN_IF_ERROR(summary.status());
  if (o.json) {
    print_json({{"path", out},
                {"architecture", summary->architecture},
                {"tensors", summary->tensors},
                {"left_out", summary->left_out},
                {"bytes", summary->bytes}});
    return {};
  }
  fmt::print("{}: {}, {} tensors, {:.1f} MB\n", out, summary->architecture, summary->tensors,
             static_cast<double>(summary->bytes) / 1e6);
  if (summary->left_out > 0) {
    fmt::print("{} tensors were left out: buffers, or parts that do not process text\n", summary->left_out);
  }
  return {};
}

}  // namespace

Command register_import(CLI::App& app) {
  CLI::App* command = app.add_subcommand("import", "Write a Hugging Face folder as one GGUF file");
  auto o = std::make_shared<ImportCommand>();
  command->add_option("folder", o->folder, "Folder with config.json, *.safetensors and tokenizer.json")
      ->required();
  command->add_option("-o,--output", o->out, "File to write (default: the folder's name, here)");
  command->add_option("--type", o->type,
                      "Type of the matrices: F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q6_K "
                      "(default: as they are)");
  command->add_option("--pre", o->pre, "Name of the pre-tokenizer (default: found from tokenizer.json)");
  command->add_option("--threads", o->threads, "CPUs to use (default: all)")->check(CLI::Range(1, 4096));
  command->add_flag("--json", o->json, "Print JSON");
  command->footer(
      "Architectures: llama, mistral, mixtral, qwen2, qwen2moe, qwen3, qwen3moe, gemma, gemma2, gemma3, "
      "phi3.\n"
      "Examples:\n"
      "  hetero import Qwen3-0.6B\n"
      "  hetero import Llama-3.2-1B -o llama.gguf --type Q8_0");
  return [o] { return import(*o); };
}

}  // namespace hetero
