#include "cli/chat_prompt.h"

namespace hetero {

nlohmann::ordered_json messages(const std::string& system, const std::string& user) {
  auto list = nlohmann::ordered_json::array();
  if (!system.empty()) {
    list.push_back({{"role", "system"}, {"content", system}});
  }
  list.push_back({{"role", "user"}, {"content", user}});
  return list;
}

Result<ChatPrompt> ChatPrompt::create(Engine& engine) {
  if (engine.file().find("tokenizer.chat_template") == nullptr) {
    return unsupported(engine.file().path() +
                       ": the model has no chat template (--raw takes the prompt as it is)");
  }
  HETERO_TRY(const std::string source, engine.file().get_string("tokenizer.chat_template"));
  auto parsed = ChatTemplate::parse(source);
  if (!parsed.ok()) {
    return parsed.status().with_prefix(engine.file().path() + ": tokenizer.chat_template");
  }
  return ChatPrompt(engine.tokenizer(), std::move(parsed).value());
}

Result<std::vector<TokenId>> ChatPrompt::encode(const nlohmann::ordered_json& list) const {
  const auto text = [&](TokenId id) { return id >= 0 ? tokenizer_->piece(id, true) : std::string(); };
  // Python's chat templates get None where there are no tools or documents, so "is none" must hold.
  auto rendered = template_.render({{"messages", list},
                                    {"tools", nullptr},
                                    {"documents", nullptr},
                                    {"add_generation_prompt", true},
                                    {"bos_token", text(tokenizer_->bos())},
                                    {"eos_token", text(tokenizer_->eos())}});
  HETERO_RETURN_IF_ERROR(rendered.status());
  // Templates that write the BOS token themselves must not get a second one.
  HETERO_TRY(std::vector<TokenId> ids, tokenizer_->encode(*rendered, false, true));
  if (tokenizer_->adds_bos() && tokenizer_->bos() >= 0 && (ids.empty() || ids.front() != tokenizer_->bos())) {
    ids.insert(ids.begin(), tokenizer_->bos());
  }
  return ids;
}

}  // namespace hetero
