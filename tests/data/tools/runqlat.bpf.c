/* Run queue latency as one histogram per process or per task, the wakeups and the switches by tp_btf or by raw_tp. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include "tools.h"

char LICENSE[] SEC("license") = "GPL";

const volatile bool per_thread = true;
const volatile __u32 target_tgid = 0;
const volatile __u64 unit_ns = 1000;

__u64 missed; /* switches to a task that nobody saw becoming runnable */

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 10240);
	__type(key, __u32);
	__type(value, __u64);
} start SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 10240);
	__type(key, __u32);
	__type(value, struct hist);
} hists SEC(".maps");

static struct hist zero;

static int trace_enqueue(__u32 tgid, __u32 pid)
{
	__u64 now;

	if (!pid || (target_tgid && target_tgid != tgid))
		return 0;
	now = bpf_ktime_get_ns();
	bpf_map_update_elem(&start, &pid, &now, BPF_ANY);
	return 0;
}

/* Global: verified once, with any number. */
__weak __noinline int account(__u32 key, __u64 delta)
{
	struct hist *hist = bpf_map_lookup_elem(&hists, &key);

	if (!hist) {
		bpf_map_update_elem(&hists, &key, &zero, BPF_NOEXIST);
		hist = bpf_map_lookup_elem(&hists, &key);
		if (!hist)
			return -1;
	}
	count_in(hist, delta / unit_ns);
	return 0;
}

static int handle_switch(struct task_struct *prev, struct task_struct *next, bool prev_runnable, __u32 prev_pid, __u32 next_pid,
			 __u32 key)
{
	__u64 *since;

	if (prev_runnable)
		trace_enqueue(0, prev_pid);
	since = bpf_map_lookup_elem(&start, &next_pid);
	if (!since) {
		__sync_fetch_and_add(&missed, 1);
		return 0;
	}
	account(key, bpf_ktime_get_ns() - *since);
	bpf_map_delete_elem(&start, &next_pid);
	return 0;
}

SEC("tp_btf/sched_wakeup")
int btf_wakeup(__u64 *ctx)
{
	struct task_struct *p = (void *)ctx[0];

	return trace_enqueue(p->tgid, p->pid);
}

SEC("tp_btf/sched_wakeup_new")
int btf_wakeup_new(__u64 *ctx)
{
	struct task_struct *p = (void *)ctx[0];

	return trace_enqueue(p->tgid, p->pid);
}

SEC("tp_btf/sched_switch")
int btf_switch(__u64 *ctx)
{
	struct task_struct *prev = (void *)ctx[1], *next = (void *)ctx[2];

	return handle_switch(prev, next, prev->__state == 0, prev->pid, next->pid, per_thread ? next->pid : next->tgid);
}

SEC("raw_tp/sched_wakeup")
int raw_wakeup(__u64 *ctx)
{
	struct task_struct *p = (void *)ctx[0];

	return trace_enqueue(BPF_CORE_READ(p, tgid), BPF_CORE_READ(p, pid));
}

SEC("raw_tp/sched_wakeup_new")
int raw_wakeup_new(__u64 *ctx)
{
	struct task_struct *p = (void *)ctx[0];

	return trace_enqueue(BPF_CORE_READ(p, tgid), BPF_CORE_READ(p, pid));
}

SEC("raw_tp/sched_switch")
int raw_switch(__u64 *ctx)
{
	struct task_struct *prev = (void *)ctx[1], *next = (void *)ctx[2];

	return handle_switch(prev, next, BPF_CORE_READ(prev, __state) == 0, BPF_CORE_READ(prev, pid), BPF_CORE_READ(next, pid),
			     per_thread ? BPF_CORE_READ(next, pid) : BPF_CORE_READ(next, tgid));
}
