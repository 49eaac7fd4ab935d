// hetero quantize: a model file in a smaller type.
#include <fmt/format.h>

#include <algorithm>
#include <cctype>

#include "base/threads.h"
#include "cli/commands.h"
#include "gguf/quantize_file.h"

namespace hetero {
namespace {

struct QuantizeOptions {
  std::string in;
  std::string out;
  std::string type;
  int threads = 0;
  bool json = false;
};

Status quantize(const QuantizeOptions& o) {
  std::string name = o.type;
  std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::toupper(c); });
  const auto type = dtype_from_name(name);
  if (!type) {
    return invalid_argument(
        fmt::format("type {}: expected F16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K or Q6_K", o.type));
  }
  HETERO_TRY(const auto file, GgufFile::open(o.in));
  Progress progress;
  const int threads = o.threads > 0 ? o.threads : static_cast<int>(available_cpus().size());
  const auto summary = quantize_file(
      *file, o.out, *type, threads,
      [&](const std::string& tensor, int i, int count) { progress.show(tensor, i + 1, count); });
  progress.clear();
  HETERO_RETURN_IF_ERROR(summary.status());
  if (o.json) {
    print_json({{"path", o.out},
                {"type", name},
                {"tensors", summary->types},
                {"fallbacks", summary->fallbacks},
                {"bytes_before", summary->bytes_before},
                {"bytes_after", summary->bytes_after}});
    return {};
  }
  fmt::print("{}: {:.1f} MB of tensors became {:.1f} MB\n", o.out,
             static_cast<double>(summary->bytes_before) / 1e6,
             static_cast<double>(summary->bytes_after) / 1e6);
  for (const auto& [tensor_type, count] : summary->types) {
    fmt::print("{:>6} tensors in {}\n", count, tensor_type);
  }
  if (summary->fallbacks > 0) {
    fmt::print(
        "{} matrices have rows that are no multiple of {}'s block of {}: a type with smaller blocks took "
        "them\n",
        summary->fallbacks, name, traits(*type).block_elements);
  }
  return {};
}

}  // namespace

Command register_quantize(CLI::App& app) {
  CLI::App* command = app.add_subcommand("quantize", "Write a model file in a smaller type");
  auto o = std::make_shared<QuantizeOptions>();
  command->add_option("in", o->in, "Model file (GGUF) in F32, F16 or BF16")->required();
  command->add_option("out", o->out, "File to write")->required();
  command->add_option("type", o->type, "F16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K or Q6_K")->required();
  command->add_option("--threads", o->threads, "CPUs to use (default: all)")->check(CLI::Range(1, 4096));
  command->add_flag("--json", o->json, "Print JSON");
  command->footer(
      "Norms, vectors and routers of experts stay F32; the output matrix gets Q6_K where TYPE has fewer "
      "bits.\n"
      "Example:\n  hetero quantize model-f16.gguf model-q4_k.gguf Q4_K");
  return [o] { return quantize(*o); };
}

}  // namespace hetero
