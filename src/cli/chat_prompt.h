// The chat template of a model, from messages to token ids.
#pragma once

#include <nlohmann/json.hpp>

#include <string>
#include <vector>

#include "base/status.h"
#include "engine/engine.h"
#include "text/chat_template.h"

namespace hetero {

/// [{role: system}, {role: user}] messages; no system message where `system` is empty.
nlohmann::ordered_json messages(const std::string& system, const std::string& user);

class ChatPrompt {
 public:
  /// Fails where the model brings no template.
  static Result<ChatPrompt> create(Engine& engine);

  /// Ids of the rendered conversation, ready for the assistant's answer.
  Result<std::vector<TokenId>> encode(const nlohmann::ordered_json& messages) const;

 private:
  ChatPrompt(const Tokenizer& tokenizer, ChatTemplate chat_template)
      : tokenizer_(&tokenizer), template_(std::move(chat_template)) {}

  const Tokenizer* tokenizer_;
  ChatTemplate template_;
};

}  // namespace hetero
