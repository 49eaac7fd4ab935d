// A model file of any bytes: reading it, and making its graph, its tokenizer and its chat template.
#include "gguf/file.h"
#include "graph/model.h"
#include "memory_file.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const hetero::MemoryFile memory(data, size);
  const auto file = hetero::GgufFile::open(memory.path());
  if (!file.ok()) {
    return 0;
  }
  for (const hetero::Tensor& tensor : (*file)->tensors()) {  // every tensor lies within the file
    volatile std::byte last{};
    if (tensor.bytes > 0) {
      last = tensor.data[tensor.bytes - 1];
    }
    static_cast<void>(last);
  }
  static_cast<void>(hetero::build_graph(**file));
  const auto tokenizer = hetero::Tokenizer::load(**file);
  if (tokenizer.ok()) {
    const auto ids = (*tokenizer)->encode("Hello, w\xC3\xB6rld 123 <s>", true, true);
    if (ids.ok()) {
      static_cast<void>((*tokenizer)->decode(*ids, true));
    }
  }
  const auto source = (*file)->get_string("tokenizer.chat_template");
  if (source.ok()) {
    static_cast<void>(hetero::ChatTemplate::parse(*source));
  }
  return 0;
}
