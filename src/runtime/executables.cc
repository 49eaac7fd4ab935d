#include "runtime/executables.h"

#include <algorithm>

namespace hetero {

bool Executables::has(const Compilation& what) const {
  const std::lock_guard lock(mutex_);
  return map_.contains(what);
}

Result<std::shared_ptr<const Executable>> Executables::get(const Compilation& what) {
  {
    const std::lock_guard lock(mutex_);
    const auto found = map_.find(what);
    if (found != map_.end()) {
      return found->second;
    }
  }
  // Not under the lock, since it may take seconds. Should the other thread compile the same now, one
  // of the two is dropped.
  HETERO_TRY(std::shared_ptr<const Executable> executable,
             what.processor->compile(graph_, what.slice(), what.tokens));
  const std::lock_guard lock(mutex_);
  return map_.try_emplace(what, std::move(executable)).first->second;
}

void Executables::drop_unused() {
  std::vector<std::shared_ptr<const Executable>> dropped;  // freed outside of the lock
  const std::lock_guard lock(mutex_);
  std::erase_if(map_, [&](auto& entry) {
    if (entry.second.use_count() > 1) {
      return false;
    }
    dropped.push_back(std::move(entry.second));
    return true;
  });
}

size_t Executables::size() const {
  const std::lock_guard lock(mutex_);
  return map_.size();
}

CompileThread::CompileThread(std::shared_ptr<Executables> executables)
    : executables_(std::move(executables)), thread_([this] { work(); }) {}

CompileThread::~CompileThread() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

void CompileThread::add(const std::vector<Compilation>& what) {
  {
    const std::lock_guard lock(mutex_);
    for (const Compilation& c : what) {
      if (std::find(queue_.begin(), queue_.end(), c) == queue_.end()) {
        queue_.push_back(c);
        ++added_;
      }
    }
  }
  wake_.notify_all();
}

void CompileThread::clear() {
  const std::lock_guard lock(mutex_);
  added_ -= static_cast<int>(queue_.size());
  queue_.clear();
  kept_.clear();
}

bool CompileThread::idle() const {
  const std::lock_guard lock(mutex_);
  return queue_.empty() && !busy_;
}

int CompileThread::done() const {
  const std::lock_guard lock(mutex_);
  return done_;
}

int CompileThread::total() const {
  const std::lock_guard lock(mutex_);
  return added_;
}

CompileThread::Failure CompileThread::take_failure() {
  const std::lock_guard lock(mutex_);
  return std::exchange(failure_, {});
}

void CompileThread::work() {
  for (;;) {
    Compilation next;
    {
      std::unique_lock lock(mutex_);
      busy_ = false;
      wake_.wait(lock, [&] { return stop_ || !queue_.empty(); });
      if (stop_) {
        return;
      }
      next = queue_.front();
      queue_.pop_front();
      busy_ = true;
    }
    auto compiled = executables_->get(next);
    const std::lock_guard lock(mutex_);
    ++done_;
    if (compiled.ok()) {
      kept_.push_back(std::move(compiled).value());
    } else if (failure_.processor == nullptr) {
      failure_ = {next.processor, compiled.status()};
    }
  }
}

}  // namespace hetero
