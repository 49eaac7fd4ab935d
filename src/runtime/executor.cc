#include "runtime/executor.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "runtime/linked_plan.h"

namespace hetero {
namespace {

/// What operators that do the same in each layer have in common: "ffn_down" of "blk.3.ffn_down".
std::string name_in_layer(const Op& op) {
  const std::string prefix = fmt::format("blk.{}.", op.layer);
  return op.layer >= 0 && op.name.starts_with(prefix) ? op.name.substr(prefix.size()) : op.name;
}

/// How many operators the queues may be apart: of all processors' Traits::joined, and two where rows are
/// cut, so that one part's operator does not wait for readers of another part's rows.
int most_apart(const std::vector<Processor*>& processors) {
  int most = processors.size() > 1 ? 2 : 0;
  for (const Processor* p : processors) {
    most = std::max(most, p->traits().joined);
  }
  return most;
}

}  // namespace

Executor::Executor(const Graph& graph, std::vector<Processor*> processors, const RowCapacity& capacity)
    : graph_(graph),
      processors_(std::move(processors)),
      capacity_(capacity),
      slots_(assign_slots(graph, capacity, most_apart(processors_))),
      executables_(std::make_shared<Executables>(graph)),
      homes_(graph.values.size(), Home{true, std::vector<bool>(processors_.size())}),
      last_(processors_.size()),
      clock_(processors_.front()->clock()),
      waiter_(clock_),
      control_cpus_(control_cpus(processors_)),
      next_(processors_.size()),
      tail_(processors_.size()),
      unflushed_(processors_.size()),
      busy_(processors_.size()),
      use_(processors_.size()),
      pace_(processors_.size()) {}

Executor::~Executor() {
  // Nothing may still run on memory that is about to go.
  for (const Fence& fence : last_) {
    (void)fence.wait();
  }
}

Result<std::unique_ptr<Executor>> Executor::create(const Graph& graph, std::vector<Processor*> processors,
                                                   const RowCapacity& capacity) {
  std::unique_ptr<Executor> executor(new Executor(graph, std::move(processors), capacity));
  HETERO_RETURN_IF_ERROR(executor->allocate());
  return executor;
}

Status Executor::allocate() {
  for (const Slot& slot : slots_.slots) {
    HETERO_TRY(PageMemory memory, PageMemory::allocate(slot.bytes));
    memory_.push_back(std::move(memory));
    buffers_.emplace_back(processors_.size());
  }
  return {};
}

std::span<int32_t> Executor::ids() {
  const auto slot = static_cast<size_t>(slots_.slot_of[static_cast<size_t>(graph_.ids)]);
  Home& home = homes_[static_cast<size_t>(graph_.ids)];
  home.host = true;  // about to be written
  home.copies.assign(processors_.size(), false);
  return {reinterpret_cast<int32_t*>(memory_[slot].data()), static_cast<size_t>(capacity_.tokens)};
}

const float* Executor::logits() const {
  const auto slot = static_cast<size_t>(slots_.slot_of[static_cast<size_t>(graph_.logits)]);
  return reinterpret_cast<const float*>(memory_[slot].data());
}

void Executor::clear_use() {
  settle();
  use_.assign(processors_.size(), {});
}

int Executor::find_processor(const std::string& id) const {
  for (size_t i = 0; i < processors_.size(); ++i) {
    if (processors_[i]->info().id == id) {
      return static_cast<int>(i);
    }
  }
  return -1;
}

Result<Buffer*> Executor::buffer(int slot, int processor) {
  std::unique_ptr<Buffer>& buffer = buffers_[static_cast<size_t>(slot)][static_cast<size_t>(processor)];
  if (buffer == nullptr) {
    PageMemory& memory = memory_[static_cast<size_t>(slot)];
    HETERO_TRY(buffer, processors_[static_cast<size_t>(processor)]->import(memory.data(), memory.size()));
  }
  return buffer.get();
}

std::vector<Executor::Flight>& Executor::flights(const LinkedPlan& plan) {
  return flights_[turn_][plan.head ? 1 : 0];
}

Compilation Executor::compilation(int processor, const Step& step, bool head) const {
  Processor& p = *processors_[static_cast<size_t>(processor)];
  // A processor with dynamic shapes needs one executable for all lengths.
  const int64_t tokens = p.traits().static_shapes ? step.padded : head ? capacity_.outputs : capacity_.tokens;
  const bool exchanged = step.exchanged && p.traits().orders != OperandOrders::kOne;
  return {&p, step.op, step.out_begin, step.out_end, tokens, exchanged};
}

std::vector<Compilation> Executor::missing(const Plan& plan) const {
  std::vector<Compilation> result;
  for (const Step& step : plan.steps) {
    const int processor = find_processor(plan.processors[static_cast<size_t>(step.processor)]);
    if (processor < 0 || !processors_[static_cast<size_t>(processor)]->traits().static_shapes) {
      continue;
    }
    const Compilation c = compilation(processor, step, plan.head);
    if (!executables_->has(c) && std::find(result.begin(), result.end(), c) == result.end()) {
      result.push_back(c);
    }
  }
  return result;
}

void Executor::keep_only(const std::vector<const LinkedPlan*>& plans) {
  settle();
  std::erase_if(plans_, [&](const std::unique_ptr<LinkedPlan>& p) {
    return std::find(plans.begin(), plans.end(), p.get()) == plans.end();
  });
  executables_->drop_unused();
}

std::vector<Executor::WeightPart> Executor::copied_weights() const {
  using Parts = std::vector<std::pair<const std::byte*, const std::byte*>>;
  const auto joined = [](Parts parts) {
    std::sort(parts.begin(), parts.end());
    Parts result;
    for (const auto& [begin, end] : parts) {
      if (!result.empty() && begin <= result.back().second) {
        result.back().second = std::max(result.back().second, end);
      } else {
        result.emplace_back(begin, end);
      }
    }
    return result;
  };
  Parts read;
  Parts copied;
  for (const auto& plan : plans_) {
    if (plan->tokens != 1) {
      continue;
    }
    for (const LinkedStep& step : plan->steps) {
      const Op& op = graph_.op(step.op);
      Parts& to = processors_[static_cast<size_t>(step.processor)]->traits().copies_weights ? copied : read;
      if (op.is<Linear>()) {
        for (const LinearSegment& s :
             linear_segments(graph_, step.op, step.first_column, step.first_column + step.columns)) {
          const Bytes row = row_bytes(s.weight->dtype, s.weight->cols);
          const std::byte* begin = s.weight->data + s.row_begin * row;
          to.emplace_back(begin, begin + s.rows * row);
        }
      } else if (!op.is<Embed>()) {  // which reads a few rows
        for (const WeightId id : op.weights) {
          const Weight& w = graph_.weight(id);
          read.emplace_back(w.data, w.data + w.rows * row_bytes(w.dtype, w.cols));
        }
      }
    }
  }
  read = joined(std::move(read));
  std::vector<WeightPart> result;
  for (auto [begin, end] : joined(std::move(copied))) {
    for (const auto& [from, to] : read) {
      if (to <= begin || from >= end) {
        continue;
      }
      if (from > begin) {
        result.push_back({begin, from - begin});
      }
      begin = std::min(to, end);
    }
    if (begin < end) {
      result.push_back({begin, end - begin});
    }
  }
  return result;
}

std::vector<Executor::StepReport> Executor::report() {
  settle();
  std::vector<StepReport> result;
  for (const StepTimes::Line& line : times_.lines()) {
    const auto& [processor, op, columns, tokens] = line.key;
    result.push_back({processors_[static_cast<size_t>(processor)]->info().id, op, columns, tokens,
                      line.predicted, line.ran, line.expected, line.seen});
  }
  return result;
}

void Executor::add(Processor& processor) {
  if (std::find(processors_.begin(), processors_.end(), &processor) != processors_.end()) {
    return;
  }
  processors_.push_back(&processor);
  const size_t count = processors_.size();
  for (auto& by_processor : buffers_) {
    by_processor.resize(count);
  }
  for (Home& home : homes_) {
    home.copies.resize(count);
  }
  for (const auto& plan : plans_) {
    plan->queues.resize(count);
  }
  last_.resize(count);
  next_.resize(count);
  tail_.resize(count);
  unflushed_.resize(count);
  busy_.resize(count);
  use_.resize(count);
  pace_.resize(count);
}

bool Executor::abandon(int processor) {
  settle();
  const auto p = static_cast<size_t>(processor);
  (void)processors_[p]->finish();  // what it still does must not meet what others do next
  last_[p] = {};
  unflushed_[p] = false;
  bool whole = true;
  for (size_t id = 0; id < homes_.size(); ++id) {
    Home& home = homes_[id];
    home.copies[p] = false;
    if (!home.host && std::find(home.copies.begin(), home.copies.end(), true) == home.copies.end()) {
      home.host = true;  // whatever the host has there
      whole = whole && graph_.values[id].rows != Rows::kContext;
    }
  }
  return whole;
}

Status Executor::blame(int processor, Status status) {
  if (!status.ok() && failed_ < 0) {
    failed_ = processor;
  }
  return status;
}

std::optional<double> Executor::measured_share(const LinkedPlan& plan, int a) {
  settle();
  std::vector<double> macs(processors_.size());
  std::vector<double> seconds(processors_.size());
  for (const LinkedStep& step : plan.steps) {
    if (step.shared) {
      macs[static_cast<size_t>(step.processor)] += static_cast<double>(step.macs);
      seconds[static_cast<size_t>(step.processor)] +=
          std::chrono::duration<double>(times_.ran(step.time)).count();
    }
  }
  double all = 0.0;
  double ours = 0.0;
  for (size_t p = 0; p < macs.size(); ++p) {
    const double rate = seconds[p] > 0.0 ? macs[p] / seconds[p] : 0.0;
    all += rate;
    ours = static_cast<int>(p) == a ? rate : ours;
  }
  return ours > 0.0 && all > ours ? std::optional(ours / all) : std::nullopt;
}

Region Executor::region(ValueId id, int64_t row, int64_t rows, int64_t col, int64_t cols) const {
  const Value& value = graph_.value(id);
  const auto bytes = [&](int64_t elements) { return row_bytes(value.dtype, elements); };
  return {bytes(row * value.cols + col), bytes(cols), bytes(value.cols), rows};
}

Result<const LinkedPlan*> Executor::prepare(const Plan& plan, const std::function<void(int, int)>& progress) {
  HETERO_RETURN_IF_ERROR(validate(graph_, plan));
  const int64_t rows = plan.head ? capacity_.outputs : capacity_.tokens;
  if (rows_needed(plan) > rows) {
    return internal_error(
        fmt::format("a plan for {} rows, but there is memory for {}", rows_needed(plan), rows));
  }
  auto linked = std::make_unique<LinkedPlan>();
  linked->head = plan.head;
  linked->tokens = plan.tokens;
  linked->queues.resize(processors_.size());
  failed_ = -1;
  const std::vector<bool> narrow = for_last_row(graph_, plan);
  int done = 0;
  for (const Step& step : plan.steps) {
    const std::string& id = plan.processors[static_cast<size_t>(step.processor)];
    const int processor = find_processor(id);
    if (processor < 0) {
      return not_found(fmt::format("the plan uses processor {}, which is not open", id));
    }
    LinkedStep out;
    out.op = step.op;
    out.processor = processor;
    out.predicted = step.predicted;
    out.tokens = step.padded;
    out.first_row = step.token_begin;
    out.first_column = step.out_begin;
    out.columns = step.out_end - step.out_begin;
    out.macs = op_macs(graph_, step.op, step.out_begin, step.out_end, step.token_end - step.token_begin, 0);
    std::string name = name_in_layer(graph_.op(step.op));
    if (graph_.op(step.op).is<Attention>() && step.token_begin > 0) {
      name += fmt::format("@{}", step.token_begin);  // later rows see more
    }
    name += step.exchanged ? " exchanged" : "";
    out.time =
        times_.find({processor, std::move(name), step.out_end - step.out_begin, step.padded}, out.predicted);
    // Where one of them has one row and the other one its usual number, rates tell nothing of their shares.
    out.shared = !narrow[static_cast<size_t>(step.op)] &&
                 std::any_of(plan.steps.begin(), plan.steps.end(), [&](const Step& other) {
                   return other.op == step.op && other.processor != step.processor;
                 });
    if (progress) {
      progress(done, static_cast<int>(plan.steps.size()));
    }
    auto found = executables_->get(compilation(processor, step, plan.head));
    if (!found.ok()) {
      return blame(processor, found.status().with_prefix(fmt::format("{}: {}", id, graph_.op(step.op).name)));
    }
    out.executable = std::move(found).value();
    linked->queues[static_cast<size_t>(processor)].push_back(done);
    linked->steps.push_back(std::move(out));
    ++done;
  }
  HETERO_RETURN_IF_ERROR(bind(plan, *linked));
  HETERO_RETURN_IF_ERROR(expect_copies(*linked));
  if (progress) {
    progress(done, done);
  }
  for (auto& turn : flights_) {
    std::vector<Flight>& room = turn[linked->head ? 1 : 0];
    room.resize(std::max(room.size(), linked->steps.size()));
  }
  plans_.push_back(std::move(linked));
  return plans_.back().get();
}

Status Executor::expect_copies(const LinkedPlan& linked) {
  for (const LinkedStep& step : linked.steps) {
    for (const auto* copies : {&step.uploads, &step.downloads}) {
      for (const Transfer& t : *copies) {
        processors_[static_cast<size_t>(t.processor)]->expect_copies(*t.buffer);
      }
    }
  }
  for (const LinkedPlan::External& e : linked.externals) {  // of these, each pass brings new ids
    Processor& reader = *processors_[static_cast<size_t>(e.processor)];
    if (e.value == graph_.ids && !reader.traits().coherent) {
      HETERO_TRY(Buffer* const ids, buffer(slots_.slot_of[static_cast<size_t>(e.value)], e.processor));
      reader.expect_copies(*ids);
    }
  }
  return {};
}

Status Executor::bind(const Plan& plan, LinkedPlan& linked) {
  struct Occupancy {  // of a slot, while steps are walked in order
    ValueId value = -1;
    std::vector<int> writers;
    std::vector<int> readers;
    std::vector<int> earlier;  // who wrote or read the value before
  };
  std::vector<Occupancy> slots(slots_.slots.size());
  // (writing step, value, reading processor; -1: the host); a step may write several values.
  std::set<std::tuple<int, ValueId, int>> moved;

  for (size_t i = 0; i < plan.steps.size(); ++i) {
    const Step& step = plan.steps[i];
    LinkedStep& out = linked.steps[i];
    const Op& op = graph_.op(step.op);
    const bool coherent = processors_[static_cast<size_t>(out.processor)]->traits().coherent;
    std::set<int> waits;

    // The part of the output `id` that step w wrote.
    const auto written_region = [&](ValueId id, const Step& w) {
      const bool cache = graph_.value(id).rows == Rows::kContext;
      const bool linear = graph_.op(w.op).is<Linear>();
      return region(id, cache ? 0 : w.token_begin, w.token_end - w.token_begin, linear ? w.out_begin : 0,
                    linear ? w.out_end - w.out_begin : graph_.value(id).cols);
    };

    for (const ValueId id : op.inputs) {
      const int slot = slots_.slot_of[static_cast<size_t>(id)];
      const Value& value = graph_.value(id);
      HETERO_TRY(Buffer* const in, buffer(slot, out.processor));
      const bool whole = value.rows == Rows::kContext;
      out.inputs.push_back({in, whole ? 0 : step.token_begin * value.cols, value.cols});
      out.moves_with_first_row = out.moves_with_first_row || (plan.head && value.rows == Rows::kTokens);
      Occupancy& o = slots[static_cast<size_t>(slot)];
      const bool inside = o.value == id && !o.writers.empty();
      // A cache is written by this pass and by all before it.
      if (!inside || whole) {
        linked.externals.push_back({id, out.processor});
      }
      if (!inside && o.value < 0) {
        o.value = id;  // from before the plan; whoever takes the slot over has to wait for this reader
      }
      for (size_t k = 0; inside && k < o.writers.size(); ++k) {
        const int w = o.writers[k];
        const Step& writer = plan.steps[static_cast<size_t>(w)];
        const int from = linked.steps[static_cast<size_t>(w)].processor;
        const bool rows =
            writer.token_begin < step.token_end && (whole || step.token_begin < writer.token_end);
        if (from == out.processor || !rows) {
          continue;
        }
        const bool from_coherent = processors_[static_cast<size_t>(from)]->traits().coherent;
        if (whole && (!from_coherent || !coherent)) {
          return unsupported(
              fmt::format("{}: the KV cache is written by {} and read by {} in one pass, and they "
                          "do not share memory",
                          op.name, processors_[static_cast<size_t>(from)]->info().id,
                          processors_[static_cast<size_t>(out.processor)]->info().id));
        }
        if (!from_coherent && moved.insert({w, id, -1}).second) {
          HETERO_TRY(Buffer* const b, buffer(slot, from));
          linked.steps[static_cast<size_t>(w)].downloads.push_back({from, b, written_region(id, writer)});
        }
        if (!coherent && moved.insert({w, id, out.processor}).second) {
          out.uploads.push_back({out.processor, in, written_region(id, writer)});
        }
        waits.insert(w);
      }
      o.readers.push_back(static_cast<int>(i));
    }

    for (const ValueId id : op.outputs) {
      const int slot = slots_.slot_of[static_cast<size_t>(id)];
      const Value& value = graph_.value(id);
      HETERO_TRY(Buffer* const to, buffer(slot, out.processor));
      const bool whole = value.rows == Rows::kContext;
      const int64_t col = op.is<Linear>() ? step.out_begin : 0;
      out.outputs.push_back({to, whole ? 0 : step.token_begin * value.cols + col, value.cols});
      Occupancy& o = slots[static_cast<size_t>(slot)];
      if (o.value != id) {  // the slot changes hands
        Occupancy next;
        next.value = id;
        next.earlier = std::move(o.writers);
        next.earlier.insert(next.earlier.end(), o.readers.begin(), o.readers.end());
        o = std::move(next);
      }
      waits.insert(o.earlier.begin(), o.earlier.end());
      o.writers.push_back(static_cast<int>(i));
    }

    // A queue runs in order: its latest step stands for the earlier ones.
    std::map<int, int> latest;
    for (const int w : waits) {
      const int from = linked.steps[static_cast<size_t>(w)].processor;
      if (from != out.processor) {
        latest[from] = std::max(w, latest.contains(from) ? latest[from] : -1);
      }
    }
    for (const auto& [from, w] : latest) {
      out.waits.push_back(w);
      linked.steps[static_cast<size_t>(w)].awaited = true;
    }
  }

  // What outlives the pass: the caches, what the head reads from the body, and the logits.
  for (size_t slot = 0; slot < slots.size(); ++slot) {
    const Occupancy& o = slots[slot];
    if (o.value < 0 || o.writers.empty()) {
      continue;
    }
    const int first = linked.steps[static_cast<size_t>(o.writers[0])].processor;
    const bool one = std::all_of(o.writers.begin(), o.writers.end(), [&](int w) {
      return linked.steps[static_cast<size_t>(w)].processor == first;
    });
    const bool for_host = o.value == graph_.logits || !one;
    if (for_host && graph_.value(o.value).rows != Rows::kContext) {
      for (const int w : o.writers) {
        const int from = linked.steps[static_cast<size_t>(w)].processor;
        if (!processors_[static_cast<size_t>(from)]->traits().coherent && !moved.contains({w, o.value, -1})) {
          const Step& s = plan.steps[static_cast<size_t>(w)];
          const bool linear = graph_.op(s.op).is<Linear>();
          HETERO_TRY(Buffer* const b, buffer(static_cast<int>(slot), from));
          linked.steps[static_cast<size_t>(w)].downloads.push_back(
              {from, b,
               region(o.value, s.token_begin, s.token_end - s.token_begin, linear ? s.out_begin : 0,
                      linear ? s.out_end - s.out_begin : graph_.value(o.value).cols)});
        }
      }
    }
    linked.written.push_back({o.value, for_host ? -1 : first});
  }
  return {};
}

}  // namespace hetero
