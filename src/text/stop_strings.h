// Texts at which generation stops, found in a stream before any part of them is shown.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace hetero {

/// The stop string that is complete first ends the text (of several, the longest), however the text is
/// cut into pieces. Not thread-safe; one for each generation. Empty stop strings are ignored.
class StopStrings {
 public:
  explicit StopStrings(std::vector<std::string> stops);

  /// Appends text and gives back what can be shown: everything that cannot become the beginning of a
  /// stop string any more. After stopped(), nothing.
  std::string push(std::string_view text);
  /// What was held back, once no more text comes.
  std::string finish();
  bool stopped() const { return stopped_; }

 private:
  std::vector<std::string> stops_;
  std::string held_;
  bool stopped_ = false;
};

}  // namespace hetero
