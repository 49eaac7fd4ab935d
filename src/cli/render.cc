// hetero render: a chat template applied to messages, without running a model.
#include <fmt/format.h>

#include "base/files.h"
#include "base/json_file.h"
#include "cli/commands.h"
#include "text/chat_template.h"

namespace hetero {
namespace {

struct RenderOptions {
  std::string model;
  std::string template_file;
  std::string context;
  bool json = false;
};

Status render(const RenderOptions& o) {
  HETERO_TRY(nlohmann::ordered_json context, read_json_file(o.context));
  if (!context.is_object()) {
    return malformed(o.context + ": expected a JSON object with \"messages\" and other variables");
  }
  std::string source;
  std::string where = o.template_file;
  if (!o.template_file.empty()) {
    HETERO_TRY(source, read_text_file(o.template_file));
  } else {
    HETERO_TRY(const auto file, GgufFile::open(o.model));
    HETERO_TRY(source, file->get_string("tokenizer.chat_template"));
    where = o.model + ": tokenizer.chat_template";
    // What the context does not say, the model does.
    if (const auto tokenizer = Tokenizer::load(*file); tokenizer.ok()) {
      const Tokenizer& t = **tokenizer;
      const auto fill = [&](const char* name, TokenId id) {
        if (!context.contains(name)) {
          context[name] = id >= 0 ? t.piece(id, true) : "";
        }
      };
      fill("bos_token", t.bos());
      fill("eos_token", t.eos());
    }
  }
  const auto parsed = ChatTemplate::parse(source);
  HETERO_RETURN_IF_ERROR(parsed.status().with_prefix(where));
  const auto text = parsed->render(context);
  HETERO_RETURN_IF_ERROR(text.status().with_prefix(where));
  if (o.json) {
    print_json({{"text", *text}});
  } else {
    fmt::print("{}", *text);
  }
  return {};
}

}  // namespace

Command register_render(CLI::App& app) {
  CLI::App* command = app.add_subcommand("render", "Apply a chat template to messages");
  auto o = std::make_shared<RenderOptions>();
  auto* source = command->add_option_group("template");
  source->add_option("-m,--model", o->model, "Take the template of this model file (GGUF)");
  source->add_option("--template", o->template_file, "Take the template in FILE");
  source->require_option(1);
  command
      ->add_option("--context", o->context,
                   "JSON file: messages, tools, add_generation_prompt, bos_token, eos_token, now, and others")
      ->required();
  command->add_flag("--json", o->json, "Print JSON");
  command->footer(
      "Example:\n"
      "  echo '{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}], \"add_generation_prompt\": true}' "
      "> c.json\n"
      "  hetero render -m model.gguf --context c.json");
  return [o] { return render(*o); };
}

}  // namespace hetero
