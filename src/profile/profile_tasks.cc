#include "profile/profile_tasks.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <set>

#include "profile/bench_pass.h"
#include "profile/profile.h"

namespace hetero {
namespace {

constexpr int64_t kLongPass = 128;  // tokens from which a few layers stand for all
constexpr int kFewLayers = 4;

}  // namespace

std::vector<ProfileTask> ProfileTasks::all() const {
  std::vector<int64_t> lengths = lengths_;
  const auto value = [](int64_t length) {
    return length == 1 ? 0 : length == 256 ? 1 : length == 32 ? 2 : 3;
  };
  std::stable_sort(lengths.begin(), lengths.end(),
                   [&](int64_t a, int64_t b) { return value(a) != value(b) ? value(a) < value(b) : a > b; });
  std::vector<ProfileTask> tasks;
  const size_t count = processors_.size();
  const unsigned everyone = (1u << count) - 1;
  const auto add = [&](ProfileTask::Kind kind, int64_t tokens, int64_t position = 0, int64_t parts = 1) {
    tasks.push_back({.kind = kind, .set = everyone, .tokens = tokens, .position = position, .parts = parts});
  };
  int visits = 0;
  const auto visit = [&] {
    for (size_t a = 0; a < count && count > 1; ++a) {
      for (size_t b = 0; b < count; ++b) {
        if (a != b) {
          tasks.push_back({.kind = ProfileTask::kHandoff, .from = a, .to = b, .visit = visits});
        }
      }
    }
    for (unsigned set = 1; set <= everyone && count > 1; ++set) {
      tasks.push_back({.kind = ProfileTask::kTogether, .set = set, .visit = visits});
    }
    ++visits;
  };
  const size_t first = std::min<size_t>(2, lengths.size());
  for (size_t i = 0; i < lengths.size(); ++i) {
    add(ProfileTask::kBody, lengths[i]);
    if (i == 0) {
      add(ProfileTask::kHead, 1);
    }
    if (i + 1 >= first && visits < kVisits) {
      visit();
    }
  }
  add(ProfileTask::kAttention, 1, context_ - 1);
  for (const int64_t tokens : lengths) {
    if (tokens > 1 && kChunkPosition + tokens <= context_) {
      add(ProfileTask::kAttention, tokens, kChunkPosition);
    }
  }
  for (const int64_t parts : {2, 4}) {
    for (size_t i = 0; count > 1 && i < lengths.size(); ++i) {
      add(ProfileTask::kBody, lengths[i], 0, parts);
      if (i == 0) {
        add(ProfileTask::kHead, 1, 0, parts);
      }
    }
  }
  while (visits < kVisits) {
    visit();
  }
  unsigned dynamic = 0;
  for (size_t p = 0; p < count; ++p) {
    dynamic |= processors_[p]->traits().static_shapes ? 0u : 1u << p;
  }
  for (const int64_t tokens : {8, 16}) {  // between one row and the kernels for many
    if (dynamic != 0 && tokens < lengths_.back()) {
      tasks.push_back({.kind = ProfileTask::kBody, .set = dynamic, .tokens = tokens});
    }
  }
  add(ProfileTask::kHead, head_rows());
  for (size_t p = 0; p < count; ++p) {
    if (has_two_orders(p)) {
      add_order_tasks(p, lengths, tasks);
    }
  }
  return tasks;
}

int64_t ProfileTasks::head_rows() const {
  return std::min<int64_t>(BenchPass::kHeadRows, lengths_.back());
}

/// Whether both orders of operands are worth measuring.
bool ProfileTasks::has_two_orders(size_t processor) const {
  return processors_[processor]->traits().orders != OperandOrders::kOne &&
         !processors_[processor]->info().stand_in;
}

/// The other order of all that was measured of linear operators, those with the largest weights first.
void ProfileTasks::add_order_tasks(size_t processor, std::span<const int64_t> lengths,
                                   std::vector<ProfileTask>& tasks) const {
  std::vector<int> ops;  // the first of each kind of work
  std::set<Work> seen;
  for (int op = 0; op < static_cast<int>(graph_.ops.size()); ++op) {
    if (graph_.op(op).is<Linear>() && seen.insert(work_of(graph_, op)).second) {
      ops.push_back(op);
    }
  }
  std::stable_sort(ops.begin(), ops.end(), [&](int a, int b) {
    return weight_bytes(graph_, a, 0, graph_.output_cols(a)) >
           weight_bytes(graph_, b, 0, graph_.output_cols(b));
  });
  const int64_t of_head[] = {1, head_rows()};
  for (const int op : ops) {
    for (const int64_t tokens : graph_.in_head(op) ? std::span<const int64_t>(of_head) : lengths) {
      for (const int64_t parts : {1, 2, 4}) {
        if (parts == 1 || (processors_.size() > 1 && (!graph_.in_head(op) || tokens == 1))) {
          tasks.push_back({.kind = ProfileTask::kOrder,
                           .set = 1u << processor,
                           .tokens = tokens,
                           .parts = parts,
                           .op = op});
        }
      }
    }
  }
}

std::string ProfileTasks::describe(const ProfileTask& task) const {
  const auto id = [&](size_t p) { return processors_[p]->info().id; };
  std::vector<std::string> ids;
  for (const size_t p : members(task.set)) {
    ids.push_back(id(p));
  }
  const std::string names = fmt::format("{}", fmt::join(ids, ", "));
  const std::string rows = fmt::format("{} {}", task.tokens, task.tokens == 1 ? "row" : "rows");
  switch (task.kind) {
    case ProfileTask::kBody:
      return fmt::format("{}, {}{}", names, rows,
                         task.parts == 1 ? "" : fmt::format(", 1/{} of the columns", task.parts));
    case ProfileTask::kHead:
      return fmt::format("{}, the output head, {}", names, rows);
    case ProfileTask::kAttention:
      return fmt::format("{}, attention, {} at {}", names, rows, task.position);
    case ProfileTask::kOrder:
      return fmt::format("{}, {}, {} in the other order of operands", names, rows,
                         to_string(work_of(graph_, task.op, 0, columns_of(task.op, task.parts))));
    case ProfileTask::kHandoff:
      return fmt::format("{} handing over to {}", id(task.from), id(task.to));
    case ProfileTask::kTogether:
      return names + (ids.size() > 1 ? " together" : " alone");
  }
  return "";
}

std::vector<size_t> ProfileTasks::members(unsigned set) const {
  std::vector<size_t> out;
  for (size_t p = 0; p < processors_.size(); ++p) {
    if ((set >> p & 1u) != 0) {
      out.push_back(p);
    }
  }
  return out;
}

/// The layers that a pass of so many rows measures.
int ProfileTasks::layers_for(int64_t tokens) const {
  const int layers = std::max(1, graph_.shape.layers);
  if (tokens >= kLongPass) {
    return std::min(layers, kFewLayers);
  }
  Bytes bytes = 0;
  int layer = 0;
  for (int op = 0; op < graph_.head_begin; ++op) {
    if (graph_.op(op).layer > layer) {
      if (bytes >= kEnoughWeights && layer >= 2) {
        break;
      }
      layer = graph_.op(op).layer;
    }
    bytes += graph_.op(op).is<Linear>() ? weight_bytes(graph_, op, 0, graph_.output_cols(op)) : 0;
  }
  return std::min(layers, layer + 1);
}

/// The first 1/parts of an operator's columns, on the grid.
int64_t ProfileTasks::columns_of(int op, int64_t parts) const {
  const int64_t cols = graph_.output_cols(op);
  return parts == 1 ? cols : cols / parts / grid_ * grid_;
}

OpSlice ProfileTasks::slice(size_t processor, int op, int64_t begin, int64_t end, int64_t tokens) const {
  return {op, begin, end,
          graph_.op(op).is<Linear>() &&
              usually_exchanged(processors_[processor]->traits().orders, tokens, end - begin)};
}

std::vector<OpSlice> ProfileTasks::slices(const ProfileTask& task, size_t processor) const {
  std::vector<OpSlice> out;
  const bool order = task.kind == ProfileTask::kOrder;
  const bool head = task.kind == ProfileTask::kHead || (order && graph_.in_head(task.op));
  const int begin = head ? graph_.head_begin : 0;
  const int end = head ? static_cast<int>(graph_.ops.size()) : graph_.head_begin;
  const int layers = layers_for(task.tokens);
  for (int op = begin; op < end; ++op) {
    const Op& o = graph_.op(op);
    const bool wanted = order ? work_of(graph_, op) == work_of(graph_, task.op)
                        : task.kind == ProfileTask::kAttention ? o.is<Attention>()
                        : task.parts > 1                       ? o.is<Linear>()
                                                               : true;
    if (o.layer >= layers || !wanted) {
      continue;
    }
    OpSlice s = slice(processor, op, 0, columns_of(op, task.parts), task.tokens);
    s.exchanged = s.exchanged != order;
    if (s.end > 0 && processors_[processor]->supports(graph_, s).ok()) {
      out.push_back(s);
    }
  }
  return out;
}

int64_t ProfileTasks::context_of(int op, const ProfileTask& task) const {
  const auto* attention = graph_.op(op).as<Attention>();
  if (attention == nullptr) {
    return 0;
  }
  const int64_t context = task.position + task.tokens;
  return attention->window > 0 ? std::min(context, std::max(attention->window, task.tokens)) : context;
}

}  // namespace hetero
